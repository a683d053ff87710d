package source

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
	"unsafe"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/goleak"

	"kelpie.dev/kelpie/datadog"
	"kelpie.dev/kelpie/metric/payload"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func points(at time.Time, values ...float64) []payload.QueryPoint {
	var out []payload.QueryPoint
	for i, v := range values {
		ms := float64(at.Add(time.Duration(i-len(values)+1) * 10 * time.Second).UnixMilli())
		p := payload.QueryPoint{&ms, &v}
		if math.IsNaN(v) {
			p[1] = nil
		}
		out = append(out, p)
	}
	return out
}

func TestPointChoice(t *testing.T) {
	null := math.NaN()
	at := time.Unix(1000, 0)
	for _, c := range []struct {
		values []float64
		want   float64
		when   int64 // seconds; 0 means no point
	}{
		{nil, 0, 0},
		{[]float64{null, null}, 0, 0},
		{[]float64{7}, 7, 1000},
		{[]float64{7, null}, 7, 990},
		{[]float64{1, 2, 3}, 2, 990},
		{[]float64{1, 2, 3, null}, 2, 980},
		{[]float64{1, null, 3, null, null}, 1, 960},
		{[]float64{0, 0}, 0, 990},
	} {
		when, v, ok := point(points(at, c.values...), false)
		if ok != (c.when != 0) || ok && (v != c.want || when.Unix() != c.when) {
			t.Errorf("point(%v) = %v at %d, %v; want %v at %d", c.values, v, when.Unix(), ok, c.want, c.when)
		}
	}
	for want, values := range map[float64][]float64{3: {1, 2, 3}, 4: {1, 4, null}, 7: {7}} {
		if _, v, ok := point(points(at, values...), true); !ok || v != want {
			t.Errorf("latest of %v = %v, %v; want %v", values, v, ok, want)
		}
	}
	if _, _, ok := point(points(at, null), true); ok {
		t.Error("a null is the latest point")
	}
}

func TestBatches(t *testing.T) {
	var keys []Key
	for i := range 80 {
		keys = append(keys, Key{Query: fmt.Sprintf("avg:m%02d{*}", i), Window: time.Minute})
	}
	keys = append(keys, Key{Query: "avg:other{*}", Window: time.Hour})
	var sizes []int
	for _, b := range batches(keys, 35) {
		sizes = append(sizes, len(b))
	}
	if d := cmp.Diff([]int{35, 35, 10, 1}, sizes); d != "" {
		t.Errorf("batch sizes (-want +got)\n%s", d)
	}
	long := strings.Repeat("x", 3000)
	got := batches([]Key{{Query: long + "1"}, {Query: long + "2"}, {Query: long + "3"}}, 35)
	if len(got) != 2 || len(got[0]) != 2 {
		t.Errorf("three queries of 3000 characters make %d batches, want 2", len(got))
	}
	if !tooLong(strings.Repeat("{", 2400)) || tooLong(long) {
		t.Error("length counts escaped characters and ends below 7000")
	}
}

func TestShape(t *testing.T) {
	for query, want := range map[string]string{
		`avg:m{a:b,c:d}.rollup(avg, 30)`: "",
		`top(avg:m{*}, 5, "mean", 'x')`:  "",
		``:                               "empty",
		`avg:m{*},avg:n{*}`:              "error at 8: a comma",
		`avg:m{a:b`:                      `error at 5: '{' is never closed`,
		`avg:m{a:b)`:                     `error at 9: unexpected ')'`,
		`f("x)`:                          `error at 2: quote '"' is never closed`,
	} {
		err := Shape(query)
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("Shape(%s) = %v, want %q", query, err, want)
		}
	}
}

func FuzzShape(f *testing.F) {
	f.Add("avg:m{a:b,c:d}.rollup(avg, 30)")
	f.Add("avg:m{*},avg:n{*}")
	f.Add(`f("x)`)
	f.Fuzz(func(t *testing.T, q string) {
		if Shape(q) == nil && Shape(q+",x") == nil {
			t.Errorf("%q and %q both pass as one query", q, q+",x")
		}
	})
}

