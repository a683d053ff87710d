package query

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"kelpie.dev/kelpie/metric"
)

// some is a Source of series in memory that notes how far back it is read.
type some struct {
	series   []metric.Series
	earliest *int64
}

func (s some) Select(_ context.Context, sel Selector, from, to int64) ([]metric.Series, error) {
	if s.earliest != nil {
		*s.earliest = min(*s.earliest, from)
	}
	var out []metric.Series
	for _, one := range s.series {
		one.Points = slices.DeleteFunc(slices.Clone(one.Points), func(p metric.Point) bool { return p.Time < from || p.Time > to })
		if len(one.Points) > 0 && one.Name == sel.Metric && sel.Scope.Match(TagsOf(one)) {
			out = append(out, one)
		}
	}
	return out, nil
}

// anyData draws up to six contexts of m between 0 and 300.
func anyData(t *rapid.T) []metric.Series {
	random := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "data"), 0))
	out := make([]metric.Series, random.IntN(7))
	for i := range out {
		s := metric.Series{
			Name: "m", Host: fmt.Sprint("h", i%3), Tags: metric.NewTags(fmt.Sprint("team:", i%2), fmt.Sprint("id:", i)),
			Type:     []metric.Type{metric.Count, metric.Rate, metric.Gauge}[random.IntN(3)],
			Interval: []int64{0, 1, 10}[random.IntN(3)],
		}
		every := []int64{1, 10, 15}[random.IntN(3)]
		for at := random.Int64N(100); at < 300; at += every {
			if random.IntN(10) > 0 {
				s.Points = append(s.Points, metric.Point{Time: at, Value: float64(random.IntN(41) - 20)})
			}
		}
		out[i] = s
	}
	return out
}

// values is e at the given instants, null where there is none.
func values(t *rapid.T, src Source, e Expr, instants ...int64) []float64 {
	out := make([]float64, len(instants))
	for i, now := range instants {
		r, ok, err := Value(t.Context(), src, e, now)
		if err != nil {
			t.Fatalf("%s at %d: %v", e, now, err)
		}
		out[i] = null
		if ok {
			out[i] = r.Value
		}
	}
	return out
}

// A value reads nothing older than Lookback says, at most to its instant, and is
// the same every time.
func TestLookback(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		e := anyChecked(3).Draw(t, "expression")
		src := some{series: anyData(t), earliest: new(int64)}
		now := rapid.Int64Range(0, 400).Draw(t, "now")
		*src.earliest = now
		r, ok, err := Value(t.Context(), src, e, now)
		if *src.earliest < now-Lookback(e) {
			t.Fatalf("%s reads %d s back, more than %d", e, now-*src.earliest, Lookback(e))
		}
		again, ok2, err2 := Value(t.Context(), src, e, now)
		if (err == nil) != (err2 == nil) || ok != ok2 || r != again {
			t.Fatalf("%s: %v %v %v, then %v %v %v", e, r, ok, err, again, ok2, err2)
		}
		if ok && (math.IsNaN(r.Value) || math.IsInf(r.Value, 0) || r.Time > now) {
			t.Fatalf("%s: %v at %d", e, r, now)
		}
		if refused := CheckValue(e); (refused != nil) != (err != nil) && !strings.Contains(err.Error(), "groups where one value") {
			t.Fatalf("%s: CheckValue says %v, Value %v", e, refused, err)
		}
	})
}

func TestLookbackOf(t *testing.T) {
	for text, want := range map[string]int64{
		"avg:m{*}":                             1210,
		"avg:m{*}.rollup(60)":                  1260,
		"abs(avg:m{*} + sum:m{*}.rollup(300))": 1500,
		"ewma_3(avg:m{*}.rollup(30))":          1230 + 6*30,
		"ewma_20(avg:m{*})":                    1210 + 46*10,
		"diff(avg:m{*})":                       1220,
		"timeshift(avg:m{*}, -3600)":           4810,
		"moving_rollup(avg:m{*}, 3600, 'max')": 1210 + 359*10,
		"week_before(ewma_3(avg:m{*}))":        604800 + 1270,
	} {
		if got := Lookback(parseFor(t, text)); got != want {
			t.Errorf("%s: %d, want %d", text, got, want)
		}
	}
}

