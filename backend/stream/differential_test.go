package stream

import (
	"errors"
	"fmt"
	"math"
	"net/http"
	"testing"
	"time"

	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"kelpie.dev/kelpie/backend/record"
	"kelpie.dev/kelpie/backend/store"
	"kelpie.dev/kelpie/metric"
	"kelpie.dev/kelpie/query"
	vs "kelpie.dev/kelpie/valuestream"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type anybody struct{}

func (anybody) Read(*http.Request) error { return nil }

const t0 = 1_700_000_000

// asked are the queries that may stand: every way in which a leaf is read, and
// what is made of leaves, by functions that look back too.
var asked = []string{
	"avg:hits{*}", "sum:hits{team:a}", "sum:hits{team:a,!id:1}.rollup(30)", "max:hits{id:1 OR id:2}.rollup(max, 60)", "hits{host:h1}",
	"sum:hits{*}.as_count()", "sum:hits{*}.as_rate().rollup(20)", "sum:hits{id IN (0,2)}.as_count().rollup(45)", "count:hits{team:*}.rollup(count, 40)",
	"avg:queue{*}", "min:queue{team:b}.rollup(min, 90)", "sum:hits{*}.as_count() / count:hits{*}", "abs(-sum:queue{team:a}) * 2 + 1",
	"clamp_min(avg:queue{id:*}, 10)", "default_zero(sum:queue{id:3})", "avg:hits{nobody:home}", "sum:hits{*} by {team}", "sum:hits{team:a} by {team}",
	"p95:took{*}", "avg:took{team:a}", "count:took{*}.as_count().rollup(30)", "max:took{host:h0}.rollup(60)", "p50:hits{*}",
	"sum:hits{zone:x}", "avg:hits{!zone:x,team:a}", "sum:hits{zone:y} by {zone}", "max:took{zone:x}",
	"moving_rollup(sum:hits{*}, 60, 'avg')", "ewma_5(avg:queue{*})", "timeshift(sum:hits{*}, -30)", "per_second(avg:queue{*})", "diff(sum:hits{team:a})",
	"count(v: v>=50):took{*}", "stddev:took{*}.rollup(60)", "sum:queue{*}.weighted().rollup(60)", "top(avg:hits{*} by {team}, 1, 'max', 'desc')",
	"count_nonzero(sum:hits{*} by {team,host})", "throughput(exclude_null(sum:queue{*} by {absent}))", "cumsum(sum:hits{*})",
}

// world is a store, a Stream that it feeds, and their clock.
type world struct {
	now      time.Time
	store    *store.Store
	book     *record.Book
	source   *record.Joined
	stream   *Stream
	sub      *subscriber
	next     uint64
	appended int64 // when points, or tags of a host, last came
}

func (w *world) clock() time.Time { return w.now }

func newWorld(t testing.TB, dir string) *world {
	w := &world{now: time.Unix(t0, 0), sub: newSubscriber()}
	var err error
	w.store, err = store.Open(store.Options{Dir: dir, MinFree: -1, MaxMetricSeries: 200, Now: w.clock,
		Accepted: func(s []metric.Series, c []uint64, d []metric.Distribution) { w.stream.Accepted(s, c, d) }})
	if err != nil {
		t.Fatal(err)
	}
	if w.book, err = record.Open(record.Options{Dir: dir, Now: w.clock}); err != nil {
		t.Fatal(err)
	}
	w.source = w.book.Join(w.store, w.store)
	if w.stream, err = New(Options{Source: w.source, Join: w.source, Auth: anybody{}, Now: w.clock}); err != nil {
		t.Fatal(err)
	}
	return w
}

// step evaluates whatever is due, as Run does.
func (w *world) step(t testing.TB) {
	ask, missing := w.stream.step()
	if len(missing) > 0 {
		w.stream.load(t.Context(), missing)
		again, _ := w.stream.step()
		ask = append(ask, again...)
	}
	if len(ask) > 0 {
		w.stream.ask(t.Context(), ask)
	}
}

// TestStreamIsTheStoresValue holds the one definition of a value together: at
// every moment each standing query is worth what it is when it is evaluated over
// the store, whatever came in which order.
func TestStreamIsTheStoresValue(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		w := newWorld(t, t.TempDir())
		defer func() {
			if err := errors.Join(w.book.Close(), w.store.Close()); err != nil {
				r.Fatal(err)
			}
		}()
		compared := 0
		r.Repeat(map[string]func(*rapid.T){
			"append": func(r *rapid.T) { w.append(t, r) },
			"time": func(r *rapid.T) {
				w.now = w.now.Add(time.Duration(rapid.SampledFrom([]int{0, 1, 1, 2, 7, 10, 21, 60, 400, 1300}).Draw(r, "seconds")) * time.Second)
			},
			"want": func(r *rapid.T) {
				w.next++
				w.stream.want(t.Context(), w.sub, &vs.WatchRequest{Want: []*vs.Want{{Id: w.next, Query: rapid.SampledFrom(asked).Draw(r, "query")}}})
			},
			"host": func(r *rapid.T) {
				h := record.Host{Name: rapid.SampledFrom([]string{"h0", "h1"}).Draw(r, "host"), Seen: w.now.Unix()}
				h.Tags = metric.NewTags(rapid.SampledFrom([]string{"zone:x", "zone:y", ""}).Draw(r, "tag"))
				w.appended = w.now.Unix()
				if err := w.book.SetHost(t.Context(), h); err != nil {
					r.Fatal(err)
				}
			},
			"drop": func(r *rapid.T) {
				if w.next > 0 {
					w.stream.want(t.Context(), w.sub, &vs.WatchRequest{Drop: []uint64{rapid.Uint64Range(1, w.next).Draw(r, "id")}})
				}
			},
			"": func(r *rapid.T) {
				w.step(t)
				for _, q := range w.sub.queries {
					w.compare(t, r, q)
					compared++
				}
			},
		})
	})
}

