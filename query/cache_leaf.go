package query

import (
	"context"
	"fmt"
	"slices"
)

// cachedLeaf evaluates one query over the buckets of a window with a Cache.
//
// A bucket of a context holds what its points say, and where there are none what
// a gap is filled with: that looks as far back and, where it bridges, as far ahead
// as the fill's limit. So a bucket is the same in every window that reaches that
// far beyond it, but for three things. A group without a point in the window is
// not there, and gaps are bridged only where a group has two contexts or more: for
// these the newest points of each group are kept. And the first buckets of a gap,
// however long, are bridged once there is a point after it: so contexts that are
// idle are kept as well, and one that comes back has all read anew.
type cachedLeaf struct {
	cache *Cache
	src   SettledSource
	q     *Query
	o     options
	at    span
	grid  grid
}

func (l *cachedLeaf) evaluate(ctx context.Context) ([]series, error) {
	before, state := l.src.Settled(l.q.Metric)
	key := cacheKey{l.q.String(), l.grid.interval, l.at.window.To - l.at.window.From + l.at.ahead}
	var known *cached
	if known = l.cache.get(key); known != nil && (known.state != state || known.first > l.grid.first) {
		known = nil
	}
	if known != nil {
		if n := min(known.n-int((l.grid.first-known.first)/l.grid.interval), l.stable(before)); n >= max(1, l.grid.n/4) {
			found, ok, err := l.read(ctx, l.grid.first+int64(n)*l.grid.interval, known)
			if err != nil || ok {
				if ok {
					l.cache.hits.Add(1)
					l.keep(key, state, found, before)
				}
				return found.series(), err
			}
		}
	}
	found, ok, err := l.read(ctx, l.grid.first, nil)
	if err != nil {
		return nil, err
	}
	if !ok {
		l.cache.passed.Add(1)
		return found.series(), nil
	}
	l.cache.misses.Add(1)
	l.keep(key, state, found, before)
	return found.series(), nil
}

// stable is how many buckets of the grid no point to come changes, nor does the
// end of the window.
func (l *cachedLeaf) stable(before int64) int {
	end := l.settled(before)
	if l.o.fill != "null" {
		end -= l.o.limit + l.grid.interval
	}
	return min(max(0, int(floorDiv(end-l.grid.first, l.grid.interval))), l.grid.n)
}

// settled is the end of what no point to come changes, nor a window that ends later.
func (l *cachedLeaf) settled(before int64) int64 { return min(before, l.at.window.To+1) }

// leafAnswer is what a query is worth over the whole grid.
type leafAnswer struct {
	grid   grid
	every  int64
	whole  []series // what cannot be kept
	groups []*cachedGroup
}

// read evaluates the buckets from first on, and takes those before from known. ok
// is false when the answer cannot be kept or, with known, when the two do not go
// together; without known the answer is right all the same.
func (l *cachedLeaf) read(ctx context.Context, first int64, known *cached) (a leafAnswer, ok bool, err error) {
	a.grid = l.grid
	tail := l.grid
	tail.first, tail.n = first, l.grid.n-int((first-l.grid.first)/l.grid.interval)
	ln := rangeLane(l.at, run{grid: tail}, l.o)
	if src, isSource := l.src.(DistributionSource); isSource {
		out, found, err := distributions(ctx, src, l.q, l.o, ln)
		if err != nil || found {
			a.whole = out
			return a, false, err
		}
	}
	found, err := l.src.Select(ctx, Selector{Metric: l.q.Metric, Scope: l.q.Scope}, ln.from, ln.to)
	if err != nil {
		return a, false, fmt.Errorf("select %s{%s}: %w", l.q.Metric, l.q.Scope, err)
	}
	if err := needsPoints(l.q, len(found)); err != nil {
		return a, false, err
	}
	uniform := true
	for i := range found {
		every := submission(&found[i])
		uniform = uniform && found[i].Fast == nil && (a.every == 0 || a.every == every)
		a.every = every
	}
	if known != nil && (!uniform || a.every != 0 && a.every != known.every) {
		return a, false, nil
	}
	groups, err := groupContexts(l.q, contextsOf(found, ln.from, ln.to))
	if err != nil {
		return a, false, err
	}
	ln.live = func(c *contextSeries) bool {
		return len(c.Points) > 0 && c.Points[len(c.Points)-1].Time >= l.grid.first
	}
	if known != nil {
		a.every = known.every
		ok, err = a.join(ctx, l, ln, groups, known)
		return a, ok, err
	}
	if err := a.fill(ctx, l, ln, groups); err != nil {
		return a, false, err
	}
	return a, uniform, nil
}

// fill evaluates groups over the whole grid.
func (a *leafAnswer) fill(ctx context.Context, l *cachedLeaf, ln lane, groups []*group) error {
	if len(groups)*ln.n > maxValues {
		return tooMany(l.q)
	}
	for _, g := range groups {
		if _, err := a.one(ctx, l, ln, g, nil); err != nil {
			return err
		}
	}
	return nil
}

