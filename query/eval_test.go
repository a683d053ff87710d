package query_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"kelpie.dev/kelpie/metric"
	"kelpie.dev/kelpie/query"
	"kelpie.dev/kelpie/query/querytest"
	"pgregory.net/rapid"
)

// sourceFunc is a Source from a function.
type sourceFunc func(ctx context.Context, sel query.Selector, from, to int64) ([]metric.Series, error)

func (f sourceFunc) Select(ctx context.Context, sel query.Selector, from, to int64) ([]metric.Series, error) {
	return f(ctx, sel, from, to)
}

func parse(t testing.TB, text string) query.Expr {
	t.Helper()
	e, err := query.Parse(text)
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return e
}

// anySeries draws up to a dozen contexts of the metric m around time 0 to 600.
func anySeries(t *rapid.T) []metric.Series {
	n := rapid.IntRange(0, 12).Draw(t, "contexts")
	out := make([]metric.Series, n)
	for i := range out {
		s := metric.Series{
			Name:     "m",
			Host:     fmt.Sprintf("h%d", i%4),
			Tags:     metric.NewTags(fmt.Sprintf("id:%d", i), fmt.Sprintf("team:%d", i%3), fmt.Sprintf("team:%d", i%5)),
			Type:     rapid.SampledFrom([]metric.Type{metric.Unspecified, metric.Count, metric.Rate, metric.Gauge}).Draw(t, "type"),
			Interval: rapid.SampledFrom([]int64{0, 1, 10, 60}).Draw(t, "interval"),
		}
		for _, at := range rapid.SliceOfNDistinct(rapid.Int64Range(-300, 700), 0, 30, rapid.ID[int64]).Draw(t, "times") {
			s.Points = append(s.Points, metric.Point{Time: at, Value: float64(rapid.IntRange(-50, 50).Draw(t, "value"))})
		}
		slices.SortFunc(s.Points, func(a, b metric.Point) int { return int(a.Time - b.Time) })
		out[i] = s
	}
	return out
}

var anyModifiers = rapid.SampledFrom([]string{"", ".rollup(10)", ".rollup(max, 30)", ".as_count()", ".as_rate().rollup(60)", ".fill(null)", ".fill(last, 60).rollup(20)"})

// selectFrom answers like a store, in the order in which series are given.
func selectFrom(series []metric.Series) sourceFunc {
	return func(_ context.Context, sel query.Selector, from, to int64) ([]metric.Series, error) {
		var out []metric.Series
		for _, s := range series {
			kept := s
			kept.Points = nil
			for _, p := range s.Points {
				if p.Time >= from && p.Time <= to {
					kept.Points = append(kept.Points, p)
				}
			}
			if s.Name == sel.Metric && len(kept.Points) > 0 && sel.Scope.Match(query.TagsOf(s)) {
				out = append(out, kept)
			}
		}
		return out, nil
	}
}

// An evaluation is the same whatever the order of the source's answer, its
// points are ascending bucket starts in the window, and results are sorted.
func TestEvalInvariants(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		series := anySeries(t)
		aggregator := rapid.SampledFrom([]string{"avg", "sum", "min", "max", "count"}).Draw(t, "aggregator")
		by := rapid.SampledFrom([]string{"", " by {host}", " by {team}", " by {team,host,absent}"}).Draw(t, "by")
		e, err := query.Parse(aggregator + ":m{*}" + by + anyModifiers.Draw(t, "modifiers"))
		if err != nil {
			t.Fatal(err)
		}
		w := query.Window{From: rapid.Int64Range(-20, 100).Draw(t, "from"), To: rapid.Int64Range(100, 700).Draw(t, "to")}
		got, err := query.Eval(context.Background(), selectFrom(series), e, w)
		if err != nil {
			t.Fatal(err)
		}
		shuffled := slices.Clone(series)
		rand.New(rand.NewPCG(1, uint64(len(series)))).Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
		again, err := query.Eval(context.Background(), selectFrom(shuffled), e, w)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(got, again, cmpopts.EquateNaNs()); diff != "" {
			t.Fatalf("the order of the source shows (-first +second):\n%s", diff)
		}
		for i, r := range got {
			if i > 0 && slices.Compare(got[i-1].Tags, r.Tags) >= 0 {
				t.Fatalf("results are not sorted: %v, %v", got[i-1].Tags, r.Tags)
			}
			last := int64(math.MinInt64)
			for _, p := range r.Points {
				if p.Time <= last || p.Time < w.From || p.Time > w.To || p.Time%r.Interval != 0 {
					t.Fatalf("point at %d after %d in window %+v with interval %d", p.Time, last, w, r.Interval)
				}
				last = p.Time
			}
		}
	})
}

