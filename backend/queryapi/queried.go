package queryapi

import (
	"cmp"
	"slices"
	"sync"
	"time"

	"kelpie.dev/kelpie/metric/payload"
	"kelpie.dev/kelpie/query"
)

// Of each metric that many tag keys and aggregations are remembered, for so long.
const (
	maxUses = 100
	keptUse = 30 * 24 * time.Hour
)

// queried remembers which metrics are asked for, and by which tags. It begins
// empty with every process. The zero value is ready.
type queried struct {
	mu sync.Mutex // guards m
	m  map[string]*use
}

// use is how a metric is asked for.
type use struct {
	last         time.Time
	tags         []string // keys, sorted
	aggregations []payload.Aggregation
}

// noteQueried remembers what was asked for of the metrics that are known.
func (a *API) noteQueried(exprs []query.Expr) {
	now := a.opts.Now()
	for _, e := range exprs {
		for leaf := range query.Queries(e) {
			if _, _, ok := a.opts.Store.Describe(leaf.Metric); ok {
				a.queried.note(now, leaf)
			}
		}
	}
}

func (q *queried) note(now time.Time, leaf *query.Query) {
	q.mu.Lock()
	defer q.mu.Unlock()
	u := q.m[leaf.Metric]
	if u == nil {
		for name, old := range q.m {
			if now.Sub(old.last) > keptUse {
				delete(q.m, name)
			}
		}
		if q.m == nil {
			q.m = make(map[string]*use)
		}
		u = &use{}
		q.m[leaf.Metric] = u
	}
	u.last = now
	for _, key := range append(scopeKeys(nil, leaf.Scope), leaf.By...) {
		if i, known := slices.BinarySearch(u.tags, key); !known && len(u.tags) < maxUses {
			u.tags = slices.Insert(u.tags, i, key)
		}
	}
	how := payload.Aggregation{Space: cmp.Or(leaf.Aggregator.Name, "avg"), Time: "avg"}
	for _, m := range leaf.Modifiers {
		switch {
		case m.Name == "as_count" || m.Name == "as_rate":
			how.Time = "sum"
		case m.Name == "rollup" && len(m.Args) > 0 && m.Args[0].Kind != query.NumberArg:
			how.Time = m.Args[0].Text
		}
	}
	if !slices.Contains(u.aggregations, how) && len(u.aggregations) < maxUses {
		u.aggregations = append(u.aggregations, how)
	}
}

// since returns how the metric was asked for since then; ok is false when it was not.
func (q *queried) since(name string, then time.Time) (use, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	u := q.m[name]
	if u == nil || u.last.Before(then) {
		return use{}, false
	}
	return use{last: u.last, tags: slices.Clone(u.tags), aggregations: slices.Clone(u.aggregations)}, true
}

// scopeKeys appends the tag keys that s looks at.
func scopeKeys(keys []string, s query.Scope) []string {
	switch s := s.(type) {
	case *query.Tag:
		return append(keys, s.Key)
	case *query.Bare:
		return append(keys, s.Value)
	case *query.In:
		return append(keys, s.Key)
	case *query.Not:
		return scopeKeys(keys, s.X)
	case *query.And:
		for _, t := range s.Terms {
			keys = scopeKeys(keys, t)
		}
	case *query.Or:
		for _, t := range s.Terms {
			keys = scopeKeys(keys, t)
		}
	}
	return keys
}