func TestRules(t *testing.T) {
	r := Rules{MaxAge: 2 * time.Minute, QueryValidity: 30 * time.Second, BucketSize: 5 * time.Minute, MaxTimeWindow: time.Hour, Rollup: 30 * time.Second}
	for _, c := range []struct{ timeWindow, maxAge, window, limit time.Duration }{
		{0, 0, 5 * time.Minute, 2 * time.Minute},
		{0, 10 * time.Minute, 10 * time.Minute, 10 * time.Minute},
		{20 * time.Minute, 10 * time.Minute, 20 * time.Minute, 10 * time.Minute},
		{time.Minute, 0, 5 * time.Minute, 2 * time.Minute},
		{48 * time.Hour, 0, time.Hour, 2 * time.Minute},
	} {
		if got := r.Window(c.timeWindow, c.maxAge); got != c.window {
			t.Errorf("Window(%s, %s) = %s, want %s", c.timeWindow, c.maxAge, got, c.window)
		}
		if got := r.Limits(c.maxAge).MaxAge; got != c.limit {
			t.Errorf("Limits(%s) = %s, want %s", c.maxAge, got, c.limit)
		}
	}
	r.Rollup = time.Minute
	if got := r.Limits(0).MaxAge; got != 3*time.Minute {
		t.Errorf("max age with a rollup of 1m = %s, want three rollups", got)
	}
}

func TestCurrent(t *testing.T) {
	at := time.Unix(10_000, 0)
	l := Limits{MaxAge: 2 * time.Minute, Grace: 30 * time.Second}
	good := Reading{Value: 5, At: at, Fetched: at.Add(40 * time.Second), Attempted: at.Add(40 * time.Second)}
	down := good
	down.Err = &Error{Reason: SourceUnavailable, Message: "connection refused"}
	empty := good
	empty.Err = &Error{Reason: NoData, Message: "no series"}
	late := good
	late.Fetched = at.Add(130 * time.Second)
	for _, c := range []struct {
		name string
		r    Reading
		age  time.Duration
		want string // "" means the value
	}{
		{"fresh", good, 60 * time.Second, ""},
		{"between polls", good, 149 * time.Second, ""},
		{"too old", good, 250 * time.Second, "Stale: newest point (1970-01-01T02:46:40Z) is 4m10s old, older than its max age 2m0s: data comes late"},
		{"too old when read", late, 131 * time.Second, "Stale: newest point"},
		{"source down, still fresh", down, 60 * time.Second, ""},
		{"source down, too old", down, 250 * time.Second, "SourceUnavailable: newest point (1970-01-01T02:46:40Z) is 4m10s old, older than its max age 2m0s: connection refused"},
		{"query at fault", empty, 10 * time.Second, "NoData: no series"},
		{"never asked", Reading{}, 0, "Pending: not asked yet"},
	} {
		v, err := c.r.Current(at.Add(c.age), l)
		if c.want == "" {
			if err != nil || v != 5 {
				t.Errorf("%s: %v, %v; want the value", c.name, v, err)
			}
		} else if err == nil || !strings.HasPrefix(string(err.Reason)+": "+err.Error(), c.want) {
			t.Errorf("%s: error %v, want %s", c.name, err, c.want)
		}
	}
}

// A clock that is set back must not make a value young again.
func TestCurrentAfterClockStep(t *testing.T) {
	fetched := time.Now()
	now := sleep(fetched, 10*time.Minute)
	if wall, run := now.Round(0).Sub(fetched.Round(0)), now.Sub(fetched); wall != 0 || run != 10*time.Minute {
		t.Fatalf("the simulated step shows %s by the wall and %s by the monotonic clock, want 0s and 10m0s", wall, run)
	}
	r := Reading{Value: 5, At: fetched.Add(-10 * time.Second).Round(0), Fetched: fetched, Attempted: fetched}
	v, err := r.Current(now, Limits{MaxAge: 2 * time.Minute, Grace: 30 * time.Second})
	if err == nil || err.Reason != Stale || err.Age != 610*time.Second {
		t.Errorf("ten minutes after the read, with the clock set back by as much: %v, %v; want it stale at 10m10s", v, err)
	}
}

// A source whose clock is ahead of ours must not give a value that outlives it.
func TestCurrentFromTheFuture(t *testing.T) {
	fetched := time.Unix(10_000, 0)
	l := Limits{MaxAge: 2 * time.Minute, Grace: 30 * time.Second}
	r := Reading{Value: 5, At: fetched.Add(time.Hour), Fetched: fetched, Attempted: fetched}
	for after, want := range map[time.Duration]Reason{0: "", 150 * time.Second: "", 151 * time.Second: Stale} {
		v, err := r.Current(fetched.Add(after), l)
		if want == "" && (err != nil || v != 5) || want != "" && (err == nil || err.Reason != want || err.Age != after) {
			t.Errorf("%s after the last answer: %v, %v; want %q", after, v, err, want)
		}
	}
	if left := r.Left(fetched, l); left != 150*time.Second {
		t.Errorf("the value is said to be good for %s, want 2m30s", left)
	}
}

