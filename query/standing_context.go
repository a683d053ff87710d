package query

import (
	"fmt"
	"hash/maphash"
	"math"
	"slices"
	"strings"

	"kelpie.dev/kelpie/metric"
)

// standingMetric is what a Standing remembers of one metric: the leaves that read
// it, and every series of it that came, so that the next batch finds its leaves
// without matching again.
type standingMetric struct {
	name     string
	kind     metric.Kind
	unit     string
	contexts map[uint64]*standingContext // by identity; those that share a hash are chained
	numbered map[uint64]*standingContext // by the number that Observe was given
	size     int
	swept    int64 // when sweep saw it last
	err      error // there are too many series

	leaves map[string]*standingLeaf   // by text
	byTag  map[string][]*standingLeaf // by a tag that all they select bear; "" for those that name none
	width  int64                      // the longest window of a leaf
}

// standingContext is one series, or one distribution, of a metric.
type standingContext struct {
	contextSeries // Points are those of the window, of the interval of the newest
	leaves        []membership
	next          *standingContext // of the same hash

	seen           int64 // when it came last
	usual          int64 // interval of the points that are not fast
	isDistribution bool
	sketches       []metric.SketchPoint
	points         []metric.Point // ascending in time, as they came
	fast           []bool         // of points: whether each stands for metric.FastInterval
	mixed          bool           // fast holds both
	moved          bool           // in Standing.moved
	number         uint64         // in standingMetric.numbered
}

// add makes l one of m's leaves and joins it to the series that it selects.
func (m *standingMetric) add(l *standingLeaf) {
	m.leaves[l.text] = l
	m.width = max(m.width, l.width())
	// The rarest of the tags that a series must bear finds the fewest in vain.
	fewest := math.MaxInt
	for _, tag := range requiredTags(l.query.Scope) {
		if n := len(m.byTag[tag]); n < fewest {
			l.tag, fewest = tag, n
		}
	}
	m.byTag[l.tag] = append(m.byTag[l.tag], l)
	for _, c := range m.contexts {
		for ; c != nil; c = c.next {
			if l.query.Scope.Match(c.tags) {
				l.join(c)
			}
		}
	}
}

func (m *standingMetric) remove(l *standingLeaf) {
	delete(m.leaves, l.text)
	isL := func(other *standingLeaf) bool { return other == l }
	if m.byTag[l.tag] = slices.DeleteFunc(m.byTag[l.tag], isL); len(m.byTag[l.tag]) == 0 {
		delete(m.byTag, l.tag)
	}
	for _, c := range l.members {
		c.leaves = slices.DeleteFunc(c.leaves, func(m membership) bool { return m.leaf == l })
	}
	m.width = 0
	for _, other := range m.leaves {
		m.width = max(m.width, other.width())
	}
}

// requiredTags returns the tags, without wildcards, that every series in scope
// bears.
func requiredTags(scope Scope) []string {
	switch s := scope.(type) {
	case *Tag:
		if s.Exact() {
			return []string{s.Key + ":" + s.Value}
		}
	case *In:
		if len(s.Values) == 1 && !strings.Contains(s.Values[0], "*") {
			return []string{s.Key + ":" + s.Values[0]}
		}
	case *And:
		var all []string
		for _, t := range s.Terms {
			all = append(all, requiredTags(t)...)
		}
		return all
	}
	return nil
}

var identitySeed = maphash.MakeSeed()

// identity hashes what makes a context of a metric.
func identity(host, device string, tags metric.Tags, isDistribution bool) uint64 {
	var h maphash.Hash
	h.SetSeed(identitySeed)
	for _, text := range [...]string{host, device} {
		_, _ = h.WriteString(text)
		_ = h.WriteByte(0)
	}
	for _, tag := range tags {
		_, _ = h.WriteString(tag)
		_ = h.WriteByte(0)
	}
	if isDistribution {
		_ = h.WriteByte(1)
	}
	return h.Sum64()
}

// context returns the series of s's identity, made and matched if it is new; nil
// when there are too many.
func (s *Standing) context(m *standingMetric, of *metric.Series, isDistribution bool) *standingContext {
	key := identity(of.Host, of.Device, of.Tags, isDistribution)
	for c := m.contexts[key]; c != nil; c = c.next {
		if c.isDistribution == isDistribution && c.Host == of.Host && c.Device == of.Device && slices.Equal(c.Tags, of.Tags) {
			return c
		}
	}
	if s.contexts >= s.maxContexts {
		s.overLimit(m)
		return nil
	}
	c := &standingContext{next: m.contexts[key], isDistribution: isDistribution}
	// The strings belong to a payload, most of which is forgotten at once.
	c.Name, c.Host, c.Device = m.name, strings.Clone(of.Host), strings.Clone(of.Device)
	c.Tags = make(metric.Tags, len(of.Tags))
	for i, tag := range of.Tags {
		c.Tags[i] = strings.Clone(tag)
	}
	c.tags = TagsOf(c.Series)
	c.Type, c.usual, c.Unit = m.kind.Type, m.kind.Interval, m.unit
	m.contexts[key] = c
	m.size++
	s.contexts++
	m.match(c)
	return c
}

