package store

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/util/annotations"
)

// What a tag looks like as a label's value where the encoding's own bytes would
// stand. Tags themselves hold no comma.
const (
	shownSep   = ","       // between the values of a key that has several, sorted
	shownBare  = "true"    // of a tag without a value
	shownEmpty = "(empty)" // of the tag "key:"
)

// Queryable returns the store as Prometheus' engine reads it. A label's name is
// the key of a tag, and its value the tag's; see shownSep and its neighbours for
// what a label cannot say. Matchers see the same values as people do. Names are
// those of metrics as they are, with their dots. __host__ and __device__ stand
// where a host or device has capitals.
//
// Points are at whole seconds, the last write of each. A distribution is a native
// histogram; its minima and maxima are series of their own with __part__="min"
// and "max", and appear only where a matcher asks for that label.
//
// A querier keeps the store open: it must be closed.
func (s *Store) Queryable() storage.Queryable { return queryable{s} }

type queryable struct{ s *Store }

// Querier implements storage.Queryable.
func (q queryable) Querier(mint, maxt int64) (storage.Querier, error) {
	q.s.mu.RLock()
	if q.s.db == nil {
		q.s.mu.RUnlock()
		return nil, ErrClosed
	}
	mint, maxt = wholeSeconds(mint, maxt)
	inner, err := q.s.db.Querier(mint, maxt)
	if err != nil {
		q.s.mu.RUnlock()
		return nil, fmt.Errorf("open a querier: %w", err)
	}
	return &querier{catalog: q.s.catalog, inner: inner, unlock: sync.OnceFunc(q.s.mu.RUnlock)}, nil
}

// wholeSeconds returns the milliseconds at which samples lie whose points are at
// whole seconds within the bounds.
func wholeSeconds(mint, maxt int64) (from, to int64) {
	const farthest = int64(1) << 52 // where arithmetic is safe
	mint, maxt = min(max(mint, -farthest), farthest), min(max(maxt, -farthest), farthest)
	return -floorSecond(-mint), floorSecond(maxt) + 999
}

// floorSecond is the beginning of the second that the millisecond is in.
func floorSecond(ms int64) int64 {
	rest := ms % 1000
	if rest < 0 {
		rest += 1000
	}
	return ms - rest
}

type querier struct {
	catalog *catalog
	inner   storage.Querier
	unlock  func()
}

// Close implements storage.Querier.
func (q *querier) Close() error {
	defer q.unlock()
	return q.inner.Close()
}

// Select implements storage.Querier.
func (q *querier) Select(ctx context.Context, sorted bool, hints *storage.SelectHints, ms ...*labels.Matcher) storage.SeriesSet {
	stored, none, err := q.stored(ctx, ms)
	switch {
	case err != nil:
		return storage.ErrSeriesSet(err)
	case none:
		return storage.EmptySeriesSet()
	}
	if hints != nil {
		h := *hints
		h.Start, h.End = wholeSeconds(hints.Start, hints.End)
		hints = &h
	}
	set := &shownSet{SeriesSet: q.inner.Select(ctx, false, hints, stored...)}
	if !sorted {
		return set
	}
	var all []storage.Series
	for set.Next() {
		all = append(all, set.At())
	}
	if err := set.Err(); err != nil {
		return storage.ErrSeriesSet(err)
	}
	slices.SortFunc(all, func(a, b storage.Series) int { return labels.Compare(a.Labels(), b.Labels()) })
	return &listedSet{all: all, at: -1}
}

// LabelValues implements storage.LabelQuerier.
func (q *querier) LabelValues(ctx context.Context, name string, _ *storage.LabelHints, ms ...*labels.Matcher) ([]string, annotations.Annotations, error) {
	stored, none, err := q.stored(ctx, ms)
	if err != nil || none {
		return []string{}, nil, err
	}
	values, warnings, err := q.inner.LabelValues(ctx, name, nil, stored...)
	out := make([]string, len(values))
	for i, v := range values {
		out[i] = strings.Clone(shown(v)) // the index's strings end with the querier
	}
	slices.Sort(out)
	return slices.Compact(out), warnings, err
}

