package query

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sort"
	"strings"

	"kelpie.dev/kelpie/metric"
)

// Limits of what one query may read and answer.
const (
	MaxGroups     = 10_000    // results of one query
	maxMembership = 1_000_000 // contexts, counted once for each group they are in
	maxValues     = MaxGroups * MaxPoints
	// MaxReach is the most buckets or instants that a query is evaluated at: a
	// function that looks back may ask for more than the MaxPoints of a result.
	MaxReach = 100_000
)

// absentKey is the value of a group key that a context lacks.
const absentKey = "N/A"

// A contextSeries is a series of the source with the tags it is matched and grouped by.
type contextSeries struct {
	metric.Series
	tags metric.Tags
}

// A lane is how one query's contexts become values at times: the buckets of a
// window (rangeLane) or instants (instantLane).
type lane struct {
	from, to int64           // of the points to read
	reach    int64           // of a context, unless 0: how far before its newest
	n        int             // values of a context
	time     func(int) int64 // of each
	every    int64           // seconds that all times are multiples of
	// roll returns the n values of one context, valid until the next call.
	// among is how many contexts of its group have data of their own.
	roll func(c *contextSeries, among int) []float64
	// live reports whether c itself has data there.
	live func(c *contextSeries) bool
	// ahead is how many buckets before the first are read as well, to fill from.
	ahead int
	width int64 // seconds that a value stands for
	// instants are what the values are at, if not buckets. A group that has none at
	// one of them, but was there within lateness, has a null.
	instants []int64
	// place calls add for those of d's sketches that have a bucket, counted from
	// the first of those ahead.
	place func(d *metric.Distribution, add func(bucket int, s *metric.Sketch))
	// steps replaces the values of merged sketches by their steps.
	steps func(values []float64)
}

// A group is the contexts of a query that agree in the values of its by keys.
type group struct {
	tags    metric.Tags
	members []*contextSeries
}

// leavesOf evaluates the queries of an expression over src.
func leavesOf(src Source, newest *int64) func(context.Context, *Query, span) ([]series, error) {
	return func(ctx context.Context, q *Query, at span) ([]series, error) {
		o, err := q.options()
		if err != nil {
			return nil, err
		}
		if at.instants != nil {
			o.fill = "null"
			s, err := atInstants(ctx, src, q, o, instantLane(at, o, newest))
			for i := range s {
				s[i].counting, s[i].interpolated = false, false // no bucket is missing
			}
			return s, err
		}
		g := at.grid(intervalOf(at.window, o))
		switch {
		case g.n == 0:
			return nil, nil
		case g.n > MaxReach:
			return nil, tooFar(q)
		}
		var parts [][]series
		for _, r := range at.runs(g) {
			part, err := selected(ctx, src, q, o, rangeLane(at, r, o))
			if err != nil {
				return nil, err
			}
			parts = append(parts, part)
		}
		return joined(parts), nil
	}
}

// atInstants evaluates q at l's instants. Most often each context has a point in
// its window: then nothing before has to be read, which is most of l.
func atInstants(ctx context.Context, src Source, q *Query, o options, l lane) ([]series, error) {
	paced, ok := src.(PacedSource)
	if !ok || len(l.instants) != 1 || len(q.By) > 0 || l.steps != nil {
		return selected(ctx, src, q, o, l)
	}
	every := max(paced.Pace(q.Metric), unknownInterval)
	near := l
	// No window begins before: see instantLane, and restate for what is fast.
	near.reach = l.width + every
	if near.from = l.instants[0] - near.reach - lateFor(every); near.from <= l.from {
		return selected(ctx, src, q, o, l)
	}
	s, err := selected(ctx, src, q, o, near)
	if err == nil && (len(s) == 0 || s[0].points[0].Null()) {
		return selected(ctx, src, q, o, l) // is it null, or not there?
	}
	return s, err
}

// tooFar refuses e, whose data would be more than MaxReach values.
func tooFar(e Expr) error {
	return &Error{Kind: Limit, Query: e.text(), Offset: e.Pos().Start,
		Message: fmt.Sprintf("a function reads more than %d values of this query in a row; roll it up to longer buckets with .rollup(seconds)", MaxReach)}
}

