package promapi

import (
	"context"
	"fmt"
	"time"

	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/storage"

	"kelpie.dev/kelpie/backend/quota"
)

// maxSteps is how many points a series of a range may have, as in Prometheus.
const maxSteps = 11_000

// queryData is the data of an answered query.
type queryData struct {
	ResultType parser.ValueType `json:"resultType"`
	Result     parser.Value     `json:"result"`
}

// instant is /api/v1/query.
func (a *API) instant(r *request) (any, error) {
	at, err := r.instantOf("time", a.opts.Now())
	if err != nil {
		return nil, err
	}
	return a.evaluate(r, at, at, 0)
}

// overRange is /api/v1/query_range.
func (a *API) overRange(r *request) (any, error) {
	for _, name := range []string{"start", "end", "step"} {
		if r.FormValue(name) == "" {
			return nil, bad("invalid parameter %q: cannot parse \"\" to a valid value", name)
		}
	}
	start, err := r.instantOf("start", time.Time{})
	if err != nil {
		return nil, err
	}
	end, err := r.instantOf("end", time.Time{})
	if err != nil {
		return nil, err
	}
	step, err := r.durationOf("step", 0)
	switch {
	case err != nil:
		return nil, err
	case end.Before(start):
		return nil, bad(`invalid parameter "end": end timestamp must not be before start time`)
	case step < time.Millisecond:
		return nil, bad(`invalid parameter "step": zero or negative query resolution step widths are not accepted. Try a positive integer`)
	case end.Sub(start)/step > maxSteps:
		return nil, bad("exceeded maximum resolution of 11,000 points per timeseries. Try decreasing the query resolution (?step=XX)")
	}
	return a.evaluate(r, start, end, step)
}

// format is /api/v1/format_query.
func (a *API) format(r *request) (any, error) {
	expr, err := a.parse(r.FormValue("query"))
	if err != nil {
		return nil, err
	}
	return expr.Pretty(0), nil
}

func (a *API) parse(text string) (parser.Expr, error) {
	if len(text) > maxQuery {
		return nil, bad(`invalid parameter "query": longer than %d bytes`, maxQuery)
	}
	expr, err := a.parser.ParseExpr(text)
	if err != nil {
		return nil, bad(`invalid parameter "query": %w`, err)
	}
	return expr, nil
}

// evaluate runs the request's query; at an instant, start is end and step 0.
func (a *API) evaluate(r *request, start, end time.Time, step time.Duration) (any, error) {
	began := time.Now()
	text := r.FormValue("query")
	back, err := r.durationOf("lookback_delta", 0)
	if err != nil {
		return nil, err
	}
	limit, err := r.limitOf(a.opts.MaxSeries)
	if err != nil {
		return nil, err
	}
	ctx := r.Context()
	if within, err := r.durationOf("timeout", 0); err != nil {
		return nil, err
	} else if within > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, within)
		defer cancel()
	}
	expr, err := a.parse(text)
	if err != nil {
		return nil, err
	}
	if err := a.spend(ctx, r.key, expr, start, end); err != nil {
		return nil, err
	}
	opts := promql.NewPrometheusQueryOpts(false, back, nil)
	var q promql.Query
	if step == 0 {
		q, err = a.engine.NewInstantQuery(ctx, a.opts.Queryable, opts, text, start)
	} else {
		q, err = a.engine.NewRangeQuery(ctx, a.opts.Queryable, opts, text, start, end, step)
	}
	if err != nil {
		return nil, bad(`invalid parameter "query": %w`, err)
	}
	r.done = q.Close // what it answers is the engine's memory
	res := q.Exec(ctx)
	r.warnings, r.infos = res.Warnings.AsStrings(text, 10, 10)
	if res.Err != nil {
		a.opts.Slow(text, int64(end.Sub(start).Seconds()), 0, time.Since(began))
		return nil, res.Err
	}
	value, series := shorten(r, res.Value, limit)
	a.opts.Slow(text, int64(end.Sub(start).Seconds()), series, time.Since(began))
	return queryData{ResultType: value.Type(), Result: value}, nil
}

// shorten cuts a value to so many series, and returns how many it has.
func shorten(r *request, v parser.Value, limit int) (parser.Value, int) {
	switch v := v.(type) {
	case promql.Vector:
		if v == nil {
			v = promql.Vector{}
		}
		cut := truncate(r, v, limit)
		return promql.Vector(cut), len(cut)
	case promql.Matrix:
		if v == nil {
			v = promql.Matrix{}
		}
		cut := truncate(r, v, limit)
		return promql.Matrix(cut), len(cut)
	}
	return v, 1
}

// usualInterval is how often points are taken to come, in seconds.
const usualInterval = 10

// spend estimates what the query would read, and takes it from the key's budget.
func (a *API) spend(ctx context.Context, key string, expr parser.Expr, start, end time.Time) error {
	var cost quota.Cost
	var err error
	parser.Inspect(expr, func(node parser.Node, path []parser.Node) error {
		s, ok := node.(*parser.VectorSelector)
		if !ok || err != nil {
			return nil //nolint:nilerr // Inspect only prunes by it; it is returned below
		}
		back := lookback
		for _, outer := range path {
			switch outer := outer.(type) {
			case *parser.MatrixSelector:
				back = max(back, outer.Range)
			case *parser.SubqueryExpr:
				back += outer.Range
			}
		}
		var n int64
		n, err = a.count(ctx, s, start.Add(-back-s.OriginalOffset).UnixMilli(), end.Add(-s.OriginalOffset).UnixMilli())
		cost = cost.Add(quota.Of(n, int64((end.Sub(start)+back)/time.Second), usualInterval))
		return nil
	})
	if err != nil {
		return err
	}
	return a.opts.Quota.Spend(key, cost)
}

// count returns how many series a selector has, by the index.
func (a *API) count(ctx context.Context, s *parser.VectorSelector, from, to int64) (n int64, err error) {
	q, err := a.opts.Queryable.Querier(from, to)
	if err != nil {
		return 0, err
	}
	defer func() { _ = q.Close() }()
	set := q.Select(ctx, false, &storage.SelectHints{Start: from, End: to, Func: "series"}, s.LabelMatchers...)
	for set.Next() {
		n++
	}
	if err := set.Err(); err != nil {
		return 0, fmt.Errorf("count the series of %s: %w", s, err)
	}
	return n, nil
}
