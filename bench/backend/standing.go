package main

import (
	"context"
	"fmt"
	"os"

	"kelpie.dev/kelpie/bench/figure"
)

// standingTask is to keep queries up to date. Contexts of metrics and deployments
// that no query names are there as well: Other of a read metric, Unread of
// another.
type standingTask struct {
	Load   load
	Narrow int // queries of one deployment each, the first ones
	Wide   int // queries that read all of the metric
	Other  int
	Unread int
	Rounds int    // seconds that are measured
	Steps  int    // in a second, evenly; 0 means one
	Dir    string // of a store, for what is evaluated from it
	Sample int    // narrow queries to evaluate from it
}

// stood is what a second took.
type stood struct {
	Observe, Step float64 // ms of processor time, the median second
	Worst         float64 // ms, both, the worst second
	Changed       int     // values in a second
	PerQuery      float64 // bytes
	PerContext    float64 // bytes, with ten seconds of points
	Values        map[string]float64
}

func (s stood) second() float64 { return s.Observe + s.Step }

// wideQueries read everything, each in another way.
var wideQueries = []string{"avg", "sum", "min", "max"}

// texts are t's queries, the narrow ones first.
func (t standingTask) texts() (narrow, wide []string) {
	for d := range t.Narrow {
		narrow = append(narrow, fmt.Sprintf("avg:%s{kube_deployment:web-%d}", t.Load.name(0), d))
	}
	for i := range t.Wide {
		// Ten texts of one meaning would be one.
		wide = append(wide, fmt.Sprintf("%s:%s{*}.rollup(avg, %d)", wideQueries[i%len(wideQueries)], t.Load.name(0), 10+i/len(wideQueries)))
	}
	return narrow, wide
}

// standing measures a second's batch for standing queries, beside evaluating each
// from the store, and how that grows.
func (r *run) standing(ctx context.Context) error {
	defer func() { _ = r.clear() }()
	scale := pick(r, 1, 10)
	main := standingTask{
		Load:   load{Contexts: 100_000 / scale, Deployments: 10_000 / scale, Names: 1, Interval: fastInterval},
		Narrow: 10_000 / scale, Wide: 10, Rounds: pick(r, 10, 3), Dir: r.file("store"), Sample: pick(r, 500, 50),
	}
	var all, narrow, often stood
	var each evaluated
	if err := r.work(ctx, "standing", main, &all); err != nil {
		return err
	}
	if err := r.work(ctx, "value", main, &each); err != nil {
		return err
	}
	for text, value := range each.Values {
		if got, ok := all.Values[text]; !ok || !same(got, value) {
			return fmt.Errorf("%s is %v as a standing query and %v from the store", text, got, value)
		}
	}
	t := main
	t.Wide = 0
	if err := r.work(ctx, "standing", t, &narrow); err != nil {
		return err
	}
	t = main
	t.Steps = 10
	if err := r.work(ctx, "standing", t, &often); err != nil {
		return err
	}
	table := figure.Table{
		Title:  fmt.Sprintf("Standing queries: a second's batch of %d points, one core, ms of processor time", main.Load.Contexts),
		Header: []string{"", "queries", "taken", "evaluated", "both", "worst second", "values changed"},
		Notes: []string{
			fmt.Sprintf("A query takes %.0f bytes, a series with ten points %.0f.", all.PerQuery, all.PerContext),
			fmt.Sprintf("Asked for, a query of 10 series takes %.3g ms by query.Value and %.3g ms by the query API, one of all %.4g and %.4g ms: means of %d and of %d.",
				each.Narrow, each.NarrowAPI, each.Wide, each.WideAPI, min(main.Sample, main.Narrow), main.Wide),
		},
	}
	row(&table, "10 series each, and 10 that read all", main, all)
	row(&table, "the same without those 10", t.without(), narrow)
	row(&table, "the same with them, in 10 steps a second", t, often)
	if err := table.WriteText(os.Stdout); err != nil {
		return err
	}
	n, w := float64(main.Narrow), float64(main.Wide)
	for _, c := range []struct {
		name, peer   string
		narrow, wide float64
	}{{"standing_queries", "query API", each.NarrowAPI, each.WideAPI}, {"standing_queries_value", "query.Value", each.Narrow, each.Wide}} {
		r.report.Compare(c.name, "ms/s", figure.LowerIsBetter, all.second(), figure.Value{Program: c.peer, Value: c.narrow*n + c.wide*w})
		r.report.Compare(c.name+"_narrow", "ms/s", figure.LowerIsBetter, narrow.second(), figure.Value{Program: c.peer, Value: c.narrow * n})
	}
	r.report.Limit("standing_queries_second", "ms/s", all.second(), 100)
	r.report.Compare("standing_query_bytes", "B", figure.LowerIsBetter, all.PerQuery)
	r.report.Compare("standing_context_bytes", "B", figure.LowerIsBetter, all.PerContext)
	return r.curves(ctx)
}

func (t standingTask) without() standingTask {
	t.Wide = 0
	return t
}

func row(table *figure.Table, name string, t standingTask, s stood) {
	table.Add(name, fmt.Sprint(t.Narrow+t.Wide), ms(s.Observe), ms(s.Step), ms(s.second()), ms(s.Worst), fmt.Sprint(s.Changed))
}

// curves shows what a second costs as what matches grows, and as what does not.
func (r *run) curves(ctx context.Context) error {
	base := pick(r, 1000, 100) // contexts at 1×
	table := figure.Table{
		Title:  fmt.Sprintf("100 standing queries, a second's batch, ms of processor time (1× is %d series)", base),
		Header: []string{"", "1×", "10×", "100×"},
	}
	for _, c := range []struct {
		name string
		task func(n int) standingTask
	}{
		{"what matches grows, 10× of what does not in each", func(n int) standingTask { return curve(base*n, base*10, 0) }},
		{"other tags of the same metric grow, 10× matches", func(n int) standingTask { return curve(base*10, base*n, 0) }},
		{"metrics that no query reads grow, 10× matches", func(n int) standingTask { return curve(base*10, 0, base*n) }},
	} {
		cells := []string{c.name}
		for _, n := range []int{1, 10, 100} {
			t := c.task(n)
			t.Rounds = pick(r, 20, 5)
			var s stood
			if err := r.work(ctx, "standing", t, &s); err != nil {
				return err
			}
			cells = append(cells, ms(s.second()))
		}
		table.Add(cells...)
	}
	return table.WriteText(os.Stdout)
}

func curve(matching, other, unread int) standingTask {
	return standingTask{Load: load{Contexts: matching, Deployments: 100, Names: 1, Interval: fastInterval}, Narrow: 100, Other: other, Unread: unread}
}
