package query_test

import (
	"context"
	"fmt"
	"testing"

	"kelpie.dev/kelpie/metric"
	"kelpie.dev/kelpie/query"
)

// anHour is a source that selects 1000 contexts of one hour at 10 s, whatever
// it is asked.
func anHour(b *testing.B) query.Source {
	series := make([]metric.Series, 1000)
	for i := range series {
		s := metric.Series{
			Name: "m", Host: fmt.Sprintf("host-%d", i%100), Type: metric.Rate, Interval: 10,
			Tags: metric.NewTags(fmt.Sprintf("pod:%d", i), "env:prod", fmt.Sprintf("zone:%d", i%3)),
		}
		for at := int64(0); at < 3600; at += 10 {
			s.Points = append(s.Points, metric.Point{Time: at, Value: float64(at % 70)})
		}
		series[i] = s
	}
	src := selectFrom(series)
	all, err := src.Select(b.Context(), query.Selector{Metric: "m", Scope: query.All{}}, 0, 3600)
	if err != nil {
		b.Fatal(err)
	}
	return sourceFunc(func(context.Context, query.Selector, int64, int64) ([]metric.Series, error) { return all, nil })
}

// BenchmarkEval evaluates 1000 contexts of one hour at 10 s.
func BenchmarkEval(b *testing.B) {
	selected := anHour(b)
	for _, text := range []string{"avg:m{*}", "sum:m{*} by {host}.as_count().rollup(60)", "sum:m{*} by {zone} / sum:m{*}"} {
		e := parse(b, text)
		b.Run(text, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := query.Eval(b.Context(), selected, e, query.Window{To: 3600}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkFunctions evaluates functions of 1000 groups of one hour, each of 180
// points.
func BenchmarkFunctions(b *testing.B) {
	selected := anHour(b)
	for _, name := range []string{
		"%s", "abs(%s)", "ewma_10(%s)", "median_9(%s)", "per_second(%s)", "diff(%s)", "top10(%s)", "count_nonzero(%s)", "default_zero(%s)",
		"moving_rollup(%s, 600, 'avg')", "moving_rollup(%s, 600, 'median')", "rollup(%s, 'p95', 300)", "max(%s, {pod})", "robust_trend(%s)",
	} {
		text := fmt.Sprintf(name, "avg:m{*} by {pod}")
		e := parse(b, text)
		b.Run(text, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := query.Eval(b.Context(), selected, e, query.Window{To: 3600}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkValue evaluates 1000 contexts at an instant.
func BenchmarkValue(b *testing.B) {
	selected := anHour(b)
	for _, text := range []string{"avg:m{*}", "sum:m{*}.rollup(60)", "ewma_10(avg:m{*})", "moving_rollup(avg:m{*}, 1800, 'max')"} {
		e := parse(b, text)
		b.Run(text, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, ok, err := query.Value(b.Context(), selected, e, 3500); err != nil || !ok {
					b.Fatal(ok, err)
				}
			}
		})
	}
}

func BenchmarkParse(b *testing.B) {
	const text = "avg:nginx.net.request_per_s{kube_container_name:nginx,env:prod}.rollup(30) / sum:m{a:b OR c:d} by {host}.as_count()"
	b.ReportAllocs()
	for b.Loop() {
		if _, err := query.Parse(text); err != nil {
			b.Fatal(err)
		}
	}
}
