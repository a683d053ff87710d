package query

import "math"

// An axis is the times that the series of a term have in common.
type axis struct {
	in       input
	grid     grid // over a window
	interval int64
	times    []int64
	present  []bool // where any series has a point, perhaps null, or is interpolated
	buffer   []float64
	several  bool
}

// across returns the axis of t, which has series.
func (in input) across(t term) *axis {
	a := &axis{in: in, interval: 1, times: in.at.instants, several: len(t.series) > 1}
	if in.at.instants == nil {
		for i := range t.series {
			a.interval = lcm(a.interval, t.series[i].interval)
		}
		a.grid = in.at.grid(a.interval)
		a.times = make([]int64, a.grid.n)
		for i := range a.times {
			a.times[i] = a.grid.time(i)
		}
	}
	a.present = make([]bool, len(a.times))
	a.buffer = make([]float64, len(a.times))
	return a
}

// values returns s's values at the axis' times, valid until the next call, and
// notes where they are. Like contexts, several groups of samples are
// interpolated between their own.
func (a *axis) values(s *series) []float64 {
	for i := range a.buffer {
		a.buffer[i] = null
	}
	i := 0
	for _, p := range s.points {
		for i < len(a.times) && a.times[i] < p.Time {
			i++
		}
		if i < len(a.times) && a.times[i] == p.Time {
			a.buffer[i], a.present[i] = p.Value, true
		}
	}
	if a.several && s.interpolated && a.in.at.instants == nil {
		interpolate(a.buffer, "linear", defaultFill, a.interval)
		for i, v := range a.buffer {
			a.present[i] = a.present[i] || !math.IsNaN(v)
		}
	}
	return a.buffer
}

// aggregate folds some of t's series into one, without its tags.
func (a *axis) aggregate(t term, which []int, method string) series {
	a.several = len(which) > 1
	columns, n := make([]float64, len(a.times)*len(which)), make([]int, len(a.times))
	s := series{interval: a.interval, unit: t.series[which[0]].unit, interpolated: true}
	for _, i := range which {
		one := &t.series[i]
		for b, v := range a.values(one) {
			if !math.IsNaN(v) {
				columns[b*len(which)+n[b]] = v
				n[b]++
			}
		}
		if one.unit != s.unit {
			s.unit = ""
		}
		s.interpolated = s.interpolated && one.interpolated
	}
	for b, count := range n {
		if count > 0 {
			values := columns[b*len(which):][:count]
			s.points = append(s.points, Point{Time: a.times[b], Value: finite(summary(method, values))})
		}
	}
	return s
}
