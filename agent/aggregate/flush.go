package aggregate

import (
	"time"

	"github.com/cespare/xxhash/v2"

	"kelpie.dev/kelpie/metric"
)

// Due returns when Flush or FlushFast should be called next: at the end of the
// open bucket or, with a fast lane, second; or sooner when timestamped samples
// wait.
func (a *Aggregator) Due(now time.Time) time.Time {
	sec := now.Unix()
	due := sec - sec%DefaultInterval + DefaultInterval
	if a.fast.twins > 0 {
		due = sec + metric.FastInterval
	}
	if len(a.pending) >= timestampedFlush {
		return now
	}
	if len(a.pending) > 0 {
		due = min(due, a.pendingFrom+timestampedDelay)
	}
	return time.Unix(due, 0)
}

// maxSeries is how many series a context makes at most, about: a histogram's.
const maxSeries = 8

// A Flush is what the buckets that have ended hold.
type Flush struct {
	Series        []metric.Series // but for those of Doubled
	Distributions []metric.Distribution
	Doubled       []metric.Series // that say, in buckets of 10 s, what FlushFast said every second
	Fast          []metric.Series // as FlushFast's, when the clock went back
}

// Flush returns every bucket that has ended by now, in the order in which the
// contexts were made, points in ascending time; then it forgets the contexts
// that have been silent for too long. The tags of the series are shared and must
// not be modified. A clock that went back by more than a bucket ends the buckets
// that now lie in the future.
func (a *Aggregator) Flush(now time.Time) Flush {
	f := a.StartFlush(now)
	for f.Step() {
	}
	return f.End()
}

func (a *Aggregator) expired(c *Context, now int64) bool {
	if !c.idle() || c.twin != nil && !c.twin.idle() {
		return false
	}
	limit := c.seen + a.o.ContextExpiry
	if c.counting {
		limit = max(limit, c.counted+a.o.CounterExpiry+a.o.ContextExpiry)
	}
	return limit <= now
}

// emitter collects one flush's series.
type emitter struct {
	a             *Aggregator
	out           []metric.Series
	doubled       []metric.Series
	distributions []metric.Distribution
	points        []metric.Point // backing of the series' points, to allocate once
	pending       int            // of out: timestamped samples, which no bucket held
	closed        []bucket       // of one context
}

// context emits c's buckets that ended by now, and all of them when the clock
// went back.
func (e *emitter) context(c *Context, now int64, back bool) {
	e.closed = c.take(e.closed[:0], now, back)
	closed := e.closed
	switch c.kind {
	case kindCounter:
		e.counter(c, closed, now)
	case kindGauge:
		e.add(c, c.series("", metric.Gauge), closed, func(b *bucket) float64 { return b.value })
	case kindSet:
		e.add(c, c.series("", metric.Gauge), closed, func(b *bucket) float64 { return float64(len(b.set)) })
	case kindHistogram:
		e.histogram(c, closed)
	case kindSketch:
		e.sketch(c, closed)
	case kindNone:
	}
	if back {
		c.seen, c.counted, c.next = min(c.seen, now), min(c.counted, now), now-now%c.interval
	}
}

func (e *emitter) sketch(c *Context, closed []bucket) {
	if len(closed) == 0 {
		return
	}
	d := metric.Distribution{Name: c.name, Host: c.host, Tags: c.tags, Points: make([]metric.SketchPoint, 0, len(closed))}
	for i := range closed {
		b := closed[i].sketch
		d.Points = append(d.Points, metric.SketchPoint{Time: closed[i].start, Sketch: b.Sketch()})
		b.Reset()
		if len(e.a.freeSketch) < 1024 {
			e.a.freeSketch = append(e.a.freeSketch, b)
		}
	}
	e.distributions = append(e.distributions, d)
}

