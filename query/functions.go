package query

import (
	"context"
	"fmt"
	"maps"
)

// A function is what a call's name means. A new one is a row of its family's
// table, with one of the four ways to compute it.
type function struct {
	params   []param // of the arguments after the first
	optional int     // how many of the last of them may be left out
	counts   bool    // counts stay counts
	unit     bool    // values keep their unit
	ungroups bool    // the result is one series, without a group
	shifts   bool    // values are those of another time, else as they are

	// each maps every value by itself; the others take no numbers for series.
	each func(v float64, c *Call) float64
	// group maps the values of all series at a time, whatever other times have.
	group func(t term, in input) term
	// along maps the points of each series, of which it may drop some, and at an
	// instant is given those of so many instants as points says. Without points
	// it draws on the whole window of a graph and has no value at an instant.
	along  func(s *series, in input)
	points func(c *Call, step int64) int
	before func(c *Call) int64 // seconds before a window that along is given as well
	// work is how many values along looks at for n points over a window; n if nil.
	work func(in input, n int) int
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
	now  int64 // the instant that along is asked for, if it is one
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
	case f.along != nil:
		return ev.alongWindow(ctx, in)
	}
	t, err := ev.term(ctx, c.X, at)
	switch {
	case err != nil:
		return term{}, err
	case f.group != nil:
		return f.group(t, in), nil
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

// alongWindow applies along to the series of a window.
func (ev *evaluator) alongWindow(ctx context.Context, in input) (term, error) {
	wide := in.at
	if in.f.before != nil {
		wide = in.at.earlier(in.f.before(in.Call))
	}
	t, err := ev.term(ctx, in.X, wide)
	if err != nil {
		return term{}, err
	}
	for i := range t.series {
		one := in
		one.step = t.series[i].interval
		work := len(t.series[i].points)
		if in.f.work != nil {
			work = in.f.work(one, work)
		}
		if err := ev.spend(in.Call, work); err != nil {
			return term{}, err
		}
	}
	return t.each(func(s *series) {
		in := in
		in.step = s.interval
		in.f.along(s, in)
		if in.f.before != nil {
			s.from(in.at.grid(s.interval).first)
		}
		in.label(s)
	}).withPoints(), nil
}

// from drops the points of s before t.
func (s *series) from(t int64) {
	for len(s.points) > 0 && s.points[0].Time < t {
		s.points = s.points[1:]
	}
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
	if f, ok := functions[c.Func]; ok {
		return f, true
	}
	if _, ok := aggregatorNamed(c.Func); ok {
		return groupLayer(c.Func), true
	}
	return function{}, false
}

// functions holds what has a name of its own. The table is never modified.
var functions map[string]function

// The table refers to what refers back to it, so it cannot be its initial value.
func init() { //nolint:gochecknoinits // breaks an initialization cycle
	functions = map[string]function{}
	for _, family := range []map[string]function{
		valueFunctions(), rankFunctions(), rateFunctions(), smoothFunctions(), shiftFunctions(),
		layerFunctions(), regressFunctions(), forecastFunctions(),
	} {
		maps.Copy(functions, family)
	}
}
