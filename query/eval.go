package query

import (
	"context"
	"fmt"
	"math"

	"kelpie.dev/kelpie/metric"
)

// A Selector says which contexts a query reads.
type Selector struct {
	Metric string
	Scope  Scope
	// What the query does not look at. A Source may leave it out, and need not.
	Untagged bool  // Host, Device and Tags
	Trailing int64 // unless 0, points that are older than a series' newest by more seconds
}

// A Source holds the series that queries read.
type Source interface {
	// Select returns every series named sel.Metric whose TagsOf sel.Scope
	// matches and that has a point at from ≤ time ≤ to (Unix seconds), with
	// exactly those points in ascending order of time, one a second at most.
	// Type and Interval must be set as far as known, since time aggregation
	// follows them; Tags must be canonical. Series come in any order, one a
	// context. The caller does not modify them. An unknown metric is no error.
	Select(ctx context.Context, sel Selector, from, to int64) ([]metric.Series, error)
}

// A PacedSource knows how often the points of a metric come.
type PacedSource interface {
	Source
	// Pace returns the seconds between two points of a context of the metric, the
	// longest that Select says of any; 0 when that is not known.
	Pace(name string) int64
}

// A Window is the span of time to evaluate a query over.
type Window struct {
	From, To int64 // Unix seconds, both inclusive
	// Interval is the bucket width in seconds for queries without
	// .rollup(seconds); 0 chooses it from the length of the window.
	Interval int64
}

// A Point is one bucket of a result. A NaN value is null: the bucket exists,
// but its value is not defined (a division by zero, for one).
type Point struct {
	Time  int64 // Unix seconds, start of the bucket
	Value float64
}

// Null reports whether p has no value.
func (p Point) Null() bool { return math.IsNaN(p.Value) }

// A Result is one group of an evaluated expression, in the terms of a series
// of Datadog's query API.
type Result struct {
	Metric     string      // metric name, or "(a.b + c.d)" for arithmetic; function calls as typed
	Expression string      // the expression narrowed to this group, without "by"
	Scope      string      // filter tags and group tags, sorted, comma-separated; "*" when there is none
	Tags       metric.Tags // the group's tags; "key:N/A" for a key its contexts lack. Empty when ungrouped
	Aggregator string      // space aggregator; "" when omitted in the query, and for functions and arithmetic
	Interval   int64       // bucket width in seconds
	Unit       string      // unit shared by all contexts, or ""
	Points     []Point     // ascending in time; buckets without data are absent
	// Lower and Upper bound what is usual or expected, at some of the times of
	// Points: of anomalies and forecast as the outermost function, else empty.
	Lower, Upper []Point
	Outlier      bool // outliers, as the outermost function, marks the group
}

// Eval evaluates e over w. Results are sorted by their tags. A metric or scope
// that selects nothing gives no result and no error. A query that cannot be
// evaluated is an *Error; what the source reports is wrapped.
func Eval(ctx context.Context, src Source, e Expr, w Window) ([]Result, error) {
	ev := &evaluator{}
	ev.leaf = leavesOf(src, &ev.newest)
	return ev.results(ctx, e, w)
}

// results is Eval by ev.leaf.
func (ev *evaluator) results(ctx context.Context, e Expr, w Window) ([]Result, error) {
	if err := w.validate(); err != nil {
		return nil, err
	}
	all, err := ev.evaluate(ctx, e, span{window: w})
	if err != nil {
		return nil, err
	}
	results := make([]Result, len(all))
	name := display(e, func(q *Query) string { return q.Metric })
	for i, s := range all {
		results[i] = Result{
			Metric:     name,
			Expression: display(e, func(q *Query) string { return q.narrowed(s.tags) }),
			Scope:      scopeOf(e, s.tags),
			Tags:       s.tags,
			Aggregator: s.aggr,
			Interval:   s.interval,
			Unit:       s.unit,
			Points:     s.points,
			Lower:      s.lower,
			Upper:      s.upper,
			Outlier:    s.outlier,
		}
	}
	return results, nil
}

// A Reading is the value of a query at an instant.
type Reading struct {
	Value float64
	Time  int64 // of the newest point that contributed, or of the instant when none did; Unix seconds
}

// Value evaluates e at now: every context is rolled up over the trailing
// window, 10 seconds or those of .rollup(seconds), then aggregated over space,
// then functions and arithmetic apply. A context that is late by no more than a
// few of its submission intervals stays in with its newest window, so that a
// sum does not dip. Fills and interpolation have no meaning here.
//
// A function that looks back in time is given the values of its argument at now
// and at as many instants before as it needs, one trailing window apart (the
// longest of those that its argument has); its last point is its value. What
// depends on the window of a graph has no value: see CheckValue. So the value
// at an instant is a function of the source and the instant alone.
//
// ok is false when there is no value. More than one group is an *Error.
func Value(ctx context.Context, src Source, e Expr, now int64) (r Reading, ok bool, err error) {
	ev := &evaluator{}
	ev.leaf = leavesOf(src, &ev.newest)
	return ev.value(ctx, e, now)
}

