package agent

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"kelpie.dev/kelpie/agent/aggregate"
	"kelpie.dev/kelpie/agent/dogstatsd"
	"kelpie.dev/kelpie/agent/forward"
	"kelpie.dev/kelpie/agent/origin"
	"kelpie.dev/kelpie/metric"
)

func newPipeline(tb testing.TB) *pipeline {
	tb.Helper()
	m, err := newMetrics(prometheus.NewRegistry())
	if err != nil {
		tb.Fatal(err)
	}
	a, err := aggregate.New(aggregate.Options{Host: "node"})
	if err != nil {
		tb.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	return &pipeline{
		lines: newLines(), taps: &taps{},
		resolver: origin.NewResolver(origin.ResolverOptions{
			Cardinality: origin.Low, Base: metric.NewTags("kube_cluster_name:lab", "cluster_name:lab"),
			Tagger: origin.NewTagger(origin.TaggerOptions{}),
		}),
		aggregator: a, metrics: m, log: log, now: time.Now,
		problems: &problems{log: log, byReason: map[string]*problem{}},
	}
}

// batchOf is a batch of one datagram.
func batchOf(lines string) *dogstatsd.Batch {
	return &dogstatsd.Batch{Transport: dogstatsd.UDP, Packets: []dogstatsd.Packet{{Data: []byte(lines)}}}
}

// packed returns batches of one datagram of 30 lines each that cover n contexts.
func packed(n int) []*dogstatsd.Batch {
	var out []*dogstatsd.Batch
	var data []byte
	for i := range n {
		data = fmt.Appendf(data, "flask.request.rate:1|c|#route:r%d,kube_namespace:test,env:prod,service:web,version:1\n", i)
		if i%30 == 29 || i == n-1 {
			out = append(out, batchOf(string(data)))
			data = nil
		}
	}
	return out
}

func TestPacketDoesNotAllocate(t *testing.T) {
	p, packets, now := newPipeline(t), packed(30), time.Unix(1, 0)
	if n := testing.AllocsPerRun(100, func() { p.batch(packets[0], now) }); n != 0 {
		t.Errorf("%v allocations a datagram at steady state, want 0", n)
	}
}

// BenchmarkIngest is the agent's work on a datagram but for the socket: lines,
// values, origin, contexts, buckets. A first pass has made the contexts.
func BenchmarkIngest(b *testing.B) {
	for _, contexts := range []int{100, 10_000, 100_000} {
		b.Run(fmt.Sprintf("contexts=%d", contexts), func(b *testing.B) {
			p, batches, now := newPipeline(b), packed(contexts), time.Unix(1, 0)
			for range 2 { // a line is remembered when it comes again
				for _, batch := range batches {
					p.batch(batch, now)
				}
			}
			b.ReportAllocs()
			samples, bytes := 0, 0
			for i := 0; b.Loop(); i++ {
				batch := batches[i%len(batches)]
				p.batch(batch, now)
				samples += 30
				bytes += len(batch.Packets[0].Data)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(samples), "ns/sample")
			b.ReportMetric(float64(samples)/b.Elapsed().Seconds(), "samples/s")
			b.SetBytes(int64(bytes / b.N))
		})
	}
	b.Run("recorded", benchmarkRecorded)
}

// BenchmarkCopy is the yardstick for BenchmarkIngest: the same datagrams, of
// which the bytes are only copied.
func BenchmarkCopy(b *testing.B) {
	batches, to := packed(10_000), make([]byte, 1<<16)
	samples := 0
	for i := 0; b.Loop(); i++ {
		copy(to, batches[i%len(batches)].Packets[0].Data)
		samples += 30
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(samples), "ns/sample")
}

// TestBucketLeavesAsItCloses holds that nothing waits for a ticker: a bucket is
// sent when it ends, timestamped samples within two seconds, and the rest at
// the end.
func TestBucketLeavesAsItCloses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPipeline(t)
		in, out := make(chan *dogstatsd.Batch), make(chan forward.Batch, 10)
		done := make(chan error, 1)
		go func() { done <- p.run(t.Context(), in, out) }()
		if first := <-out; len(first.Series) != 2 || first.Series[0].Name != "datadog.agent.running" || len(first.Checks) != 1 || first.Checks[0].Name != "datadog.agent.up" {
			t.Errorf("at the start: %v", first)
		}
		time.Sleep(time.Until(time.Now().Truncate(10 * time.Second).Add(13 * time.Second)))
		for len(out) > 0 {
			<-out
		}
		bucket := time.Now().Truncate(10 * time.Second)
		in <- batchOf("a:1|g\nstamped:1|g|T1700000000")
		if got := (<-out).Series; len(got) != 1 || got[0].Name != "stamped" || time.Since(bucket) > 5*time.Second {
			t.Errorf("%s into the bucket: %v", time.Since(bucket), got)
		}
		got := (<-out).Series
		if late := time.Since(bucket.Add(10 * time.Second)); late < 0 || late > 10*time.Millisecond {
			t.Errorf("the bucket left %s after its end", late)
		}
		if len(got) != 3 || got[0].Name != "a" || got[0].Points[0].Time != bucket.Unix() {
			t.Errorf("the bucket: %v", got)
		}
		if own := got[2]; own.Name != "datadog.dogstatsd.packet.count" || own.Points[0].Value != 1 {
			t.Errorf("the agent about itself: %v, want one packet", own)
		}
		in <- batchOf("b:1|g")
		close(in)
		if last := (<-out).Series; len(last) == 0 || last[0].Name != "b" {
			t.Errorf("at the end: %v", last)
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// TestWaitingIsCountedOnce holds that a line counts once as waiting, however
// often its origin is looked for, and once by what became of it.
func TestWaitingIsCountedOnce(t *testing.T) {
	p, now := newPipeline(t), time.Unix(1, 0)
	p.batch(batchOf("a:1|c|#dd.internal.entity_id:new"), now)
	for i := range 20 {
		if got := testutil.ToFloat64(p.metrics.origins[origin.Waiting]); len(p.waiting) == 1 && got != 1 {
			t.Fatalf("after %d rechecks: counted %v times as waiting, want once", i, got)
		}
		now = now.Add(waitRecheck)
		p.recheck(now, false)
	}
	waiting, unresolved := testutil.ToFloat64(p.metrics.origins[origin.Waiting]), testutil.ToFloat64(p.metrics.origins[origin.Unresolved])
	if len(p.waiting) != 0 || waiting != 1 || unresolved != 1 {
		t.Errorf("%d lines wait; counted %v times as waiting, %v as unresolved; want 0, 1, 1", len(p.waiting), waiting, unresolved)
	}
}

// TestClockSetBack holds that an agent whose clock is set back goes on at once:
// it sends its buckets and its running beat every ten seconds, and counts no
// more into a bucket than happened in it.
func TestClockSetBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPipeline(t)
		var back atomic.Int64 // seconds
		p.now = func() time.Time { return time.Now().Add(-time.Duration(back.Load()) * time.Second) }
		in, out := make(chan *dogstatsd.Batch), make(chan forward.Batch, 1000)
		done := make(chan error, 1)
		go func() { done <- p.run(t.Context(), in, out) }()
		for second := range 300 {
			if second == 103 {
				back.Store(3600)
			}
			in <- batchOf("a:1|c")
			time.Sleep(time.Second)
		}
		stepped := time.Now().Add(-200 * time.Second)
		close(in)
		if err := <-done; err != nil {
			t.Error(err)
		}
		beats, total := 0, 0.0
		for batch := range out {
			for _, s := range batch.Series {
				for _, point := range s.Points {
					if at := time.Unix(point.Time, 0); s.Name == "datadog.agent.running" && at.Before(stepped.Add(-3000*time.Second)) {
						beats++
					}
					if s.Name != "a" {
						continue
					}
					if total += point.Value * 10; point.Value > 1.5 {
						t.Errorf("a rate of %v at %d, want about 1", point.Value, point.Time)
					}
				}
			}
		}
		if beats < 18 {
			t.Errorf("%d beats in 200 s after the clock was set back", beats)
		}
		if math.Abs(total-300) > 0.01 {
			t.Errorf("%v events, want 300", total)
		}
	})
}