// counter emits the closed buckets as rates, with a zero for every interval
// without one while the counter is remembered.
func (e *emitter) counter(c *Context, closed []bucket, now int64) {
	if !c.counting {
		return
	}
	from := len(e.points)
	alive := c.counted + e.a.o.CounterExpiry
	for {
		if len(closed) > 0 && closed[0].start <= c.next {
			e.point(closed[0].start, closed[0].value/float64(c.interval))
			c.next = max(c.next, closed[0].start+c.interval)
			closed = closed[1:]
			continue
		}
		if c.next+c.interval > now && len(closed) == 0 {
			break
		}
		if c.next >= alive {
			if len(closed) == 0 {
				c.next = now - now%c.interval
				break
			}
			c.next = closed[0].start
			continue
		}
		e.point(c.next, 0)
		c.next += c.interval
	}
	e.emit(c, c.series("", metric.Rate), from)
}

func (e *emitter) histogram(c *Context, closed []bucket) {
	if len(closed) == 0 {
		return
	}
	interval := float64(c.interval)
	for _, name := range e.a.o.Aggregates {
		s := c.series("."+name, metric.Gauge)
		switch name {
		case "max":
			e.add(c, s, closed, func(b *bucket) float64 { return b.hist.max })
		case "min":
			e.add(c, s, closed, func(b *bucket) float64 { return b.hist.min })
		case "median":
			e.add(c, s, closed, func(b *bucket) float64 { return b.hist.median() })
		case "avg":
			e.add(c, s, closed, func(b *bucket) float64 { return b.hist.sum.sum / b.hist.weight })
		case "sum":
			e.add(c, s, closed, func(b *bucket) float64 { return b.hist.sum.sum })
		case "count":
			s.Type, s.Unit = metric.Rate, ""
			e.add(c, s, closed, func(b *bucket) float64 { return b.hist.weight / interval })
		}
	}
	for _, p := range e.a.percentiles {
		e.add(c, c.series(p.suffix, metric.Gauge), closed, func(b *bucket) float64 { return b.hist.percentile(p.p) })
	}
	e.a.recycle(closed)
}

// recycle keeps the histograms of closed buckets for others.
func (a *Aggregator) recycle(closed []bucket) {
	for i := range closed {
		h := closed[i].hist
		if h == nil {
			continue
		}
		a.values -= h.reset()
		if len(a.free) < 1024 {
			a.free = append(a.free, h)
		} else {
			a.values -= cap(h.values)
		}
	}
}

// add emits s, a series of c's, with one point for each closed bucket.
func (e *emitter) add(c *Context, s metric.Series, closed []bucket, value func(*bucket) float64) {
	if !c.leaves(s.Name) {
		return
	}
	from := len(e.points)
	for i := range closed {
		e.point(closed[i].start, value(&closed[i]))
	}
	e.emit(c, s, from)
}

func (e *emitter) point(start int64, value float64) {
	if !finite(value) {
		e.a.notFinite++
		return
	}
	e.points = append(e.points, metric.Point{Time: start, Value: value})
}

// emit gives s, a series of c's, the points collected since from. Those that
// c's twin has told already go apart.
func (e *emitter) emit(c *Context, s metric.Series, from int) {
	if len(e.points) == from {
		return
	}
	points := e.points[from:len(e.points):len(e.points)]
	alone := len(points)
	if c.twin != nil && c.twin.leaves(s.Name) {
		alone = 0
		for alone < len(points) && !c.twin.covers(points[alone].Time) {
			alone++
		}
	}
	if s.Points = points[:alone:alone]; alone > 0 {
		e.out = append(e.out, s)
	}
	if s.Points = points[alone:]; alone < len(points) {
		e.doubled = append(e.doubled, s)
	}
}

// series returns c's series without points. Timer values carry their unit.
func (c *Context) series(suffix string, t metric.Type) metric.Series {
	s := metric.Series{
		Name: c.name + suffix, Host: c.host, Device: c.device, Tags: c.tags, Type: t, Interval: c.interval,
	}
	if c.timer && c.kind == kindHistogram {
		s.Unit = "millisecond"
	}
	return s
}

func (b *bucket) addMember(member []byte) error {
	if b.set == nil {
		b.set = make(map[uint64]struct{}, 8)
	}
	h := xxhash.Sum64(member)
	if _, ok := b.set[h]; !ok && len(b.set) >= MaxSetMembers {
		return DropSetLimit
	}
	b.set[h] = struct{}{}
	return nil
}
