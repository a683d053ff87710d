package store

import (
	"context"
	"fmt"
	"iter"
	"strings"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"

	"kelpie.dev/kelpie/metric"
	"kelpie.dev/kelpie/query"
)

// Contexts yields the contexts in the selection, without points, that have data
// at from ≤ time ≤ to (Unix seconds) as far as the index tells: one that is idle
// for less than some two hours may be among them. An empty sel.Metric selects all
// metrics. It reads the index only, so that it costs little beside a Select.
func (s *Store) Contexts(ctx context.Context, sel query.Selector, from, to int64) iter.Seq2[metric.Series, error] {
	return func(yield func(metric.Series, error) bool) {
		err := s.survey(ctx, sel, from, to, func(l labels.Labels) bool {
			m := decodeLabels(l)
			return !sel.Scope.Match(query.TagsOf(m)) || yield(m, nil)
		})
		if err != nil {
			yield(metric.Series{}, err)
		}
	}
}

// Reach returns how many contexts a Select would return, as Contexts tells, and
// the interval in seconds at which their points come, or 0 when that is not known.
func (s *Store) Reach(ctx context.Context, sel query.Selector, from, to int64) (series, interval int64, err error) {
	n := s.catalog.get(sel.Metric)
	if n == nil {
		return 0, 0, nil
	}
	told := s.told(sel.Scope)
	err = s.survey(ctx, sel, from, to, func(l labels.Labels) bool {
		if told || sel.Scope.Match(query.TagsOf(decodeLabels(l))) {
			series++
		}
		return true
	})
	return series, s.record(n).Interval, err
}

// survey calls visit for the series whose labels pass the selection's matchers,
// each distribution once, until visit returns false.
func (s *Store) survey(ctx context.Context, sel query.Selector, from, to int64, visit func(labels.Labels) bool) error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.db == nil {
		return ErrClosed
	}
	ms, err := s.matchers(sel)
	if sel.Metric == "" {
		ms[0] = labels.MustNewMatcher(labels.MatchNotEqual, nameLabel, "")
	}
	if err != nil {
		return fmt.Errorf("survey %s: %w", sel.Metric, err)
	}
	q, err := s.db.Querier(from*1000, to*1000+999)
	if err != nil {
		return fmt.Errorf("survey %s: %w", sel.Metric, err)
	}
	defer func() { _ = q.Close() }()
	// "series" is the TSDB's word for a caller that reads no sample.
	set := q.Select(ctx, false, &storage.SelectHints{Start: from * 1000, End: to*1000 + 999, Func: "series"}, ms...)
	for n := 0; set.Next(); n++ {
		if n%1024 == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		l := set.At().Labels()
		if part := l.Get(partLabel); part == partMin || part == partMax {
			continue
		}
		if !visit(l) {
			return nil
		}
	}
	if err := set.Err(); err != nil {
		return fmt.Errorf("survey %s: %w", sel.Metric, err)
	}
	return nil
}

// told reports whether the matchers of scope alone tell what is in it.
func (s *Store) told(scope query.Scope) bool {
	switch t := scope.(type) {
	case query.All:
		return true
	case *query.Tag:
		return !s.catalog.isSeveral(encodeKey(t.Key))
	case *query.In:
		return !s.catalog.isSeveral(encodeKey(t.Key))
	case *query.And:
		for _, term := range t.Terms {
			if !s.told(term) {
				return false
			}
		}
		return true
	}
	return false
}

// Names returns the sorted names of metrics that have a point at since or later
// and a context in the scope about that time.
func (s *Store) Names(ctx context.Context, scope query.Scope, since time.Time) ([]string, error) {
	sec := since.Unix()
	if _, all := scope.(query.All); all {
		return s.catalog.list(func(n *name) bool { return n.seen.Load() >= sec }), nil
	}
	bearing := make(map[string]bool)
	if s.told(scope) {
		ms, err := s.narrow(nil, scope)
		if err != nil {
			return nil, err
		}
		names, err := s.labelValues(ctx, since, nameLabel, ms...)
		if err != nil {
			return nil, err
		}
		for _, name := range names {
			bearing[name] = true
		}
	} else {
		to := s.opts.Now().Add(maxFuture).Unix()
		err := s.survey(ctx, query.Selector{Scope: scope}, sec, to, func(l labels.Labels) bool {
			if name := l.Get(nameLabel); !bearing[name] && scope.Match(query.TagsOf(decodeLabels(l))) {
				bearing[strings.Clone(name)] = true
			}
			return true
		})
		if err != nil {
			return nil, err
		}
	}
	return s.catalog.list(func(n *name) bool { return bearing[n.text] && n.seen.Load() >= sec }), nil
}
