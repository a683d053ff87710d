package aggregate_test

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"kelpie.dev/kelpie/agent/aggregate"
	"kelpie.dev/kelpie/agent/dogstatsd"
	"kelpie.dev/kelpie/metric"
)

// TestFastLaneSaysTheSame holds, over random samples, lists and bounds, that an
// aggregator with a fast lane flushes every ten seconds what one without does,
// and that the seconds of what is doubled add up to it: no second twice, none
// missing.
func TestFastLaneSaysTheSame(t *testing.T) {
	for seed := range uint64(20) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) { fastAgainstSlow(t, rand.New(rand.NewPCG(seed, 1))) })
	}
}

func fastAgainstSlow(t *testing.T, r *rand.Rand) {
	expiry := []int64{-1, 15, 300}[r.IntN(3)]
	fast, err := aggregate.New(aggregate.Options{FastContexts: []int{2, 5, 1000}[r.IntN(3)], CounterExpiry: expiry, Aggregates: []string{"max", "count"}})
	if err != nil {
		t.Fatal(err)
	}
	slow, err := aggregate.New(aggregate.Options{CounterExpiry: expiry, Aggregates: []string{"max", "count"}})
	if err != nil {
		t.Fatal(err)
	}
	seconds := ledger{}
	doubled := 0
	for now := int64(0); now <= 600; now++ {
		if now%10 == 0 || r.IntN(2) == 0 { // some seconds leave together
			seconds.add(t, fast.FlushFast(time.Unix(now, 0)))
		}
		if now%10 == 0 {
			got, want := fast.Flush(time.Unix(now, 0)), slow.Flush(time.Unix(now, 0))
			seconds.settle(t, got.Doubled)
			doubled += len(got.Doubled)
			if diff := cmp.Diff(byName(want.Series), byName(slices.Concat(got.Series, got.Doubled))); diff != "" {
				t.Fatalf("at %d, without a fast lane (-) against with one (+):\n%s", now, diff)
			}
			fast.SetFast(pickNames(r), now)
		}
		if now == 600 {
			break
		}
		for range r.IntN(4) {
			line := fmt.Sprintf("%s:%d|%s|#n:%d", []string{"a", "b", "h"}[r.IntN(3)], 1+r.IntN(9), []string{"c", "c", "c", "g", "h", "s", "d"}[r.IntN(7)], r.IntN(3))
			m, err := (&dogstatsd.Parser{}).Metric([]byte(line))
			if err != nil {
				t.Fatal(err)
			}
			if a, b := fast.Add(&m.Sample, time.Unix(now, 0)), slow.Add(&m.Sample, time.Unix(now, 0)); !errors.Is(a, b) {
				t.Fatalf("%q: %v with a fast lane, %v without", line, a, b)
			}
		}
	}
	if doubled == 0 {
		t.Error("nothing was doubled: nothing was compared")
	}
	for key, e := range seconds {
		// Zeros of a counter that came with another type later in the bucket.
		if e.sum != 0 {
			t.Errorf("%s left every second and is in no bucket that is doubled", key)
		}
	}
}

func pickNames(r *rand.Rand) []string {
	if r.IntN(3) > 0 {
		return []string{"a", "b", "h.count"}
	}
	var out []string
	for _, name := range []string{"a", "a.max", "b", "h", "h.count"} {
		if r.IntN(2) == 0 {
			out = append(out, name)
		}
	}
	return out
}

func byName(series []metric.Series) map[string][]metric.Series {
	out := map[string][]metric.Series{}
	for _, s := range series {
		out[s.Name+s.Tags.String()] = append(out[s.Name+s.Tags.String()], s)
	}
	for key := range out {
		slices.SortFunc(out[key], func(a, b metric.Series) int { return int(a.Points[0].Time - b.Points[0].Time) })
	}
	return out
}

// ledger is what left every second, by series and bucket of ten seconds.
type ledger map[string]*entry

type entry struct {
	seen      map[int64]bool
	sum, last float64
	newest    int64
}

