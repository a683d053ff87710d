package source

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"kelpie.dev/kelpie/datadog"
	"kelpie.dev/kelpie/metric/payload"
)

// limitedAPI is Datadog's query API with a rate limit whose periods begin at
// full multiples, and with others who use it too.
type limitedAPI struct {
	limit   int
	period  time.Duration
	observe func(datadog.RateLimit)
	slow    int // queries a request from which on it does not answer; 0 for none

	mu      sync.Mutex
	begun   time.Time
	used    int
	calls   int
	refused int
	last    map[string]time.Time // when each query had its answer
	gap     map[string]time.Duration
}

func (a *limitedAPI) Query(ctx context.Context, queries []string, _, to time.Time) (*payload.QueryResponse, error) {
	if a.slow > 0 && len(queries) >= a.slow {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	now := time.Now()
	if begun := now.Truncate(a.period); begun != a.begun {
		a.begun, a.used = begun, 0
	}
	a.calls++
	if a.limit > 0 {
		if a.used >= a.limit {
			a.refused++
			return nil, &datadog.APIError{Status: http.StatusTooManyRequests, RetryAfter: a.begun.Add(a.period).Sub(now)}
		}
		a.used++
		a.observe(datadog.RateLimit{Limit: a.limit, Remaining: a.limit - a.used, Period: a.period, Reset: a.begun.Add(a.period).Sub(now)})
	}
	resp := payload.NewQueryResponse("", 0, 0)
	for i, q := range queries {
		if was, ok := a.last[q]; ok {
			a.gap[q] = max(a.gap[q], now.Sub(was))
		}
		a.last[q] = now
		resp.Series = append(resp.Series, payload.QuerySeries{Metric: "m", Scope: q, QueryIndex: &i, Pointlist: points(to, 1, 1)})
	}
	return resp, nil
}

// poll runs a poller of a for d on a fake clock, with n queries of each window.
func (a *limitedAPI) poll(t *testing.T, d time.Duration, n int, windows ...time.Duration) *Poller {
	t.Helper()
	a.last, a.gap = map[string]time.Time{}, map[string]time.Duration{}
	p, err := New(Options{Name: Datadog, Querier: a, SourceURL: "https://api.example.org", Period: 30 * time.Second, Timeout: 10 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	a.observe = p.RateLimit
	for _, w := range windows {
		for i := range n {
			p.Use(fmt.Sprint(w, i), Key{Query: fmt.Sprintf("avg:m%d{window:%s}", i, w), Window: w})
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	if err := p.Run(ctx); err != nil {
		t.Error(err)
	}
	return p
}

// TestCallsAMinute states what 1000 queries cost, beside upstream's arithmetic.
func TestCallsAMinute(t *testing.T) {
	const queries, hours = 1000, 4
	const upstream = 2 * ((queries + 34) / 35) // calls a minute: 35 a batch, every 30 s
	for name, c := range map[string]struct {
		limit, atLeast, atMost int // calls a minute
		gap                    time.Duration
	}{
		"no limit":             {0, upstream, upstream, 30 * time.Second},
		"Datadog's, 1600 an h": {1600, 20, 1600 / 60, 100 * time.Second},
		"half of it":           {800, 10, 800 / 60, 200 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := &limitedAPI{limit: c.limit, period: time.Hour}
				a.poll(t, hours*time.Hour, queries, 5*time.Minute)
				calls := a.calls / (60 * hours)
				if calls < c.atLeast || calls > c.atMost || a.refused > 0 {
					t.Errorf("%d calls a minute, %d refused; want %d to %d and none (upstream: %d)", calls, a.refused, c.atLeast, c.atMost, upstream)
				}
				var longest time.Duration
				for _, g := range a.gap {
					longest = max(longest, g)
				}
				if longest > c.gap || len(a.last) != queries {
					t.Errorf("%d queries had answers, with up to %s between two; want all, and %s", len(a.last), longest, c.gap)
				}
				t.Logf("%d calls a minute (upstream %d), up to %s between two answers", calls, upstream, longest)
			})
		})
	}
}

// TestLeastUrgentIsStretchedFirst: whose owner takes an older value waits longer,
// and none is left out.
func TestLeastUrgentIsStretchedFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &limitedAPI{limit: 600, period: time.Hour}
		a.poll(t, 4*time.Hour, 175, 5*time.Minute, time.Hour)
		longest := map[time.Duration]time.Duration{}
		for _, w := range []time.Duration{5 * time.Minute, time.Hour} {
			for i := range 175 {
				longest[w] = max(longest[w], a.gap[fmt.Sprintf("avg:m%d{window:%s}", i, w)])
			}
		}
		if short, long := longest[5*time.Minute], longest[time.Hour]; short > 60*time.Second || long < 2*short || long > 20*time.Minute || a.refused > 0 {
			t.Errorf("between two answers: %s with a window of 5 min, %s with one of an hour, %d refused; want the first within 60s", short, long, a.refused)
		}
	})
}

