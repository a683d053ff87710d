package query

import (
	"cmp"
	"container/heap"
	"context"
	"math"
	"slices"

	"kelpie.dev/kelpie/metric"
)

// Standing holds queries that are asked for ever, and the trailing windows of
// the series that they read. Fed with what arrives, it says which of their
// values have changed, and each is what Value gives for the same instant from a
// Source that holds the same.
//
// A batch costs what is in it: a series is found by its identity, and with it
// the queries that select it, which an index by tag found when it first came. A
// query that looks back beyond its windows (see Pointwise) is not evaluated
// here: Step says when it is to be asked anew.
//
// Times are Unix seconds and must not fall. A Standing has one owner at a time,
// reads no clock and starts no goroutine.
type Standing struct {
	maxContexts int
	queries     map[string]*StandingQuery // by text
	metrics     map[string]*standingMetric
	dirty       []*standingLeaf
	due         dueLeaves
	contexts    int
	lookBack    map[*StandingQuery]struct{} // those to be asked of a Source
	moved       []*standingContext          // since the last Step
	touched     []*StandingQuery            // scratch of Step
}

// A StandingQuery is one query of a Standing. Its text identifies it.
type StandingQuery struct {
	Text string
	Expr Expr

	uses      int
	leaves    []*standingLeaf
	byLeaf    map[*Query]*standingLeaf
	viaSource bool  // to be asked of a Source
	asked     int64 // when it was last
	touched   bool
	known     bool // last is set
	last      Answer
}

// Last is what the query was worth when it was last evaluated. ok is false
// before the first time.
func (q *StandingQuery) Last() (a Answer, ok bool) { return q.last, q.known }

// An Answer is what a query is worth at an instant: a reading, nothing, or an
// error that says why there cannot be one.
type Answer struct {
	Reading
	OK  bool
	Err error
}

// same reports whether a and b say the same.
func (a Answer) same(b Answer) bool {
	switch {
	case a.Err != nil || b.Err != nil:
		return a.Err != nil && b.Err != nil && a.Err.Error() == b.Err.Error()
	case !a.OK || !b.OK:
		return a.OK == b.OK
	default:
		return a.Reading == b.Reading
	}
}

// A Missing is what a Source has and a Standing does not: the points of the
// selected series from From to To.
type Missing struct {
	Selector
	From, To int64
	leaf     *standingLeaf
}

// NewStanding returns an empty Standing that remembers at most maxContexts
// series; 0 means a million. Queries that read one beyond have an error for a
// value.
func NewStanding(maxContexts int) *Standing {
	return &Standing{
		maxContexts: cmp.Or(maxContexts, maxMembership),
		queries:     map[string]*StandingQuery{},
		metrics:     map[string]*standingMetric{},
		lookBack:    map[*StandingQuery]struct{}{},
	}
}

// Add adds a query, or another use of it. It returns what has to be read from a
// Source and given to Fill before the query has its value; what arrives
// meanwhile may be given to Observe. A query that CheckValue refuses is an error.
func (s *Standing) Add(text string, now int64) (*StandingQuery, []Missing, error) {
	if q := s.queries[text]; q != nil {
		q.uses++
		return q, nil, nil
	}
	e, err := Parse(text)
	if err != nil {
		return nil, nil, err
	}
	if err := CheckValue(e); err != nil {
		return nil, nil, err
	}
	q := &StandingQuery{Text: text, Expr: e, uses: 1, viaSource: !Pointwise(e), asked: math.MinInt64, byLeaf: map[*Query]*standingLeaf{}}
	var missing []Missing
	for leaf := range Queries(e) {
		l, err := s.leaf(leaf)
		if err != nil {
			return nil, nil, err // Check has seen it; nothing is held yet
		}
		q.byLeaf[leaf] = l
		if !slices.Contains(q.leaves, l) {
			q.leaves = append(q.leaves, l)
			l.users = append(l.users, q)
		}
		if !l.sought && !q.viaSource {
			l.sought, l.loading = true, true
			missing = append(missing, l.missing(now))
		}
		s.mark(l)
	}
	s.queries[text] = q
	if q.viaSource {
		s.lookBack[q] = struct{}{}
	}
	return q, missing, nil
}

