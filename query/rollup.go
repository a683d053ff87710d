package query

import (
	"math"

	"kelpie.dev/kelpie/metric"
)

// unknownInterval is the submission interval assumed for a rate that came
// without one, which otherwise would be no count at all.
const unknownInterval = metric.UnknownInterval

// null is the value of a bucket without one.
var null = math.NaN()

// A rollup turns the points of one context that fall in a bucket into its value.
type rollup struct {
	method string
	scale  float64 // of each point
	divide float64 // of the bucket's value
	// weight, unless 0, multiplies the value once for each point: the share of
	// the bucket that a point stands for.
	weight float64
}

// rollupFor returns how o rolls up s into buckets of the given width: table
// B3.3 of the reference. Gauges know no as_count and as_rate.
func rollupFor(s *metric.Series, o options, width int64) rollup {
	r := rollup{method: o.method, scale: 1, divide: 1}
	if o.counting == raw || !counts(s.Type) {
		if r.method == "" {
			r.method = "avg"
		}
		if o.weighted && !counts(s.Type) {
			r.weight = float64(submission(s)) / float64(max(width, submission(s)))
		}
		return r
	}
	every := float64(submission(s))
	if r.method == "" {
		r.method = "sum"
	}
	switch {
	case r.method == "count":
	case o.counting == asCount:
		if s.Type == metric.Rate {
			r.scale = every
		}
	case r.method == "sum":
		// Buckets no wider than the submission interval keep the rate of their
		// one point, hence the larger of the two.
		if s.Type == metric.Rate {
			r.scale = every
		} else {
			every = float64(s.Interval)
		}
		r.divide = max(float64(width), every)
	case s.Type == metric.Count: // the extreme or mean of the points' own rates
		r.scale = 1 / every
	}
	return r
}

// counts reports whether as_count and as_rate have a meaning for t.
func counts(t metric.Type) bool { return t == metric.Rate || t == metric.Count }

// submission is the seconds between two points of s.
func submission(s *metric.Series) int64 {
	if s.Interval > 0 {
		return s.Interval
	}
	return unknownInterval
}

// of returns the value of one bucket's points, null when there are none.
// Values that are not finite count as absent.
func (r rollup) of(points []metric.Point) float64 {
	// Not an accumulator: time has an order, and of this loop there are most.
	n, v := 0.0, 0.0
	for _, p := range points {
		x := p.Value * r.scale
		if x-x != 0 { // not finite
			continue
		}
		switch n++; {
		case r.method == "min" && n > 1:
			v = min(v, x)
		case r.method == "max" && n > 1:
			v = max(v, x)
		case r.method == "min" || r.method == "max":
			v = x
		default:
			v += x
		}
	}
	switch {
	case n == 0:
		return null
	case r.method == "count":
		v = n
	case r.method == "avg":
		v /= n
	}
	v /= r.divide
	if r.weight > 0 {
		v *= min(1, n*r.weight)
	}
	return v
}

// into rolls points, ascending in time, up into the buckets of g. dst has g.n
// elements.
func (r rollup) into(dst []float64, g grid, points []metric.Point) {
	i := 0
	for i < len(points) && points[i].Time < g.first {
		i++
	}
	for b := range dst {
		end := g.time(b + 1)
		start := i
		for i < len(points) && points[i].Time < end {
			i++
		}
		dst[b] = r.of(points[start:i])
	}
}

// An accumulator aggregates values in any order: over space, or a result's.
type accumulator struct {
	n        float64
	sum      exactSum
	min, max float64
}

// An exactSum adds up values so that their order does not matter: what rounding
// takes off at each step is added up beside (Knuth's two-sum). The two together
// have 106 bits, more than the sum of a million values of one magnitude needs, so
// that contexts need not be sorted, and one can be taken out again. Only where a
// sum exceeds what a float holds on the way does the order still matter.
type exactSum struct{ high, low float64 }

// add adds v and reports whether the sum is still exact, if it was before.
func (s *exactSum) add(v float64) (exact bool) {
	var lost float64
	s.high, lost = twoSum(s.high, v)
	s.low, lost = twoSum(s.low, lost)
	return lost == 0
}

// twoSum is a + b, and what rounding takes off it.
func twoSum(a, b float64) (sum, lost float64) {
	sum = a + b
	part := sum - a
	return sum, (a - (sum - part)) + (b - part)
}

func (s *exactSum) value() float64 {
	if math.IsNaN(s.low) { // the sum is infinite
		return s.high
	}
	return s.high + s.low
}

// add takes v unless it is not finite. It reports whether the sum is still exact,
// if it was before.
func (a *accumulator) add(v float64) (exact bool) {
	switch {
	case v-v != 0: // not finite
		return true
	case a.n == 0:
		a.min, a.max = v, v
	default:
		a.min, a.max = min(a.min, v), max(a.max, v)
	}
	a.n++
	return a.sum.add(v)
}

// remove takes out v, which was added. It reports whether the value of method is
// what it would be without: the sum must be exact, and who is the extreme instead
// of one is not known.
func (a *accumulator) remove(v float64, method string) (known bool) {
	if v-v != 0 {
		return true
	}
	a.n--
	exact := a.sum.add(-v)
	switch {
	case a.n == 0:
	case method == "min" && v <= a.min, method == "max" && v >= a.max:
		return false
	}
	return exact
}

// value is the aggregate of what was added, null when nothing was.
func (a *accumulator) value(method string) float64 {
	if a.n == 0 {
		return null
	}
	switch method {
	case "sum":
		return a.sum.value()
	case "min":
		return a.min
	case "max":
		return a.max
	case "count":
		return a.n
	default:
		return a.sum.value() / a.n
	}
}

// interpolate fills the gaps of one context's buckets: up to limit seconds past
// a real sample. linear fills between two samples only; last and zero also go on
// after the newest. Nothing comes before the first sample.
func interpolate(v []float64, mode string, limit, interval int64) {
	reach := int(limit / interval)
	last := -1
	for i := range v {
		if math.IsNaN(v[i]) {
			continue
		}
		if last >= 0 {
			fillGap(v, last, i, mode, reach)
		}
		last = i
	}
	if last >= 0 && mode != "linear" {
		fillGap(v, last, len(v), mode, reach)
	}
}

// fillGap fills up to reach buckets of v after bucket from and before bucket to.
func fillGap(v []float64, from, to int, mode string, reach int) {
	for i := from + 1; i < to && i-from <= reach; i++ {
		switch mode {
		case "zero":
			v[i] = 0
		case "last":
			v[i] = v[from]
		case "linear":
			share := float64(i-from) / float64(to-from)
			v[i] = v[from]*(1-share) + v[to]*share
		}
	}
}
