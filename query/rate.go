package query

import (
	"context"
	"math"
	"slices"
)

// rateFunctions are those of the step from one value to the next. A series has
// none at its first value.
func rateFunctions() map[string]function {
	two := func(*Call, int64) int { return 2 }
	return map[string]function{
		"per_second": {along: perUnit(1), points: two},
		"per_minute": {along: perUnit(60), points: two},
		"per_hour":   {along: perUnit(3600), points: two},
		"derivative": {points: two, along: func(s *series, _ input) {
			s.steps(func(a, b Point) float64 { return (b.Value - a.Value) / float64(b.Time-a.Time) })
		}},
		"diff":           {unit: true, over: differences(false), back: oneStep},
		"monotonic_diff": {unit: true, over: differences(true), back: oneStep},
		"dt":             {ungroups: true, over: distances, back: oneStep},
		"throughput": {points: func(*Call, int64) int { return 1 }, along: func(s *series, in input) {
			s.transform(func(v float64) float64 { return v / float64(in.step) })
		}},
		"cumsum": {unit: true, along: func(s *series, _ input) {
			sum := 0.0
			s.transform(func(v float64) float64 { sum += v; return sum })
		}},
		"integral": {along: integral},
	}
}

func oneStep(_ *Call, step int64) int64 { return step }

// perUnit is how much a value rises in so many seconds. One that falls is a
// counter that began anew: there is no value.
func perUnit(seconds float64) func(*series, input) {
	return func(s *series, _ input) {
		s.steps(func(a, b Point) float64 {
			if b.Value < a.Value {
				return null
			}
			return (b.Value - a.Value) / float64(b.Time-a.Time) * seconds
		})
	}
}

// steps replaces the points of s by f of each and the one before, where f is not
// null. Points that are null count for nothing.
func (s *series) steps(f func(a, b Point) float64) {
	out := make([]Point, 0, len(s.points))
	var last *Point
	for i := range s.points {
		p := s.points[i]
		if p.Null() {
			continue
		}
		if last != nil {
			if q := (Point{Time: p.Time, Value: finite(f(*last, p))}); !q.Null() {
				out = append(out, q)
			}
		}
		last = &s.points[i]
	}
	s.points = out
}

// integral adds up value · seconds, of each value for the time since the last.
func integral(s *series, _ input) {
	points := slices.Clone(s.points)
	sum, last := 0.0, int64(math.MinInt64)
	for i, p := range points {
		if p.Null() {
			continue
		}
		if last != math.MinInt64 {
			sum += p.Value * float64(p.Time-last)
		}
		last = p.Time
		points[i].Value = finite(sum)
	}
	s.points = points
}

// differences is the step from one value to the next. Those of a query, now or
// shifted, are taken of each context, before space aggregation; those of any
// other expression are the steps of its values.
func differences(monotonic bool) func(context.Context, *evaluator, input) (term, error) {
	return func(ctx context.Context, ev *evaluator, in input) (term, error) {
		inner := in.at
		if inner.instants != nil {
			var err error
			if inner, err = in.instants(2); err != nil {
				return term{}, err
			}
		}
		d := delta{on: true, monotonic: monotonic, apart: in.step}
		leaf := isLeaf(in.X)
		if leaf {
			inner.delta = d
		}
		t, err := ev.term(ctx, in.X, inner)
		if err != nil {
			return term{}, err
		}
		return t.each(func(s *series) {
			if !leaf {
				in.differences(s, d)
			}
			if in.at.instants != nil {
				s.restrict(in.at.instants)
			}
			in.label(s)
		}).withPoints(), nil
	}
}

// isLeaf reports whether e is a query, perhaps shifted.
func isLeaf(e Expr) bool {
	for {
		c, isCall := e.(*Call)
		if !isCall {
			_, isQuery := e.(*Query)
			return isQuery
		}
		if f, _ := functionOf(c); !f.shifts {
			return false
		}
		e = c.X
	}
}

// differences replaces the values of s by the steps between them.
func (in input) differences(s *series, d delta) {
	if in.at.instants == nil {
		s.steps(func(a, b Point) float64 { return d.step(a.Value, b.Value) })
		return
	}
	var out []Point
	for _, now := range in.at.instants {
		if two := s.atInstants(now, 2, in.step); len(two) == 2 {
			if p := (Point{Time: now, Value: finite(d.step(two[0].Value, two[1].Value))}); !p.Null() {
				out = append(out, p)
			}
		}
	}
	s.points = out
}

// restrict keeps the points of s at the given times, ascending.
func (s *series) restrict(times []int64) {
	kept := make([]Point, 0, len(times))
	for _, p := range s.points {
		if _, found := slices.BinarySearch(times, p.Time); found {
			kept = append(kept, p)
		}
	}
	s.points = kept
}

// distances is the seconds between points, of all groups together: one series.
func distances(ctx context.Context, ev *evaluator, in input) (term, error) {
	inner := in.at
	if inner.instants != nil {
		var err error
		if inner, err = in.instants(2); err != nil {
			return term{}, err
		}
	}
	t, err := ev.term(ctx, in.X, inner)
	if err != nil || len(t.series) == 0 {
		return term{}, err
	}
	var times []int64
	s := series{interval: 1}
	for i := range t.series {
		s.interval = lcm(s.interval, t.series[i].interval)
		for _, p := range t.series[i].points {
			if !p.Null() {
				times = append(times, p.Time)
			}
		}
	}
	slices.Sort(times)
	s.points = in.distances(slices.Compact(times), s.interval)
	s.unit = "second"
	return term{series: []series{s}}.withPoints(), nil
}

// distances is the seconds from each of times to the one before, where it is a
// multiple of interval; at instants, where both are instants of the argument.
func (in input) distances(times []int64, interval int64) []Point {
	var out []Point
	if in.at.instants == nil {
		for i := 1; i < len(times); i++ {
			if times[i]%interval == 0 {
				out = append(out, Point{Time: times[i], Value: float64(times[i] - times[i-1])})
			}
		}
		return out
	}
	for _, now := range in.at.instants {
		_, here := slices.BinarySearch(times, now)
		_, before := slices.BinarySearch(times, now-in.step)
		if here && before {
			out = append(out, Point{Time: now, Value: float64(in.step)})
		}
	}
	return out
}
