package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/prometheus/prometheus/promql"

	"kelpie.dev/kelpie/query"
)

// askKelpie answers by package query over Kelpie's store.
func askKelpie(ctx context.Context, t queryTask) (out any, err error) {
	st, err := t.Store.open(func() time.Time { return time.Unix(t.Store.End, 0) })
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, st.Close()) }()
	var cache *query.Cache
	if t.Cached {
		cache = query.NewCache(32 << 20 / query.CachedValueSize)
	}
	return t.timeEach(func(q question, n int) (float64, int, error) {
		e, err := query.Parse(q.Kelpie)
		if err != nil {
			return 0, 0, err
		}
		if !t.Range {
			reading, ok, err := query.Value(ctx, st, e, t.instant(n))
			if err == nil && !ok {
				err = errors.New("no value")
			}
			return reading.Value, 1, err
		}
		from := t.from() + int64(n)*move
		results, err := cache.Eval(ctx, st, e, query.Window{From: from, To: from + window - 1, Interval: bucket})
		sum, points := 0.0, 0
		for i := range results {
			for _, p := range results[i].Points {
				sum, points = sum+p.Value, points+1
			}
		}
		return sum, points, err
	})
}

// instant is the n-th instant asked for.
func (t queryTask) instant(n int) int64 { return t.Store.End - int64(t.Hot-n)*move }

// askPromQL answers by Prometheus' engine over the same database.
func askPromQL(ctx context.Context, t queryTask) (out any, err error) {
	db, err := openTSDB(t.Store.tsdb(), nil)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	engine := promql.NewEngine(promql.EngineOpts{MaxSamples: math.MaxInt32, Timeout: 5 * time.Minute})
	defer func() { err = errors.Join(err, engine.Close()) }()
	return t.timeEach(func(q question, n int) (float64, int, error) {
		text := q.PromQL
		if t.Sampled {
			text = q.Sampled
		}
		var asked promql.Query
		var err error
		if t.Range {
			// A bucket's value stands at its start in Datadog's language, and here at
			// its last second.
			from := t.from() + int64(n)*move
			first := from + bucket - 1
			asked, err = engine.NewRangeQuery(ctx, db, nil, text, time.Unix(first, 0), time.Unix(from+window-1, 0), bucket*time.Second)
		} else {
			asked, err = engine.NewInstantQuery(ctx, db, nil, text, time.Unix(t.instant(n), 0))
		}
		if err != nil {
			return 0, 0, err
		}
		defer asked.Close()
		return total(asked.Exec(ctx))
	})
}

// total sums up a result and counts its points.
func total(r *promql.Result) (sum float64, points int, err error) {
	if r.Err != nil {
		return 0, 0, r.Err
	}
	switch v := r.Value.(type) {
	case promql.Matrix:
		for i := range v {
			for _, p := range v[i].Floats {
				sum, points = sum+p.F, points+1
			}
		}
	case promql.Vector:
		for i := range v {
			sum, points = sum+v[i].F, points+1
		}
	default:
		return 0, 0, fmt.Errorf("an answer of type %s", r.Value.Type())
	}
	return sum, points, nil
}