// match joins c to every leaf that selects it.
func (m *standingMetric) match(c *standingContext) {
	try := func(leaves []*standingLeaf) {
		for _, l := range leaves {
			if l.query.Scope.Match(c.tags) {
				l.join(c)
			}
		}
	}
	try(m.byTag[""])
	for _, tag := range c.tags {
		try(m.byTag[tag])
	}
}

// overLimit gives every query of m an error for a value.
func (s *Standing) overLimit(m *standingMetric) {
	if m.err != nil {
		return
	}
	m.err = fmt.Errorf("the queries in use read more than %d series together, of which metric %q is one too many: drop tags with many values, or narrow the queries", s.maxContexts, m.name)
	s.markAll(m)
}

// Observe takes series that arrived and were stored, in order of their storing.
// It keeps nothing of them. contexts, unless nil, has a number for each: one with
// the same number has the same name, host, device and tags, until Reset; 0 says
// nothing. It spares looking for the series by these.
func (s *Standing) Observe(series []metric.Series, contexts []uint64, now int64) {
	var m *standingMetric
	name := ""
	for i := range series {
		of := &series[i]
		if i == 0 || of.Name != name {
			name, m = of.Name, s.metrics[of.Name]
		}
		if m == nil || len(of.Points) == 0 {
			continue
		}
		number := uint64(0)
		if contexts != nil {
			number = contexts[i]
		}
		s.observe(m, of, number, now)
	}
}

// numberedContext is context of what may have a number.
func (s *Standing) numberedContext(m *standingMetric, of *metric.Series, number uint64) *standingContext {
	if c := m.numbered[number]; c != nil {
		return c
	}
	c := s.context(m, of, false)
	if c != nil && number != 0 {
		delete(m.numbered, c.number)
		c.number, m.numbered[number] = number, c
	}
	return c
}

func (s *Standing) observe(m *standingMetric, of *metric.Series, number uint64, now int64) {
	s.know(m, metric.Kind{Type: of.Type, Interval: of.Interval}, of.Unit)
	c := s.numberedContext(m, of, number)
	if c == nil {
		return
	}
	if c.seen = now; len(c.leaves) == 0 {
		return
	}
	for _, p := range of.Points {
		if p.Time <= now+maxAhead && !math.IsNaN(p.Value) && !math.IsInf(p.Value, 0) {
			c.put(p, of.Interval == metric.FastInterval, true)
		}
	}
	c.prune(now, m.width)
	s.move(c)
}

// ObserveDistributions is Observe for distributions.
func (s *Standing) ObserveDistributions(distributions []metric.Distribution, now int64) {
	for i := range distributions {
		d := &distributions[i]
		m := s.metrics[d.Name]
		if m == nil || len(d.Points) == 0 {
			continue
		}
		c := s.context(m, &metric.Series{Host: d.Host, Tags: d.Tags}, true)
		if c == nil {
			continue
		}
		if c.seen = now; len(c.leaves) == 0 {
			continue
		}
		for _, p := range d.Points {
			if p.Time <= now+maxAhead {
				c.putSketch(p, true)
			}
		}
		c.prune(now, m.width)
		s.move(c)
	}
}

// move has every leaf that reads c evaluated with what c is now.
func (s *Standing) move(c *standingContext) {
	if !c.moved {
		c.moved = true
		s.moved = append(s.moved, c)
	}
	for _, m := range c.leaves {
		if !m.leaf.dirty {
			s.mark(m.leaf)
		}
	}
}

// know notes what a submission says of the metric itself.
func (s *Standing) know(m *standingMetric, k metric.Kind, unit string) {
	kind := m.kind.After(k)
	if unit == "" {
		unit = m.unit
	}
	if kind == m.kind && unit == m.unit {
		return
	}
	m.kind, m.unit = kind, strings.Clone(unit)
	for _, c := range m.contexts {
		for ; c != nil; c = c.next {
			c.Type, c.usual, c.Unit = kind.Type, kind.Interval, m.unit
		}
	}
	s.markAll(m)
}

// sweepEvery is the seconds between two looks for series that are gone.
const sweepEvery = 300

// sweep forgets the series of one metric that have not come for longer than any
// of its queries can tell.
func (s *Standing) sweep(now int64) {
	for _, m := range s.metrics {
		if now-m.swept < sweepEvery {
			continue
		}
		m.swept = now
		before := m.size
		gone := func(c *standingContext) bool { return c.seen < now-m.width-lateness-maxAhead }
		for key, c := range m.contexts {
			if c = m.without(c, gone); c == nil {
				delete(m.contexts, key)
			} else {
				m.contexts[key] = c
			}
		}
		if m.size < before {
			s.contexts -= before - m.size
			for _, l := range m.leaves {
				l.forget(gone)
			}
			if m.err != nil { // there may be room again
				m.err = nil
				s.markAll(m)
			}
		}
		return
	}
}

// without returns the chain of c without those that are gone.
func (m *standingMetric) without(c *standingContext, gone func(*standingContext) bool) *standingContext {
	if c == nil {
		return nil
	}
	c.next = m.without(c.next, gone)
	if !gone(c) {
		return c
	}
	m.size--
	delete(m.numbered, c.number)
	return c.next
}
