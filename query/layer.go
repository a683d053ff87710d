package query

import (
	"math"
	"slices"
	"strconv"

	"kelpie.dev/kelpie/metric"
)

// layerFunctions aggregate once more what a query has aggregated: over time, or
// over its groups.
func layerFunctions() map[string]function {
	return map[string]function{
		// moving_rollup aggregates the points of the last seconds, a point's own included.
		"moving_rollup": {
			params: []param{whole(1, maxRollup, " of seconds"), oneOf("avg", "sum", "min", "max", "median", "count")}, optional: 1,
			unit: true, along: movingRollup,
			before: func(c *Call) int64 { return int64(c.number(0)) - 1 },
			work:   func(in input, n int) int { return n * min(n, int(int64(in.number(0))/in.step)+1) },
			points: func(c *Call, step int64) int { return int(ceilDiv(int64(c.number(0)), step)) },
		},
		// rollup aggregates the points of longer buckets; those that begin before
		// the window are left out.
		"rollup": {
			params: []param{aLayer, whole(1, maxRollup, " of seconds")},
			unit:   true, along: layerRollup,
			points: func(c *Call, step int64) int { return int(ceilDiv(int64(c.number(1)), step)) },
		},
		"count_nonzero":        {ungroups: true, group: countGroups(func(v float64) bool { return v != 0 })},
		"count_nonzero_finite": {ungroups: true, group: countGroups(func(v float64) bool { return v != 0 })},
		"count_not_null":       {ungroups: true, group: countGroups(func(float64) bool { return true })},
	}
}

// groupLayer is a space aggregator as a function: avg(q, {env}) aggregates the
// groups of q that agree in env.
func groupLayer(method string) function {
	return function{
		params: []param{func(a Arg) string {
			if a.Kind != KeysArg {
				return "expected the keys to group by, such as {env}"
			}
			return ""
		}},
		unit:  method != "count",
		group: func(t term, in input) term { return regroup(t, in, method) },
	}
}

// aLayer is the aggregator of a layer over another: the space aggregators and
// any percentile.
func aLayer(a Arg) string {
	if a.Kind == StringArg || a.Kind == WordArg {
		if _, ok := aggregatorNamed(a.Text); ok {
			return ""
		}
	}
	return "expected avg, sum, min, max, count, stddev or a percentile such as p95"
}

// summary aggregates values, none of which is null, and may leave them in another
// order; it is null when there are none. stddev is that of all values, not of a sample. The median of an even
// number is the mean of the middle two, and so are percentiles taken between
// two values, by rank q·(n-1).
func summary(method string, values []float64) float64 {
	switch method {
	case "avg", "sum", "min", "max", "count":
		acc := accumulator{}
		for _, v := range values {
			acc.add(v)
		}
		return acc.value(method)
	case "median":
		return quantileOf(values, 0.5)
	case "stddev":
		if len(values) == 0 {
			return null
		}
		mean, squares := summary("avg", values), 0.0
		for _, v := range values {
			squares += (v - mean) * (v - mean)
		}
		return math.Sqrt(squares / float64(len(values)))
	default:
		q, _ := Aggregator{Name: method}.percentile()
		return quantileOf(values, q)
	}
}

func quantileOf(values []float64, q float64) float64 {
	if len(values) == 0 {
		return null
	}
	slices.Sort(values)
	rank := q * float64(len(values)-1)
	low := int(rank)
	if low >= len(values)-1 {
		return values[len(values)-1]
	}
	share := rank - float64(low)
	return values[low]*(1-share) + values[low+1]*share
}

func movingRollup(s *series, in input) {
	seconds, method := int64(in.number(0)), in.word(1, "avg")
	out := make([]Point, 0, len(s.points))
	var window []float64
	first := 0 // the oldest point in the window
	for _, p := range s.points {
		if p.Null() || in.at.instants != nil && p.Time != in.now {
			continue
		}
		window = window[:0]
		for s.points[first].Time <= p.Time-seconds {
			first++
		}
		for _, o := range s.points[first:] {
			if o.Time > p.Time {
				break
			}
			if !o.Null() {
				window = append(window, o.Value)
			}
		}
		out = append(out, Point{Time: p.Time, Value: finite(summary(method, window))})
	}
	s.points = out
	if method == "count" {
		s.unit = ""
	}
}

