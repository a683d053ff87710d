package query

import (
	"context"
	"fmt"
	"iter"
	"math"
	"slices"
	"strings"

	"kelpie.dev/kelpie/metric"
)

// A DistributionSource is a Source that holds distributions too.
type DistributionSource interface {
	Source
	// Distributions yields what Select returns, of the distributions instead of
	// the series: those with a sketch at from ≤ time ≤ to, in an order that is
	// the same every time. One may not be used once the next is asked for. After
	// an error nothing more comes. The caller does not modify them.
	Distributions(ctx context.Context, sel Selector, from, to int64) iter.Seq2[*metric.Distribution, error]
}

// maxMergedBins bounds the bins that one query holds at a time: 256 MB.
const maxMergedBins = 16_000_000

// distributions evaluates q over the distributions of src. found is false when
// there are none.
func distributions(ctx context.Context, src DistributionSource, q *Query, o options, l lane) (out []series, found bool, err error) {
	m := newMerger(q, l)
	for d, err := range src.Distributions(ctx, Selector{Metric: q.Metric, Scope: q.Scope}, l.from, l.to) {
		if err == nil {
			err = m.add(d)
		}
		if err != nil {
			return nil, false, fmt.Errorf("select %s{%s}: %w", q.Metric, q.Scope, err)
		}
		found = true
	}
	for _, g := range m.sorted() {
		if s := m.series(g, o); len(s.points) > 0 {
			out = append(out, s)
		}
	}
	return out, found, nil
}

// A merger merges the sketches of one query by group and bucket.
type merger struct {
	q    *Query
	lane lane
	bins bool // the aggregator reads them

	groups      map[string]*mergedGroup
	memberships int
	held        int // bins in all groups
}

func newMerger(q *Query, l lane) *merger {
	return &merger{q: q, lane: l, groups: make(map[string]*mergedGroup), bins: q.Aggregator.needsDistribution()}
}

type mergedGroup struct {
	tags    metric.Tags
	buckets []*merged // from the first ahead; nil without a sketch
	seen    []bool    // of each instant: the group was there
}

// add merges one context.
func (m *merger) add(d *metric.Distribution) error {
	tags := TagsOf(metric.Series{Host: d.Host, Tags: d.Tags})
	for _, set := range groupTags(tags, m.q.By) {
		key := strings.Join(set, "\x00")
		g := m.groups[key]
		if g == nil {
			g = &mergedGroup{tags: set, buckets: make([]*merged, m.lane.n+m.lane.ahead)}
			m.groups[key] = g
		}
		m.memberships++
		g.see(m.lane, d)
		m.lane.place(d, func(bucket int, s *metric.Sketch) { m.merge(g, bucket, s) })
		if len(m.groups) > MaxGroups || m.memberships > maxMembership || m.held > maxMergedBins {
			return &Error{Kind: Limit, Query: m.q.src, Offset: m.q.span.Start,
				Message: "query has more groups or buckets of a distribution than one answer may hold; group by fewer keys, narrow the scope or roll up to longer buckets"}
		}
	}
	return nil
}

// see notes at which instants d's points tell that g was there.
func (g *mergedGroup) see(l lane, d *metric.Distribution) {
	if l.instants == nil {
		return
	}
	if g.seen == nil {
		g.seen = make([]bool, l.n)
	}
	for i := range g.seen {
		g.seen[i] = g.seen[i] || l.seen(i, len(d.Points), func(j int) int64 { return d.Points[j].Time })
	}
}

func (m *merger) merge(g *mergedGroup, bucket int, s *metric.Sketch) {
	if s.Count <= 0 {
		return
	}
	b := g.buckets[bucket]
	if b == nil {
		b = &merged{min: s.Min, max: s.Max}
		g.buckets[bucket] = b
		m.held += 4 // what it takes itself
	}
	b.count += float64(s.Count)
	b.sum.add(s.Sum)
	b.min, b.max = min(b.min, s.Min), max(b.max, s.Max)
	if m.bins {
		m.held -= len(b.bins)
		b.add(s.Bins)
		m.held += len(b.bins)
	}
}

func (m *merger) sorted() []*mergedGroup {
	groups := make([]*mergedGroup, 0, len(m.groups))
	for _, g := range m.groups {
		groups = append(groups, g)
	}
	slices.SortFunc(groups, func(a, b *mergedGroup) int { return slices.Compare(a.tags, b.tags) })
	return groups
}