// TestFlushWaitsForOrigins holds that a line whose pod is still being looked
// for when its bucket ends stays in that bucket.
func TestFlushWaitsForOrigins(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPipeline(t)
		in, out := make(chan *dogstatsd.Batch), make(chan forward.Batch, 100)
		done := make(chan error, 1)
		go func() { done <- p.run(t.Context(), in, out) }()
		bucket := time.Now().Truncate(10 * time.Second).Add(10 * time.Second)
		time.Sleep(time.Until(bucket.Add(9900 * time.Millisecond)))
		in <- batchOf("late:1|c|#dd.internal.entity_id:new")
		time.Sleep(2 * time.Second)
		in <- batchOf("next:1|g")
		time.Sleep(20 * time.Second)
		close(in)
		if err := <-done; err != nil {
			t.Error(err)
		}
		starts := map[string]int64{}
		for b := range out {
			for _, s := range b.Series {
				if _, ok := starts[s.Name]; !ok {
					starts[s.Name] = s.Points[0].Time - bucket.Unix()
				}
			}
		}
		if starts["late"] != 0 || starts["next"] != 10 {
			t.Errorf("first points, in seconds after the bucket's start: %v, want late in it and next in the one after", starts)
		}
	})
}

// podSource is a kubelet that lists one pod from its second answer on.
type podSource struct{ asked int }

