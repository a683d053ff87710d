package agent

import (
	"bytes"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"kelpie.dev/kelpie/agent/aggregate"
	"kelpie.dev/kelpie/agent/dogstatsd"
	"kelpie.dev/kelpie/agent/forward"
)

// TestFastLane holds that an intake that asks for metrics every second gets each
// second once, by seconds or by tens, and that one which does not gets what it
// always got: over switching on, other lists, switching off, silence, an outage
// and the end.
func TestFastLane(t *testing.T) {
	r := startLane(t, nil)
	r.seconds(t, 5) // nobody asks
	r.kelpie.offer("hits", "load", "h.count")
	r.seconds(t, 50) // from 15 s on; heard at 20
	r.kelpie.offer("hits", "other")
	r.seconds(t, 30) // from 65 s on; heard at once
	r.kelpie.offer()
	r.seconds(t, 20) // from 95 s on
	r.kelpie.offer("hits")
	r.seconds(t, 30) // from 115 s on; heard at 120
	r.kelpie.set(func() { r.kelpie.silent = true })
	r.seconds(t, 90) // from 145 s on; lapses after 205
	r.kelpie.offer("hits", "h.count")
	r.seconds(t, 30) // from 235 s on; heard at 240
	r.kelpie.set(func() { r.kelpie.down = true })
	r.seconds(t, 90) // from 265 s on; lapses after 325
	r.kelpie.set(func() { r.kelpie.down = false })
	r.settle(t)
	r.seconds(t, 28) // from 355 s on
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	for _, in := range []*laneIntake{r.kelpie, r.datadog} {
		if len(in.errs) > 0 {
			t.Errorf("intake: %s", strings.Join(in.errs, "\n"))
		}
	}
	came := map[string][]int64{}
	for key := range r.datadog.points {
		want, none := r.datadog.buckets(t, key)
		if len(none) > 0 {
			t.Errorf("%s: seconds at the intake that never asked, at %v", key, none)
		}
		if !strings.HasPrefix(key, "h") && !strings.HasPrefix(key, "other") {
			continue
		}
		got, fast := r.kelpie.buckets(t, key)
		if strings.Contains(key, "count") || !strings.HasPrefix(key, "h.") {
			sameBuckets(t, key, want, got)
		}
		if len(fast) > 0 {
			came[key] = spans(fast)
		}
	}
	hits := []int64{30, 100, 130, 210, 250, 330, 360, 390}
	want := map[string][]int64{"hits{a:1}": hits, "hits{a:2}": hits, "h.count{}": {30, 70, 250, 330, 360, 390}, "other{}": {70, 100}}
	if diff := cmp.Diff(want, came); diff != "" {
		t.Errorf("where seconds came, from and to (-want +got):\n%s", diff)
	}
	for at, v := range r.kelpie.points["load{}"][1] {
		if v != float64(at%100) {
			t.Errorf("load at %d: %v, want the gauge of that second", at, v)
		}
	}
	if n := len(r.kelpie.points["load{}"][1]); n != 40 {
		t.Errorf("%d seconds of load, want those from 30 to 70", n)
	}
}

// spans joins buckets that follow one another: start, end, start, end…, in
// seconds of the run.
func spans(buckets []int64) (out []int64) {
	for _, b := range buckets {
		if b -= laneStart; len(out) > 0 && out[len(out)-1] == b {
			out[len(out)-1] = b + 10
			continue
		}
		out = append(out, b, b+10)
	}
	return out
}

func sameBuckets(t *testing.T, key string, want, got map[int64]float64) {
	t.Helper()
	for at := range want {
		if math.Abs(want[at]-got[at]) > 1e-6 {
			t.Errorf("%s from %d: %v at the intake with a fast lane, %v at the other", key, at-laneStart, got[at], want[at])
		}
	}
	if len(want) != len(got) || len(want) < 30 {
		t.Errorf("%s: %d buckets at the intake with a fast lane, %d at the other", key, len(got), len(want))
	}
}

