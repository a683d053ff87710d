package store

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"kelpie.dev/kelpie/metric"
	"kelpie.dev/kelpie/query"
)

// A LimitError reports a query that would read more than is allowed.
type LimitError struct {
	What  string // "series", "points" or "tags"
	Limit int
}

func (e *LimitError) Error() string {
	return fmt.Sprintf("reads more than %d %s: narrow its scope or its time range", e.Limit, e.What)
}

// QueryLimit marks the error as the query's fault, for the query API.
func (e *LimitError) QueryLimit() {}

// Select implements query.Source. It returns a *LimitError for a selection
// beyond Options.MaxSelectSeries or MaxSelectPoints.
func (s *Store) Select(ctx context.Context, sel query.Selector, from, to int64) ([]metric.Series, error) {
	n := s.catalog.get(sel.Metric)
	if n == nil || from > to {
		return nil, nil
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.db == nil {
		return nil, ErrClosed
	}
	q, err := s.db.Querier(from*1000, to*1000+999)
	if err != nil {
		return nil, fmt.Errorf("select %s: %w", sel.Metric, err)
	}
	defer func() { _ = q.Close() }()
	matchers, err := s.matchers(sel)
	if err == nil && n.dist.Load() {
		matchers, err = add(matchers, labels.MatchEqual, partLabel, "")
	}
	if err != nil {
		return nil, fmt.Errorf("select %s: %w", sel.Metric, err)
	}
	// readPoints looks at the times of points, the TSDB need not.
	hints := &storage.SelectHints{Start: from * 1000, End: to*1000 + 999, DisableTrimming: true}
	r := reader{store: s, sel: sel, from: from, to: to, name: s.rated(n)}
	_, all := sel.Scope.(query.All)
	if all { // most often as many as the last time
		r.room = int(n.found.Load())
	}
	if err := r.read(ctx, q.Select(ctx, false, hints, matchers...)); err != nil {
		return nil, err
	}
	if all {
		n.found.Store(int64(r.found))
	}
	if len(r.full) == 0 {
		return r.out, nil
	}
	return slices.Concat(append(r.full, r.out)...), nil
}

// reader collects the answer of one Select.
type reader struct {
	store    *Store
	sel      query.Selector
	from, to int64
	name     nameRecord

	it     chunkenc.Iterator
	buf    []metric.Point // read last
	fast   []bool         // of each: whether it stands for metric.FastInterval
	block  []metric.Point // see keep
	points int
	found  int
	room   int               // for the first block
	full   [][]metric.Series // blocks of out before
	out    []metric.Series
}

func (r *reader) read(ctx context.Context, set storage.SeriesSet) error {
	told := r.store.told(r.sel.Scope)
	for set.Next() {
		if err := ctx.Err(); err != nil {
			return err
		}
		series := set.At()
		m := metric.Series{Name: r.sel.Metric}
		if !told || !r.sel.Untagged {
			m = decodeLabels(series.Labels())
		}
		m.Type, m.Interval, m.Unit = r.name.Type, r.name.Interval, r.name.Unit
		if !told && !r.sel.Scope.Match(query.TagsOf(m)) {
			continue
		}
		if err := r.readPoints(series, &m); err != nil {
			return fmt.Errorf("read %s: %w", r.sel.Metric, err)
		}
		if len(m.Points) == 0 {
			continue
		}
		limits := r.store.bounds.Load()
		if r.found++; r.found > limits.MaxSelectSeries {
			return &LimitError{What: "series", Limit: limits.MaxSelectSeries}
		}
		if r.points += len(m.Points); r.points > limits.MaxSelectPoints {
			return &LimitError{What: "points", Limit: limits.MaxSelectPoints}
		}
		if len(r.out) == cap(r.out) { // growing one slice would copy them again and again
			if r.out != nil {
				r.full = append(r.full, r.out)
			}
			r.out = make([]metric.Series, 0, max(r.room, min(64<<len(r.full), 4096)))
			r.room = 0
		}
		r.out = append(r.out, m)
	}
	if err := set.Err(); err != nil {
		return fmt.Errorf("read %s: %w", r.sel.Metric, err)
	}
	return nil
}

// readPoints fills m's points; the last sample of each second is its point.
func (r *reader) readPoints(series storage.Series, m *metric.Series) error {
	r.it, r.fast, r.buf = series.Iterator(r.it), r.fast[:0], r.buf[:0]
	fast := 0
	for r.it.Next() == chunkenc.ValFloat {
		ms, v := r.it.At()
		sec, isFast := ms/1000, ms%2 == 1
		if sec < r.from || sec > r.to {
			continue
		}
		if isFast {
			fast++
		}
		if last := len(r.buf) - 1; last >= 0 && r.buf[last].Time == sec {
			if r.fast[last] {
				fast--
			}
			r.buf[last].Value, r.fast[last] = v, isFast
			continue
		}
		r.buf, r.fast = append(r.buf, metric.Point{Time: sec, Value: v}), append(r.fast, isFast)
	}
	switch first := r.trailing(); {
	case len(r.buf) == 0:
	case fast == len(r.buf):
		m.Interval = metric.FastInterval
		fallthrough
	case fast == 0:
		m.Points = r.keep(r.buf[first:])
	default:
		m.Points, m.Fast = r.keep(r.buf[first:]), slices.Clone(r.fast[first:])
	}
	return r.it.Err()
}

// keepBlock is how many points are allocated together.
const keepBlock = 4096

// keep returns a copy of points. Most series have few: they share an allocation.
func (r *reader) keep(points []metric.Point) []metric.Point {
	if cap(r.block)-len(r.block) < len(points) {
		r.block = make([]metric.Point, 0, max(keepBlock, len(points)))
	}
	first := len(r.block)
	r.block = append(r.block, points...)
	return r.block[first:len(r.block):len(r.block)]
}

// trailing is the index of the first point that the selection asks for.
func (r *reader) trailing() int {
	if r.sel.Trailing == 0 || len(r.buf) == 0 {
		return 0
	}
	first := len(r.buf) - 1
	for from := r.buf[first].Time - r.sel.Trailing; first > 0 && r.buf[first-1].Time >= from; {
		first--
	}
	return first
}

// settleAfter is how many seconds after its time a point rarely comes any more:
// agents that send every ten seconds, and again when that failed.
const settleAfter = 120

// settled is the state of a metric for query.SettledSource.
type settled struct {
	late uint64
	kind metric.Kind
	unit string
}

// Settled implements query.SettledSource. Points that come later than settleAfter
// make it another state.
func (s *Store) Settled(name string) (before int64, state any) {
	before = s.opts.Now().Unix() - settleAfter
	n := s.catalog.get(name)
	if n == nil {
		return before, settled{}
	}
	r := s.rated(n)
	return before, settled{n.late.Load(), metric.Kind{Type: r.Type, Interval: r.Interval}, r.Unit}
}

// Pace implements query.PacedSource.
func (s *Store) Pace(name string) int64 {
	n := s.catalog.get(name)
	if n == nil {
		return 0
	}
	return s.rated(n).Interval
}

// matchers returns TSDB matchers that every series in the selection passes. They
// may let more through: Scope.Match decides.
func (s *Store) matchers(sel query.Selector) ([]*labels.Matcher, error) {
	ms := []*labels.Matcher{labels.MustNewMatcher(labels.MatchEqual, nameLabel, sel.Metric)}
	return s.narrow(ms, sel.Scope)
}

func (s *Store) narrow(ms []*labels.Matcher, scope query.Scope) ([]*labels.Matcher, error) {
	switch t := scope.(type) {
	case *query.And:
		for _, term := range t.Terms {
			var err error
			if ms, err = s.narrow(ms, term); err != nil {
				return nil, err
			}
		}
		return ms, nil
	case *query.Tag:
		return s.bears(ms, t.Key, []string{t.Value})
	case *query.In:
		return s.bears(ms, t.Key, t.Values)
	case *query.Bare:
		if strings.Contains(t.Value, "*") {
			return ms, nil
		}
		return add(ms, labels.MatchNotEqual, encodeKey(t.Value), "")
	case *query.Not:
		return s.lacks(ms, t.X)
	default: // All needs none; the terms of Or are left to Scope.Match
		return ms, nil
	}
}

// bears narrows to series whose key has one of the values, which may hold "*".
func (s *Store) bears(ms []*labels.Matcher, key string, values []string) ([]*labels.Matcher, error) {
	label := encodeKey(key)
	if slices.Contains(values, "*") {
		return add(ms, labels.MatchNotEqual, label, "")
	}
	several := s.catalog.isSeveral(label)
	if len(values) == 1 && !several && !strings.Contains(values[0], "*") {
		return add(ms, labels.MatchEqual, label, encodeValue(values[0]))
	}
	return add(ms, labels.MatchRegexp, label, pattern(values, several))
}

// lacks narrows to series that do not match x, where the index can say so:
// matching several values by exclusion would lose series.
func (s *Store) lacks(ms []*labels.Matcher, x query.Scope) ([]*labels.Matcher, error) {
	var key string
	var values []string
	switch x := x.(type) {
	case *query.Tag:
		key, values = x.Key, []string{x.Value}
	case *query.In:
		key, values = x.Key, x.Values
	default:
		return ms, nil
	}
	label := encodeKey(key)
	if s.catalog.isSeveral(label) || slices.Contains(values, "*") {
		return ms, nil
	}
	return add(ms, labels.MatchNotRegexp, label, pattern(values, false))
}

// pattern is a regular expression for the stored form of any of the values.
func pattern(values []string, several bool) string {
	alternatives := make([]string, 0, 2*len(values))
	for _, v := range values {
		parts := strings.Split(encodeValue(v), "*")
		for i := range parts {
			parts[i] = regexp.QuoteMeta(parts[i])
		}
		one := strings.Join(parts, ".*")
		alternatives = append(alternatives, one)
		if several {
			alternatives = append(alternatives, ".*"+sep+one+sep+".*")
		}
	}
	return strings.Join(alternatives, "|")
}

func add(ms []*labels.Matcher, t labels.MatchType, label, value string) ([]*labels.Matcher, error) {
	m, err := labels.NewMatcher(t, label, value)
	if err != nil {
		return nil, fmt.Errorf("match label %q: %w", label, err)
	}
	return append(ms, m), nil
}