// join evaluates groups over the end of the grid, and puts what is known before.
// ok is false when the two do not go together.
func (a *leafAnswer) join(ctx context.Context, l *cachedLeaf, ln lane, groups []*group, known *cached) (ok bool, err error) {
	seen := make(map[*cachedGroup]bool, len(groups))
	n := l.grid.n - ln.n // buckets from known
	for _, g := range groups {
		before := known.group(g.tags)
		seen[before] = true
		if before.returns(g) {
			return false, nil
		}
		out, err := a.one(ctx, l, ln, g, before.from(known, l.grid, n))
		if err != nil || before != nil && !out.follows(before) {
			return false, err
		}
	}
	for _, before := range known.groups {
		among := before.newest.since(l.grid.first)
		switch {
		case seen[before]:
			continue
		case among == 0:
			if before.newest[0].at >= l.grid.first-l.o.limit-l.grid.interval {
				a.groups = append(a.groups, &cachedGroup{series: series{tags: before.tags}, absent: true, newest: before.newest})
			}
			continue
		case before.bridged != (among > 1):
			return false, nil
		}
		a.groups = append(a.groups, before.from(known, l.grid, n))
	}
	slices.SortFunc(a.groups, func(x, y *cachedGroup) int { return slices.Compare(x.tags, y.tags) })
	return true, nil
}

// one evaluates g in the lane, which is the end of the grid, after what is known,
// if anything.
func (a *leafAnswer) one(ctx context.Context, l *cachedLeaf, ln lane, g *group, known *cachedGroup) (*cachedGroup, error) {
	newest := newestOf(g)
	out := &cachedGroup{}
	if known != nil {
		newest = newest.with(known.newest)
		out.values, out.inBucket = known.values, known.inBucket
	} else {
		out.values, out.inBucket = make([]float64, l.grid.n), make([]bool, l.grid.n)
	}
	among := newest.since(l.grid.first)
	if among == 0 {
		out.series, out.absent, out.newest = series{tags: g.tags}, true, newest
		a.groups = append(a.groups, out)
		return out, nil
	}
	s, err := ln.aggregateAmong(ctx, l.q, g, among)
	if err != nil {
		return nil, err
	}
	for _, p := range s.points {
		i := (p.Time - l.grid.first) / l.grid.interval
		out.values[i], out.inBucket[i] = p.Value, true
	}
	s.points = nil
	s.fillAs(l.o, g)
	out.series, out.bridged, out.newest, out.members = s, among > 1, newest, g.members
	if known != nil {
		out.idle = known.idle
	}
	a.groups = append(a.groups, out)
	return out, nil
}

// series are the groups with values.
func (a *leafAnswer) series() []series {
	if a.whole != nil {
		return a.whole
	}
	var out []series
	for _, g := range a.groups {
		s := g.series
		if g.absent {
			continue
		}
		for i, there := range g.inBucket {
			if there {
				s.points = append(s.points, Point{Time: a.grid.time(i), Value: g.values[i]})
			}
		}
		if len(s.points) > 0 {
			out = append(out, s)
		}
	}
	return out
}

// keep puts the settled buckets of a into the Cache.
func (l *cachedLeaf) keep(key cacheKey, state any, a leafAnswer, before int64) {
	n := l.stable(before)
	if n == 0 {
		return
	}
	e := &cached{key: key, state: state, first: l.grid.first, n: n, every: a.every, groups: make([]*cachedGroup, len(a.groups))}
	for i, g := range a.groups {
		if g.absent {
			e.groups[i] = &cachedGroup{series: g.series, absent: true, newest: g.newest}
			continue
		}
		kept := *g
		kept.values, kept.inBucket, kept.members = g.values[:n:n], g.inBucket[:n:n], nil
		if kept.idle = l.idle(g, l.grid.time(n), before); len(kept.idle) > maxIdle {
			return
		}
		e.groups[i] = &kept
	}
	l.cache.put(e)
}

// maxIdle bounds the contexts of a group that are remembered as idle.
const maxIdle = 256

// idle returns the contexts of g that have a gap which begins before end and has
// no end yet, or one that is not settled.
func (l *cachedLeaf) idle(g *cachedGroup, end, before int64) (idle []lastSeen) {
	if l.o.fill != "" && l.o.fill != "linear" {
		return nil // no gap waits for its end
	}
	for _, c := range g.idle {
		if c.at >= l.grid.first-l.o.limit {
			idle = append(idle, c)
		}
	}
	for _, c := range g.members {
		next, _ := slices.BinarySearchFunc(c.Points, end, compareTime)
		if next == 0 || len(idle) > maxIdle {
			continue
		}
		last := c.Points[next-1].Time
		if next < len(c.Points) {
			if after := c.Points[next].Time; after-last <= l.o.limit || after+l.grid.interval <= l.settled(before) {
				continue
			}
		}
		if seen := (lastSeen{c.hash(), last}); !slices.Contains(idle, seen) {
			idle = append(idle, seen)
		}
	}
	return idle
}
