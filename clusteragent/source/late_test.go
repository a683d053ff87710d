package source

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"kelpie.dev/kelpie/metric/payload"
)

// late is a query API whose points come late, a minute apart.
type late struct {
	behind time.Duration // of the newest point
	moves  atomic.Int64  // seconds that all points have moved on by
	wide   atomic.Int64  // queries for more than the usual window
}

func (l *late) Query(_ context.Context, queries []string, from, to time.Time) (*payload.QueryResponse, error) {
	resp := payload.NewQueryResponse("", 0, 0)
	if to.Sub(from) > 30*time.Minute {
		l.wide.Add(int64(len(queries)))
	}
	for i := range queries {
		s := payload.QuerySeries{Metric: "m", Scope: "*", QueryIndex: &i, Interval: 60}
		newest := to.Truncate(time.Minute).Add(-l.behind).Add(time.Duration(l.moves.Load()) * time.Second)
		for at := newest.Add(-20 * time.Minute); !at.After(newest); at = at.Add(time.Minute) {
			if at.Before(from) || l.behind < 0 {
				continue
			}
			ms, v := float64(at.UnixMilli()), 5.0
			s.Pointlist = append(s.Pointlist, payload.QueryPoint{&ms, &v})
		}
		if len(s.Pointlist) > 0 {
			resp.Series = append(resp.Series, s)
		}
	}
	return resp, nil
}

// A query without data in its window says why: late, stopped, or never there.
func TestNoDataSaysWhetherItComesLate(t *testing.T) {
	for _, c := range []struct {
		name        string
		behind      time.Duration
		moves       int64 // seconds at each poll
		words, none string
	}{
		{"eleven minutes late", 11 * time.Minute, 1, "metrics like this come late (points are about 1", "newest point before"},
		{"stopped", 11 * time.Minute, 0, "; the newest point before is of 20", "come late"},
		{"never there", -1, 0, "that the application sends it", "; "},
	} {
		api := &late{behind: c.behind}
		p, err := New(Options{Querier: api, SourceURL: "http://x"})
		if err != nil {
			t.Fatal(err)
		}
		p.probeEvery = 0
		k := Key{Query: "avg:m{*}", Window: 5 * time.Minute}
		p.Use("o", k, Key{Query: "avg:m{*}", Window: 6 * time.Minute}, Key{Query: "avg:long{*}", Window: 2 * time.Hour})
		for range 5 {
			api.moves.Add(c.moves)
			p.cycle(t.Context(), func(*state) bool { return true })
		}
		r := p.Read(k)
		_, why := r.Current(time.Now(), Limits{MaxAge: 2 * time.Minute})
		if why == nil || why.Reason != NoData || !strings.Contains(why.Error(), c.words) || c.none != "" && strings.Contains(why.Error(), c.none) || !r.At.IsZero() {
			t.Errorf("%s: %v (reading %+v), want %q in it, not %q, and nothing served", c.name, why, r, c.words, c.none)
		}
		// One for the two windows of a query, and the one that reaches so far itself.
		if n := api.wide.Load(); n != 10 {
			t.Errorf("%s: %d queries reach far back in five cycles, want two in each", c.name, n)
		}
		p.probeEvery = time.Hour
		p.cycle(t.Context(), func(*state) bool { return true })
		if n := api.wide.Load(); n != 11 {
			t.Errorf("%s: it was looked further back before its time", c.name)
		}
	}
}

// The max age that is advised is enough, and not much more than needed.
func TestAdvisedMaxAgeSuffices(t *testing.T) {
	const period = 30 * time.Second
	for _, c := range []struct{ lag, apart time.Duration }{
		{3 * time.Minute, time.Minute}, {10 * time.Minute, time.Minute}, {12 * time.Minute, 5 * time.Minute}, {150 * time.Second, 10 * time.Second},
	} {
		begin := time.Unix(1_000_000, 0).Truncate(c.apart)
		// reading is of the second newest point, as it is polled.
		poll := func(r *Reading, now time.Time) {
			at := now.Add(-c.lag).Truncate(c.apart).Add(-c.apart)
			r.At, r.Fetched, r.Attempted, r.Value = at, now, now, 5
			r.Late.saw(outcome{at: at, spacing: c.apart}, period, now)
		}
		var r Reading
		now := begin
		for ; now.Before(begin.Add(time.Hour)); now = now.Add(period) {
			poll(&r, now)
		}
		_, why := r.Current(now, Limits{MaxAge: 2 * time.Minute})
		enough, ok := r.Late.Enough(now.Sub(r.At))
		if !ok || why == nil || why.Reason != Stale || !strings.Contains(why.Error(), "set maxAge to at least "+enough.String()) {
			t.Fatalf("lag %s, apart %s: %v, want an advice of %s", c.lag, c.apart, why, enough)
		}
		if least := c.lag + c.apart; enough < least || enough > least+c.apart+2*time.Minute {
			t.Errorf("lag %s, apart %s: %s is advised", c.lag, c.apart, enough)
		}
		for end := now.Add(time.Hour); now.Before(end); now = now.Add(time.Second) {
			if now.Unix()%30 == 0 {
				poll(&r, now)
			}
			if _, why := r.Current(now, Limits{MaxAge: enough, Grace: period}); why != nil {
				t.Fatalf("lag %s, apart %s: with the max age advised, %s: %v", c.lag, c.apart, enough, why)
			}
		}
		// Once the next point is overdue, it is no longer advised: data have stopped.
		if _, why := r.Current(now.Add(c.apart+2*time.Minute), Limits{MaxAge: 2 * time.Minute}); why == nil || strings.Contains(why.Error(), "come late (") {
			t.Errorf("an hour after the data have stopped: %v", why)
		}
	}
}

// What comes in time gives no advice, whatever its age.
func TestNoAdviceBeforeSomethingIsSeen(t *testing.T) {
	now := time.Unix(1_000_000, 0)
	r := Reading{At: now.Add(-90 * time.Second), Fetched: now, Attempted: now}
	r.Late.saw(outcome{at: r.At, spacing: time.Minute}, time.Minute, now)
	if _, why := r.Current(now, Limits{MaxAge: time.Minute}); why == nil || !strings.Contains(why.Error(), "data comes late or has stopped") {
		t.Errorf("one point seen: %v, want neither judged", why)
	}
}