func (w *world) append(t *testing.T, r *rapid.T) {
	w.appended = w.now.Unix()
	at := func() int64 {
		return w.now.Unix() - rapid.OneOf(rapid.Int64Range(0, 12), rapid.Int64Range(-20, 60), rapid.Int64Range(0, 1500)).Draw(r, "age")
	}
	tags := func() metric.Tags {
		return metric.NewTags(
			"team:"+rapid.SampledFrom([]string{"a", "b"}).Draw(r, "team"),
			fmt.Sprintf("id:%d", rapid.IntRange(0, 3).Draw(r, "id")), "id:9", "bare")
	}
	var series []metric.Series
	var distributions []metric.Distribution
	for range rapid.IntRange(1, 4).Draw(r, "series") {
		host := rapid.SampledFrom([]string{"h0", "h1", "H1", ""}).Draw(r, "host")
		n := rapid.IntRange(1, 3).Draw(r, "points")
		switch name := rapid.SampledFrom([]string{"hits", "hits", "queue", "took"}).Draw(r, "name"); name {
		case "took":
			d := metric.Distribution{Name: name, Host: host, Tags: tags()}
			for range n {
				var b metric.SketchBuilder
				for range rapid.IntRange(1, 3).Draw(r, "values") {
					b.Add(float64(rapid.IntRange(1, 100).Draw(r, "value")), 1)
				}
				p := metric.SketchPoint{Time: at()}
				p.Sketch = b.Sketch()
				d.Points = append(d.Points, p)
			}
			distributions = append(distributions, d)
		default:
			s := metric.Series{Name: name, Host: host, Tags: tags(), Type: metric.Gauge, Interval: rapid.SampledFrom([]int64{10, 10, 15}).Draw(r, "interval")}
			if name == "hits" {
				s.Type = rapid.SampledFrom([]metric.Type{metric.Rate, metric.Rate, metric.Rate, metric.Count}).Draw(r, "type")
				s.Interval = rapid.SampledFrom([]int64{10, 10, 1, 1, 0}).Draw(r, "interval")
			}
			for range n {
				v := float64(rapid.IntRange(-50, 50).Draw(r, "value"))
				if rapid.IntRange(0, 20).Draw(r, "odd") == 0 {
					v = math.NaN()
				}
				s.Points = append(s.Points, metric.Point{Time: at(), Value: v})
			}
			series = append(series, s)
		}
	}
	if err := w.store.Append(t.Context(), series); err != nil {
		r.Fatal(err)
	}
	if err := w.store.AppendDistributions(t.Context(), distributions); err != nil {
		r.Fatal(err)
	}
}

func (w *world) compare(t *testing.T, r *rapid.T, q *query.StandingQuery) {
	got, known := q.Last()
	if !known {
		r.Fatalf("%s: not evaluated", q.Text)
	}
	if !query.Pointwise(q.Expr) && w.appended == w.now.Unix() {
		return // asked of the store once a second, perhaps before this one's points
	}
	want, ok, err := query.Value(t.Context(), w.source, q.Expr, w.now.Unix())
	switch {
	case err != nil || got.Err != nil:
		if err == nil || got.Err == nil || err.Error() != got.Err.Error() {
			r.Fatalf("%s: error %v, want %v", q.Text, got.Err, err)
		}
	case ok != got.OK:
		r.Fatalf("%s: there is a value: %v %v, want %v %v", q.Text, got.OK, got.Reading, ok, want)
	case ok && (got.Time != want.Time || math.Abs(got.Value-want.Value) > 1e-9*math.Max(1, math.Abs(want.Value))):
		r.Fatalf("%s at %d: %v, want %v", q.Text, w.now.Unix()-t0, got.Reading, want)
	}
}