// LabelNames implements storage.LabelQuerier.
func (q *querier) LabelNames(ctx context.Context, _ *storage.LabelHints, ms ...*labels.Matcher) ([]string, annotations.Annotations, error) {
	stored, none, err := q.stored(ctx, ms)
	if err != nil || none {
		return []string{}, nil, err
	}
	names, warnings, err := q.inner.LabelNames(ctx, nil, stored...)
	out := make([]string, 0, len(names))
	for _, name := range names {
		if name != partLabel {
			out = append(out, strings.Clone(name))
		}
	}
	return out, warnings, err
}

// stored returns matchers of stored values that match what ms match of shown
// ones; none is true where nothing can match.
func (q *querier) stored(ctx context.Context, ms []*labels.Matcher) (out []*labels.Matcher, none bool, err error) {
	parts := true
	for _, m := range ms {
		parts = parts && m.Name != partLabel
		if !q.differs(m) {
			out = append(out, m)
			continue
		}
		values, _, err := q.inner.LabelValues(ctx, m.Name, nil)
		if err != nil {
			return nil, false, fmt.Errorf("match label %q: %w", m.Name, err)
		}
		// A matcher that matches "" lets series without the label through, so it
		// becomes one that excludes.
		absent := m.Matches("")
		kind := labels.MatchRegexp
		if absent {
			kind = labels.MatchNotRegexp
		}
		var listed []string
		for _, v := range values {
			if m.Matches(shown(v)) != absent {
				listed = append(listed, regexp.QuoteMeta(v))
			}
		}
		if len(listed) == 0 {
			if absent {
				continue
			}
			return nil, true, nil
		}
		if out, err = add(out, kind, m.Name, strings.Join(listed, "|")); err != nil {
			return nil, false, err
		}
	}
	if parts {
		out, err = add(out, labels.MatchRegexp, partLabel, "|"+partBins)
	}
	return out, false, err
}

// differs reports whether m may match other stored values than shown ones.
func (q *querier) differs(m *labels.Matcher) bool {
	return q.catalog.isSeveral(m.Name) || m.Matches(shownEmpty) != m.Matches(markEmpty)
}

// shown is a stored value as people see it.
func shown(v string) string {
	switch {
	case v == markBare:
		return shownBare
	case v == markEmpty:
		return shownEmpty
	case !strings.HasPrefix(v, sep):
		return v
	}
	values := splitValues(v)
	for i := range values {
		values[i] = shown(values[i])
	}
	return strings.Join(values, shownSep)
}

// shownLabels are stored labels as people see them.
func shownLabels(l labels.Labels) labels.Labels {
	same := true
	l.Range(func(label labels.Label) {
		same = same && !strings.ContainsAny(label.Value[:min(1, len(label.Value))], controlSet) && (label.Name != partLabel || label.Value != partBins)
	})
	if same {
		return l
	}
	b := labels.NewBuilder(l)
	l.Range(func(label labels.Label) {
		if label.Name == partLabel && label.Value == partBins {
			b.Del(partLabel)
			return
		}
		b.Set(label.Name, shown(label.Value))
	})
	return b.Labels()
}

// shownSet is a set of stored series as people see them.
type shownSet struct{ storage.SeriesSet }

// At implements storage.SeriesSet.
func (s *shownSet) At() storage.Series {
	in := s.SeriesSet.At()
	return &shownSeries{in: in, labels: shownLabels(in.Labels())}
}

// shownSeries is a stored series as people see it.
type shownSeries struct {
	in     storage.Series
	labels labels.Labels
}

// Labels implements storage.Series.
func (s *shownSeries) Labels() labels.Labels { return s.labels }

// Iterator implements storage.Series.
func (s *shownSeries) Iterator(it chunkenc.Iterator) chunkenc.Iterator {
	var reuse chunkenc.Iterator
	if old, ok := it.(*seconds); ok {
		reuse = old.in
	}
	return &seconds{in: s.in.Iterator(reuse)}
}

// listedSet is a set of series that are in memory.
type listedSet struct {
	all []storage.Series
	at  int
}

// Next implements storage.SeriesSet.
func (l *listedSet) Next() bool { l.at++; return l.at < len(l.all) }

// At implements storage.SeriesSet.
func (l *listedSet) At() storage.Series { return l.all[l.at] }

// Err implements storage.SeriesSet.
func (*listedSet) Err() error { return nil }

// Warnings implements storage.SeriesSet.
func (*listedSet) Warnings() annotations.Annotations { return nil }
