package forward

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"kelpie.dev/kelpie/metric"
	"kelpie.dev/kelpie/metric/payload"
)

// offering is what an intake says of the fast lane.
type offering struct {
	mu       sync.Mutex
	etag     string // "" says nothing
	body     string // when the agent knows another
	status   int    // 0 means 202
	heard    []string
	received []string // names of series with their intervals
}

func (o *offering) say(etag, body string, status int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.etag, o.body, o.status = etag, body, status
}

func (o *offering) judge(w http.ResponseWriter, r *http.Request, body []byte) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if r.URL.Path != routes[kindSeries].path {
		if _, says := r.Header[payload.FastLaneHeader]; says {
			o.heard = append(o.heard, "at "+r.URL.Path)
		}
		return false
	}
	if sent, says := r.Header[payload.FastLaneHeader]; says {
		o.heard = append(o.heard, sent[0])
	}
	got, err := decode(r, body)
	if err == nil {
		for _, s := range got.body.Series {
			o.received = append(o.received, fmt.Sprintf("%s/%d", s.Name, s.Interval))
		}
	}
	if o.etag != "" {
		w.Header()[payload.FastLaneHeader] = []string{o.etag}
	}
	w.WriteHeader(max(o.status, http.StatusAccepted))
	answer := `{"errors":[]}`
	if o.etag != "" && r.Header.Get(payload.FastLaneHeader) != o.etag {
		answer = o.body
	}
	_, _ = io.WriteString(w, answer)
	return true
}

func (o *offering) took() []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return append([]string(nil), o.received...)
}

func listOf(n int) string {
	names := make([]string, n)
	for i := range names {
		names[i] = fmt.Sprintf("m%d", i)
	}
	list, _ := json.Marshal(names)
	return string(list)
}

// TestOffers holds what an agent takes an intake's answers for, one after the
// other, and that nothing that it answers stops delivery.
func TestOffers(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	var clock sync.Mutex
	in, says := newIntake(t, nil), &offering{}
	in.judge = says.judge
	o := options(in.URL)
	o.FastLane = true
	o.Now = func() time.Time { clock.Lock(); defer clock.Unlock(); return now }
	logged := &journal{}
	o.Log = testLog(logged)
	f := mustNew(t, o)
	batches, end := run(t, f)
	defer end()
	at, delivered := int64(0), uint64(0)
	for _, step := range []struct {
		what       string
		etag, body string
		status     int
		later      time.Duration
		want       []string
		malformed  uint64
	}{
		{what: "Datadog says nothing"},
		{what: "a list", etag: "1", body: `{"errors":[],"fast_lane":["b","a"]}`, want: []string{"a", "b"}},
		{what: "the same, without a list", etag: "1", body: "never read", want: []string{"a", "b"}},
		{what: "another list", etag: "2", body: `{"errors":[],"fast_lane":["c"]}`, want: []string{"c"}},
		{what: "a body that is no JSON", etag: "3", body: `{"fast_lane":["d"`, want: []string{"c"}, malformed: 1},
		{what: "a list of something else", etag: "3", body: `{"fast_lane":[1]}`, want: []string{"c"}, malformed: 2},
		{what: "too many metrics", etag: "3", body: `{"fast_lane":` + listOf(10_001) + `}`, want: []string{"c"}, malformed: 3},
		{what: "a body without end", etag: "3", body: `{"fast_lane":["` + strings.Repeat("x", 2<<20) + `"]}`, want: []string{"c"}, malformed: 4},
		{what: "an etag that cannot be sent back", etag: "a b", body: `{"fast_lane":["d"]}`, want: []string{"c"}, malformed: 5},
		{what: "a long etag", etag: strings.Repeat("e", 200), body: `{"fast_lane":["d"]}`, want: []string{"c"}, malformed: 6},
		{what: "silence for a minute", later: time.Minute, want: []string{"c"}, malformed: 6},
		{what: "and a second", later: time.Second, malformed: 6},
		{what: "the word again", etag: "2", want: []string{"c"}, malformed: 6},
		{what: "an empty list", etag: "4", body: `{"fast_lane":[]}`, malformed: 6},
		{what: "many, in a list of 100 kB", etag: "5", body: `{"fast_lane":` + listOf(10_000) + `}`, malformed: 6, want: manyNames(10_000)},
	} {
		says.say(step.etag, step.body, step.status)
		clock.Lock()
		now = now.Add(step.later)
		clock.Unlock()
		at++
		batches <- batch(at)
		delivered++
		eventually(t, step.what+": delivered", func() bool { return f.Status()[0].Delivered == delivered })
		if diff := cmp.Diff(step.want, f.FastLane(o.Now()).Metrics); diff != "" {
			t.Fatalf("%s (-want +got):\n%s", step.what, diff)
		}
		if got := f.Status()[0].FastLane; got != nil && got.Malformed != step.malformed || got == nil && step.etag != "" {
			t.Fatalf("%s: status %+v, want %d malformed answers", step.what, got, step.malformed)
		}
	}
	if n := strings.Count(logged.String(), "cannot read which metrics"); n != 1 {
		t.Errorf("logged %d times in a minute, want once", n)
	}
	says.mu.Lock()
	defer says.mu.Unlock()
	want := []string{"", "", "1", "1", "2", "2", "2", "2", "2", "2", "2", "2", "2", "2", "4"}
	if diff := cmp.Diff(want, says.heard); diff != "" {
		t.Errorf("the lists that the agent said it knows (-want +got):\n%s", diff)
	}
}