func layerRollup(s *series, in input) {
	method, seconds := in.word(0, ""), int64(in.number(1))
	if in.at.instants != nil {
		if values := s.values(); len(values) > 0 {
			s.points = []Point{{Time: in.now, Value: finite(summary(method, values))}}
		}
		return
	}
	seconds = max(seconds, s.interval)
	g := in.at.grid(seconds)
	var out []Point
	var window []float64
	flush := func(bucket int64) {
		if len(window) > 0 {
			out = append(out, Point{Time: bucket, Value: finite(summary(method, window))})
		}
		window = window[:0]
	}
	last := g.first
	for _, p := range s.points {
		if p.Time < g.first || p.Null() {
			continue
		}
		if bucket := floorDiv(p.Time, seconds) * seconds; bucket != last {
			flush(last)
			last = bucket
		}
		window = append(window, p.Value)
	}
	flush(last)
	s.points, s.interval = out, seconds
	if method == "count" {
		s.unit = ""
	}
}

// countGroups counts, at each time, the groups with a value that holds.
func countGroups(holds func(float64) bool) func(term, input) term {
	return func(t term, in input) term {
		if len(t.series) == 0 {
			return term{}
		}
		a := in.across(t)
		n := make([]float64, len(a.times))
		for i := range t.series {
			for b, v := range a.values(&t.series[i]) {
				if !math.IsNaN(v) && holds(v) {
					n[b]++
				}
			}
		}
		s := series{interval: a.interval}
		for b, present := range a.present {
			if present {
				s.points = append(s.points, Point{Time: a.times[b], Value: n[b]})
			}
		}
		return term{series: []series{s}}.withPoints()
	}
}

// regroup aggregates the groups of t that agree in the keys of in.
func regroup(t term, in input, method string) term {
	out := term{grouped: true}
	if len(t.series) == 0 {
		return out
	}
	a := in.across(t)
	order := make([]int, len(t.series))
	tags := make([]metric.Tags, len(t.series))
	for i := range t.series {
		order[i] = i
		for _, key := range in.Args[0].Keys {
			for _, v := range t.series[i].tags.Values(key) {
				tags[i] = tags[i].Union(key + ":" + v)
			}
		}
	}
	slices.SortStableFunc(order, func(a, b int) int { return slices.Compare(tags[a], tags[b]) })
	for from := 0; from < len(order); {
		to := from + 1
		for to < len(order) && slices.Equal(tags[order[to]], tags[order[from]]) {
			to++
		}
		s := a.aggregate(t, order[from:to], method)
		s.tags = tags[order[from]]
		in.label(&s)
		out.series = append(out.series, s)
		from = to
	}
	return out.withPoints()
}

// checkLayer refuses keys that the argument of c is not grouped by.
func checkLayer(c *Call) error {
	have := resultKeys(c.X)
	for _, key := range c.Args[0].Keys {
		if !slices.Contains(have, key) {
			return refuse(c, c.Args[0].Pos, "the query within is not grouped by %s", strconv.Quote(key))
		}
	}
	return nil
}

// resultKeys returns the keys that the results of e are grouped by.
func resultKeys(e Expr) []string {
	switch e := e.(type) {
	case *Query:
		return e.By
	case *Unary:
		return resultKeys(e.X)
	case *Binary:
		if left := resultKeys(e.Left); len(left) > 0 {
			return left
		}
		return resultKeys(e.Right)
	case *Call:
		f, _ := functionOf(e)
		if f.ungroups {
			return nil
		}
		if len(e.Args) == 1 && e.Args[0].Kind == KeysArg {
			return e.Args[0].Keys
		}
		return resultKeys(e.X)
	}
	return nil
}
