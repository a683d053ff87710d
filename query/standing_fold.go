package query

import (
	"slices"

	"kelpie.dev/kelpie/metric"
)

// worth is what a member of a leaf adds to its value. As the window of a series
// ends at its newest point, it holds until a point comes or the series is late:
// what a batch costs is what is in it, and the sum over the others.
type worth struct {
	value  float64
	newest int64 // time of the newest point in the window
	until  int64 // when time alone may change it
	known  bool  // it was found out
	shown  bool  // there is a point
}

// A membership is a series' place in a leaf.
type membership struct {
	leaf  *standingLeaf
	index int // in the leaf's members
}

// folds reports whether l is the sum of what its members add: whether all of them
// have points, and are one group.
func (l *standingLeaf) folds() bool { return l.distributions == 0 && len(l.query.By) == 0 }

// forget takes from l those that are gone.
func (l *standingLeaf) forget(gone func(*standingContext) bool) {
	members := slices.DeleteFunc(l.members, gone)
	l.members, l.worth, l.shown, l.distributions = nil, nil, nil, 0
	for _, c := range members {
		c.leaves = slices.DeleteFunc(c.leaves, func(m membership) bool { return m.leaf == l })
		l.join(c)
	}
}

// fold evaluates l, all of whose members have points and are one group.
func (l *standingLeaf) fold(now int64) error {
	var all accumulator
	shown := 0
	for i := range l.worth {
		w := &l.worth[i]
		if !w.known || w.until <= now {
			*w = l.members[i].worth(now, l)
		}
		l.until = min(l.until, w.until)
		if w.shown {
			shown++
			l.newest = max(l.newest, w.newest)
			all.add(w.value)
		}
	}
	if err := needsPoints(l.query, shown); err != nil || shown == 0 {
		return err
	}
	s := series{points: []Point{{Time: now, Value: finite(all.value(l.query.Aggregator.Name))}}, interval: 1, aggr: l.query.Aggregator.Name}
	if s.aggr != "count" {
		s.unit = l.metric.unit // as every series of it has
	}
	l.series = []series{s}
	return nil
}

// worth is what c adds to l at now.
func (c *standingContext) worth(now int64, l *standingLeaf) worth {
	if !c.show(now, now-l.width()-lateness+1) {
		return worth{known: true, until: c.appears(now)}
	}
	w := worth{known: true, shown: true, until: c.until(now, l.width())}
	w.value, w.newest = l.rollupOf(&c.Series).at(c.Points, submission(&c.Series), now, l.width())
	return w
}

// rollupOf is rollupFor s. Nearly all series of a metric are alike.
func (l *standingLeaf) rollupOf(s *metric.Series) rollup {
	if l.rolled == nil || l.rolledType != s.Type || l.rolledInterval != s.Interval {
		r := rollupFor(s, l.options, l.width())
		l.rolled, l.rolledType, l.rolledInterval = &r, s.Type, s.Interval
	}
	return *l.rolled
}

// weigh finds out what the series that moved add, to all their leaves while they
// are at hand.
func (s *Standing) weigh(now int64) {
	for i, c := range s.moved {
		s.moved[i], c.moved = nil, false
		var last *standingLeaf
		var w worth
		for _, m := range c.leaves {
			l := m.leaf
			if !l.folds() {
				continue
			}
			if last == nil || last.options != l.options {
				last, w = l, c.worth(now, l)
			}
			l.worth[m.index] = w
		}
	}
	s.moved = s.moved[:0]
}