func manyNames(n int) (out []string) {
	_ = json.Unmarshal([]byte(listOf(n)), &out)
	slices.Sort(out)
	return out
}

// TestFailureConfirmsNothing holds that only an intake that has taken a payload
// has a say.
func TestFailureConfirmsNothing(t *testing.T) {
	in, says := newIntake(t, nil), &offering{}
	in.judge = says.judge
	o := options(in.URL)
	o.FastLane = true
	f := mustNew(t, o)
	batches, end := run(t, f)
	defer end()
	says.say("1", `{"fast_lane":["a"]}`, http.StatusServiceUnavailable)
	batches <- batch(1)
	eventually(t, "a retry", func() bool { return f.Status()[0].Retries > 0 })
	if lane := f.FastLane(time.Now()); len(lane.Metrics) != 0 {
		t.Errorf("an answer of 503 made the lane %v", lane.Metrics)
	}
	says.say("1", `{"fast_lane":["a"]}`, 0)
	eventually(t, "it is heard once it accepts", func() bool { return len(f.FastLane(time.Now()).Metrics) == 1 })
}

// TestBehindGetsTens holds that an intake that asks for seconds, and answers too
// slowly for them, gets tens until it has caught up.
func TestBehindGetsTens(t *testing.T) {
	in, says := newIntake(t, nil), &offering{}
	in.judge = says.judge
	o := options(in.URL)
	o.FastLane = true
	f := mustNew(t, o)
	batches, end := run(t, f)
	defer end()
	says.say("1", `{"fast_lane":["a"]}`, 0)
	batches <- batch(1)
	eventually(t, "the list", func() bool { return len(f.FastLane(time.Now()).Metrics) == 1 })
	says.mu.Lock() // holds its next answer
	batches <- batch(2)
	eventually(t, "one waits", func() bool { return f.Status()[0].QueuePayloads == 1 })
	s := f.senders[0]
	later := time.Now().Add(offerFor + time.Second)
	s.offer.mu.Lock()
	s.offer.confirmed = later // as the answer before the one that is awaited would have
	s.offer.mu.Unlock()
	if lane := f.FastLane(later); len(lane.Metrics) != 0 {
		t.Errorf("a minute behind, the lane is %v", lane.Metrics)
	}
	says.mu.Unlock()
	eventually(t, "it has caught up", func() bool { return f.Status()[0].QueuePayloads == 0 && len(f.FastLane(time.Now()).Metrics) == 1 })
}