func (s *podSource) Pods(context.Context) ([]origin.Pod, error) {
	if s.asked++; s.asked == 1 {
		return nil, nil
	}
	return []origin.Pod{{Metadata: origin.Metadata{Name: "web-1", Namespace: "shop", UID: "new"}}}, nil
}

// TestBusyNewPod holds that a pod that sends much before the kubelet lists it
// is tagged from its first line on.
func TestBusyNewPod(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPipeline(t)
		tagger := origin.NewTagger(origin.TaggerOptions{Source: &podSource{}})
		p.resolver = origin.NewResolver(origin.ResolverOptions{Tagger: tagger, Cardinality: origin.Low})
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		var wg sync.WaitGroup
		defer wg.Wait()
		defer cancel()
		wg.Go(func() { _ = tagger.Run(ctx) })
		in, out := make(chan *dogstatsd.Batch), make(chan forward.Batch, 100)
		done := make(chan error, 1)
		go func() { done <- p.run(t.Context(), in, out) }()
		datagram := strings.Repeat("orders:1|c|#dd.internal.entity_id:new\n", 50)
		const datagrams = 400
		for range datagrams {
			in <- batchOf(datagram)
		}
		time.Sleep(3 * time.Second)
		close(in)
		if err := <-done; err != nil {
			t.Error(err)
		}
		got := map[string]float64{}
		for b := range out {
			for _, s := range b.Series {
				for _, point := range s.Points {
					if s.Name == "orders" {
						got[s.Tags.String()] += 10 * point.Value
					}
				}
			}
		}
		if diff := cmp.Diff(map[string]float64{"kube_namespace:shop": 50 * datagrams}, got); diff != "" {
			t.Errorf("events by tags (-want +got):\n%s", diff)
		}
	})
}