// sleep returns t as read again d later, when the wall clock was set back by d
// in between: only the monotonic reading moves on.
func sleep(t time.Time, d time.Duration) time.Time {
	(*struct {
		wall uint64
		ext  int64 // nanoseconds of the monotonic clock
		loc  *time.Location
	})(unsafe.Pointer(&t)).ext += int64(d)
	return t
}

// fake is Datadog's query API with the failures a real one has.
type fake struct {
	mu       sync.Mutex
	requests [][]string
	reply    func(queries []string, w http.ResponseWriter)
}

func (f *fake) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	queries := strings.Split(r.FormValue("query"), ",")
	f.mu.Lock()
	f.requests = append(f.requests, queries)
	reply := f.reply
	f.mu.Unlock()
	reply(queries, w)
}

func (f *fake) sizes() []int {
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []int
	for _, r := range f.requests {
		out = append(out, len(r))
	}
	slices.Sort(out)
	return out
}

// answer gives every query the value n of "avg:mn{*}".
func answer(queries []string, w http.ResponseWriter) {
	resp := payload.NewQueryResponse("", 0, 0)
	for i, q := range queries {
		var n float64
		_, _ = fmt.Sscanf(q, "avg:m%f", &n) // 0 for other names
		resp.Series = append(resp.Series, payload.QuerySeries{Metric: q, Scope: "*", QueryIndex: &i, Pointlist: points(time.Now(), n, n)})
	}
	_ = json.NewEncoder(w).Encode(resp)
}

func refuse(code int, body string) func([]string, http.ResponseWriter) {
	return func(_ []string, w http.ResponseWriter) { w.WriteHeader(code); _, _ = w.Write([]byte(body)) }
}

