package shadow

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/goleak"

	"kelpie.dev/kelpie/clusteragent/source"
	"kelpie.dev/kelpie/datadog"
	"kelpie.dev/kelpie/metric/payload"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// api is a query API of one value, whose newest bucket begins when a test says.
type api struct {
	mu     sync.Mutex
	value  float64
	newest time.Time
	status int           // of every answer; 0 means 200
	hang   chan struct{} // answers wait for it to be closed; nil for none
	asked  []time.Time
}

func (a *api) set(f func(*api)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	f(a)
}

func (a *api) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	a.asked = append(a.asked, time.Now())
	value, newest, status, hang := a.value, a.newest, a.status, a.hang
	a.mu.Unlock()
	if hang != nil {
		select {
		case <-hang:
		case <-r.Context().Done():
		}
	}
	if status != 0 {
		w.Header().Set("Retry-After", "3600")
		w.WriteHeader(status)
		_ = json.NewEncoder(w).Encode(payload.ErrorBody{Errors: []string{"no"}})
		return
	}
	resp := payload.NewQueryResponse("", 0, 0)
	for i := range strings.Split(r.FormValue("query"), ",") {
		s := payload.QuerySeries{Metric: "m", Scope: "*", Interval: 10, QueryIndex: &i}
		for _, at := range []time.Time{newest.Add(-10 * time.Second), newest} {
			ms := float64(at.UnixMilli())
			s.Pointlist = append(s.Pointlist, payload.QueryPoint{&ms, &value})
		}
		resp.Series = append(resp.Series, s)
	}
	_ = json.NewEncoder(w).Encode(resp)
}

const every = 20 * time.Millisecond // is polled