// TestNobodyIsAsked holds that no header is sent with the fast lane off, and
// that what an intake says is then nothing.
func TestNobodyIsAsked(t *testing.T) {
	in, says := newIntake(t, nil), &offering{}
	in.judge = says.judge
	f := mustNew(t, options(in.URL))
	batches, end := run(t, f)
	says.say("1", `{"fast_lane":["a"]}`, 0)
	batches <- batch(1)
	eventually(t, "delivered", func() bool { return f.Status()[0].Delivered == 1 })
	end()
	if lane := f.FastLane(time.Now()); len(lane.Metrics) != 0 || len(says.heard) != 0 || f.Status()[0].FastLane != nil {
		t.Errorf("lane %v, header values %q, status %v", lane.Metrics, says.heard, f.Status()[0].FastLane)
	}
}

// TestWhoGetsSeconds holds that an intake gets either seconds or tens of what is
// there as both, by the lane that stands in the batch, and that only series speak
// of it.
func TestWhoGetsSeconds(t *testing.T) {
	series := func(name string, interval int64) []metric.Series {
		return []metric.Series{{Name: name, Type: metric.Rate, Interval: interval, Points: []metric.Point{{Time: 10, Value: 1}}}}
	}
	kelpie, other := newIntake(t, nil), newIntake(t, nil)
	first, second := &offering{etag: "1", body: `{"fast_lane":["a"]}`}, &offering{}
	kelpie.judge, other.judge = first.judge, second.judge
	o := options(kelpie.URL, other.URL)
	o.FastLane = true
	f := mustNew(t, o)
	batches, end := run(t, f)
	whole := Batch{Fast: series("a", 1), Series: series("b", 10), Doubled: series("a", 10), Checks: []metric.ServiceCheck{{Name: "up"}}}
	whole.Lane = f.FastLane(time.Now()) // nobody has said anything
	batches <- whole
	eventually(t, "the list", func() bool { return len(f.FastLane(time.Now()).Metrics) == 1 })
	before := whole.Lane
	whole.Lane = f.FastLane(time.Now())
	if whole.Lane.Equal(before) {
		t.Error("a lane with an endpoint is said to be one without")
	}
	batches <- whole
	end()
	if diff := cmp.Diff([]string{"b/10", "a/10", "a/1", "b/10"}, first.took()); diff != "" {
		t.Errorf("the intake that asks (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"b/10", "a/10", "b/10", "a/10"}, second.took()); diff != "" {
		t.Errorf("the other (-want +got):\n%s", diff)
	}
	for _, heard := range append(first.heard, second.heard...) {
		if strings.HasPrefix(heard, "at ") {
			t.Errorf("the header is sent %s", heard)
		}
	}
}

// FuzzOffer takes any answer: what it is believed to name can be sent back, and
// what cannot be read changes nothing.
func FuzzOffer(f *testing.F) {
	for _, seed := range [][2]string{{"1", `{"fast_lane":["a","b"]}`}, {"", `{}`}, {"a\r\nb", `{"fast_lane":null}`}, {"2", `{"fast_lane":[null,1]}`}} {
		f.Add(seed[0], []byte(seed[1]))
	}
	f.Fuzz(func(t *testing.T, etag string, body []byte) {
		o := &offer{etag: "before", metrics: []string{"m"}}
		resp := &http.Response{Header: http.Header{payload.FastLaneHeader: {etag}}, Body: io.NopCloser(bytes.NewReader(body))}
		if err := o.hear(resp, "before", time.Unix(1, 0)); err != nil {
			if o.etag != "before" || len(o.metrics) != 1 || !o.confirmed.IsZero() || o.malformed != 1 {
				t.Errorf("after %v: %+v", err, o)
			}
			return
		}
		if o.etag != etag || checkEtag(o.etag) != nil || o.confirmed.IsZero() {
			t.Errorf("after the etag %q: %+v", etag, o)
		}
	})
}
