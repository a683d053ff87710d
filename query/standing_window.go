package query

import (
	"slices"

	"kelpie.dev/kelpie/metric"
)

// This file is the trailing window of one series: what comes in, what falls out,
// and what of it a query sees at an instant.

// put adds a point, or replaces that of its second if replace is true.
func (c *standingContext) put(p metric.Point, fast, replace bool) {
	n := len(c.points)
	i := n
	if n > 0 && p.Time <= c.points[n-1].Time {
		var found bool
		i, found = slices.BinarySearchFunc(c.points, p.Time, compareTime)
		if found {
			if replace {
				c.points[i] = p
				c.setFast(i, fast)
			}
			return
		}
	}
	c.points = slices.Insert(c.points, i, p)
	c.fast = slices.Insert(c.fast, i, fast)
	c.mixed = c.mixed || c.fast[0] != fast || c.fast[len(c.fast)-1] != fast
}

func (c *standingContext) setFast(i int, fast bool) {
	c.fast[i] = fast
	c.mixed = slices.Contains(c.fast, true) && slices.Contains(c.fast, false)
}

func (c *standingContext) putSketch(p metric.SketchPoint, replace bool) {
	i, found := slices.BinarySearchFunc(c.sketches, p.Time, func(p metric.SketchPoint, t int64) int { return int(p.Time - t) })
	switch {
	case !found:
		p.Sketch.Bins = slices.Clone(p.Sketch.Bins)
		c.sketches = slices.Insert(c.sketches, i, p)
	case replace:
		p.Sketch.Bins = slices.Clone(p.Sketch.Bins)
		c.sketches[i] = p
	}
}

// prune forgets the points that no window of the given width can reach any more,
// except the newest: it tells that the series was there.
func (c *standingContext) prune(now, width int64) {
	if c.isDistribution {
		newest := len(c.sketches) - 1
		for newest > 0 && c.sketches[newest].Time > now {
			newest--
		}
		n := 0
		for n < newest && c.sketches[n].Time <= min(c.sketches[newest].Time, now)-width {
			n++
		}
		c.sketches = slices.Delete(c.sketches, 0, n)
		return
	}
	newest := len(c.points) - 1
	for newest > 0 && c.points[newest].Time > now {
		newest--
	}
	if newest < 0 {
		return
	}
	// A point that is not fast reaches into the window once the newest is.
	reach := width + max(c.usual, metric.UnknownInterval)
	n := 0
	for n < newest && c.points[n].Time <= min(c.points[newest].Time, now)-reach {
		n++
	}
	// Not at each point, or every one would be moved again and again.
	if n*2 < len(c.points) && n < 8 {
		return
	}
	c.points = slices.Delete(c.points, 0, n)
	c.fast = slices.Delete(c.fast, 0, n)
	c.mixed = c.mixed && slices.Contains(c.fast, true) && slices.Contains(c.fast, false)
}

// show makes Points those from from to now, of the interval of the newest. It
// reports whether there are any.
func (c *standingContext) show(now, from int64) bool {
	end := len(c.points)
	for end > 0 && c.points[end-1].Time > now {
		end--
	}
	first := 0
	for first < end && c.points[first].Time < from {
		first++
	}
	c.Points, c.Interval, c.Fast = c.points[first:end], c.usual, c.fast[first:end]
	if first < end && !c.mixed && c.fast[first] {
		c.Interval, c.Fast = metric.FastInterval, nil
	} else if !c.mixed {
		c.Fast = nil
	}
	restate(&c.Series, from, now)
	return len(c.Points) > 0
}

func (c *standingContext) sketchesIn(from, to int64) []metric.SketchPoint {
	first, end := 0, len(c.sketches)
	for end > 0 && c.sketches[end-1].Time > to {
		end--
	}
	for first < end && c.sketches[first].Time < from {
		first++
	}
	return c.sketches[first:end]
}

// appears is when the first point of c that is later than now does, or never.
func (c *standingContext) appears(now int64) int64 {
	at := int64(never)
	for i := len(c.points) - 1; i >= 0 && c.points[i].Time > now; i-- {
		at = c.points[i].Time
	}
	for i := len(c.sketches) - 1; i >= 0 && c.sketches[i].Time > now; i-- {
		at = c.sketches[i].Time
	}
	return at
}

// until is when the trailing window of c, whose Points are shown at now, changes
// by itself: when the newest point has become too old to end it, when the oldest
// leaves it after that, and when nothing tells any more that c was there.
func (c *standingContext) until(now, width int64) int64 {
	at := c.appears(now)
	var newest, oldest int64
	every := int64(unknownInterval)
	switch {
	case c.isDistribution:
		shown := c.sketchesIn(now-width-lateness+1, now)
		if len(shown) == 0 {
			return at
		}
		newest = shown[len(shown)-1].Time
		oldest = newest
		for i := len(shown) - 1; i >= 0 && shown[i].Time > now-width; i-- {
			oldest = shown[i].Time
		}
	default:
		newest = c.Points[len(c.Points)-1].Time
		oldest = newest
		for i := len(c.Points) - 1; i >= 0 && c.Points[i].Time > now-width; i-- {
			oldest = c.Points[i].Time
		}
		every = submission(&c.Series)
	}
	switch {
	case c.mixed: // what a point of ten seconds says of those to come appears with them
		return min(at, now+1)
	case trailingEnd(newest, every, now) == newest:
		return min(at, newest+lateFor(every)+1)
	case oldest > now-width:
		return min(at, oldest+width)
	default:
		return min(at, newest+width+lateness)
	}
}
