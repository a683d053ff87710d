package query

import (
	"math"

	"kelpie.dev/kelpie/metric"
)

// rangeLane lays o's query over the buckets of r, a run of at's.
func rangeLane(at span, r run, o options) lane {
	g := grid{first: r.first + r.shift, interval: r.interval, n: r.n} // where the data is
	// A gap at the left edge is bridged from the sample before it.
	ahead := 0
	if o.fill != "null" {
		ahead = int(o.limit / g.interval)
	}
	wide := g.before(ahead)
	buckets := make([]float64, wide.n)
	steps := at.steps()
	roll := func(c *contextSeries, among int) []float64 {
		rollupFor(&c.Series, o, g.interval).into(buckets, wide, c.Points)
		if steps != nil {
			steps(buckets)
		}
		switch {
		case o.fill == "null":
		case o.fill != "":
			interpolate(buckets, o.fill, o.limit, g.interval)
		case among > 1 && o.bridges(&c.Series, g.interval):
			interpolate(buckets, "linear", o.limit, g.interval)
		}
		return buckets[ahead:]
	}
	live := func(c *contextSeries) bool {
		return len(c.Points) > 0 && c.Points[len(c.Points)-1].Time >= g.first
	}
	place := func(d *metric.Distribution, add func(int, *metric.Sketch)) {
		for i := range d.Points {
			if b := floorDiv(d.Points[i].Time-wide.first, wide.interval); b >= 0 && b < int64(wide.n) {
				add(int(b), &d.Points[i].Sketch)
			}
		}
	}
	return lane{
		from:  wide.first,
		to:    min(at.window.To, r.time(r.n)-1) + r.shift,
		n:     r.n,
		every: r.interval,
		time:  r.time,
		roll:  roll, live: live, ahead: ahead, width: g.interval, place: place, steps: steps,
	}
}

// bridges reports whether gaps of s are interpolated where no fill says so:
// those of counts are real, and so are those of what is weighted by its time.
func (o options) bridges(s *metric.Series, width int64) bool {
	if counts(s.Type) {
		return o.counting == raw
	}
	return !o.weighted || width < submission(s)
}

// intervalOf is the bucket width that o's query has in w.
func intervalOf(w Window, o options) int64 {
	length := w.To - w.From
	switch {
	case o.seconds > 0:
		return widen(o.seconds, length)
	case w.Interval > 0:
		return widen(w.Interval, length)
	default:
		return autoInterval(length)
	}
}

const (
	// instantWindow is the trailing window of a query without .rollup(seconds).
	instantWindow = 10
	// lateIntervals is how many of its own intervals a context may be behind
	// before it leaves a value.
	lateIntervals = 3
	// shortestInterval and longestInterval bound the interval that lateness is
	// granted for: a request that is tried again takes seconds, however often the
	// agent sends.
	shortestInterval = 5
	longestInterval  = 300
	// lateness is the most seconds that the newest point of a context may be old.
	lateness = (lateIntervals + 1) * longestInterval
)

// instantLane lays o's query over the trailing windows that end at at's instants.
//
// Agents flush at different moments, so a window that ends at now would see one
// point more or less of each context from second to second. So the window of a
// context ends at its newest point, as long as that is at most lateIntervals of
// its own intervals older than a punctual one would be; else it ends at now.
func instantLane(at span, o options, newest *int64) lane {
	width := o.window()
	last := at.instants[len(at.instants)-1]
	values := make([]float64, len(at.instants))
	steps := at.steps()
	roll := func(c *contextSeries, _ int) []float64 {
		end := 0
		for i, t := range at.instants {
			for end < len(c.Points) && c.Points[end].Time <= t {
				end++
			}
			var last int64
			values[i], last = o.at(&c.Series, c.Points[:end], t)
			*newest = max(*newest, last)
		}
		if steps != nil {
			steps(values)
		}
		return values
	}
	return lane{
		instants: at.instants,
		from:     at.instants[0] - width - lateness + 1,
		to:       last,
		n:        len(at.instants),
		every:    1,
		time:     func(i int) int64 { return at.instants[i] },
		roll:     roll,
		live:     func(c *contextSeries) bool { return len(c.Points) > 0 },
		width:    width,
		steps:    steps,
		place:    instantPlace(at.instants, width, newest),
	}
}

// at is the value of s over the trailing window that ends at now, and the time of
// its newest point there. points are those of s that are not later than now.
func (o options) at(s *metric.Series, points []metric.Point, now int64) (value float64, newest int64) {
	return rollupFor(s, o, o.window()).at(points, submission(s), now, o.window())
}

// at is the value of the points in the trailing window of a context that is
// submitted every so many seconds.
func (r rollup) at(points []metric.Point, every, now, width int64) (value float64, newest int64) {
	newest = nothingYet
	points = trailing(points, every, now, width)
	if len(points) > 0 {
		newest = points[len(points)-1].Time
	}
	return r.of(points), newest
}

// instantPlace is the place of a lane over the trailing windows at instants.
func instantPlace(instants []int64, width int64, newest *int64) func(*metric.Distribution, func(int, *metric.Sketch)) {
	return func(d *metric.Distribution, add func(int, *metric.Sketch)) {
		end := 0
		for i, t := range instants {
			for end < len(d.Points) && d.Points[end].Time <= t {
				end++
			}
			if end == 0 {
				continue
			}
			last := d.Points[end-1].Time
			after := trailingEnd(last, unknownInterval, t) - width
			for j := end - 1; j >= 0 && d.Points[j].Time > after; j-- {
				*newest = max(*newest, last)
				add(i, &d.Points[j].Sketch)
			}
		}
	}
}

// window is the seconds of the trailing window of o's query.
func (o options) window() int64 {
	if o.seconds > 0 {
		return o.seconds
	}
	return instantWindow
}

// trailing returns those of points that are in the trailing window of the given
// width at now. None is later than now.
func trailing(points []metric.Point, every, now, width int64) []metric.Point {
	if len(points) == 0 {
		return nil
	}
	end := trailingEnd(points[len(points)-1].Time, every, now)
	i := len(points)
	for i > 0 && points[i-1].Time > end-width {
		i--
	}
	return points[i:]
}

// trailingEnd is where the trailing window of a context ends that is submitted
// every so many seconds and has its newest point at newest.
func trailingEnd(newest, every, now int64) int64 {
	if now-newest <= lateFor(every) {
		return newest
	}
	return now
}

// lateFor is how old, in seconds, the newest point of a context may be that is
// submitted every so many seconds before the context counts as late.
func lateFor(every int64) int64 {
	return (lateIntervals + 1) * min(max(every, shortestInterval), longestInterval)
}

// finite returns v, or null when v is not finite: JSON has no such number.
func finite(v float64) float64 {
	if math.IsInf(v, 0) {
		return null
	}
	return v
}