// series reads the aggregator's values off g. It has no points when no sketch is
// on the grid itself.
func (m *merger) series(g *mergedGroup, o options) series {
	ahead := m.lane.ahead
	s := series{tags: g.tags, interval: m.lane.every, aggr: m.q.Aggregator.Name}
	if m.lane.instants == nil && !slices.ContainsFunc(g.buckets[ahead:], func(b *merged) bool { return b != nil }) {
		return s
	}
	counting := o.counting != raw && m.q.Aggregator.Name == "count"
	divide := 1.0
	if counting && o.counting == asRate {
		divide = float64(max(m.lane.width, unknownInterval))
	}
	values := make([]float64, len(g.buckets))
	for i, b := range g.buckets {
		values[i] = null
		if b != nil {
			values[i] = b.value(m.q.Aggregator) / divide
		}
	}
	if m.lane.steps != nil {
		m.lane.steps(values)
	}
	if o.fill != "" && o.fill != "null" {
		interpolate(values, o.fill, o.limit, m.lane.width)
	}
	for i, v := range values[ahead:] {
		if !math.IsNaN(v) || g.seen != nil && g.seen[i] {
			s.points = append(s.points, Point{Time: m.lane.time(i), Value: finite(v)})
		}
	}
	s.counting, s.interpolated = counting, !counting && o.fill != "null"
	return s
}

// merged is a metric.Sketch of any number of values and bins.
type merged struct {
	count    float64
	sum      exactSum
	min, max float64
	bins     []wideBin // ascending by key, each key once
}

type wideBin struct {
	key int16
	n   uint64
}

// add adds bins, ascending by key.
func (m *merged) add(bins []metric.Bin) {
	fresh, i := 0, 0
	for _, b := range bins {
		for i < len(m.bins) && m.bins[i].key < b.Key {
			i++
		}
		if i < len(m.bins) && m.bins[i].key == b.Key {
			m.bins[i].n += uint64(b.N)
			continue
		}
		fresh++
	}
	if fresh == 0 {
		return
	}
	// From the back, so that what is moved overwrites nothing still needed.
	i = len(m.bins) - 1
	m.bins = slices.Grow(m.bins, fresh)[:len(m.bins)+fresh]
	w := len(m.bins) - 1
	for j := len(bins) - 1; j >= 0 && w > i; j-- {
		for i >= 0 && m.bins[i].key > bins[j].Key {
			m.bins[w] = m.bins[i]
			i, w = i-1, w-1
		}
		if i >= 0 && m.bins[i].key == bins[j].Key {
			continue // added above; it moves with the next
		}
		m.bins[w] = wideBin{bins[j].Key, uint64(bins[j].N)}
		w--
	}
}

// value is what the aggregator reads off m.
func (m *merged) value(a Aggregator) float64 {
	if q, ok := a.percentile(); ok {
		return m.quantile(q)
	}
	if a.Cmp != "" {
		return m.countWhere(a)
	}
	switch a.Name {
	case "stddev":
		return m.deviation()
	case "sum":
		return m.sum.value()
	case "min":
		return m.min
	case "max":
		return m.max
	case "count":
		return m.count
	default:
		return m.sum.value() / m.count
	}
}

// deviation is the standard deviation of all values, by those of their bins.
func (m *merged) deviation() float64 {
	n, mean, squares := 0.0, 0.0, 0.0 // Welford's, so that large values do not cancel out
	for _, b := range m.bins {
		v := min(max(metric.Bin{Key: b.key}.Value(), m.min), m.max)
		more := float64(b.n)
		n += more
		d := v - mean
		mean += d * more / n
		squares += d * (v - mean) * more
	}
	if n == 0 {
		return null
	}
	return math.Sqrt(squares / n)
}

// countWhere counts the values that compare to a's bound as a says. Those that
// share its bin, within metric.SketchAccuracy, count as equal to it.
func (m *merged) countWhere(a Aggregator) float64 {
	key, n := metric.BinKey(a.Bound), uint64(0)
	for _, b := range m.bins {
		holds := false
		switch a.Cmp {
		case ">=":
			holds = b.key >= key
		case ">":
			holds = b.key > key
		case "<=":
			holds = b.key <= key
		case "<":
			holds = b.key < key
		case "==":
			holds = b.key == key
		case "!=":
			holds = b.key != key
		}
		if holds {
			n += b.n
		}
	}
	return float64(n)
}

// quantile is metric.Sketch.Quantile.
func (m *merged) quantile(q float64) float64 {
	var total uint64
	for _, b := range m.bins {
		total += b.n
	}
	if total == 0 {
		return null
	}
	rank := math.RoundToEven(q * float64(total-1))
	switch rank {
	case 0:
		return m.min
	case float64(total - 1):
		return m.max
	}
	var running uint64
	for _, b := range m.bins {
		if running += b.n; float64(running) > rank {
			return min(max(metric.Bin{Key: b.key}.Value(), m.min), m.max)
		}
	}
	return m.max
}
