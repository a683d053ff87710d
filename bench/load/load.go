// Package load makes DogStatsD datagrams as Datadog's official Go client
// writes them, and sends them at a wanted rate.
//
// It does not know who receives them.
package load

import (
	"fmt"
	"math/rand/v2"
	"strconv"
	"time"

	"github.com/DataDog/datadog-go/v5/statsd"
)

// A Spec says which load to make.
type Spec struct {
	Contexts     int  // different metrics with their tags
	Packed       int  // lines in each datagram
	CountersOnly bool // else the types are mixed as in Mix
	MinSamples   int  // at least; every context comes equally often. 0 means 120 000
}

// String names the load.
func (s Spec) String() string {
	kind := "mixed"
	if s.CountersOnly {
		kind = "counters"
	}
	return fmt.Sprintf("%s, %d contexts, %d a datagram", kind, s.Contexts, s.Packed)
}

// Tags is how many tags each sample has.
const Tags = 5

// Mix gives the types of every 20 metrics: 60 % counters, 20 % gauges, 10 %
// histograms, 5 % distributions, 5 % sets.
const Mix = "cgccghccgcscchccgdcc"

// A Load is datagrams to be sent in this order, again and again.
type Load struct {
	Datagrams [][]byte
}

// maxDatagram is the client's size for Unix sockets; we allow it on loopback
// UDP too, so that the number of lines is what limits a datagram.
const maxDatagram = 8192

// Record runs the official client over the load and keeps what it writes.
func Record(s Spec) (Load, error) {
	samples := s.MinSamples
	if samples == 0 {
		samples = 120_000
	}
	passes := max(1, (samples+s.Contexts-1)/s.Contexts)
	r := &recorder{}
	client, err := statsd.NewWithWriter(r,
		statsd.WithMaxMessagesPerPayload(s.Packed),
		statsd.WithMaxBytesPerPayload(maxDatagram),
		statsd.WithoutClientSideAggregation(), // one line a call
		statsd.WithoutTelemetry(),
		statsd.WithoutOriginDetection(),
		statsd.WithWorkersCount(1), // else metrics are spread over workers' datagrams
		statsd.WithBufferFlushInterval(time.Hour),
		statsd.WithSenderQueueSize(flushEvery+1),
		statsd.WithBufferPoolSize(flushEvery+1),
	)
	if err != nil {
		return Load{}, fmt.Errorf("set up the DogStatsD client: %w", err)
	}
	contexts := contexts(s)
	random := rand.New(rand.NewPCG(1, uint64(s.Contexts))) // the same load in every run
	order := random.Perm(len(contexts))
	sent := 0
	for range passes {
		random.Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] })
		for _, i := range order {
			if err := contexts[i].send(client, random); err != nil {
				return Load{}, fmt.Errorf("record %s: %w", s, err)
			}
			// The client drops what its queue cannot hold; so wait for it.
			if sent++; sent%(flushEvery*s.Packed) == 0 {
				if err := client.Flush(); err != nil {
					return Load{}, fmt.Errorf("record %s: %w", s, err)
				}
			}
		}
	}
	if err := client.Close(); err != nil {
		return Load{}, fmt.Errorf("record %s: %w", s, err)
	}
	l := Load{r.datagrams}
	if got := l.Samples(); got != sent {
		return Load{}, fmt.Errorf("record %s: the client wrote %d of %d samples", s, got, sent)
	}
	return l, nil
}

// flushEvery is how many datagrams the client may hold.
const flushEvery = 512

// recorder is where the client writes.
type recorder struct{ datagrams [][]byte }

func (r *recorder) Write(b []byte) (int, error) {
	// The client ends a datagram with a line feed on some transports.
	r.datagrams = append(r.datagrams, append([]byte(nil), b...))
	return len(b), nil
}

func (r *recorder) Close() error { return nil }

// context is one metric with its tags.
type context struct {
	kind byte
	name string
	tags []string
}

// contexts makes n contexts of n/50 names, but at least 20 so that every type
// of the mix is there.
func contexts(s Spec) []context {
	names := max(20, s.Contexts/50/20*20)
	out := make([]context, s.Contexts)
	for i := range out {
		name, nth := i%names, i/names
		kind := Mix[name%len(Mix)]
		if s.CountersOnly {
			kind = 'c'
		}
		out[i] = context{
			kind: kind,
			name: "checkout.http.requests." + strconv.Itoa(name),
			tags: []string{
				"env:production",
				"service:checkout-api",
				"version:1.42." + strconv.Itoa(name%7),
				"endpoint:/api/v1/orders/" + strconv.Itoa(nth),
				"status_code:" + strconv.Itoa(200+nth%5),
			},
		}
	}
	return out
}

// send makes one sample. Counters count by one, so that the sum of what a
// receiver counted is the number of samples that reached it.
func (c *context) send(client *statsd.Client, r *rand.Rand) error {
	switch c.kind {
	case 'c':
		return client.Incr(c.name, c.tags, 1)
	case 'g':
		return client.Gauge(c.name, float64(r.IntN(100_000))/100, c.tags, 1)
	case 'h':
		return client.Histogram(c.name, float64(r.IntN(1_000_000))/1000, c.tags, 1)
	case 'd':
		return client.Distribution(c.name, float64(r.IntN(1_000_000))/1000, c.tags, 1)
	default:
		return client.Set(c.name, "user-"+strconv.Itoa(r.IntN(1000)), c.tags, 1)
	}
}