func start(t *testing.T, reply func([]string, http.ResponseWriter)) (*Poller, *fake) {
	t.Helper()
	f := &fake{reply: reply}
	srv := httptest.NewServer(f)
	t.Cleanup(srv.Close)
	client, err := datadog.New(datadog.Options{BaseURL: srv.URL, APIKey: "secret-api", AppKey: "secret-app", UserAgent: "test", Timeout: 5 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.CloseIdle)
	p, err := New(Options{Querier: client, SourceURL: srv.URL, Timeout: 300 * time.Millisecond, KeysHint: "Secret datadog/keys"})
	if err != nil {
		t.Fatal(err)
	}
	return p, f
}

func all(*state) bool { return true }

func key(n int) Key { return Key{Query: fmt.Sprintf("avg:m%d{*}", n), Window: time.Minute} }

func TestOneBadQueryHarmsNobody(t *testing.T) {
	p, f := start(t, func(queries []string, w http.ResponseWriter) {
		if slices.Contains(queries, "avg:m17{*}") {
			refuse(400, `{"status":"error","error":"unable to parse avg:m17{*}"}`)(queries, w)
			return
		}
		answer(queries, w)
	})
	for i := range 35 {
		p.Use(fmt.Sprint(i), key(i))
	}
	p.Use("comma", Key{Query: "avg:x{*},avg:y{*}", Window: time.Minute})
	p.poll(t.Context(), all)
	for i := range 35 {
		v, err := p.Read(key(i)).Current(time.Now(), Limits{MaxAge: time.Minute})
		switch {
		case i == 17:
			if err == nil || err.Reason != QueryRejected || !strings.Contains(err.Error(), "unable to parse avg:m17") || err.RetryAt.IsZero() {
				t.Errorf("the bad query: %v, want the API's own words and a backoff", err)
			}
		case err != nil || v != float64(i):
			t.Errorf("m%d = %v, %v; want its own value in the same cycle", i, v, err)
		}
	}
	if r := p.Read(Key{Query: "avg:x{*},avg:y{*}", Window: time.Minute}); r.Err == nil || r.Err.Reason != SyntaxError {
		t.Errorf("two queries in one = %v, want a syntax error", r.Err)
	}
	asked := len(f.sizes())
	p.poll(t.Context(), all)
	if got := f.sizes(); len(got) != asked+1 || got[len(got)-1] != 35 {
		t.Errorf("the next cycle made requests of %v, want one more, without the query that backs off", got)
	}
	if got := testutil.ToFloat64(p.tel.failures.WithLabelValues("QueryRejected")); got != 1 {
		t.Errorf("rejections counted = %v, want 1", got)
	}
	if testutil.ToFloat64(p.tel.requests.WithLabelValues("success")) == 0 {
		t.Error("successful requests are not counted")
	}
}

func TestFaults(t *testing.T) {
	index := func(i int) func([]string, http.ResponseWriter) {
		return func(_ []string, w http.ResponseWriter) {
			resp := payload.NewQueryResponse("", 0, 0)
			resp.Series = append(resp.Series, payload.QuerySeries{Pointlist: points(time.Now(), 1, 2), QueryIndex: &i})
			if i < 0 {
				resp.Series[0].QueryIndex = nil
			}
			_ = json.NewEncoder(w).Encode(resp)
		}
	}
	for _, c := range []struct {
		name   string
		reply  func([]string, http.ResponseWriter)
		reason Reason
		text   string
		class  string
	}{
		{"forbidden", refuse(403, `{"errors":["Forbidden"]}`), Unauthorized, "check Secret datadog/keys", "other_http_error"},
		{"rate limit", refuse(429, `{"errors":["slow down"]}`), RateLimited, "fewer requests", "rate_limit_error"},
		{"server error", refuse(503, "upstream"), SourceUnavailable, "HTTP 503", "other_http_error"},
		{"unprocessable", refuse(422, `{"errors":["nothing queryable"]}`), QueryRejected, "nothing queryable", "unprocessable_entity_error"},
		{"200 with error", refuse(200, `{"status":"error","error":"Invalid query input"}`), QueryRejected, "Invalid query input", "response_error"},
		{"truncated", refuse(200, `{"status":"ok","series":[`), SourceUnavailable, "no usable answer", "unknown_error"},
		{"hang", func([]string, http.ResponseWriter) { time.Sleep(500 * time.Millisecond) }, SourceUnavailable, "did not answer within 300ms", "unknown_error"},
		{"empty", refuse(200, `{"status":"ok","series":[]}`), NoData, "matches no series in the last 1m0s", "success"},
		{"index too large", index(9), QueryRejected, "does not say which", "response_error"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p, _ := start(t, c.reply)
			told := 0
			p.Subscribe(func(owner string) {
				if owner == "me" {
					told++
				}
			})
			p.Use("me", key(1))
			p.poll(t.Context(), all)
			r := p.Read(key(1))
			if r.Err == nil || r.Err.Reason != c.reason || !strings.Contains(r.Err.Error(), c.text) {
				t.Errorf("error = %v, want %s with %q", r.Err, c.reason, c.text)
			}
			if r.Err != nil && strings.Contains(r.Err.Error(), "secret-") {
				t.Errorf("the error shows a key: %v", r.Err)
			}
			if got := testutil.ToFloat64(p.tel.requests.WithLabelValues(c.class)); got != 1 {
				t.Errorf("datadog_requests{status=%q} = %v, want 1", c.class, got)
			}
			if told != 1 {
				t.Errorf("the owner was told %d times, want once", told)
			}
		})
	}
	// A single series without index is the single query's; in a batch it is nobody's.
	p, f := start(t, index(-1))
	p.Use("me", key(1), key(2))
	p.poll(t.Context(), all)
	if d := cmp.Diff([]int{1, 1, 2}, f.sizes()); d != "" {
		t.Errorf("requests after an answer without index (-want +got)\n%s", d)
	}
	if r := p.Read(key(1)); r.Err != nil || r.Value != 1 {
		t.Errorf("asked alone = %+v, want its value", r)
	}
}

func TestOneSeries(t *testing.T) {
	bucket := one([]payload.QuerySeries{{Interval: 30, Pointlist: points(time.Now(), 1, 2)}}, time.Minute, false)
	if bucket.err != nil || bucket.length != 30*time.Second {
		t.Errorf("a point of a bucket of 30 s: %+v", bucket)
	}
	two := one([]payload.QuerySeries{{}, {}}, time.Minute, false)
	null := one([]payload.QuerySeries{{Interval: 30, Pointlist: points(time.Now(), math.NaN(), math.NaN())}}, time.Minute, false)
	inf := one([]payload.QuerySeries{{Pointlist: points(time.Now(), math.Inf(1))}}, time.Minute, false)
	for _, c := range []struct {
		got  outcome
		want Reason
		text string
	}{{two, MultipleSeries, "returns 2 series"}, {null, NoData, "all 2 points of the last 1m0s are null (interval 30 s)"}, {inf, NotANumber, "+Inf"}} {
		if c.got.err == nil || c.got.err.Reason != c.want || !strings.Contains(c.got.err.Error(), c.text) {
			t.Errorf("outcome %v, want %s with %q", c.got.err, c.want, c.text)
		}
	}
}

