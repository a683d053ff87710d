package queryapi

import (
	"context"
	"fmt"
	"iter"
	"slices"
	"strings"

	"kelpie.dev/kelpie/metric"
	"kelpie.dev/kelpie/metric/payload"
	"kelpie.dev/kelpie/query"
)

// answerScalar makes one value of each group of every query, and computes the
// formulas of these values.
func (a *API) answerScalar(ctx context.Context, q *question) (any, int, error) {
	reduced := make([][]query.Result, len(q.queries))
	if !q.empty {
		for i, e := range q.queries {
			var err error
			if reduced[i], err = a.reduced(ctx, q.win, e, q.Queries[i]); err != nil {
				return nil, 0, fmt.Errorf("data.attributes.queries[%d]: %w", i, err)
			}
		}
	}
	answers := reduced
	if len(q.Formulas) > 0 {
		var err error
		if answers, err = q.overScalars(ctx, reduced); err != nil {
			return nil, 0, err
		}
	}
	t := newTable(q)
	for i, results := range answers {
		t.add(i, limited(results, q.limitOf(i), func(r query.Result) float64 { return reduce(r, "last") }))
	}
	return &t.resp, len(t.rows), nil
}

// reduced evaluates e and makes one point of the points of each group.
func (a *API) reduced(ctx context.Context, win query.Window, e query.Expr, asked payload.FormulaQuery) ([]query.Result, error) {
	src := a.opts.Source
	if asked.Aggregator == "percentile" {
		for leaf := range query.Queries(e) {
			if !strings.HasPrefix(leaf.Aggregator.Name, "p") {
				return nil, &query.Error{Kind: query.Unsupported, Query: asked.Query, Offset: leaf.Pos().Start,
					Message: `aggregator "percentile" needs a query of a percentile, such as p95:` + leaf.Metric + "{*}"}
			}
		}
		src, win = collapsed{src, win}, query.Window{Interval: 1}
	}
	results, err := a.opts.Cache.Eval(ctx, src, e, win)
	if err != nil {
		return nil, err
	}
	for i := range results {
		results[i].Points = []query.Point{{Value: reduce(results[i], asked.Aggregator)}}
	}
	return slices.DeleteFunc(results, func(r query.Result) bool { return r.Points[0].Null() }), nil
}

// collapsed shows a window of a source as the second 0: the sketches of the whole
// window then are of one bucket, so that a percentile is that of all values.
type collapsed struct {
	query.Source
	win query.Window
}

// Select implements query.Source. It serves to tell a metric that is no
// distribution, which has no percentile.
func (c collapsed) Select(ctx context.Context, sel query.Selector, _, _ int64) ([]metric.Series, error) {
	return c.Source.Select(ctx, sel, c.win.From, c.win.To)
}

// Distributions implements query.DistributionSource.
func (c collapsed) Distributions(ctx context.Context, sel query.Selector, _, _ int64) iter.Seq2[*metric.Distribution, error] {
	src, ok := c.Source.(query.DistributionSource)
	if !ok {
		return func(func(*metric.Distribution, error) bool) {}
	}
	return func(yield func(*metric.Distribution, error) bool) {
		for d, err := range src.Distributions(ctx, sel, c.win.From, c.win.To) {
			if err != nil {
				yield(nil, err)
				return
			}
			flat := *d
			flat.Points = slices.Clone(d.Points)
			for i := range flat.Points {
				flat.Points[i].Time = 0
			}
			if !yield(&flat, nil) {
				return
			}
		}
	}
}

// timeless are the functions that have a meaning for a single value.
var timeless = []string{
	"abs", "log2", "log10", "clamp_min", "clamp_max", "cutoff_min", "cutoff_max", "default_zero", "exclude_null",
	"count_nonzero", "count_nonzero_finite", "count_not_null", "top", "is_greater", "is_less", "is_between",
}