func ledgerKey(s metric.Series, at int64) string {
	return fmt.Sprintf("%s{%s} %s from %d", s.Name, s.Tags, s.Type, at-at%10)
}

func (l ledger) add(t *testing.T, series []metric.Series) {
	for _, s := range series {
		if s.Interval != metric.FastInterval {
			t.Fatalf("%s has interval %d", s.Name, s.Interval)
		}
		for _, p := range s.Points {
			key := ledgerKey(s, p.Time)
			e := l[key]
			if e == nil {
				e = &entry{seen: map[int64]bool{}}
				l[key] = e
			}
			if e.seen[p.Time] {
				t.Fatalf("%s: second %d twice", key, p.Time)
			}
			e.seen[p.Time] = true
			e.sum += p.Value
			if e.newest <= p.Time {
				e.newest, e.last = p.Time, p.Value
			}
		}
	}
}

// settle takes what doubled buckets say off the ledger.
func (l ledger) settle(t *testing.T, doubled []metric.Series) {
	for _, s := range doubled {
		for _, p := range s.Points {
			key := ledgerKey(s, p.Time)
			e := l[key]
			delete(l, key)
			switch {
			case e == nil:
				t.Fatalf("%s: %v, of which no second left", key, p.Value)
			case s.Type == metric.Rate && math.Abs(e.sum-10*p.Value) > 1e-9:
				t.Fatalf("%s: %v in its seconds, %v in its bucket", key, e.sum, 10*p.Value)
			case s.Type == metric.Gauge && !strings.HasSuffix(s.Name, ".max") && e.last != p.Value:
				t.Fatalf("%s: %v in its last second, %v in its bucket", key, e.last, p.Value)
			}
		}
	}
}

// TestFastLaneDoesNotAllocate holds what TestAddDoesNotAllocate does, of
// contexts with twins.
func TestFastLaneDoesNotAllocate(t *testing.T) {
	a, packets := fastLoad(t, 10, 10)
	p, now := &dogstatsd.Parser{}, time.Unix(11, 0)
	if n := testing.AllocsPerRun(100, func() { addAll(t, a, p, packets[0], now) }); n != 0 {
		t.Errorf("%v allocations a datagram at steady state, want 0", n)
	}
	if got := a.FlushFast(time.Unix(12, 0)); len(got) != 10 {
		t.Errorf("%d series of one second, want 10", len(got))
	}
}

// fastLoad returns an aggregator whose counters never fall silent, in which
// every context has a twin if that many are allowed.
func fastLoad(tb testing.TB, contexts, allowed int) (*aggregate.Aggregator, [][]byte) {
	a, err := aggregate.New(aggregate.Options{FastContexts: allowed, CounterExpiry: 1 << 40})
	if err != nil {
		tb.Fatal(err)
	}
	packets := load(contexts)
	for _, packet := range packets {
		addAll(tb, a, &dogstatsd.Parser{}, packet, time.Unix(1, 0))
	}
	a.Flush(time.Unix(10, 0))
	a.SetFast([]string{"flask.request.rate"}, 10)
	return a, packets
}

// BenchmarkFastLane is a sample of 5000 contexts, without twins and with, and
// what a second of these costs.
func BenchmarkFastLane(b *testing.B) {
	for _, twins := range []int{0, 5000} {
		b.Run(fmt.Sprintf("add/twins=%d", twins), func(b *testing.B) {
			a, packets := fastLoad(b, 5000, twins)
			p, now := &dogstatsd.Parser{}, time.Unix(11, 0)
			b.ReportAllocs()
			samples := 0
			for i := 0; b.Loop(); i++ {
				samples += addAll(b, a, p, packets[i%len(packets)], now)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(samples), "ns/sample")
		})
	}
	b.Run("second", func(b *testing.B) {
		a, _ := fastLoad(b, 5000, 5000)
		b.ReportAllocs()
		for now := int64(11); b.Loop(); now++ {
			if got := len(a.FlushFast(time.Unix(now, 0))); got != 5000 {
				b.Fatalf("%d series", got)
			}
		}
	})
}
