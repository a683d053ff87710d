package metric

import (
	"cmp"
	"slices"
)

// FastInterval is the submission interval, in seconds, that is a property of
// each point and not of its metric: an agent sends what autoscalers read every
// second and the same metric every ten seconds before, after and, where it is
// another maker's agent, meanwhile. So a store keeps with a point whether it
// stands for FastInterval, and else takes the metric's Kind.Interval.
const FastInterval = 1

// UnknownInterval is the interval, in seconds, of what came without one:
// DogStatsD's flush.
const UnknownInterval = 10

// A Kind is what is kept for a metric's name: how its values relate to time.
type Kind struct {
	Type     Type
	Interval int64 // seconds between submissions, FastInterval apart; 0 when nobody has said
}

// After returns k as it is after a submission of the given kind. The last one
// decides, but for what it does not say, and for FastInterval.
func (k Kind) After(last Kind) Kind {
	if last.Type != Unspecified {
		k.Type = last.Type
	}
	if last.Interval > FastInterval {
		k.Interval = last.Interval
	}
	return k
}

// AtInterval returns points of a context, ascending in time, of which the i-th
// was submitted every every(i) seconds, as if all had been every interval
// seconds. A rate of a longer interval becomes several that together say the
// same, at its time and after; those of a shorter one make the rate of the
// bucket, aligned to the epoch, that they are in. Where two then meet, one that
// was submitted so counts. Gauges and counts stay: they mean the same whatever
// their interval. The result may be points itself.
func AtInterval(t Type, points []Point, every func(i int) int64, interval int64) []Point {
	if t != Rate {
		return points
	}
	out := make([]restated, 0, len(points))
	for i, p := range points {
		switch n := every(i); {
		case n == interval:
			out = append(out, restated{Point: p, own: true, divide: 1})
		case n > interval:
			out = appendSpread(out, p, n, interval)
		default:
			out = appendMerged(out, p, n, interval)
		}
	}
	return onePerSecond(out)
}

// restated is a point at another interval than it was submitted at, or at its own.
type restated struct {
	Point
	own    bool
	divide float64 // of the value
}

// appendSpread appends what p, submitted every n seconds, says in steps of
// interval seconds.
func appendSpread(out []restated, p Point, n, interval int64) []restated {
	for at := p.Time; at < p.Time+n; at += interval {
		out = append(out, restated{Point: Point{Time: at, Value: p.Value}, divide: 1})
	}
	return out
}

// appendMerged adds p, submitted every n seconds, to its bucket of interval
// seconds, which is the newest of out if it is there.
func appendMerged(out []restated, p Point, n, interval int64) []restated {
	v := p.Value * float64(n)
	start := p.Time - (p.Time%interval+interval)%interval
	if last := len(out) - 1; last >= 0 && out[last].Time == start && !out[last].own {
		out[last].Value += v
		return out
	}
	return append(out, restated{Point: Point{Time: start, Value: v}, divide: float64(interval)})
}

// onePerSecond sorts points by time and keeps one of each second: the one
// submitted so if there is one, else the last.
func onePerSecond(points []restated) []Point {
	slices.SortStableFunc(points, func(a, b restated) int {
		switch {
		case a.own == b.own:
			return cmp.Compare(a.Time, b.Time)
		case a.own:
			return cmp.Or(cmp.Compare(a.Time, b.Time), 1)
		default:
			return cmp.Or(cmp.Compare(a.Time, b.Time), -1)
		}
	})
	out := make([]Point, 0, len(points))
	for _, p := range points {
		p.Value /= p.divide
		if last := len(out) - 1; last >= 0 && out[last].Time == p.Time {
			out[last] = p.Point
			continue
		}
		out = append(out, p.Point)
	}
	return out
}
