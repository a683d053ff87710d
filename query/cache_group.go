package query

import (
	"slices"

	"github.com/cespare/xxhash/v2"
)

// This file is what a Cache knows of one group besides its values.

// follows reports whether g is evaluated as before was, so that the values of the
// two go together.
func (g *cachedGroup) follows(before *cachedGroup) bool {
	return g.absent || !before.absent && g.bridged == before.bridged && g.unit == before.unit && g.counting == before.counting
}

// from returns g, of what is known, over another grid that does not begin before,
// in its first n buckets; nil of nil.
func (g *cachedGroup) from(known *cached, to grid, n int) *cachedGroup {
	if g == nil {
		return nil
	}
	moved := *g
	if g.absent {
		n = 0
	}
	moved.values, moved.inBucket = make([]float64, to.n), make([]bool, to.n)
	skip := int((to.first - known.first) / to.interval)
	if n > 0 {
		copy(moved.values, g.values[skip:skip+n])
		copy(moved.inBucket, g.inBucket[skip:skip+n])
	}
	return &moved
}

// returns reports whether a context of now was idle when g was evaluated.
func (g *cachedGroup) returns(now *group) bool {
	if g == nil || len(g.idle) == 0 {
		return false
	}
	for _, c := range now.members {
		hash, last := c.hash(), len(c.Points)-1
		if slices.ContainsFunc(g.idle, func(i lastSeen) bool { return i.context == hash && last >= 0 && c.Points[last].Time > i.at }) {
			return true
		}
	}
	return false
}

// newest is the two newest contexts of a group, the newer one first.
type newest [2]lastSeen

// lastSeen is a context's newest point.
type lastSeen struct {
	context uint64 // its hash; 0 for none
	at      int64
}

// newestOf looks through g.
func newestOf(g *group) (n newest) {
	for _, c := range g.members {
		if last := len(c.Points) - 1; last >= 0 && (n[1].context == 0 || c.Points[last].Time > n[1].at) {
			n.see(lastSeen{c.hash(), c.Points[last].Time})
		}
	}
	return n
}

func (n *newest) see(c lastSeen) {
	switch {
	case c.context == 0:
	case c.context == n[0].context:
		n[0].at = max(n[0].at, c.at)
	case n[0].context == 0 || c.at > n[0].at:
		n[0], n[1] = c, n[0]
	case n[1].context == 0 || c.at > n[1].at:
		n[1] = c
	}
}

// with is the newest of the contexts of both.
func (n newest) with(other newest) newest {
	n.see(other[0])
	n.see(other[1])
	return n
}

// since is how many contexts have points at from or later: 0, 1 or, for any more, 2.
func (n newest) since(from int64) (among int) {
	for _, c := range n {
		if c.context != 0 && c.at >= from {
			among++
		}
	}
	return among
}

// hash is that of what makes c a context of its metric.
func (c *contextSeries) hash() uint64 {
	const mix = 0x9e3779b97f4a7c15 // odd, so that no bit is lost
	h := xxhash.Sum64String(c.Host)*mix ^ xxhash.Sum64String(c.Device)
	for _, tag := range c.tags {
		h = h*mix ^ xxhash.Sum64String(tag)
	}
	return max(h, 1)
}