// nothingYet is the time of the newest of no points.
const nothingYet = math.MinInt64

// value is e at now; ev.leaf is asked for nothing but instants.
func (ev *evaluator) value(ctx context.Context, e Expr, now int64) (r Reading, ok bool, err error) {
	if err := (Window{From: now, To: now}).validate(); err != nil {
		return Reading{}, false, err
	}
	ev.newest, ev.spent, ev.asked = nothingYet, 0, 0
	all, err := ev.evaluate(ctx, e, span{instants: []int64{now}})
	if err != nil {
		return Reading{}, false, err
	}
	switch {
	case len(all) > 1:
		return Reading{}, false, refuse(e, e.Pos(), "query has %d groups where one value is needed; remove \"by\" or narrow the scope", len(all))
	case len(all) == 0 || len(all[0].points) == 0 || all[0].points[0].Null():
		return Reading{}, false, nil
	}
	if ev.newest == math.MinInt64 { // made of nothing, as by default_zero: it is true now
		ev.newest = now
	}
	return Reading{Value: all[0].points[0].Value, Time: ev.newest}, true, nil
}

// farthest bounds the times that arithmetic on windows is safe with.
const farthest = 1 << 40

func (w Window) validate() error {
	for _, t := range [...]int64{w.From, w.To} {
		if t < -farthest || t > farthest {
			return fmt.Errorf("time %d is not a Unix time in seconds", t)
		}
	}
	if w.To < w.From {
		return fmt.Errorf("window ends at %d, before it begins at %d", w.To, w.From)
	}
	if w.Interval < 0 || w.Interval > maxRollup {
		return fmt.Errorf("interval %d is not from 0 to %d seconds", w.Interval, maxRollup)
	}
	return nil
}

// An evaluator evaluates one expression, whose leaves it is given.
type evaluator struct {
	// leaf evaluates one query over a span: the series of its groups, sorted by
	// their tags, none without points. At instants a point's time is one of them.
	leaf func(ctx context.Context, q *Query, at span) ([]series, error)
	// newest is the time of the newest point that contributed. leaf raises it;
	// what shifts an expression moves it along.
	newest int64
	spent  int // see spend
	asked  int // leaves so far
}

// maxLeaves bounds the leaves of one evaluation. It lets every operand that a
// query may have be looked at on the days before, once.
const maxLeaves = MaxOperands * (1 + seasonDays)

// A series is a group on its way through the expression.
type series struct {
	tags         metric.Tags
	points       []Point
	interval     int64
	unit         string
	aggr         string
	counting     bool // counts in buckets: a bucket without a point is 0
	interpolated bool // a gap up to defaultFill may be bridged
	lower, upper []Point
	outlier      bool
}

// A term is what an expression evaluates to: a number, or series.
type term struct {
	number  bool
	value   float64 // when number
	series  []series
	grouped bool // series come from a query with by
}

func (ev *evaluator) evaluate(ctx context.Context, e Expr, at span) ([]series, error) {
	if err := Check(e); err != nil {
		return nil, err
	}
	t, err := ev.term(ctx, e, at)
	return t.series, err
}

func (ev *evaluator) term(ctx context.Context, e Expr, at span) (term, error) {
	switch e := e.(type) {
	case *Number:
		return term{number: true, value: e.Value}, nil
	case *Query:
		if ev.asked++; ev.asked > maxLeaves {
			return term{}, &Error{Kind: Limit, Query: e.src, Offset: e.span.Start,
				Message: "a function within a function evaluates this query at too many times; nest anomalies and forecast less"}
		}
		s, err := ev.leaf(ctx, e, at)
		if err != nil {
			return term{}, err
		}
		return term{series: s, grouped: len(e.By) > 0}, nil
	case *Unary:
		t, err := ev.term(ctx, e.X, at)
		if err != nil {
			return term{}, err
		}
		return negate(t), nil
	case *Call:
		return ev.call(ctx, e, at)
	case *Binary:
		left, err := ev.term(ctx, e.Left, at)
		if err != nil {
			return term{}, err
		}
		right, err := ev.term(ctx, e.Right, at)
		if err != nil {
			return term{}, err
		}
		return arithmetic(e.Op, left, right), nil
	}
	return term{}, fmt.Errorf("expression of unknown kind %T", e)
}