// joined puts the series of the same group together that come in parts, ascending in time.
func joined(parts [][]series) []series {
	if len(parts) == 1 {
		return parts[0]
	}
	var all []series
	for _, s := range slices.Concat(parts...) {
		i, found := slices.BinarySearchFunc(all, s, func(a, b series) int { return slices.Compare(a.tags, b.tags) })
		if !found {
			all = slices.Insert(all, i, s)
			continue
		}
		all[i].points = append(all[i].points, s.points...)
		if all[i].unit != s.unit {
			all[i].unit = ""
		}
	}
	return all
}

// selected evaluates q in the lane l.
func selected(ctx context.Context, src Source, q *Query, o options, l lane) ([]series, error) {
	if src, ok := src.(DistributionSource); ok {
		out, found, err := distributions(ctx, src, q, o, l)
		if err != nil || found {
			return out, err
		}
	}
	found, err := src.Select(ctx, Selector{Metric: q.Metric, Scope: q.Scope, Untagged: len(q.By) == 0, Trailing: l.reach}, l.from, l.to)
	if err != nil {
		return nil, fmt.Errorf("select %s{%s}: %w", q.Metric, q.Scope, err)
	}
	if err := needsPoints(q, len(found)); err != nil {
		return nil, err
	}
	groups, err := groupContexts(q, contextsOf(found, l.from, l.to))
	if err != nil {
		return nil, err
	}
	return l.over(ctx, q, o, groups)
}

// needsPoints refuses an aggregator that only distributions have, for a metric
// of which so many contexts with points were found.
func needsPoints(q *Query, found int) error {
	if !q.Aggregator.needsDistribution() || found == 0 {
		return nil
	}
	return refuse(q, q.span, "aggregator %q needs a distribution, and metric %q is none: submit its values as a distribution (DogStatsD type d), or use avg, sum, min or max",
		q.Aggregator, q.Metric)
}

// over evaluates q over groups of contexts with points.
func (l lane) over(ctx context.Context, q *Query, o options, groups []*group) ([]series, error) {
	if len(groups)*l.n > maxValues {
		return nil, tooMany(q)
	}
	var out []series
	for _, g := range groups {
		s, err := l.aggregate(ctx, q, g)
		if err != nil {
			return nil, err
		}
		if len(s.points) > 0 {
			s.fillAs(o, g)
			out = append(out, s)
		}
	}
	return out, nil
}

// fillAs notes what buckets without a point are, in s of g.
func (s *series) fillAs(o options, g *group) {
	s.counting = o.counting != raw && allCount(g.members)
	s.interpolated = !s.counting && o.fill != "null"
}

// contextsOf are the source's answer.
func contextsOf(found []metric.Series, from, to int64) []*contextSeries {
	all := make([]contextSeries, len(found))
	contexts := make([]*contextSeries, len(found))
	for i, s := range found {
		restate(&s, from, to)
		all[i] = contextSeries{Series: s, tags: TagsOf(s)}
		contexts[i] = &all[i]
	}
	return contexts
}

// restate makes s, some points of which are fast, a series of the interval of the
// newest, and keeps what is from from to to.
func restate(s *metric.Series, from, to int64) {
	if s.Fast == nil {
		return
	}
	fast, usual := s.Fast, cmp.Or(s.Interval, metric.UnknownInterval)
	s.Fast = nil
	n := len(fast)
	if n > 0 && fast[n-1] {
		s.Interval = metric.FastInterval
	}
	if n == 0 || !slices.Contains(fast, !fast[n-1]) {
		return
	}
	s.Points = metric.AtInterval(s.Type, s.Points, func(i int) int64 {
		if fast[i] {
			return metric.FastInterval
		}
		return usual
	}, cmp.Or(s.Interval, metric.UnknownInterval))
	first, _ := slices.BinarySearchFunc(s.Points, from, compareTime)
	end, _ := slices.BinarySearchFunc(s.Points, to+1, compareTime)
	s.Points = s.Points[first:end]
}

func compareTime(p metric.Point, t int64) int { return cmp.Compare(p.Time, t) }