// TestFastLaneStatus holds that the status tells what leaves every second, for
// whom, and what does not fit.
func TestFastLaneStatus(t *testing.T) {
	r := startLane(t, map[string]string{"KELPIE_FAST_LANE_CONTEXTS": "2"})
	r.kelpie.offer("hits", "h.count", "load", "nowhere")
	r.seconds(t, 30)
	s := r.status(t)
	want := FastLaneStatus{Limit: 2, Contexts: 2, Left: 2, Metrics: []aggregate.FastStats{
		{Metric: "h.count", Contexts: 1, Fast: 1}, {Metric: "hits", Contexts: 2}, {Metric: "load", Contexts: 1, Fast: 1},
	}}
	if diff := cmp.Diff(want, s.FastLane); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if f := s.Forwarding[0].FastLane; f == nil || f.Metrics != 4 || f.Since == nil || f.Confirmed == nil {
		t.Errorf("the intake that asks: %+v", f)
	}
	if f := s.Forwarding[1].FastLane; f != nil {
		t.Errorf("the intake that does not: %+v", f)
	}
	var text bytes.Buffer
	if err := s.Print(&text); err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{
		"fast lane: 2 contexts leave every second", "1 of 1 contexts  h.count", "0 of 2 contexts  hits",
		"2 contexts do not fit and leave every ten seconds: KELPIE_FAST_LANE_CONTEXTS is 2",
		"fast lane: asks for 4 metrics every second", "gets them since 2023-11-14T22:13:",
	} {
		if !strings.Contains(text.String(), line) {
			t.Errorf("no %q in:\n%s", line, text.String())
		}
	}
	for name, want := range map[string]float64{"kelpie_agent_fast_lane_contexts": 2, "kelpie_agent_fast_lane_left_contexts": 2} {
		if got := r.gauge(t, name); got != want {
			t.Errorf("%s is %v, want %v", name, got, want)
		}
	}
}

// gauge returns a metric without labels.
func (r *running) gauge(t *testing.T, name string) float64 {
	t.Helper()
	families, err := r.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == name {
			return f.GetMetric()[0].GetGauge().GetValue()
		}
	}
	t.Fatalf("no metric %s", name)
	return 0
}

// TestFastLaneOff holds that 0 asks nobody and sends nothing every second.
func TestFastLaneOff(t *testing.T) {
	r := startLane(t, map[string]string{"KELPIE_FAST_LANE_CONTEXTS": "0"})
	r.kelpie.offer("hits")
	r.seconds(t, 30)
	if _, fast := r.kelpie.buckets(t, "hits{a:1}"); len(fast) > 0 || r.status(t).Forwarding[0].FastLane != nil {
		t.Errorf("seconds at %v, status %+v", fast, r.status(t).Forwarding[0].FastLane)
	}
}

// offered makes p's lane one of hits.
func offered(p *pipeline, t *testing.T) {
	t.Helper()
	var err error
	if p.aggregator, err = aggregate.New(aggregate.Options{FastContexts: 100}); err != nil {
		t.Fatal(err)
	}
	p.fast.ask = func(time.Time) forward.Lane { return forward.Lane{Metrics: []string{"hits"}} }
}

// TestSecondLeavesAsItCloses holds that seconds wait neither for a ticker nor
// for lines of unknown origin, which their buckets wait for; and that nothing is
// lost by that.
func TestSecondLeavesAsItCloses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPipeline(t)
		offered(p, t)
		in, out := make(chan *dogstatsd.Batch), make(chan forward.Batch, 1000)
		done := make(chan error, 1)
		go func() { done <- p.run(t.Context(), in, out) }()
		start := time.Now().Truncate(10 * time.Second).Add(20 * time.Second)
		type arrival struct{ at, point, interval int64 }
		var late []arrival
		events := map[int64]float64{} // by interval
		drain := func() {
			for len(out) > 0 {
				b := <-out
				for _, s := range slices.Concat(b.Fast, b.Series, b.Doubled) {
					if s.Name != "hits" {
						continue
					}
					for _, point := range s.Points {
						events[s.Interval] += point.Value * float64(s.Interval)
						if behind := time.Since(time.Unix(point.Time+s.Interval, 0)); s.Interval == 1 && behind > 100*time.Millisecond {
							late = append(late, arrival{time.Now().Unix(), point.Time, s.Interval})
						}
					}
				}
			}
		}
		time.Sleep(time.Until(start))
		for i := range 1000 { // 100 s
			in <- batchOf("hits:1|c")
			if i%100 == 95 { // shortly before a bucket ends
				in <- batchOf(fmt.Sprintf("hits:1|c|#dd.internal.entity_id:new-%d", i))
			}
			time.Sleep(100 * time.Millisecond)
			synctest.Wait()
			drain()
		}
		close(in)
		if err := <-done; err != nil {
			t.Error(err)
		}
		drain()
		if len(late) > 0 {
			t.Errorf("seconds that left late: %v", late)
		}
		if math.Abs(events[10]-1010) > 1e-6 || math.Abs(events[1]-1010) > 1e-6 {
			t.Errorf("%v events by tens, %v by seconds, want 1010 by both", events[10], events[1])
		}
	})
}