// What is pointwise asks its leaves for its own instant and nothing else, and
// what is not asks for more.
func TestPointwise(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		e := anyChecked(3).Draw(t, "expression")
		src := some{series: anyData(t)}
		ev := &evaluator{}
		only := true
		leaves := leavesOf(src, &ev.newest)
		ev.leaf = func(ctx context.Context, q *Query, at span) ([]series, error) {
			only = only && slices.Equal(at.instants, []int64{200}) && !at.delta.on
			return leaves(ctx, q, at)
		}
		r, ok, err := ev.value(t.Context(), e, 200)
		if err == nil && Pointwise(e) && !only {
			t.Fatalf("%s looks at other instants", e)
		}
		want, wantOK, _ := Value(t.Context(), src, e, 200)
		if ok != wantOK || ok && r != want {
			t.Fatalf("%s: %v %v by its leaves, %v %v by its source", e, r, ok, want, wantOK)
		}
	})
	for text, want := range map[string]bool{
		"avg:m{*}": true, "-abs(clamp_min(avg:m{*}, 2)) / 3 + log2(count_nonzero(avg:m{*} by {host}))": true,
		"top(default_zero(exclude_null(avg:m{*} by {host})), 1, 'max', 'asc')": true, "throughput(avg:m{*})": true,
		"sum(avg:m{*} by {host}, {host})": true, "moving_rollup(avg:m{*}, 10)": true,
		"ewma_3(avg:m{*})": false, "1 + abs(diff(avg:m{*}))": false, "hour_before(avg:m{*})": false, "dt(avg:m{*})": false,
		"moving_rollup(avg:m{*}, 11)": false, "cumsum(avg:m{*})": false,
	} {
		if got := Pointwise(parseFor(t, text)); got != want {
			t.Errorf("%s: %v", text, got)
		}
	}
}

// The value of a function that looks back is the function of the values of its
// argument, a trailing window apart: whatever the argument is.
func TestValueLooksBackAtValues(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		x := anyChecked(2).Draw(t, "argument")
		if len(resultKeys(x)) > 0 || CheckValue(x) != nil {
			return
		}
		src := some{series: anyData(t)}
		now := rapid.Int64Range(0, 400).Draw(t, "now")
		step := stepOf(x)
		var grid []int64
		for k := int64(6); k >= 0; k-- {
			grid = append(grid, now-k*step)
		}
		at := values(t, src, x, grid...)
		ewma := null
		for _, v := range at {
			switch {
			case math.IsNaN(v):
			case math.IsNaN(ewma):
				ewma = v
			default:
				ewma = v/2 + ewma/2
			}
		}
		three := slices.DeleteFunc(slices.Clone(at[4:]), math.IsNaN)
		last := at[6]
		for text, want := range map[string]float64{
			fmt.Sprintf("timeshift(%s, %d)", x, -2*step):            at[4],
			fmt.Sprintf("derivative(%s)", x):                        (last - at[5]) / float64(step),
			fmt.Sprintf("ewma_3(%s)", x):                            ewma + 0*last,
			fmt.Sprintf("median_3(%s)", x):                          summary("median", three) + 0*last,
			fmt.Sprintf("moving_rollup(%s, %d, 'sum')", x, 3*step):  summary("sum", three) + 0*last,
			fmt.Sprintf("moving_rollup(%s, %d, 'max')", x, 3*step):  summary("max", three) + 0*last,
			fmt.Sprintf("rollup(%s, 'count', %d)", x, 3*step):       summary("count", three),
			fmt.Sprintf("abs(timeshift(-(%s), %d))", x, -6*step):    math.Abs(at[0]),
			fmt.Sprintf("ewma_3(timeshift(%s, %d))", x, -100*7*300): null,
		} {
			got := values(t, src, parseFor(t, text), now)[0]
			if math.IsNaN(got) != math.IsNaN(want) || math.Abs(got-want) > 1e-9*max(1, math.Abs(want)) {
				t.Fatalf("%s at %d: %v, want %v of %v", text, now, got, want, at)
			}
		}
	})
}

// What is shifted is what was, in a window as well.
func TestShiftedWindow(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		x := anyChecked(2).Draw(t, "argument")
		src := some{series: anyData(t)}
		const by = 12_600 // a multiple of every interval that is drawn
		for i := range src.series {
			points := slices.Clone(src.series[i].Points)
			for j := range points {
				points[j].Time += by
			}
			src.series[i].Points = points
		}
		w := Window{From: rapid.Int64Range(0, 100).Draw(t, "from"), To: 300}
		want, err := Eval(t.Context(), src, x, Window{From: w.From + by, To: w.To + by})
		if err != nil {
			t.Fatal(err)
		}
		got, err := Eval(t.Context(), src, parseFor(t, fmt.Sprintf("timeshift(%s, %d)", x, 0)), Window{From: w.From + by, To: w.To + by})
		if err != nil {
			t.Fatal(err)
		}
		same(t, x, got, want)
		past := some{}
		for _, s := range src.series {
			s.Points = slices.Clone(s.Points)
			for j := range s.Points {
				s.Points[j].Time -= 2 * by
			}
			past.series = append(past.series, s)
		}
		if got, err = Eval(t.Context(), past, parseFor(t, fmt.Sprintf("timeshift(%s, %d)", x, -2*by)), Window{From: w.From + by, To: w.To + by}); err != nil {
			t.Fatal(err)
		}
		same(t, x, got, want)
	})
}

