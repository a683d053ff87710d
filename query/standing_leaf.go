package query

import (
	"context"

	"kelpie.dev/kelpie/metric"
)

// standingLeaf is one query for one metric, whoever uses it, with the series
// that it selects and what they are worth.
type standingLeaf struct {
	text    string
	query   *Query
	options options
	metric  *standingMetric
	tag     string // that every series it selects bears, by which metric finds it; "" for none
	users   []*StandingQuery
	place   int // in dueLeaves; -1 when it is not there
	dirty   bool
	dropped bool

	sought  bool  // what it has missed was asked for: not while only what looks back uses it
	loading bool  // what it has missed is still to come
	loadErr error // it could not be read

	members       []*standingContext // as they joined
	worth         []worth            // of each member
	folded        folded             // what they are worth together, if it folds
	distributions int                // members that are some
	shown         []*contextSeries   // members with points in the window, at the latest evaluation, unless it folds
	groups        []*group           // of shown

	rolled         *rollup // of the series asked for last, see rollupOf
	rolledType     metric.Type
	rolledInterval int64

	// What evaluate found.
	series []series
	newest int64
	err    error
	until  int64 // when time alone may change it
}

// width is the seconds of its trailing window.
func (l *standingLeaf) width() int64 { return l.options.window() }

// missing is what l may read at now.
func (l *standingLeaf) missing(now int64) Missing {
	return Missing{
		Selector: Selector{Metric: l.query.Metric, Scope: l.query.Scope},
		From:     now - l.width() - lateness + 1, To: now + maxAhead, leaf: l,
	}
}

// leaf returns the leaf of q, a new one if there is none.
func (s *Standing) leaf(q *Query) (l *standingLeaf, err error) {
	m := s.metrics[q.Metric]
	if m == nil {
		m = &standingMetric{
			name: q.Metric, contexts: map[uint64]*standingContext{}, numbered: map[uint64]*standingContext{}, leaves: map[string]*standingLeaf{}, byTag: map[string][]*standingLeaf{},
		}
	}
	text := q.String()
	if l := m.leaves[text]; l != nil {
		return l, nil
	}
	o, err := q.options()
	if err != nil {
		return nil, err
	}
	o.fill = "null" // as in leavesOf
	l = &standingLeaf{text: text, query: q, options: o, metric: m, place: -1, newest: nothingYet, until: never}
	s.metrics[q.Metric] = m
	m.add(l)
	return l, nil
}

// drop forgets a leaf that nobody uses.
func (s *Standing) drop(l *standingLeaf) {
	s.unschedule(l)
	l.dropped = true
	m := l.metric
	m.remove(l)
	if len(m.leaves) == 0 {
		s.contexts -= m.size
		delete(s.metrics, m.name)
	}
}

// join makes c one of l's series.
func (l *standingLeaf) join(c *standingContext) {
	c.leaves = append(c.leaves, membership{leaf: l, index: len(l.members)})
	l.members, l.worth = append(l.members, c), append(l.worth, worth{})
	l.folded.unknown++
	if c.isDistribution {
		l.distributions++
	}
}

// evaluate brings what l is worth up to now.
func (l *standingLeaf) evaluate(now int64) {
	l.dirty = false
	l.series, l.err = nil, l.metric.err
	l.newest, l.until = nothingYet, never
	if l.err == nil {
		l.err = l.loadErr
	}
	if l.err != nil || l.loading {
		return
	}
	if l.folds() {
		l.err = l.fold(now)
	} else {
		l.err = l.each(now)
	}
	if l.newest == nothingYet && len(l.series) > 0 {
		l.until = min(l.until, now+1) // what is made of its nulls is true now, and not later
	}
}

// each evaluates l as a Source's answer is.
func (l *standingLeaf) each(now int64) error {
	at := instantLane(span{instants: []int64{now}}, l.options, &l.newest)
	found, err := l.sketches(now, at)
	if !found && err == nil {
		err = l.points(now, at)
	}
	for i := range l.series {
		l.series[i].counting, l.series[i].interpolated = false, false // as in leavesOf
	}
	return err
}

// at returns what l is worth at now. Nothing has changed since it was evaluated,
// which may have been long ago.
func (l *standingLeaf) at(now int64) []series {
	for i := range l.series {
		for j := range l.series[i].points {
			l.series[i].points[j].Time = now
		}
	}
	return l.series
}

// points evaluates l over the members with points. The groups are those of the
// evaluation before while the members with points are.
func (l *standingLeaf) points(now int64, at lane) error {
	n, same := 0, l.shown != nil
	for _, c := range l.members {
		if c.isDistribution || !c.show(now, at.from) {
			l.until = min(l.until, c.appears(now))
			continue
		}
		l.until = min(l.until, c.until(now, l.width()))
		same = same && n < len(l.shown) && l.shown[n] == &c.contextSeries
		if !same {
			l.shown = append(l.shown[:n], &c.contextSeries)
		}
		n++
	}
	if same = same && n == len(l.shown); !same || l.groups == nil {
		l.shown = l.shown[:n]
		groups, err := groupContexts(l.query, l.shown)
		if err != nil {
			l.groups = nil
			return err
		}
		l.groups = groups
	}
	if err := needsPoints(l.query, n); err != nil {
		return err
	}
	out, err := at.over(context.Background(), l.query, l.options, l.groups) //nolint:contextcheck // nothing here waits
	l.series = out
	return err
}

// sketches evaluates l over the members that are distributions. It reports false
// when none has a sketch in the window.
func (l *standingLeaf) sketches(now int64, at lane) (found bool, err error) {
	m := newMerger(l.query, at)
	for _, c := range l.members {
		if !c.isDistribution {
			continue
		}
		l.until = min(l.until, c.until(now, l.width()), c.appears(now))
		shown := c.sketchesIn(at.from, now)
		if len(shown) == 0 {
			continue
		}
		found = true
		if err := m.add(&metric.Distribution{Name: c.Name, Host: c.Host, Tags: c.Tags, Points: shown}); err != nil {
			return found, err
		}
	}
	for _, g := range m.sorted() {
		if s := m.series(g, l.options); len(s.points) > 0 {
			l.series = append(l.series, s)
		}
	}
	return found, nil
}
