package query

import (
	"math"
	"slices"
)

// apply is x op y; a division by zero is null.
func apply(op byte, x, y float64) float64 {
	switch op {
	case '+':
		x += y
	case '-':
		x -= y
	case '*':
		x *= y
	default:
		if y == 0 {
			return null
		}
		x /= y
	}
	return finite(x)
}

// negate is -t.
func negate(t term) term {
	if t.number {
		t.value = -t.value
		return t
	}
	return t.each(func(s *series) {
		s.transform(func(v float64) float64 { return -v })
	})
}

// each returns t with f applied to a copy of every series.
func (t term) each(f func(*series)) term {
	out := slices.Clone(t.series)
	for i := range out {
		out[i].aggr, out[i].lower, out[i].upper, out[i].outlier = "", nil, nil, false
		f(&out[i])
	}
	return term{series: out, grouped: t.grouped}
}

// transform replaces s's values; null stays null.
func (s *series) transform(f func(float64) float64) {
	points := make([]Point, len(s.points))
	for i, p := range s.points {
		if !p.Null() {
			p.Value = finite(f(p.Value))
		}
		points[i] = p
	}
	s.points = points
}

// arithmetic is left op right. Numbers and ungrouped series pair with every
// series of the other side; grouped ones with the series of the same tags.
func arithmetic(op byte, left, right term) term {
	switch {
	case left.number && right.number:
		return term{number: true, value: apply(op, left.value, right.value)}
	case right.number:
		return left.each(func(s *series) {
			s.transform(func(v float64) float64 { return apply(op, v, right.value) })
			s.counting = s.counting && (op == '*' || op == '/')
		})
	case left.number:
		return right.each(func(s *series) {
			s.transform(func(v float64) float64 { return apply(op, left.value, v) })
			s.counting = s.counting && op == '*'
			if op == '/' {
				s.unit = ""
			}
		})
	}
	out := term{grouped: left.grouped || right.grouped}
	switch {
	case left.grouped && right.grouped:
		for _, l := range left.series {
			i, found := slices.BinarySearchFunc(right.series, l, func(r, l series) int { return slices.Compare(r.tags, l.tags) })
			if found {
				out.series = append(out.series, pair(op, l, right.series[i]))
			}
		}
	case left.grouped && len(right.series) > 0:
		for _, l := range left.series {
			out.series = append(out.series, pair(op, l, right.series[0]))
		}
	case len(left.series) > 0:
		for _, r := range right.series {
			out.series = append(out.series, pair(op, left.series[0], r))
		}
	}
	return out
}

// pair is l op r, point by point.
func pair(op byte, l, r series) series {
	additive := op == '+' || op == '-'
	s := series{
		tags:         l.tags,
		interval:     lcm(l.interval, r.interval),
		counting:     l.counting && r.counting && additive,
		interpolated: l.interpolated && r.interpolated,
	}
	if len(s.tags) == 0 {
		s.tags = r.tags
	}
	if additive && l.unit == r.unit {
		s.unit = l.unit
	}
	s.points = align(op, l, r, s.interval)
	return s
}

// align combines the points of l and r that share a time. Of two series of
// counts, one that has no point at a time has the count 0 there, so that errors
// ÷ requests is defined without an error.
func align(op byte, l, r series, interval int64) []Point {
	counts := l.counting && r.counting
	var out []Point
	a, b := l.points, r.points
	for len(a) > 0 || len(b) > 0 {
		x, y := Point{Time: math.MaxInt64}, Point{Time: math.MaxInt64}
		if len(a) > 0 {
			x = a[0]
		}
		if len(b) > 0 {
			y = b[0]
		}
		t := min(x.Time, y.Time)
		if x.Time == t {
			a = a[1:]
		}
		if y.Time == t {
			b = b[1:]
		}
		if t%interval != 0 || x.Time != y.Time && !counts {
			continue // not a bucket of both
		}
		if x.Time != t {
			x.Value = 0
		}
		if y.Time != t {
			y.Value = 0
		}
		out = append(out, Point{Time: t, Value: apply(op, x.Value, y.Value)})
	}
	return out
}