// same compares tags and points.
func same(t *rapid.T, e Expr, got, want []Result) {
	if len(got) != len(want) {
		t.Fatalf("%s: %d results, want %d", e, len(got), len(want))
	}
	for i := range got {
		if !slices.Equal(got[i].Tags, want[i].Tags) || len(got[i].Points) != len(want[i].Points) {
			t.Fatalf("%s: %v, want %v", e, got[i], want[i])
		}
		for j, p := range got[i].Points {
			q := want[i].Points[j]
			if p.Time != q.Time || p.Null() != q.Null() || math.Abs(p.Value-q.Value) > 1e-9*max(1, math.Abs(q.Value)) {
				t.Fatalf("%s: %v, want %v", e, got[i].Points, want[i].Points)
			}
		}
	}
}

// back gives the instants that it says, however it comes by them.
func TestBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		instants := rapid.SliceOfNDistinct(rapid.Int64Range(-50, 50), 1, 8, rapid.ID[int64]).Draw(t, "instants")
		slices.Sort(instants)
		n, step := rapid.IntRange(1, 20).Draw(t, "n"), rapid.Int64Range(1, 12).Draw(t, "step")
		var want []int64
		for _, at := range instants {
			for k := range int64(n) {
				want = append(want, at-k*step)
			}
		}
		slices.Sort(want)
		got, ok := span{instants: instants}.back(n, step)
		if diff := cmp.Diff(slices.Compact(want), got.instants); diff != "" || !ok {
			t.Fatalf("%v, %d times %d s (-want +got):\n%s", instants, n, step, diff)
		}
	})
	if _, ok := (span{instants: []int64{0, 1}}).back(MaxReach, 10); ok {
		t.Error("twice MaxReach is not too much")
	}
}

func TestCheckValue(t *testing.T) {
	for text, want := range map[string]string{
		"avg:m{*} by {host}":           "",
		"1 + cumsum(avg:m{*})":         `error at 4: function "cumsum" draws on the whole window of a graph and has no value at an instant`,
		"ewma_3(trend_line(sum:m{*}))": `error at 7: function "trend_line" draws on the whole window of a graph and has no value at an instant`,
		"moving_rollup(avg:m{*}, 1000001)": "error at 14: a function reads more than 100000 values of this query in a row; " +
			"roll it up to longer buckets with .rollup(seconds)",
		"frobnicate(avg:m{*})": `error at 0: unknown function "frobnicate"`,
	} {
		got := ""
		if err := CheckValue(parseFor(t, text)); err != nil {
			got = err.Error()
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", text, diff)
		}
	}
}

// A leaf's error is the value's.
func TestLeafError(t *testing.T) {
	broken := errors.New("broken")
	ev := &evaluator{leaf: func(context.Context, *Query, span) ([]series, error) { return nil, broken }}
	for _, name := range names() {
		args := ""
		if options := arguments[name]; options != nil {
			args = options[0]
		}
		e := parseFor(t, callText(name, "avg:m{*} by {host,team}", args))
		if _, _, err := ev.value(t.Context(), e, 0); !errors.Is(err, broken) && CheckValue(e) == nil {
			t.Errorf("%s: %v", e, err)
		}
	}
}

// sparing is some that leaves out all that it may, and gives its series in
// another order each time.
type sparing struct {
	some
	random *rand.Rand
}

func (s sparing) Select(ctx context.Context, sel Selector, from, to int64) ([]metric.Series, error) {
	out, err := s.some.Select(ctx, sel, from, to)
	for i := range out {
		one := &out[i]
		if sel.Untagged {
			one.Host, one.Tags = "", nil
		}
		if newest := one.Points[len(one.Points)-1].Time; sel.Trailing != 0 {
			one.Points = slices.DeleteFunc(one.Points, func(p metric.Point) bool { return p.Time < newest-sel.Trailing })
		}
	}
	s.random.Shuffle(len(out), func(i, j int) { out[i], out[j] = out[j], out[i] })
	return out, err
}

// Pace implements PacedSource.
func (s sparing) Pace(string) (longest int64) {
	for i := range s.series {
		longest = max(longest, s.series[i].Interval)
	}
	return longest
}

// A value is the same to the last bit from a source that leaves out what it may.
func TestSparingSource(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		e := anyChecked(2).Draw(t, "expression")
		if CheckValue(e) != nil {
			t.Skip("no value")
		}
		all := some{series: anyData(t)}
		for i := range all.series { // values that rounding tells apart
			all.series[i].Points = slices.Clone(all.series[i].Points)
			for j := range all.series[i].Points {
				all.series[i].Points[j].Value *= 0.1
			}
		}
		spares := sparing{all, rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "order"), 0))}
		for range 4 {
			now := rapid.Int64Range(0, 2000).Draw(t, "now")
			want, wantOK, wantErr := Value(t.Context(), all, e, now)
			got, ok, err := Value(t.Context(), spares, e, now)
			if ok != wantOK || fmt.Sprint(err) != fmt.Sprint(wantErr) || got != want && !(math.IsNaN(got.Value) && math.IsNaN(want.Value)) {
				t.Fatalf("%s at %d: %v, %v, %v; from a source that leaves nothing out %v, %v, %v", e, now, got, ok, err, want, wantOK, wantErr)
			}
		}
	})
}