func (a *api) poller(t *testing.T) *source.Poller {
	t.Helper()
	srv := httptest.NewServer(a)
	t.Cleanup(srv.Close)
	client, err := datadog.New(datadog.Options{BaseURL: srv.URL, APIKey: "a", AppKey: "b", Timeout: 5 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.CloseIdle)
	p, err := source.New(source.Options{Querier: client, SourceURL: srv.URL, Period: every, Timeout: 5 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// pair is a main source and its shadow, at work.
type pair struct {
	main, other *api
	set         *source.Set
	shadow      *Shadow
	log         *bytes.Buffer
	now         time.Time // of the next step
}

var k = source.Key{Query: "avg:m{*}", Window: 5 * time.Minute}

func startPair(t *testing.T) *pair {
	t.Helper()
	p := &pair{main: &api{value: 100}, other: &api{value: 100}, log: &bytes.Buffer{}, now: begin}
	p.at(begin)
	var err error
	if p.set, err = source.NewSet(source.Datadog, map[source.Name]*source.Poller{source.Datadog: p.main.poller(t)}); err != nil {
		t.Fatal(err)
	}
	other := p.other.poller(t)
	p.shadow, err = New(Options{Main: p.set, Other: other, MainName: source.Datadog, OtherName: source.Kelpie, Tolerance: Tolerance{Relative: 0.05},
		Registerer: prometheus.NewRegistry(), Log: slog.New(slog.NewTextHandler(p.log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 2)
	go func() { done <- p.set.Run(ctx) }()
	go func() { done <- other.Run(ctx) }() // not the shadow's Run: the test steps
	t.Cleanup(func() {
		cancel()
		for range 2 {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
	})
	p.set.Use("hpa", k)
	p.shadow.step(p.now) // asks the shadow; nothing is due
	return p
}

func (p *pair) at(newest time.Time) {
	p.main.set(func(a *api) { a.newest = newest })
	p.other.set(func(a *api) { a.newest = newest })
}

// rounds lets n periods pass, in each of which both sources have something new
// and the shadow meets what ready tells of its reading.
func (p *pair) rounds(t *testing.T, n int, ready func(source.Reading) bool) {
	t.Helper()
	for range n {
		p.now = p.now.Add(30 * time.Second)
		p.at(p.now)
		want := p.now.Add(-10 * time.Second).Unix()
		for deadline := time.Now().Add(10 * time.Second); p.set.Read(k).At.Unix() != want || !ready(p.shadow.opts.Other.Read(k)); time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("main %+v, shadow %+v after 10 s", p.set.Read(k), p.shadow.opts.Other.Read(k))
			}
		}
		p.shadow.step(p.now)
		p.shadow.step(p.now.Add(time.Second)) // nothing is due
	}
}

// fresh is a reading of the newest point.
func (p *pair) fresh(r source.Reading) bool {
	return r.Err == nil && r.At.Unix() == p.now.Add(-10*time.Second).Unix()
}

func TestShadowReports(t *testing.T) {
	p := startPair(t)
	p.rounds(t, 3, p.fresh)
	p.other.set(func(a *api) { a.value = 50 })
	p.rounds(t, 4, func(r source.Reading) bool { return p.fresh(r) && r.Value == 50 })
	r := p.shadow.Report(p.now)
	if len(r.Rows) != 1 || r.Queries != 1 || r.Verdicts[Differ] != 1 {
		t.Fatalf("report %+v, want one query that differs", r)
	}
	row := r.Rows[0]
	if row.Verdict != Differ || row.Outcomes[Differ] != 4 || row.Outcomes[Agree] != 3 || *row.Main.Value != 100 || *row.Shadow.Value != 50 ||
		row.Worst == nil || row.Worst.Difference != -0.5 || row.Last.At.IsZero() || row.Outside != 4.0/7 || row.Bias != -2.0/7 {
		t.Errorf("row %+v (last %+v, worst %+v)", row, row.Last, row.Worst)
	}
	if n := testutil.ToFloat64(p.shadow.tel.comparisons.WithLabelValues("differ")); n != 4 {
		t.Errorf("%v comparisons counted as differing, want 4", n)
	}
	if err := testutil.CollectAndCompare(&verdicts{p.shadow}, strings.NewReader(`# HELP kelpie_shadow_queries Queries that are compared, by verdict.
# TYPE kelpie_shadow_queries gauge
kelpie_shadow_queries{verdict="agree"} 0
kelpie_shadow_queries{verdict="differ"} 1
kelpie_shadow_queries{verdict="error"} 0
kelpie_shadow_queries{verdict="neither"} 0
kelpie_shadow_queries{verdict="only_main"} 0
kelpie_shadow_queries{verdict="only_shadow"} 0
kelpie_shadow_queries{verdict="waiting"} 0
`)); err != nil {
		t.Error(err)
	}
	p.other.set(func(a *api) { a.value = 100 })
	p.rounds(t, 3, func(r source.Reading) bool { return p.fresh(r) && r.Value == 100 })
	if differs, again := strings.Count(p.log.String(), "shadow differs from the main source"), strings.Count(p.log.String(), "agrees with the main source again"); differs != 1 || again != 1 {
		t.Errorf("logged %d times that it differs and %d times that it agrees again, want once each:\n%s", differs, again, p.log)
	}
	p.set.Use("hpa") // what the main source is not asked for, the shadow is not either
	p.shadow.step(p.now.Add(time.Minute))
	if n := p.shadow.opts.Other.(*source.Poller).Status().Queries; n != 0 || len(p.shadow.Report(p.now).Rows) != 0 {
		t.Errorf("the shadow goes on with %d queries that nobody uses", n)
	}
}

// Whatever befalls the shadow, the main source's values come as they would
// without one.
func TestShadowTroubleTouchesNothingServed(t *testing.T) {
	for name, c := range map[string]struct {
		trouble func(*api)
		reason  source.Reason // that the report shows; "" while the shadow has not answered at all
	}{
		"hangs":        {func(a *api) { a.hang = make(chan struct{}) }, ""},
		"asks to wait": {func(a *api) { a.status = http.StatusTooManyRequests }, source.RateLimited},
		"fails":        {func(a *api) { a.status = http.StatusInternalServerError }, source.SourceUnavailable},
		"refuses it":   {func(a *api) { a.status = http.StatusBadRequest }, source.QueryRejected},
		"refuses us":   {func(a *api) { a.status = http.StatusForbidden }, source.Unauthorized},
	} {
		t.Run(name, func(t *testing.T) {
			p := startPair(t)
			p.other.set(c.trouble)
			p.rounds(t, 10, func(source.Reading) bool { return true })
			if c.reason != "" {
				p.rounds(t, 2, func(r source.Reading) bool { return r.Err != nil && r.Err.Reason == c.reason })
				if row := p.shadow.Report(p.now).Rows[0]; row.Verdict != Error || row.Outcomes[Error] > 12 || !strings.HasPrefix(row.Shadow.Error, string(c.reason)) {
					t.Errorf("verdict %s, shadow's error %q; want error and %s", row.Verdict, row.Shadow.Error, c.reason)
				}
			}
			// The longest time without a request to the main source, from its first on.
			var longest time.Duration
			p.main.set(func(a *api) {
				for i := 1; i < len(a.asked); i++ {
					longest = max(longest, a.asked[i].Sub(a.asked[i-1]))
				}
			})
			if longest > time.Second {
				t.Errorf("the main source was not asked for %s, and is polled every %s", longest, every)
			}
			if r := p.set.Read(k); r.Err != nil || r.Value != 100 {
				t.Errorf("main %+v, want 100", r)
			}
		})
	}
}
