package query

import "math"

// valueFunctions map each value by itself, or fill in and leave out.
func valueFunctions() map[string]function {
	return map[string]function{
		"abs":        {counts: true, unit: true, each: func(v float64, _ *Call) float64 { return math.Abs(v) }},
		"log2":       {each: func(v float64, _ *Call) float64 { return math.Log2(v) }},
		"log10":      {each: func(v float64, _ *Call) float64 { return math.Log10(v) }},
		"clamp_min":  {params: oneNumber, unit: true, each: clampMin},
		"clamp_max":  {params: oneNumber, unit: true, each: clampMax},
		"cutoff_min": {params: oneNumber, unit: true, each: cutoffMin},
		"cutoff_max": {params: oneNumber, unit: true, each: cutoffMax},
		"is_greater": {params: oneNumber, each: func(v float64, c *Call) float64 { return truth(v, v > c.number(0)) }},
		"is_less":    {params: oneNumber, each: func(v float64, c *Call) float64 { return truth(v, v < c.number(0)) }},
		"is_between": {params: twoNumbers, each: func(v float64, c *Call) float64 {
			return truth(v, v >= c.number(0) && v <= c.number(1))
		}},
		"default_zero": {counts: true, unit: true, group: defaultZero},
		"exclude_null": {counts: true, unit: true, group: excludeNull},
	}
}

// clampMin and clampMax put the bound in the place of null, too.
func clampMin(v float64, c *Call) float64 {
	if v >= c.number(0) {
		return v
	}
	return c.number(0)
}

func clampMax(v float64, c *Call) float64 {
	if v <= c.number(0) {
		return v
	}
	return c.number(0)
}

func cutoffMin(v float64, c *Call) float64 {
	if v < c.number(0) {
		return null
	}
	return v
}

func cutoffMax(v float64, c *Call) float64 {
	if v > c.number(0) {
		return null
	}
	return v
}

// truth is 1 or 0, and null of null.
func truth(v float64, holds bool) float64 {
	switch {
	case math.IsNaN(v):
		return null
	case holds:
		return 1
	default:
		return 0
	}
}

// defaultZero gives every bucket of the window a value: the interpolated one
// where the series interpolates and a sample is near, else 0. A query without
// any series stays without. At an instant, where no bucket can be missing, it
// gives null a value.
func defaultZero(t term, in input) term {
	return t.each(func(s *series) {
		if in.at.instants != nil {
			s.points = append(s.points[:0:0], s.points...)
		} else {
			g := in.at.grid(s.interval)
			values := s.on(g)
			s.points = make([]Point, g.n)
			for i, v := range values {
				s.points[i] = Point{Time: g.time(i), Value: v}
			}
		}
		for i, p := range s.points {
			s.points[i].Value = zeroed(p.Value)
		}
		in.label(s)
	})
}

func zeroed(v float64) float64 {
	if math.IsNaN(v) {
		return 0
	}
	return v
}

// on returns the values of s in the buckets of g, interpolated if s is.
func (s *series) on(g grid) []float64 {
	values := make([]float64, g.n)
	for i := range values {
		values[i] = null
	}
	for _, p := range s.points {
		if i := (p.Time - g.first) / g.interval; p.Time >= g.first && i < int64(g.n) {
			values[i] = p.Value
		}
	}
	if s.interpolated {
		interpolate(values, "linear", defaultFill, g.interval)
	}
	return values
}

// excludeNull leaves out the groups that lack one of their keys.
func excludeNull(t term, in input) term {
	kept := t.series[:0:0]
	for _, s := range t.series {
		if !lacksKey(s.tags) {
			kept = append(kept, s)
		}
	}
	t.series = kept
	return t.each(in.label)
}
