package query_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"kelpie.dev/kelpie/metric"
	"kelpie.dev/kelpie/query"
	"kelpie.dev/kelpie/query/querytest"
)

// aging is a source whose points are settled a minute after their time.
type aging struct {
	querytest.Memory
	now  int64
	late int // writes of settled times
	read int // seconds that were selected
}

const agingSettles = 60

func (a *aging) Settled(string) (int64, any) { return a.now - agingSettles, a.late }

func (a *aging) Select(ctx context.Context, sel query.Selector, from, to int64) ([]metric.Series, error) {
	a.read += int(to - from + 1)
	return a.Memory.Select(ctx, sel, from, to)
}

func (a *aging) write(t *testing.T, s metric.Series) {
	t.Helper()
	if err := a.Load(t.Context(), []metric.Series{s}, nil); err != nil {
		t.Fatal(err)
	}
	if s.Points[0].Time < a.now-agingSettles {
		a.late++
	}
}

// cachedQueries are evaluated with a cache and without.
var cachedQueries = []string{
	"avg:m{*}", "sum:m{*} by {team}", "max:m{team:a} by {id}", "sum:m{*}.as_count()", "sum:m{*} by {team}.as_rate()",
	"avg:m{*} by {id}.fill(last, 40)", "avg:m{*} by {id}.fill(zero)", "min:m{*} by {id}.fill(linear, 30)", "count:m{*}.fill(null)",
	"sum:m{*}.rollup(sum, 20)", "default_zero(avg:m{team:b}) + avg:m{team:a}", "top5(avg:m{*} by {id})", "sum:m{*}.weighted()",
	"sum:m{*} by {id} / sum:m{*}", "per_second(sum:m{*})", "hour_before(sum:m{*})", "ewma_3(avg:m{*} by {team})",
}

// TestCacheSaysTheSame holds, over random histories with gaps, late points and
// series that come and go, that a window that moves on shows with a cache what it
// shows without.
func TestCacheSaysTheSame(t *testing.T) {
	for seed := range uint64(6) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 3))
			src, cache := &aging{now: 5000}, query.NewCache(100_000)
			contexts := make([]int, 2+r.IntN(5)) // when each sends: one that does not now may later
			kind := []metric.Type{metric.Gauge, metric.Rate, metric.Count}[r.IntN(3)]
			for range 120 {
				src.now += 10
				for i := range contexts {
					switch {
					case r.IntN(30) == 0:
						contexts[i] = r.IntN(2)
					case contexts[i] == 0 || r.IntN(6) == 0:
						continue
					}
					at := src.now - 10
					if r.IntN(150) == 0 {
						at -= 10 * int64(r.IntN(60))
					}
					src.write(t, metric.Series{
						Name: "m", Type: kind, Interval: 10, Tags: metric.NewTags(fmt.Sprint("id:", i), "team:"+string("ab"[i%2])),
						Points: []metric.Point{{Time: at, Value: float64(r.IntN(1000)) / 7}},
					})
				}
				if r.IntN(3) == 0 {
					continue
				}
				length := []int64{599, 600, 1200}[r.IntN(3)]
				w := query.Window{From: src.now - length, To: src.now - 1, Interval: []int64{0, 10, 30}[r.IntN(3)]}
				if r.IntN(20) == 0 { // somebody looks back
					w.From, w.To = w.From-300, w.To-300
				}
				sameWithCache(t, cache, src, w)
			}
			if s := cache.Stats(); s.Hits < 50 || s.Misses == 0 || s.Passed == 0 {
				t.Errorf("%+v: next to nothing was compared", s)
			}
		})
	}
}

func sameWithCache(t *testing.T, cache *query.Cache, src query.Source, w query.Window) {
	t.Helper()
	for _, text := range cachedQueries {
		e, err := query.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		want, err := query.Eval(t.Context(), src, e, w)
		if err != nil {
			t.Fatal(err)
		}
		got, err := cache.Eval(t.Context(), src, e, w)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got, cmpopts.EquateNaNs(), cmpopts.EquateEmpty()); diff != "" {
			t.Fatalf("%s over %+v, without a cache (-) and with one (+):\n%s", text, w, diff)
		}
	}
}

// TestCacheReadsWhatIsNew holds that a window that moves on is not read again as a
// whole, and that what is kept is bounded.
func TestCacheReadsWhatIsNew(t *testing.T) {
	src := &aging{now: 10_000}
	for at := int64(0); at < 10_000; at += 10 {
		src.write(t, metric.Series{Name: "m", Type: metric.Gauge, Interval: 10, Tags: metric.NewTags("id:1"), Points: []metric.Point{{Time: at, Value: 1}}})
	}
	e, err := query.Parse("avg:m{*}")
	if err != nil {
		t.Fatal(err)
	}
	cache := query.NewCache(10_000)
	read := func(w query.Window) int {
		before := src.read
		if _, err := cache.Eval(t.Context(), src, e, w); err != nil {
			t.Fatal(err)
		}
		return src.read - before
	}
	cold := read(query.Window{From: 6000, To: 9599})
	hot := read(query.Window{From: 6020, To: 9619})
	if cold < 3600 || hot > 1000 {
		t.Errorf("an hour is read %d s at first and %d s when it has moved on; want all of it, then its end", cold, hot)
	}
	src.write(t, metric.Series{Name: "m", Type: metric.Gauge, Interval: 10, Tags: metric.NewTags("id:1"), Points: []metric.Point{{Time: 7000, Value: 5}}})
	if late := read(query.Window{From: 6040, To: 9639}); late < 3600 {
		t.Errorf("after a late point %d s are read, want all", late)
	}
	for i := range 200 {
		read(query.Window{From: 6000 - int64(i), To: 9600})
	}
	if s := cache.Stats(); s.Values > 10_000 || s.Values == 0 {
		t.Errorf("%d values are held, want some, and at most 10 000", s.Values)
	}
	if s := query.NewCache(0).Stats(); s != (query.CacheStats{}) {
		t.Errorf("no cache: %+v", s)
	}
}
