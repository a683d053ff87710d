package aggregate

import (
	"time"

	"kelpie.dev/kelpie/metric"
)

// A Flushing is a Flush in steps, so that samples may be added between them: they
// go into the buckets that are open then. Until it has ended nothing else of the
// Aggregator may be called.
type Flushing struct {
	e     emitter
	now   int64
	back  bool
	ended bool // whether there is anything to go through
	read  int  // contexts that have been gone through
	kept  int  // of these, those that live on: first in the lane
}

// StartFlush begins what Flush does at once.
func (a *Aggregator) StartFlush(now time.Time) *Flushing {
	sec := now.Unix()
	back := sec < a.flushed-DefaultInterval
	if back || sec > a.flushed {
		a.flushed = sec
	}
	f := &Flushing{now: sec, back: back, ended: back || sec >= a.slow.due}
	room := 0
	if f.ended {
		room = a.slow.room()
		a.slow.due = sec - sec%DefaultInterval + DefaultInterval
	}
	out := make([]metric.Series, 0, room+len(a.pending))
	f.e = emitter{a: a, out: append(out, a.pending...), points: make([]metric.Point, 0, room)}
	f.e.pending = len(a.pending)
	a.pending = nil
	return f
}

// stepWork bounds a step: about a fifth of a millisecond, in contexts without
// values of their own; histogramWork of these cost what one of them does.
const (
	stepWork      = 512
	histogramWork = 16
)

// Step goes through some contexts, and reports whether any are left.
func (f *Flushing) Step() bool {
	a, l := f.e.a, &f.e.a.slow
	if !f.ended {
		return false
	}
	// After the clock went back every bucket ends, those included that samples
	// between the steps would open.
	for work := 0; f.read < len(l.order) && (work < stepWork || f.back); f.read++ {
		c := l.order[f.read]
		work += 1 + c.values()/histogramWork
		f.e.context(c, f.now, f.back)
		if a.expired(c, f.now) {
			a.release(c)
			continue
		}
		l.order[f.kept] = c
		f.kept++
	}
	return f.read < len(l.order)
}

// End returns what the steps have found, once none is left.
func (f *Flushing) End() Flush {
	a, e := f.e.a, &f.e
	if f.ended {
		l := &a.slow
		clear(l.order[f.kept:])
		l.order, l.emitted = l.order[:f.kept], len(e.out)+len(e.doubled)-e.pending
	}
	out := Flush{Series: e.out, Distributions: e.distributions, Doubled: e.doubled}
	if f.back {
		out.Fast = a.turnBack(f.now)
	}
	return out
}

// values is how many values the histograms of c's buckets hold.
func (c *Context) values() int {
	n := c.current.values()
	for i := range c.older {
		n += c.older[i].values()
	}
	return n
}

func (b *bucket) values() int {
	if b.hist == nil {
		return 0
	}
	return len(b.hist.values)
}
