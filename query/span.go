package query

import (
	"math"
	"slices"
)

// A span is the times that an expression is evaluated at: the buckets of a
// window, or instants.
type span struct {
	window Window // whose buckets
	ahead  int64  // seconds before the window that are evaluated as well
	shifts []shift
	// instants, ascending and without duplicates, take the window's place.
	instants []int64
	// delta asks a leaf for the steps between a context's values instead of the
	// values, before space aggregation.
	delta delta
}

// A shift says where the data of time t is to be read.
type shift func(t int64) int64

// A delta is a step between two values of a context.
type delta struct {
	on        bool
	monotonic bool  // steps down are no steps
	apart     int64 // seconds between two instants; buckets are neighbours
}

// source returns where the data of time t is.
func (s span) source(t int64) int64 {
	for _, move := range s.shifts {
		t = move(t)
	}
	return t
}

// shifted returns s with its data read where move says.
func (s span) shifted(move shift) span {
	if s.instants == nil {
		s.shifts = append(slices.Clip(s.shifts), move)
		return s
	}
	moved := make([]int64, len(s.instants))
	for i, t := range s.instants {
		moved[i] = move(t)
	}
	slices.Sort(moved)
	s.instants = slices.Compact(moved)
	return s
}

// back returns the instants of s with the n-1 before each, step seconds apart. ok
// is false when they are more than MaxReach.
func (s span) back(n int, step int64) (wide span, ok bool) {
	all := s.instants
	for have := 1; have < n; { // of the n, for each of s's
		more := min(have, n-have)
		all = withEarlier(all, int64(more)*step)
		have += more
		if len(all) > MaxReach {
			return s, false
		}
	}
	s.instants = all
	return s, true
}

// withEarlier merges ascending times with those so many seconds before each.
func withEarlier(times []int64, by int64) []int64 {
	all := make([]int64, 0, 2*len(times))
	i := 0
	for _, t := range times {
		for ; i < len(times) && times[i]-by <= t; i++ {
			all = append(all, times[i]-by)
		}
		if len(all) == 0 || all[len(all)-1] != t {
			all = append(all, t)
		}
	}
	return all
}

// earlier returns the window of s with at least the given seconds before it.
func (s span) earlier(seconds int64) span {
	s.ahead += seconds
	return s
}

// grid returns the buckets of s with the given width.
func (s span) grid(interval int64) grid {
	g := gridOver(s.window, interval)
	return g.before(int(ceilDiv(s.ahead, interval)))
}

// A run is buckets in a row whose data is moved by the same number of seconds.
type run struct {
	grid
	shift int64 // from a bucket's time to that of its data
}

// runs splits g by how far the data of its buckets is moved.
func (s span) runs(g grid) []run {
	if len(s.shifts) == 0 || g.n == 0 {
		return []run{{grid: g}}
	}
	var all []run
	for i := range g.n {
		t := g.time(i)
		by := s.source(t) - t
		if last := len(all) - 1; last >= 0 && all[last].shift == by {
			all[last].n++
			continue
		}
		all = append(all, run{grid: grid{first: t, interval: g.interval, n: 1}, shift: by})
	}
	return all
}

// steps returns what replaces a context's values over s by the steps between
// them; nil when values are asked for.
func (s span) steps() func(values []float64) {
	switch {
	case !s.delta.on:
		return nil
	case s.instants != nil:
		return func(values []float64) { s.delta.betweenAt(values, s.instants) }
	default:
		return s.delta.between
	}
}

// between replaces values by the steps since the last before each.
func (d delta) between(values []float64) {
	last := null
	for i, v := range values {
		if math.IsNaN(v) {
			continue
		}
		values[i] = d.step(last, v)
		last = v
	}
}

// step is the step from a to b, null when there is none.
func (d delta) step(a, b float64) float64 {
	if d.monotonic && b < a {
		return null
	}
	return b - a
}

// betweenAt is between for values at instants: a step is that of d.apart seconds.
func (d delta) betweenAt(values []float64, instants []int64) {
	before := len(instants) - 1
	for i := len(instants) - 1; i >= 0; i-- {
		for before >= 0 && instants[before] > instants[i]-d.apart {
			before--
		}
		if before < 0 || instants[before] != instants[i]-d.apart {
			values[i] = null
			continue
		}
		values[i] = d.step(values[before], values[i])
	}
}
