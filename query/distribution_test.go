package query_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"kelpie.dev/kelpie/metric"
	"kelpie.dev/kelpie/query"
	"kelpie.dev/kelpie/query/querytest"
)

// Whatever the contexts and buckets that values come in, a percentile is within
// the sketch's accuracy of the value of its rank, and the rest is exact.
func TestDistributionsMergeAllValues(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var values []float64
		var ds []metric.Distribution
		for i := range rapid.IntRange(1, 5).Draw(t, "contexts") {
			d := metric.Distribution{Name: "m", Host: fmt.Sprint("h", i)}
			for at := range rapid.IntRange(1, 6).Draw(t, "buckets") {
				var b metric.SketchBuilder
				for _, v := range rapid.SliceOfN(rapid.IntRange(-1000, 100_000), 1, 20).Draw(t, "values") {
					values = append(values, float64(v))
					b.Add(float64(v), 1)
				}
				d.Points = append(d.Points, metric.SketchPoint{Time: int64(10 * at), Sketch: b.Sketch()})
			}
			ds = append(ds, d)
		}
		src := &querytest.Memory{}
		if err := src.Load(context.Background(), nil, ds); err != nil {
			t.Fatal(err)
		}
		ask := func(aggregator string) float64 {
			e, err := query.Parse(aggregator + ":m{*}.rollup(60)")
			if err != nil {
				t.Fatal(err)
			}
			got, err := query.Eval(context.Background(), src, e, query.Window{From: 0, To: 59})
			if err != nil || len(got) != 1 || len(got[0].Points) != 1 {
				t.Fatalf("%s: %v, %v", aggregator, got, err)
			}
			return got[0].Points[0].Value
		}
		slices.Sort(values)
		sum := 0.0
		for _, v := range values {
			sum += v
		}
		n := float64(len(values))
		for aggregator, want := range map[string]float64{
			"count": n, "sum": sum, "avg": sum / n, "min": values[0], "max": values[len(values)-1], "p0": values[0], "p100": values[len(values)-1],
		} {
			if got := ask(aggregator); got != want {
				t.Errorf("%s = %v, want %v", aggregator, got, want)
			}
		}
		for _, p := range []float64{1, 25, 50, 75, 90, 95, 99, 99.9} {
			want := values[int(math.RoundToEven(p/100*(n-1)))]
			if got := ask(fmt.Sprint("p", p)); math.Abs(got-want) > metric.SketchAccuracy*math.Abs(want) {
				t.Errorf("p%v = %v, want %v within %v of it", p, got, want, metric.SketchAccuracy)
			}
		}
	})
}

// endless yields contexts until it is stopped.
type endless struct {
	sourceFunc
	yielded int
	err     error
}

func (s *endless) Distributions(context.Context, query.Selector, int64, int64) iter.Seq2[*metric.Distribution, error] {
	return func(yield func(*metric.Distribution, error) bool) {
		for ; s.yielded < 1_000_000; s.yielded++ {
			var b metric.SketchBuilder
			b.Add(1, 1)
			d := metric.Distribution{Name: "m", Host: fmt.Sprint(s.yielded), Points: []metric.SketchPoint{{Time: 5, Sketch: b.Sketch()}}}
			if !yield(&d, nil) {
				return
			}
			if s.err != nil {
				yield(nil, s.err)
				return
			}
		}
	}
}

func TestDistributionsAreBounded(t *testing.T) {
	w := query.Window{From: 0, To: 60}
	src := &endless{}
	_, err := query.Eval(t.Context(), src, parse(t, "p95:m{*} by {host}"), w)
	var limit *query.Error
	if !errors.As(err, &limit) || limit.Kind != query.Limit || src.yielded != query.MaxGroups {
		t.Errorf("%v after %d contexts, want a limit after %d", err, src.yielded, query.MaxGroups)
	}
	src = &endless{err: errors.New("disk on fire")}
	if _, err = query.Eval(t.Context(), src, parse(t, "p95:m{*}"), w); !errors.Is(err, src.err) {
		t.Errorf("error %v, want the source's", err)
	}
}

func BenchmarkPercentile(b *testing.B) {
	src := &querytest.Memory{}
	var ds []metric.Distribution
	for c := range 100 {
		d := metric.Distribution{Name: "m", Host: fmt.Sprint("h", c)}
		for at := range int64(30) {
			var sb metric.SketchBuilder
			for i := range 200 {
				sb.Add(math.Exp(math.Sin(float64(i*c)))*100, 1)
			}
			d.Points = append(d.Points, metric.SketchPoint{Time: 10 * at, Sketch: sb.Sketch()})
		}
		ds = append(ds, d)
	}
	if err := src.Load(b.Context(), nil, ds); err != nil {
		b.Fatal(err)
	}
	e := parse(b, "p95:m{*}.rollup(60)")
	b.ReportAllocs()
	for b.Loop() {
		if _, err := query.Eval(b.Context(), src, e, query.Window{From: 0, To: 299}); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(100*30*b.N)/b.Elapsed().Seconds(), "sketches/s")
}
