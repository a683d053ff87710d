package query

import "slices"

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

// sort finds the places of those that joined among the others. As series come and
// go all the time, that must not cost what all of them do.
func (l *standingLeaf) sort() {
	n := len(l.order)
	if n == len(l.members) {
		return
	}
	l.shown = nil
	compare := func(a, b int32) int {
		return compareContexts(&l.members[a].contextSeries, &l.members[b].contextSeries)
	}
	joined := make([]int32, len(l.members)-n)
	for i := range joined {
		joined[i] = int32(n + i) //nolint:gosec // at most maxMembership
	}
	slices.SortFunc(joined, compare)
	l.order = append(l.order, joined...)
	for i := len(joined) - 1; i >= 0; i-- {
		at, _ := slices.BinarySearchFunc(l.order[:n], joined[i], compare)
		copy(l.order[at+i+1:], l.order[at:n])
		l.order[at+i], n = joined[i], at
	}
	if len(l.members) >= 2*l.settled {
		l.settle()
	}
}

// settle moves the members into their order, in which they are added up. Done as
// often as their number doubles, it costs each of them little.
func (l *standingLeaf) settle() {
	members, worths := make([]*standingContext, len(l.members)), make([]worth, len(l.members))
	for i, at := range l.order {
		c := l.members[at]
		members[i], worths[i], l.order[i] = c, l.worth[at], int32(i) //nolint:gosec // at most maxMembership
		for j := range c.leaves {
			if c.leaves[j].leaf == l {
				c.leaves[j].index = i
			}
		}
	}
	l.members, l.worth, l.settled = members, worths, len(members)
}

// forget takes from l those that are gone.
func (l *standingLeaf) forget(gone func(*standingContext) bool) {
	members := slices.DeleteFunc(l.members, gone)
	l.members, l.worth, l.order, l.settled, l.shown, l.distributions = nil, nil, nil, 0, nil, 0
	for _, c := range members {
		c.leaves = slices.DeleteFunc(c.leaves, func(m membership) bool { return m.leaf == l })
		l.join(c)
	}
}

// fold evaluates l, all of whose members have points and are one group. The order
// is that of aggregate, so that sums are the same to the last bit.
func (l *standingLeaf) fold(now int64) error {
	var all accumulator
	shown := 0
	for _, i := range l.order {
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
	w.value, w.newest = l.options.at(&c.Series, c.Points, now)
	return w
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
