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
	l.members, l.worth, l.shown, l.distributions, l.folded = nil, nil, nil, 0, folded{}
	for _, c := range members {
		c.leaves = slices.DeleteFunc(c.leaves, func(m membership) bool { return m.leaf == l })
		l.join(c)
	}
}

// A folded is what all members of a leaf are worth together. It is kept up to date
// by taking out what a member was worth and adding what it is, as long as the sum is
// exact, so that a step costs what has moved; else it is made anew.
type folded struct {
	accumulator
	shown   int   // members with points
	unknown int   // members that were not looked at yet
	newest  int64 // of their points
	until   int64 // no later than when time alone may change what a member is worth
	valid   bool
}

// fold evaluates l, all of whose members have points and are one group.
func (l *standingLeaf) fold(now int64) error {
	f := &l.folded
	if !f.valid || f.unknown > 0 || f.until <= now {
		l.refold(now)
	}
	l.until, l.newest = f.until, f.newest
	if err := needsPoints(l.query, f.shown); err != nil || f.shown == 0 {
		return err
	}
	s := series{points: []Point{{Time: now, Value: finite(f.value(l.query.Aggregator.Name))}}, interval: 1, aggr: l.query.Aggregator.Name}
	if s.aggr != "count" {
		s.unit = l.metric.unit // as every series of it has
	}
	l.series = []series{s}
	return nil
}

// refold makes l.folded of all members.
func (l *standingLeaf) refold(now int64) {
	f := folded{newest: nothingYet, until: never, valid: true}
	for i := range l.worth {
		w := &l.worth[i]
		if !w.known || w.until <= now {
			*w = l.members[i].worth(now, l)
		}
		f.until = min(f.until, w.until)
		if w.shown {
			f.shown++
			f.newest = max(f.newest, w.newest)
			f.valid = f.add(w.value) && f.valid
		}
	}
	l.folded = f
}

// replace makes w what a member is worth.
func (l *standingLeaf) replace(member int, w worth) {
	f, was := &l.folded, l.worth[member]
	l.worth[member] = w
	if !was.known {
		f.unknown--
	}
	if !f.valid {
		return
	}
	f.until = min(f.until, w.until)
	if was.shown {
		f.shown--
		gone := was.newest == f.newest && (!w.shown || w.newest < was.newest)
		f.valid = f.remove(was.value, l.query.Aggregator.Name) && !gone
	}
	if w.shown {
		f.shown++
		f.newest = max(f.newest, w.newest)
		f.valid = f.add(w.value) && f.valid
	}
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
			l.replace(m.index, w)
		}
	}
	s.moved = s.moved[:0]
}