// TestLaneChangesWhileLinesWait holds that, where what is wanted changes and
// lines hold up the bucket before, each ten seconds still leave either by seconds
// or as one bucket, and nothing is lost.
func TestLaneChangesWhileLinesWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPipeline(t)
		offered(p, t)
		asked := 0
		p.fast.ask = func(time.Time) forward.Lane { // three times on, twice off, …
			if asked++; asked%5 < 3 {
				return forward.Lane{Metrics: []string{"hits"}}
			}
			return forward.Lane{}
		}
		in, out := make(chan *dogstatsd.Batch), make(chan forward.Batch, 10_000)
		done := make(chan error, 1)
		go func() { done <- p.run(t.Context(), in, out) }()
		time.Sleep(time.Until(time.Now().Truncate(10 * time.Second).Add(20 * time.Second)))
		for i := range 3000 { // 300 s
			in <- batchOf("hits:1|c")
			if i%100 == 95 {
				in <- batchOf(fmt.Sprintf("hits:1|c|#dd.internal.entity_id:new-%d", i))
			}
			time.Sleep(100 * time.Millisecond)
		}
		close(in)
		if err := <-done; err != nil {
			t.Error(err)
		}
		fast, tens, events, newest := map[int64]int{}, map[int64]bool{}, 0.0, int64(0)
		for b := range out {
			got := slices.Concat(b.Fast, b.Series) // for the intake that asks, as long as it does
			if len(b.Lane.Metrics) == 0 {
				got = slices.Concat(b.Series, b.Doubled)
			}
			for _, s := range got {
				if s.Name != "hits" {
					continue
				}
				for _, point := range s.Points {
					events += point.Value * float64(s.Interval)
					if start := point.Time - point.Time%10; s.Interval == 1 {
						fast[start]++
					} else {
						tens[start] = true
					}
					if point.Time < newest {
						t.Errorf("the point of %d comes after that of %d", point.Time, newest)
					}
					newest = point.Time
				}
			}
		}
		for start, seconds := range fast {
			if tens[start] || seconds != 10 && start != newest-newest%10 {
				t.Errorf("from %d: %d seconds; as one bucket, too: %v", start, seconds, tens[start])
			}
		}
		if len(fast) < 10 || len(tens) < 10 || len(fast)+len(tens) != 31 || math.Abs(events-3030) > 1e-6 {
			t.Errorf("%d buckets by seconds and %d as one, of 30 and the open one, with %v events; want 3030", len(fast), len(tens), events)
		}
	})
}

// TestFastPacketDoesNotAllocate holds what TestPacketDoesNotAllocate does, of
// contexts that leave every second.
func TestFastPacketDoesNotAllocate(t *testing.T) {
	p, batches := fastPipeline(t, 30)
	now := time.Unix(11, 0)
	if n := testing.AllocsPerRun(100, func() { p.batch(batches[0], now) }); n != 0 {
		t.Errorf("%v allocations a datagram at steady state, want 0", n)
	}
	if got := len(p.aggregator.FlushFast(time.Unix(12, 0))); got != 30 {
		t.Errorf("%d series of a second, want 30", got)
	}
}

func fastPipeline(tb testing.TB, contexts int) (*pipeline, []*dogstatsd.Batch) {
	p, batches := newPipeline(tb), packed(contexts)
	var err error
	if p.aggregator, err = aggregate.New(aggregate.Options{FastContexts: contexts}); err != nil {
		tb.Fatal(err)
	}
	p.aggregator.SetFast([]string{"flask.request.rate"}, 0)
	for range 2 { // a line is remembered when it comes again
		for _, batch := range batches {
			p.batch(batch, time.Unix(1, 0))
		}
	}
	return p, batches
}

// BenchmarkFastIngest is BenchmarkIngest where each context leaves every second.
func BenchmarkFastIngest(b *testing.B) {
	for _, contexts := range []int{100, 5000} {
		b.Run(fmt.Sprintf("contexts=%d", contexts), func(b *testing.B) {
			p, batches := fastPipeline(b, contexts)
			now := time.Unix(1, 0)
			b.ReportAllocs()
			samples := 0
			for i := 0; b.Loop(); i++ {
				p.batch(batches[i%len(batches)], now)
				samples += 30
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(samples), "ns/sample")
		})
	}
}