// TestOthersUseTheLimitToo: what is left counts, whoever has taken the rest.
func TestOthersUseTheLimitToo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &limitedAPI{limit: 1600, period: time.Hour}
		go func() { // another, 600 an hour
			for range 540 {
				time.Sleep(6 * time.Second)
				a.mu.Lock()
				a.used++
				a.mu.Unlock()
			}
		}()
		p := a.poll(t, 55*time.Minute, 1000, 5*time.Minute)
		if a.refused > 0 || len(a.last) != 1000 {
			t.Errorf("%d calls refused, %d queries answered; want none and all", a.refused, len(a.last))
		}
		if n := testutil.ToFloat64(p.tel.limits[0]); n != 1600 {
			t.Errorf("rate_limit_queries_limit = %v, want 1600", n)
		}
		if left, least := testutil.ToFloat64(p.tel.limits[1]), testutil.ToFloat64(p.tel.limits[4]); least > left || left == 0 {
			t.Errorf("remaining %v, least of late %v", left, least)
		}
		if testutil.ToFloat64(p.tel.stretched) == 0 {
			t.Error("no query is shown as stretched")
		}
	})
}

// TestChunksShrinkOnTimeouts: requests that are too much at once become smaller,
// and larger again when there are none.
func TestChunksShrinkOnTimeouts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &limitedAPI{period: time.Hour, slow: 20}
		p := a.poll(t, 3*time.Minute, 70, 5*time.Minute)
		if got := p.chunk(); got != 17 {
			t.Errorf("requests hold up to %d queries, want 17 of 35", got)
		}
		for q, g := range a.gap {
			if g > 61*time.Second {
				t.Errorf("%s had no answer for %s", q, g)
			}
		}
		for range calmCycles {
			p.inTime()
		}
		if got := p.chunk(); got != 34 {
			t.Errorf("after calm: %d, want 34", got)
		}
		for range 10 {
			p.tooSlow()
		}
		if got := p.chunk(); got != minChunk {
			t.Errorf("after many timeouts: %d, want %d", got, minChunk)
		}
	})
}

func TestPostponedSaysWhy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &limitedAPI{limit: 40, period: time.Hour}
		p := a.poll(t, 30*time.Minute, 350, 5*time.Minute)
		said := 0
		for i := range 350 {
			_, why := p.Read(Key{Query: fmt.Sprintf("avg:m%d{window:5m0s}", i), Window: 5 * time.Minute}).Current(time.Now(), Limits{MaxAge: 2 * time.Minute})
			if why != nil && why.Reason == RateLimited {
				said++
			}
		}
		if said < 200 || a.refused > 0 {
			t.Errorf("%d of 350 queries say that the limit is the cause, %d requests refused; want most, and none", said, a.refused)
		}
	})
}
