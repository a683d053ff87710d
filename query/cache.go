package query

import (
	"container/list"
	"context"
	"slices"
	"sync"
	"sync/atomic"
)

// A SettledSource knows which of its points will not change any more.
type SettledSource interface {
	PacedSource
	// Settled returns a time and a state, which is comparable: what Select says of
	// the metric before that time stays the same while the state does.
	Settled(name string) (before int64, state any)
}

// CachedValueSize is how many bytes a value of a Cache takes.
const CachedValueSize = 9

// A Cache remembers what queries are worth in buckets that are settled, so that a
// graph whose window moves on reads only what is new. An evaluation with it gives
// what Eval gives. It is safe for concurrent use.
//
// Kept is, for each query in an expression, the value of each group in each
// bucket. Not kept is what depends on the window as a whole: rates of change,
// shifted times; percentiles and other aggregates of distributions; and metrics
// whose interval changes within the window.
type Cache struct {
	max int

	mu      sync.Mutex // guards what follows
	entries map[cacheKey]*list.Element
	recent  list.List // of *cached, the one used last in front
	held    int       // values

	hits, misses, passed atomic.Uint64
}

// CacheStats are what a Cache has done and holds.
type CacheStats struct {
	Hits   uint64 // queries of which part was known
	Misses uint64 // that were read as a whole
	Passed uint64 // that cannot be kept
	Values int    // held, of CachedValueSize each
}

// cacheKey tells evaluations apart that do not share buckets.
type cacheKey struct {
	query            string
	interval, length int64 // of the buckets and of the window, in seconds
}

// cached is the answer to one query in the settled buckets from first on. It does
// not change once it is in the Cache.
type cached struct {
	key    cacheKey
	state  any
	first  int64 // start of the first bucket
	n      int   // buckets
	every  int64 // the interval of all contexts
	groups []*cachedGroup
}

// cachedGroup is one group's share. groups are sorted by tags.
type cachedGroup struct {
	series                    // without points
	absent   bool             // it had no point in the window, only before
	bridged  bool             // it had two contexts or more: their gaps were bridged
	newest   newest           // of its contexts
	idle     []lastSeen       // those without a point after the settled buckets
	members  []*contextSeries // that were read; not in the Cache
	values   []float64
	inBucket []bool // whether there is a value, which may be null
}

// NewCache returns a Cache of at most so many values, or nil, which keeps
// nothing, for 0.
func NewCache(values int) *Cache {
	if values <= 0 {
		return nil
	}
	return &Cache{max: values, entries: map[cacheKey]*list.Element{}}
}

// Stats returns what c has done. It may be nil.
func (c *Cache) Stats() CacheStats {
	if c == nil {
		return CacheStats{}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return CacheStats{Hits: c.hits.Load(), Misses: c.misses.Load(), Passed: c.passed.Load(), Values: c.held}
}

// Eval is the function Eval. c may be nil.
func (c *Cache) Eval(ctx context.Context, src Source, e Expr, w Window) ([]Result, error) {
	settled, ok := src.(SettledSource)
	if c == nil || !ok {
		return Eval(ctx, src, e, w)
	}
	ev := &evaluator{}
	plain := leavesOf(src, &ev.newest)
	ev.leaf = func(ctx context.Context, q *Query, at span) ([]series, error) {
		o, err := q.options()
		if err != nil {
			return nil, err
		}
		g := at.grid(intervalOf(at.window, o))
		if at.instants != nil || at.delta.on || len(at.shifts) > 0 || g.n == 0 || g.n > MaxReach {
			c.passed.Add(1)
			return plain(ctx, q, at)
		}
		l := &cachedLeaf{cache: c, src: settled, q: q, o: o, at: at, grid: g}
		return l.evaluate(ctx)
	}
	return ev.results(ctx, e, w)
}

// get returns what is kept under key.
func (c *Cache) get(key cacheKey) *cached {
	c.mu.Lock()
	defer c.mu.Unlock()
	at := c.entries[key]
	if at == nil {
		return nil
	}
	c.recent.MoveToFront(at)
	return at.Value.(*cached)
}

// put keeps e in the place of what is there, and lets go of what was used least
// lately.
func (c *Cache) put(e *cached) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if at := c.entries[e.key]; at != nil {
		c.drop(at)
	}
	if e.size() > c.max/4 {
		return // one must not drive out all others
	}
	c.entries[e.key] = c.recent.PushFront(e)
	c.held += e.size()
	for c.held > c.max {
		c.drop(c.recent.Back())
	}
}

func (c *Cache) drop(at *list.Element) {
	e := c.recent.Remove(at).(*cached)
	delete(c.entries, e.key)
	c.held -= e.size()
}

// size is how many values e counts as: a group takes more than its own, and an
// idle context as much as two.
func (e *cached) size() int {
	n := 16 + len(e.groups)*(e.n+32)
	for _, g := range e.groups {
		n += 2 * len(g.idle)
	}
	return n
}

// group returns e's group of these tags.
func (e *cached) group(tags []string) *cachedGroup {
	i, found := slices.BinarySearchFunc(e.groups, tags, func(g *cachedGroup, tags []string) int { return slices.Compare(g.tags, tags) })
	if !found {
		return nil
	}
	return e.groups[i]
}