func TestBackoffDoublesToHalfAnHour(t *testing.T) {
	var got []time.Duration
	for i := 1; i <= 8; i++ {
		got = append(got, backoff(i))
	}
	want := []time.Duration{30 * time.Second, time.Minute, 2 * time.Minute, 4 * time.Minute, 8 * time.Minute, 16 * time.Minute, 30 * time.Minute, 30 * time.Minute}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-want +got)\n%s", d)
	}
}

func TestRateLimitPauses(t *testing.T) {
	p, f := start(t, func(_ []string, w http.ResponseWriter) {
		w.Header().Set("X-RateLimit-Reset", "60")
		w.WriteHeader(http.StatusTooManyRequests)
	})
	p.Use("a", key(1))
	p.poll(t.Context(), all)
	p.Use("b", key(2))
	p.poll(t.Context(), all)
	if d := cmp.Diff([]int{1}, f.sizes()); d != "" {
		t.Errorf("requests while paused (-want +got)\n%s", d)
	}
	if r := p.Read(key(2)); r.Err == nil || r.Err.Reason != RateLimited || r.Err.RetryAt.IsZero() {
		t.Errorf("a query that has to wait = %v, want to be told until when", r.Err)
	}
}

func TestNewQueryIsAskedAtOnce(t *testing.T) {
	p, _ := start(t, answer)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	told := make(chan string, 1)
	p.Subscribe(func(owner string) { told <- owner })
	go func() { done <- p.Run(ctx) }()
	p.Use("me", key(3))
	select {
	case <-told:
	case <-time.After(time.Second):
		t.Error("a new query was not asked within a second, with a period of 30")
	}
	if r := p.Read(key(3)); r.Value != 3 || r.Err != nil {
		t.Errorf("reading = %+v, want 3", r)
	}
	if got := testutil.ToFloat64(p.tel.value.WithLabelValues("avg:m3{*}{*}")); got != 3 {
		t.Errorf("external_metrics_processed_value = %v, want 3", got)
	}
	p.Use("me")
	if r := p.Read(key(3)); !r.Attempted.IsZero() || p.Status().Queries != 0 || testutil.CollectAndCount(p.tel.value) != 0 {
		t.Errorf("a query out of use is still known: %+v", r)
	}
	cancel()
	if err := <-done; err != nil {
		t.Errorf("Run = %v", err)
	}
}

// TestAnAttemptIsRecordedOnce: a query that is given up and wanted again while it
// is asked is asked anew; its two answers must not double its back-off.
func TestAnAttemptIsRecordedOnce(t *testing.T) {
	p, _ := start(t, answer)
	k := key(1)
	all := func(*state) bool { return true }
	p.Use("a", k)
	first, _ := p.due(time.Now(), all)
	p.Use("a")
	p.Use("a", k)
	second, _ := p.due(time.Now(), all)
	if len(first) != 1 || len(second) != 1 {
		t.Fatalf("due: %v and %v, want the query twice", first, second)
	}
	bad := fault{blames: true, err: Error{Reason: SyntaxError, Message: "no"}}
	p.failed(first, bad, time.Now())
	p.failed(second, bad, time.Now())
	if got := p.queries[k].failures; got != 1 {
		t.Errorf("%d failures of one query asked once since it is in use, want 1", got)
	}
}

// TestBadQueryOfAStreamIsRecorded: of a query that is only subscribed to, no
// attempt is under way.
func TestBadQueryOfAStreamIsRecorded(t *testing.T) {
	p, _ := start(t, answer)
	k := Key{Query: "avg:m{a", Window: time.Minute}
	p.Use("a", k)
	if ok := p.checked([]Key{k}, true); len(ok) != 0 {
		t.Fatalf("%v may be sent", ok)
	}
	if err := p.Read(k).Err; err == nil || err.Reason != SyntaxError {
		t.Errorf("the query's error is %v, want %s", err, SyntaxError)
	}
}
