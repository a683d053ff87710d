package query_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"kelpie.dev/kelpie/metric"
	"kelpie.dev/kelpie/query"
	"kelpie.dev/kelpie/query/querytest"
)

// TestStandingSumForgets holds that a sum that is kept up to date by what moves has
// nothing left of values that were so large that others were lost beside them, nor
// of extremes that are gone.
func TestStandingSumForgets(t *testing.T) {
	// Multiples of the large one are exact, so that both ways know all of the others.
	values := []float64{1, -1, 0.1, 0.3, 7, 0x1p900, -0x1p900, 1e-300, 0}
	r := rand.New(rand.NewPCG(9, 9))
	var src querytest.Memory
	s := query.NewStanding(0)
	var queries []*query.StandingQuery
	now := int64(1000)
	for _, aggregator := range []string{"sum", "avg", "min", "max", "count"} {
		q, missing, err := s.Add(aggregator+":m{*}.rollup(max, 1)", now)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range missing {
			s.Fill(m, nil, nil, nil, now)
		}
		queries = append(queries, q)
	}
	for range 3000 {
		now++
		id := r.IntN(6)
		batch := []metric.Series{{
			Name: "m", Type: metric.Gauge, Interval: 1, Tags: metric.NewTags(fmt.Sprint("id:", id)),
			Points: []metric.Point{{Time: now, Value: values[r.IntN(len(values))]}},
		}}
		if err := src.Load(t.Context(), batch, nil); err != nil {
			t.Fatal(err)
		}
		s.Observe(batch, []uint64{uint64(id + 1)}, now)
		s.Step(now, func(*query.StandingQuery) {})
		for _, q := range queries {
			want, ok, err := query.Value(t.Context(), &src, q.Expr, now)
			if err != nil {
				t.Fatal(err)
			}
			got, _ := q.Last()
			if got.OK != ok || ok && math.Abs(got.Value-want.Value) > 1e-12*max(1, math.Abs(want.Value)) {
				t.Fatalf("%s at %d stands at %v, %t; asked for it is %v, %t", q.Text, now, got.Value, got.OK, want.Value, ok)
			}
		}
	}
}