// overScalars evaluates the formulas over the values of the queries. To the query
// language these are metrics of one point, named as the queries are and grouped
// by the same keys.
func (q *question) overScalars(ctx context.Context, reduced [][]query.Result) ([][]query.Result, error) {
	src := make(scalars, len(q.Queries))
	names := make(map[string]query.Expr, len(q.Queries))
	for i, sub := range q.Queries {
		text := "avg:" + sub.Name + "{*}"
		if keys := query.GroupBy(q.queries[i]); len(keys) > 0 {
			text += " by {" + strings.Join(keys, ",") + "}"
		}
		e, err := query.Parse(text)
		if err != nil {
			return nil, fmt.Errorf("name %q of a query: %w", sub.Name, err)
		}
		names[sub.Name] = e
		for _, r := range reduced[i] {
			src[sub.Name] = append(src[sub.Name], metric.Series{Name: sub.Name, Tags: r.Tags, Unit: r.Unit, Type: metric.Gauge,
				Points: []metric.Point{{Value: r.Points[0].Value}}})
		}
	}
	formulas, err := q.parseFormulas(names)
	if err != nil {
		return nil, err
	}
	out := make([][]query.Result, len(formulas))
	for i, e := range formulas {
		err := q.checkTimeless(e, q.Formulas[i].Formula)
		if err == nil {
			out[i], err = query.Eval(ctx, src, e, query.Window{Interval: 1})
		}
		if err != nil {
			return nil, fmt.Errorf("data.attributes.formulas[%d]: %w", i, err)
		}
	}
	return out, nil
}

// checkTimeless refuses what means nothing for single values: a function that
// works along time, and a query that is not named.
func (q *question) checkTimeless(e query.Expr, text string) error {
	refused := func(message string, args ...any) error {
		return &query.Error{Kind: query.Unsupported, Query: text, Offset: e.Pos().Start, Message: fmt.Sprintf(message, args...)}
	}
	switch e := e.(type) {
	case *query.Query:
		if _, ok := q.names[e.Metric]; !ok {
			return refused("a formula of scalars reads queries by their names")
		}
	case *query.Unary:
		return q.checkTimeless(e.X, text)
	case *query.Binary:
		if err := q.checkTimeless(e.Left, text); err != nil {
			return err
		}
		return q.checkTimeless(e.Right, text)
	case *query.Call:
		ranks := strings.HasPrefix(e.Func, "top") || strings.HasPrefix(e.Func, "bottom")
		if !ranks && !slices.Contains(timeless, e.Func) {
			return refused("function %q works along time: write it into the query instead of the formula", e.Func)
		}
		return q.checkTimeless(e.X, text)
	}
	return nil
}

// scalars are metrics of one point at the second 0.
type scalars map[string][]metric.Series

// Select implements query.Source.
func (s scalars) Select(_ context.Context, sel query.Selector, _, _ int64) ([]metric.Series, error) {
	return s[sel.Metric], nil
}

// A table collects the rows of a scalar answer.
type table struct {
	resp payload.ScalarResponse
	rows map[string]int // by the tags of a row
}

func newTable(q *question) *table {
	t := &table{rows: make(map[string]int)}
	var keys []string
	for i, e := range q.asked {
		name := q.Queries[min(i, len(q.Queries)-1)].Name
		if len(q.Formulas) > 0 {
			name = q.Formulas[i].Formula
		} else if name == "" {
			name = q.Queries[i].Query
		}
		t.resp.Numbers = append(t.resp.Numbers, payload.NumberColumn{Name: name})
		for _, key := range query.GroupBy(e) {
			if !slices.Contains(keys, key) {
				keys = append(keys, key)
				t.resp.Groups = append(t.resp.Groups, payload.GroupColumn{Name: key})
			}
		}
	}
	return t
}

// add fills column i. A row is what groups of the same tags have in common.
func (t *table) add(i int, results []query.Result) {
	for _, r := range results {
		key := strings.Join(r.Tags, ",")
		row, ok := t.rows[key]
		if !ok {
			row = len(t.rows)
			t.rows[key] = row
			for j := range t.resp.Groups {
				t.resp.Groups[j].Values = append(t.resp.Groups[j].Values, append([]string{}, r.Tags.Values(t.resp.Groups[j].Name)...))
			}
			for j := range t.resp.Numbers {
				t.resp.Numbers[j].Values = append(t.resp.Numbers[j].Values, nil)
			}
		}
		t.resp.Numbers[i].Values[row] = number(r.Points[0].Value)
		if u := unit(r.Unit); u != nil && t.resp.Numbers[i].Meta.Unit == nil {
			t.resp.Numbers[i].Meta.Unit = u
		}
	}
}
