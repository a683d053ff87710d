package query

import (
	"math"

	"kelpie.dev/kelpie/metric"
)

// rangeLane lays o's query over the window w.
func rangeLane(w Window, o options) (lane, bool) {
	g := gridOver(w, intervalOf(w, o))
	if g.n == 0 {
		return lane{}, false
	}
	// A gap at the window's left edge is bridged from the sample before it.
	ahead := 0
	if o.fill != "null" {
		ahead = int(o.limit / g.interval)
	}
	wide := g.before(ahead)
	buckets := make([]float64, wide.n)
	roll := func(c *contextSeries, among int) []float64 {
		rollupFor(&c.Series, o, g.interval).into(buckets, wide, c.Points)
		switch {
		case o.fill == "null":
		case o.fill != "":
			interpolate(buckets, o.fill, o.limit, g.interval)
		case among > 1 && (o.counting == raw || !counts(c.Type)):
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
	return lane{from: wide.first, to: w.To, grid: g, roll: roll, live: live, ahead: ahead, width: g.interval, place: place}, true
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
	// longestInterval bounds the interval that lateness is granted for.
	longestInterval = 300
)

// instantLane lays o's query over the trailing window that ends at now.
//
// Agents flush at different moments, so a window that ends at now would see one
// point more or less of each context from second to second. So the window of a
// context ends at its newest point, as long as that is at most lateIntervals of
// its own intervals older than a punctual one would be; else it ends at now.
func instantLane(now int64, o options, newest *int64) lane {
	width := o.seconds
	if width == 0 {
		width = instantWindow
	}
	value := make([]float64, 1)
	roll := func(c *contextSeries, _ int) []float64 {
		points := trailing(&c.Series, now, width)
		if len(points) > 0 {
			*newest = max(*newest, points[len(points)-1].Time)
		}
		value[0] = rollupFor(&c.Series, o, width).of(points)
		return value
	}
	place := func(d *metric.Distribution, add func(int, *metric.Sketch)) {
		last := d.Points[len(d.Points)-1].Time
		*newest = max(*newest, last)
		after := trailingEnd(last, unknownInterval, now) - width
		for i := range d.Points {
			if d.Points[i].Time > after {
				add(0, &d.Points[i].Sketch)
			}
		}
	}
	return lane{
		place: place,
		width: width,
		from:  now - width - (lateIntervals+1)*longestInterval + 1,
		to:    now,
		grid:  grid{first: now, interval: 1, n: 1},
		roll:  roll,
		live:  func(c *contextSeries) bool { return len(trailing(&c.Series, now, width)) > 0 },
	}
}

// trailing returns the points of s in its trailing window of the given width at now.
func trailing(s *metric.Series, now, width int64) []metric.Point {
	if len(s.Points) == 0 {
		return nil
	}
	end := trailingEnd(s.Points[len(s.Points)-1].Time, submission(s), now)
	i := len(s.Points)
	for i > 0 && s.Points[i-1].Time > end-width {
		i--
	}
	return s.Points[i:]
}

// trailingEnd is where the trailing window of a context ends that is submitted
// every so many seconds and has its newest point at newest.
func trailingEnd(newest, every, now int64) int64 {
	if now-newest <= (lateIntervals+1)*min(every, longestInterval) {
		return newest
	}
	return now
}

// finite returns v, or null when v is not finite: JSON has no such number.
func finite(v float64) float64 {
	if math.IsInf(v, 0) {
		return null
	}
	return v
}