// maxAhead is how far in the future points may lie, in seconds: what the intake
// accepts.
const maxAhead = 600

// Remove ends a use of q.
func (s *Standing) Remove(q *StandingQuery) {
	if q.uses--; q.uses > 0 {
		return
	}
	delete(s.queries, q.Text)
	delete(s.lookBack, q)
	for _, l := range q.leaves {
		l.users = slices.DeleteFunc(l.users, func(u *StandingQuery) bool { return u == q })
		if len(l.users) == 0 {
			s.drop(l)
		}
	}
}

// Fill takes what Add said is missing, or why it cannot be had. Points that came
// meanwhile are newer and stay.
func (s *Standing) Fill(m Missing, series []metric.Series, distributions []metric.Distribution, err error, now int64) {
	l := m.leaf
	if l.dropped {
		return
	}
	l.loading, l.loadErr = false, err
	for i := range series {
		s.fill(l.metric, &series[i], now)
	}
	for i := range distributions {
		d := &distributions[i]
		if c := s.context(l.metric, &metric.Series{Host: d.Host, Tags: d.Tags}, true); c != nil {
			c.seen = now
			for _, p := range d.Points {
				c.putSketch(p, false)
			}
			c.prune(now, l.metric.width)
		}
	}
	s.markAll(l.metric)
}

// fill takes a series as a Source has it.
func (s *Standing) fill(m *standingMetric, of *metric.Series, now int64) {
	s.know(m, metric.Kind{Type: of.Type, Interval: of.Interval}, of.Unit)
	c := s.context(m, of, false)
	if c == nil {
		return
	}
	c.seen = now
	for i, p := range of.Points {
		c.put(p, of.Interval == metric.FastInterval || of.Fast != nil && of.Fast[i], false)
	}
	c.prune(now, m.width)
}

// Reset forgets every series, as their tags are others now than when they came.
// What it returns is missing as in Add; until it is filled, values stay.
func (s *Standing) Reset(now int64) []Missing {
	var missing []Missing
	s.contexts, s.moved = 0, nil
	for _, m := range s.metrics {
		clear(m.contexts)
		clear(m.numbered)
		m.size, m.err = 0, nil
		for _, l := range m.leaves {
			l.members, l.worth, l.distributions, l.folded = nil, nil, 0, folded{}
			l.shown, l.groups, l.sought = nil, nil, false
			s.mark(l)
			if slices.ContainsFunc(l.users, func(q *StandingQuery) bool { return !q.viaSource }) {
				l.sought, l.loading = true, true
				missing = append(missing, l.missing(now))
			}
		}
	}
	return missing
}

// Pending reports whether a Step would evaluate anything before its time.
func (s *Standing) Pending() bool { return len(s.dirty) > 0 }

// Stands reports whether a query of this text does.
func (s *Standing) Stands(text string) bool { return s.queries[text] != nil }

// Size is how many queries stand.
func (s *Standing) Size() int { return len(s.queries) }

// Step brings every value up to now. changed is called for each query whose
// answer is another than before. What it returns is to be asked of a Source, by
// Value, and its answers given to Answered; each is returned once a second at
// most, and while its series come.
func (s *Standing) Step(now int64, changed func(*StandingQuery)) (ask []*StandingQuery) {
	s.weigh(now)
	s.sweep(now)
	for len(s.due) > 0 && s.due[0].until <= now {
		s.mark(s.due[0])
	}
	s.touched = s.touched[:0]
	for i, l := range s.dirty {
		s.dirty[i] = nil
		l.evaluate(now)
		s.schedule(l)
		for _, q := range l.users {
			if !q.touched {
				q.touched = true
				s.touched = append(s.touched, q)
			}
		}
	}
	s.dirty = s.dirty[:0]
	for _, q := range s.touched {
		q.touched = false
		if !q.viaSource && !q.loading() {
			s.settle(q, q.evaluate(now), changed)
		}
	}
	for q := range s.lookBack {
		if q.asked < now {
			q.asked = now
			ask = append(ask, q)
		}
	}
	slices.SortFunc(ask, func(a, b *StandingQuery) int { return cmp.Compare(a.Text, b.Text) })
	return ask
}