// Grouping by a key that every context bears once splits a sum without a rest.
func TestGroupsSumToWhole(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		src := selectFrom(anySeries(t))
		modifiers := rapid.SampledFrom([]string{".as_count().rollup(20)", ".rollup(sum, 10)"}).Draw(t, "modifiers")
		w := query.Window{From: 0, To: 600}
		eval := func(text string) []query.Result {
			e, err := query.Parse(text)
			if err != nil {
				t.Fatal(err)
			}
			r, err := query.Eval(context.Background(), src, e, w)
			if err != nil {
				t.Fatal(err)
			}
			return r
		}
		// Without .fill(null), gauges among others are interpolated.
		whole := map[int64]float64{}
		for _, r := range eval("sum:m{*}" + modifiers + ".fill(null)") {
			for _, p := range r.Points {
				whole[p.Time] = p.Value
			}
		}
		parts := map[int64]float64{}
		for _, r := range eval("sum:m{*} by {id}" + modifiers + ".fill(null)") {
			for _, p := range r.Points {
				parts[p.Time] += p.Value
			}
		}
		if diff := cmp.Diff(whole, parts, cmpopts.EquateApprox(1e-9, 1e-9)); diff != "" {
			t.Fatalf("-whole +parts:\n%s", diff)
		}
	})
}

func TestSourceError(t *testing.T) {
	broken := errors.New("disk on fire")
	src := sourceFunc(func(context.Context, query.Selector, int64, int64) ([]metric.Series, error) { return nil, broken })
	_, err := query.Eval(t.Context(), src, parse(t, "1 + abs(sum:m{a:b})"), query.Window{To: 10})
	if !errors.Is(err, broken) || err.Error() != "select m{a:b}: disk on fire" {
		t.Errorf("got %v", err)
	}
}

func TestWindowErrors(t *testing.T) {
	for _, w := range []query.Window{{From: 10, To: 9}, {To: math.MaxInt64}, {From: math.MinInt64}, {Interval: -1}, {Interval: math.MaxInt64}} {
		if _, err := query.Eval(t.Context(), &querytest.Memory{}, parse(t, "m{*}"), w); err == nil {
			t.Errorf("window %+v is accepted", w)
		}
	}
}

func TestWindowInterval(t *testing.T) {
	m := &querytest.Memory{}
	s := metric.Series{Name: "m", Points: []metric.Point{{Time: 0, Value: 1}, {Time: 10, Value: 2}, {Time: 40, Value: 3}}}
	if err := m.Load(t.Context(), []metric.Series{s}, nil); err != nil {
		t.Fatal(err)
	}
	f := func(text string, interval int64, want []query.Point) {
		t.Helper()
		got, err := query.Eval(t.Context(), m, parse(t, text), query.Window{To: 59, Interval: interval})
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got[0].Points); diff != "" {
			t.Errorf("%s by %d s:\n%s", text, interval, diff)
		}
	}
	f("m{*}", 30, []query.Point{{Time: 0, Value: 1.5}, {Time: 30, Value: 3}})
	f("m{*}.rollup(20)", 30, []query.Point{{Time: 0, Value: 1.5}, {Time: 40, Value: 3}})
}

// Numbers that JSON does not have do not come out.
func TestNotFinite(t *testing.T) {
	src := selectFrom([]metric.Series{
		{Name: "m", Host: "a", Points: []metric.Point{{Time: 0, Value: math.NaN()}, {Time: 10, Value: math.Inf(1)}, {Time: 20, Value: math.MaxFloat64}}},
		{Name: "m", Host: "b", Points: []metric.Point{{Time: 20, Value: math.MaxFloat64}}},
	})
	got, err := query.Eval(t.Context(), src, parse(t, "sum:m{*}.rollup(10)"), query.Window{To: 29})
	if err != nil {
		t.Fatal(err)
	}
	want := []query.Point{{Time: 20, Value: math.NaN()}}
	if diff := cmp.Diff(want, got[0].Points, cmpopts.EquateNaNs()); diff != "" {
		t.Error(diff)
	}
}

func TestGroupLimit(t *testing.T) {
	var series []metric.Series
	for i := range query.MaxGroups + 1 {
		series = append(series, metric.Series{Name: "m", Tags: metric.NewTags(fmt.Sprintf("id:%d", i)), Points: []metric.Point{{Time: 0, Value: 1}}})
	}
	_, err := query.Eval(t.Context(), selectFrom(series), parse(t, "sum:m{*} by {id}"), query.Window{To: 9})
	var e *query.Error
	if !errors.As(err, &e) || e.Kind != query.Limit {
		t.Errorf("got %v", err)
	}
	// One context with many values of many keys is no way around it.
	var tags []string
	for i := range 200 {
		tags = append(tags, fmt.Sprintf("a:%d", i), fmt.Sprintf("b:%d", i), fmt.Sprintf("c:%d", i))
	}
	one := []metric.Series{{Name: "m", Tags: metric.NewTags(tags...), Points: []metric.Point{{Time: 0, Value: 1}}}}
	_, err = query.Eval(t.Context(), selectFrom(one), parse(t, "sum:m{*} by {a,b,c}"), query.Window{To: 9})
	if !errors.As(err, &e) || e.Kind != query.Limit {
		t.Errorf("got %v", err)
	}
}

func TestCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	src := selectFrom([]metric.Series{{Name: "m", Points: []metric.Point{{Time: 0, Value: 1}}}})
	if _, err := query.Eval(ctx, src, parse(t, "m{*}"), query.Window{To: 9}); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func TestGroupBy(t *testing.T) {
	got := query.GroupBy(parse(t, "abs(a{*} by {x,y}) / b{*} by {y} + c{*}"))
	if diff := cmp.Diff([]string{"x", "y"}, got); diff != "" {
		t.Error(diff)
	}
}