// TestWaitingIsBounded holds that lines of origins that nobody knows cannot
// fill the memory: what finds no room goes on untagged, and is counted.
func TestWaitingIsBounded(t *testing.T) {
	p, now := newPipeline(t), time.Unix(1, 0)
	line := "a:1|c|#dd.internal.entity_id:new," + strings.Repeat("x", 8000)
	const fit, lines = maxWaiting / (8000 + waitingOverhead + 34), 1200
	for range lines {
		p.batch(batchOf(line), now)
	}
	p.recheck(now, false) // changes nothing
	unresolved := testutil.ToFloat64(p.metrics.origins[origin.Unresolved])
	if len(p.waiting) > fit || len(p.waiting) < fit-2 || p.waitBytes > maxWaiting || unresolved != float64(lines-len(p.waiting)) {
		t.Errorf("%d lines of %d bytes wait, %v went on; want %d and the rest", len(p.waiting), p.waitBytes, unresolved, fit)
	}
	p.recheck(now, true)
	if len(p.waiting) != 0 || p.waitBytes != 0 {
		t.Errorf("at the end: %d lines of %d bytes wait", len(p.waiting), p.waitBytes)
	}
}

// TestUnknownSendersShareFairly holds that, where origin detection is off, one
// sender that makes contexts without end leaves room to those beside it, told
// apart by the containers that they name or by their addresses.
func TestUnknownSendersShareFairly(t *testing.T) {
	p := newPipeline(t)
	var err error
	if p.aggregator, err = aggregate.New(aggregate.Options{MaxContexts: 900}); err != nil {
		t.Fatal(err)
	}
	send := func(from string, n int, format string) {
		for i := range n {
			b := batchOf(fmt.Sprintf(format, i))
			b.Packets[0].Addr = netip.MustParseAddr(from)
			p.batch(b, time.Unix(1, 0))
		}
	}
	send("10.1.2.3", 1000, "greedy:1|c|#user:%d")
	send("10.1.2.4", 5, "modest:1|c|#route:%d")
	send("127.0.0.1", 1000, "busy:1|c|#user:%d|c:ci-aaa")
	send("127.0.0.1", 3, "quiet:1|c|#route:%d|c:ci-bbb")
	held := map[string]int{}
	for _, o := range p.aggregator.Origins(10) {
		held[o.Origin] = o.Contexts
	}
	want := map[string]int{"10.1.2.3": 300, "10.1.2.4": 5, "container ci-aaa": 97, "container ci-bbb": 3}
	if diff := cmp.Diff(want, held); diff != "" {
		t.Errorf("contexts by sender (-want +got):\n%s", diff)
	}
	for _, refused := range p.aggregator.Refused() {
		if refused.Origin != "10.1.2.3" && refused.Origin != "container ci-aaa" {
			t.Errorf("refused %+v", refused)
		}
	}
}

// TestFlushLetsSamplesIn holds that what comes while a flush goes on is handled
// before its end, and counts into the next bucket, once.
func TestFlushLetsSamplesIn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const contexts, waiting = 5000, 20
		p := newPipeline(t)
		in, out := make(chan *dogstatsd.Batch, 64), make(chan forward.Batch, 4)
		add := func(b *dogstatsd.Batch) { p.batch(b, time.Now()) }
		time.Sleep(time.Until(time.Now().Truncate(10 * time.Second).Add(15 * time.Second)))
		for _, batch := range packed(contexts) {
			add(batch)
		}
		time.Sleep(5 * time.Second)
		for range waiting {
			in <- packed(30)[0]
		}
		sum := func() (total float64) {
			p.flush(t.Context(), time.Now(), in, out)
			for len(out) > 0 {
				for _, s := range (<-out).Series {
					for _, point := range s.Points {
						if s.Name == "flask.request.rate" {
							total += point.Value * 10
						}
					}
				}
			}
			return math.Round(total)
		}
		if first := sum(); first != contexts || len(in) != 0 {
			t.Errorf("the first flush tells of %v samples, want %d; %d batches waited for its end, want 0", first, contexts, len(in))
		}
		time.Sleep(10 * time.Second)
		if second := sum(); second != 30*waiting {
			t.Errorf("the second flush tells of %v samples, want %d", second, 30*waiting)
		}
	})
}
