package query

import (
	"cmp"
	"context"
	"fmt"
	"slices"
)

// Pointwise reports whether the value of e at an instant follows from those of
// its queries at the same instant: whether no function in it looks elsewhere.
func Pointwise(e Expr) bool {
	switch e := e.(type) {
	case *Unary:
		return Pointwise(e.X)
	case *Binary:
		return Pointwise(e.Left) && Pointwise(e.Right)
	case *Call:
		f, ok := functionOf(e)
		return ok && f.pointwise(e) && Pointwise(e.X)
	default:
		return true
	}
}

// pointwise reports whether f, called by c, looks at no other instant.
func (f function) pointwise(c *Call) bool {
	switch {
	case f.along != nil:
		return f.points != nil && f.points(c, stepOf(c.X)) == 1
	default:
		return f.each != nil || f.group != nil
	}
}

// Lookback returns how many seconds before now Value reads at most for e: the
// widest trailing window, the lateness that a context is granted, and what the
// functions in e look back.
func Lookback(e Expr) (seconds int64) {
	switch e := e.(type) {
	case *Query:
		o, _ := e.options()
		return o.window() + lateness
	case *Unary:
		return Lookback(e.X)
	case *Binary:
		return max(Lookback(e.Left), Lookback(e.Right))
	case *Call:
		f, _ := functionOf(e)
		seconds = Lookback(e.X)
		step := stepOf(e.X)
		switch {
		case f.back != nil:
			seconds += f.back(e, step)
		case f.points != nil:
			seconds += int64(max(0, f.points(e, step)-1)) * step
		}
	}
	return seconds
}

// CheckValue is Check for Value: it also refuses functions that draw on the
// whole window of a graph, and such as would look back at more than MaxReach
// instants.
func CheckValue(e Expr) error {
	if err := Check(e); err != nil {
		return err
	}
	nothing := &evaluator{leaf: func(context.Context, *Query, span) ([]series, error) { return nil, nil }}
	_, err := nothing.term(context.Background(), e, span{instants: []int64{0}})
	return err
}

// stepOf is the seconds between two instants that e is evaluated at for a
// function: the longest trailing window in e.
func stepOf(e Expr) int64 {
	switch e := e.(type) {
	case *Query:
		o, _ := e.options()
		return o.window()
	case *Unary:
		return stepOf(e.X)
	case *Binary:
		return max(stepOf(e.Left), stepOf(e.Right))
	case *Call:
		if e.Func == "rollup" && len(e.Args) == 2 {
			return max(stepOf(e.X), int64(e.number(1)))
		}
		return stepOf(e.X)
	}
	return 1
}

// instants returns in.at with the n-1 instants before each, for in's argument.
func (in input) instants(n int) (span, error) {
	wide, ok := in.at.back(n, in.step)
	if n > MaxReach || !ok {
		return span{}, tooFar(in.X)
	}
	return wide, nil
}

// lookBack evaluates along at instants: for each, over the grid of instants that
// ends there.
func (ev *evaluator) lookBack(ctx context.Context, in input) (term, error) {
	n := 0
	if in.f.points != nil {
		n = in.f.points(in.Call, in.step)
	}
	if n == 0 {
		return term{}, in.noInstant()
	}
	inner, err := in.instants(n)
	if err != nil {
		return term{}, err
	}
	t, err := ev.term(ctx, in.X, inner)
	if err != nil {
		return term{}, err
	}
	if err := ev.spend(in.Call, len(t.series)*len(in.at.instants)*n); err != nil {
		return term{}, err
	}
	return t.each(func(s *series) {
		in := in
		all := *s
		s.points = make([]Point, 0, len(in.at.instants))
		for _, now := range in.at.instants {
			in.now = now
			one := all
			one.points = all.atInstants(now, n, in.step)
			in.f.along(&one, in)
			if last := len(one.points) - 1; last >= 0 && one.points[last].Time == now {
				s.points = append(s.points, one.points[last])
			}
		}
		in.label(s)
	}).withPoints(), nil
}

// atInstants returns the points of s at now and the n-1 instants before, step
// seconds apart, in a slice of its own.
func (s *series) atInstants(now int64, n int, step int64) []Point {
	points := make([]Point, 0, min(n, len(s.points)))
	first, _ := slices.BinarySearchFunc(s.points, now-int64(n-1)*step, func(p Point, t int64) int { return cmp.Compare(p.Time, t) })
	for _, p := range s.points[first:] {
		if p.Time > now {
			break
		}
		if (now-p.Time)%step == 0 {
			points = append(points, p)
		}
	}
	return points
}

// maxWork bounds the values that the functions of one evaluation look at.
const maxWork = 100_000_000

// spend refuses c when it would look at more values than are left.
func (ev *evaluator) spend(c *Call, values int) error {
	if ev.spent += values; ev.spent > maxWork {
		return &Error{Kind: Limit, Query: c.text(), Offset: c.span.Start,
			Message: fmt.Sprintf("function %q looks at too many values; roll its query up to longer buckets, group by fewer keys or look back less far", c.Func)}
	}
	return nil
}
