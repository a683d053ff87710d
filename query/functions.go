package query

import (
	"context"
	"fmt"
	"math"
)

// A function is what a call's name means. A new one is a row in functions, with
// one of the four ways to compute it.
type function struct {
	params   []param // of the arguments after the first
	optional int     // how many of the last of them may be left out
	counts   bool    // counts stay counts
	unit     bool    // values keep their unit

	// each maps every value by itself; the others take no numbers for series.
	each func(v float64, c *Call) float64
	// group maps the values of all series at a time, whatever other times have.
	group func(t term, in input) term
	// along maps the points of each series, of which it may drop some, and at an
	// instant is given those of the newest points instants. 0 points means that
	// it draws on the whole window of a graph and has no value at an instant.
	along  func(s *series, in input)
	points func(c *Call, step int64) int
	// over evaluates the argument itself, over other times.
	over func(ctx context.Context, ev *evaluator, in input) (term, error)
	back func(c *Call, step int64) int64 // seconds that over looks back at an instant
}

// An input is a call at work.
type input struct {
	*Call
	f    function
	at   span
	step int64 // seconds between two instants, or the width of the buckets of along's series
}

// number and word are the call's i-th argument after the first.
func (c *Call) number(i int) float64 { return c.Args[i].Number }

func (c *Call) word(i int, otherwise string) string {
	if i >= len(c.Args) {
		return otherwise
	}
	return c.Args[i].Text
}

// call evaluates c over at. Check has seen c.
func (ev *evaluator) call(ctx context.Context, c *Call, at span) (term, error) {
	f, ok := functionOf(c)
	if !ok {
		return term{}, fmt.Errorf("function %q is not checked", c.Func)
	}
	in := input{Call: c, f: f, at: at, step: stepOf(c.X)}
	switch {
	case f.over != nil:
		return f.over(ctx, ev, in)
	case f.along != nil && at.instants != nil:
		return ev.lookBack(ctx, in)
	}
	t, err := ev.term(ctx, c.X, at)
	switch {
	case err != nil:
		return term{}, err
	case f.group != nil:
		return f.group(t, in), nil
	case f.along != nil:
		return in.alongEach(t), nil
	case t.number:
		return term{number: true, value: finite(f.each(t.value, c))}, nil
	}
	return t.each(func(s *series) {
		points := make([]Point, len(s.points))
		for i, p := range s.points {
			points[i] = Point{Time: p.Time, Value: finite(f.each(p.Value, c))}
		}
		s.points = points
		in.label(s)
	}), nil
}

// alongEach applies along to the series of t over a window.
func (in input) alongEach(t term) term {
	return t.each(func(s *series) {
		in := in
		in.step = s.interval
		in.f.along(s, in)
		in.label(s)
	}).withPoints()
}

// label settles what a series of the function's values is.
func (in input) label(s *series) {
	s.counting = s.counting && in.f.counts
	if !in.f.unit {
		s.unit = ""
	}
}

// withPoints returns t without the series that have no points.
func (t term) withPoints() term {
	kept := t.series[:0:0]
	for _, s := range t.series {
		if len(s.points) > 0 {
			kept = append(kept, s)
		}
	}
	t.series = kept
	return t
}

// functionOf returns the function that c calls.
func functionOf(c *Call) (function, bool) {
	f, ok := functions[c.Func]
	return f, ok
}

// functions holds what there is. The table is never modified.
var functions map[string]function

// What refers back to the table cannot stand in its initial value.
func init() { //nolint:gochecknoinits // breaks an initialization cycle
	functions = map[string]function{
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
	if t.number {
		return term{number: true, value: zeroed(t.value)}
	}
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