// groupContexts sorts contexts into the groups of q, sorted by their tags. A
// context that bears several values of a key is in several groups.
func groupContexts(q *Query, contexts []*contextSeries) ([]*group, error) {
	if len(q.By) == 0 {
		if len(contexts) == 0 {
			return nil, nil
		}
		return []*group{{members: contexts}}, nil
	}
	byKey := map[string]*group{}
	memberships := 0
	for _, c := range contexts {
		for _, tags := range groupTags(c.tags, q.By) {
			key := strings.Join(tags, "\x00")
			g := byKey[key]
			if g == nil {
				g = &group{tags: tags}
				byKey[key] = g
			}
			g.members = append(g.members, c)
			memberships++
			if len(byKey) > MaxGroups || memberships > maxMembership {
				return nil, tooMany(q)
			}
		}
	}
	groups := make([]*group, 0, len(byKey))
	for _, g := range byKey {
		groups = append(groups, g)
	}
	slices.SortFunc(groups, func(a, b *group) int { return slices.Compare(a.tags, b.tags) })
	return groups, nil
}

func tooMany(q *Query) error {
	return &Error{Kind: Limit, Query: q.src, Offset: q.span.Start,
		Message: "query has more groups than one answer may hold; group by fewer keys or narrow the scope"}
}

// groupTags returns the tag sets of the groups that a context with the given
// tags belongs to: one for each combination of its values of the keys.
func groupTags(tags metric.Tags, keys []string) []metric.Tags {
	sets := []metric.Tags{nil}
	for _, key := range keys {
		values := tags.Values(key)
		if len(values) == 0 {
			values = []string{absentKey}
		}
		var more []metric.Tags
		for _, set := range sets {
			for _, v := range values {
				more = append(more, set.Union(key+":"+v))
				if len(more) > MaxGroups {
					return more // the caller's limit reports it
				}
			}
		}
		sets = more
	}
	return sets
}

// aggregate folds the contexts of g over space. The result has no points when
// no context has data on the grid.
func (l lane) aggregate(ctx context.Context, q *Query, g *group) (series, error) {
	live := 0
	for _, c := range g.members {
		if l.live(c) {
			live++
		}
	}
	return l.aggregateAmong(ctx, q, g, live)
}

// aggregateAmong is aggregate of a group of which so many contexts have data of
// their own.
func (l lane) aggregateAmong(ctx context.Context, q *Query, g *group, live int) (series, error) {
	if live == 0 {
		return series{}, nil
	}
	buckets := make([]accumulator, l.n)
	for _, c := range g.members {
		if err := ctx.Err(); err != nil {
			return series{}, err
		}
		for i, v := range l.roll(c, live) {
			buckets[i].add(v)
		}
	}
	points := make([]Point, 0, len(buckets))
	for i := range buckets {
		switch {
		case buckets[i].n > 0:
			points = append(points, Point{Time: l.time(i), Value: finite(buckets[i].value(q.Aggregator.Name))})
		case l.instants != nil && slices.ContainsFunc(g.members, func(c *contextSeries) bool {
			return l.seen(i, len(c.Points), func(j int) int64 { return c.Points[j].Time })
		}): // default_zero makes it 0
			points = append(points, Point{Time: l.time(i), Value: null})
		}
	}
	return series{
		tags:     g.tags,
		points:   points,
		interval: l.every,
		unit:     unitOf(q, g.members),
		aggr:     q.Aggregator.Name,
	}, nil
}

// seen reports whether one of n points, ascending in time, tells that their
// context was there at instant i.
func (l lane) seen(i, n int, time func(int) int64) bool {
	at := l.instants[i]
	later := sort.Search(n, func(j int) bool { return time(j) > at })
	return later > 0 && time(later-1) > at-l.width-lateness
}

// unitOf is the unit that all contexts share, or "".
func unitOf(q *Query, contexts []*contextSeries) string {
	if q.Aggregator.Name == "count" {
		return ""
	}
	unit := contexts[0].Unit
	for _, c := range contexts {
		if c.Unit != unit {
			return ""
		}
	}
	return unit
}

func allCount(contexts []*contextSeries) bool {
	for _, c := range contexts {
		if !counts(c.Type) {
			return false
		}
	}
	return true
}