// loading reports whether a leaf of q lacks what it has missed.
func (q *StandingQuery) loading() bool {
	return slices.ContainsFunc(q.leaves, func(l *standingLeaf) bool { return l.loading })
}

// Answered takes the answer of a Source for a query that Step returned.
func (s *Standing) Answered(q *StandingQuery, a Answer, changed func(*StandingQuery)) {
	if s.queries[q.Text] == q {
		s.settle(q, a, changed)
	}
}

func (s *Standing) settle(q *StandingQuery, a Answer, changed func(*StandingQuery)) {
	if !q.known || !a.same(q.last) {
		q.last, q.known = a, true
		changed(q)
	}
}

// evaluate evaluates q over the current values of its leaves.
func (q *StandingQuery) evaluate(now int64) Answer {
	newest := int64(nothingYet)
	for _, l := range q.leaves {
		newest = max(newest, l.newest)
		if l.err != nil {
			return Answer{Err: l.err}
		}
	}
	ev := &evaluator{}
	ev.leaf = func(_ context.Context, leaf *Query, _ span) ([]series, error) {
		ev.newest = max(ev.newest, newest)
		return q.byLeaf[leaf].at(now), nil
	}
	r, ok, err := ev.value(context.Background(), q.Expr, now)
	return Answer{Reading: r, OK: ok, Err: err}
}

// Metrics calls yield for each metric that a query reads, in no order, until
// yield returns false.
func (s *Standing) Metrics(yield func(name string) bool) {
	for name := range s.metrics {
		if !yield(name) {
			return
		}
	}
}

// Contexts is how many series are remembered.
func (s *Standing) Contexts() int { return s.contexts }

// mark has l evaluated by the next Step.
func (s *Standing) mark(l *standingLeaf) {
	s.unschedule(l)
	if !l.dirty {
		l.dirty = true
		s.dirty = append(s.dirty, l)
	}
}

// markAll has every leaf of m, and what each of its series adds, evaluated anew.
func (s *Standing) markAll(m *standingMetric) {
	for _, l := range m.leaves {
		clear(l.worth)
		l.folded.valid = false
		s.mark(l)
	}
}

// schedule has l evaluated when time alone may change it.
func (s *Standing) schedule(l *standingLeaf) {
	if l.until != never && !l.dropped {
		heap.Push(&s.due, l)
	}
}

func (s *Standing) unschedule(l *standingLeaf) {
	if l.place >= 0 {
		heap.Remove(&s.due, l.place)
	}
}

// never is later than every instant.
const never = math.MaxInt64

// dueLeaves is a heap of leaves, the one that is due first at the top.
type dueLeaves []*standingLeaf

// Len implements heap.Interface.
func (d dueLeaves) Len() int { return len(d) }

// Less implements heap.Interface.
func (d dueLeaves) Less(i, j int) bool { return d[i].until < d[j].until }

// Swap implements heap.Interface.
func (d dueLeaves) Swap(i, j int) {
	d[i], d[j] = d[j], d[i]
	d[i].place, d[j].place = i, j
}

// Push implements heap.Interface.
func (d *dueLeaves) Push(x any) {
	l := x.(*standingLeaf)
	l.place = len(*d)
	*d = append(*d, l)
}

// Pop implements heap.Interface.
func (d *dueLeaves) Pop() any {
	last := len(*d) - 1
	l := (*d)[last]
	(*d)[last], l.place = nil, -1
	*d = (*d)[:last]
	return l
}
