package agent

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/zstd"

	"kelpie.dev/kelpie/agent/aggregate"
	"kelpie.dev/kelpie/agent/dogstatsd"
	"kelpie.dev/kelpie/agent/forward"
	"kelpie.dev/kelpie/metric"
	"kelpie.dev/kelpie/metric/payload"
)

// laneIntake offers a fast lane, or none, and keeps points by series, interval
// and second.
type laneIntake struct {
	*httptest.Server
	mu     sync.Mutex
	silent bool // it says nothing about a fast lane, as Datadog
	down   bool
	list   []string
	errs   []string
	points map[string]map[int64]map[int64]float64 // by series, interval, time
	order  map[string]int64                       // newest point of each series
}

func newLaneIntake(t *testing.T) *laneIntake {
	in := &laneIntake{points: map[string]map[int64]map[int64]float64{}, order: map[string]int64{}, silent: true}
	decoder, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1))
	if err != nil {
		t.Fatal(err)
	}
	in.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		in.mu.Lock()
		defer in.mu.Unlock()
		if in.down {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		body, err := io.ReadAll(r.Body)
		if err == nil {
			body, err = decoder.DecodeAll(body, nil)
		}
		if err == nil && r.URL.Path == "/api/v2/series" {
			var series []metric.Series
			if series, err = payload.DecodeV2(body); err == nil {
				in.take(series)
			}
		}
		if err != nil {
			in.errs = append(in.errs, err.Error())
		}
		in.answer(w, r.Header)
	}))
	t.Cleanup(func() { in.Close(); decoder.Close() })
	return in
}

// answer speaks of the fast lane as Kelpie's intake does. in.mu is held.
func (in *laneIntake) answer(w http.ResponseWriter, asked http.Header) {
	known, asks := asked[payload.FastLaneHeader]
	answer := map[string]any{"errors": []string{}}
	if etag := fmt.Sprintf("list-of-%d-%s", len(in.list), strings.Join(in.list, "-")); asks && !in.silent {
		w.Header().Set(payload.FastLaneHeader, etag)
		if known[0] != etag {
			answer["fast_lane"] = in.list
		}
	}
	w.WriteHeader(http.StatusAccepted)
	_ = json.NewEncoder(w).Encode(answer)
}

// take keeps points. in.mu is held.
func (in *laneIntake) take(series []metric.Series) {
	for _, s := range series {
		key := s.Name + "{" + s.Tags.String() + "}"
		if in.points[key] == nil {
			in.points[key] = map[int64]map[int64]float64{}
		}
		if in.points[key][s.Interval] == nil {
			in.points[key][s.Interval] = map[int64]float64{}
		}
		for _, p := range s.Points {
			if _, twice := in.points[key][s.Interval][p.Time]; twice {
				in.errs = append(in.errs, fmt.Sprintf("%s: twice the point of %d, interval %d", key, p.Time, s.Interval))
			}
			if p.Time < in.order[key] {
				in.errs = append(in.errs, fmt.Sprintf("%s: the point of %d came after that of %d", key, p.Time, in.order[key]))
			}
			in.order[key] = max(in.order[key], p.Time)
			in.points[key][s.Interval][p.Time] = p.Value
		}
	}
}

// beat reports whether the agent's own series of second at is there.
func (in *laneIntake) beat(at int64) bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	for key, by := range in.points {
		if _, ok := by[10][at]; ok && strings.HasPrefix(key, "datadog.agent.running{") {
			return true
		}
	}
	return false
}

func (in *laneIntake) set(change func()) {
	in.mu.Lock()
	defer in.mu.Unlock()
	change()
}

func (in *laneIntake) offer(metrics ...string) {
	in.set(func() { in.silent, in.list = false, metrics })
}

// buckets returns, of a rate, how many there were in each ten seconds, and in
// which of these they came by seconds.
func (in *laneIntake) buckets(t *testing.T, key string) (events map[int64]float64, fast []int64) {
	t.Helper()
	in.mu.Lock()
	defer in.mu.Unlock()
	events = map[int64]float64{}
	for at, v := range in.points[key][10] {
		events[at] += 10 * v
	}
	seconds := map[int64]bool{}
	for at, v := range in.points[key][1] {
		start := at - at%10
		if _, both := in.points[key][10][start]; both {
			t.Errorf("%s: second %d, and the ten that it is in", key, at)
		}
		seconds[start] = true
		events[start] += v
	}
	return events, slices.Sorted(maps.Keys(seconds))
}

// laneRun is an agent between an intake that may have a fast lane and one that
// never has.
type laneRun struct {
	*running
	kelpie, datadog *laneIntake
	conn            net.Conn
	sent            float64
}

const laneStart = 1_700_000_000

// seconds sends samples for n seconds, until when kelpie, if it is up, has all
// that is sent.
func (r *laneRun) seconds(t *testing.T, n int) {
	t.Helper()
	for range n {
		at := r.clock().Unix()
		count := 1 + at%7
		if _, err := fmt.Fprintf(r.conn, "hits:%d|c|#a:1\nhits:2|c|@0.5|#a:2\nother:%d|c\nh:1:2:3|h\nload:%d|g", count, 2+at%3, at%100); err != nil {
			t.Fatal(err)
		}
		r.sent += 3
		r.waitValue(t, "kelpie_agent_dogstatsd_samples_total", "c", r.sent)
		r.waitValue(t, "kelpie_agent_dogstatsd_samples_total", "g", r.sent/3)
		r.advance(time.Second)
		r.settle(t)
	}
}

// settle waits until nothing waits for an intake that is up. What a flush has
// made may not wait there yet; of that of a bucket the beat is the last.
func (r *laneRun) settle(t *testing.T) {
	t.Helper()
	r.kelpie.mu.Lock()
	down := r.kelpie.down
	r.kelpie.mu.Unlock()
	for _, in := range []*laneIntake{r.kelpie, r.datadog} {
		if at := r.clock().Unix(); at%10 == 0 && !(down && in == r.kelpie) {
			eventually(t, "the beat", func() bool { return in.beat(at) })
		}
	}
	eventually(t, "all is delivered", func() bool {
		for _, f := range r.status(t).Forwarding {
			if f.QueuePayloads > 0 && !(down && f.URL == r.kelpie.URL) {
				return false
			}
		}
		return true
	})
}

func startLane(t *testing.T, settings map[string]string) *laneRun {
	t.Helper()
	r := &laneRun{kelpie: newLaneIntake(t), datadog: newLaneIntake(t)}
	all := map[string]string{
		"DD_DD_URL": r.kelpie.URL, "DD_FORWARDER_STORAGE_PATH": t.TempDir(),
		"DD_ADDITIONAL_ENDPOINTS": fmt.Sprintf(`{%q: [%q]}`, r.datadog.URL, testKey),
	}
	maps.Copy(all, settings)
	r.running = start(t, all)
	var err error
	if r.conn, err = net.Dial("udp", r.config.DogStatsD.UDPAddr); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.conn.Close() })
	r.seconds(t, 7) // to the end of a bucket
	return r
}

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
				in <- batchOf("hits:1|c|#dd.internal.entity_id:new")
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
