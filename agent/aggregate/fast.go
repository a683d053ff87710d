package aggregate

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"time"

	"kelpie.dev/kelpie/metric"
)

// Some metrics are wanted every second. A context of theirs goes on as all do;
// besides it has a twin, with buckets of metric.FastInterval, which gets the same
// samples. Where the twin has all that a bucket of 10 s has, the bucket's points
// are told apart (Flush.Doubled), so that whoever gets those of the twin can do
// without. So that this is never half true, twins come and go only where a bucket
// of 10 s ends, or with their contexts.
//
// One thing can differ: a sample that comes late, when its second has left and
// its bucket of 10 s has not. It goes into the first second that is open, which
// may be the next bucket's.

// fastLane is the twins, and what decides who has one.
type fastLane struct {
	lane
	list    []string               // of series' names, as given
	metrics map[string]*fastMetric // by contexts' names
	from    int64                  // second from which on new contexts may have a twin
	flushed int64                  // the newest flush's now, in seconds
	twins   int
}

// fastMetric is the contexts of one name of which series are wanted.
type fastMetric struct {
	name     string
	suffixes []string // of these series: "" is the context's own, the others are a histogram's
	contexts int      // live ones that have such series
	twins    int
	on       bool // they are to have twins
}

// has reports whether contexts of kind k have a series that is wanted. Sets are
// not in the fast lane, as members of ten seconds are not the sum of those of
// each, nor are distributions.
func (m *fastMetric) has(k kind) bool {
	switch k {
	case kindCounter, kindGauge:
		return slices.Contains(m.suffixes, "")
	case kindHistogram:
		return slices.ContainsFunc(m.suffixes, func(s string) bool { return s != "" })
	case kindNone:
		return true
	default:
		return false
	}
}

// covers reports whether the twin c has all that its context has of second t.
func (c *Context) covers(t int64) bool { return t >= c.since }

// leaves reports whether c's series of this name is sent: all are, but of a twin
// only those that are wanted.
func (c *Context) leaves(name string) bool {
	return c.interval != metric.FastInterval || slices.Contains(c.fast.suffixes, name[len(c.name):])
}

// SetFast makes the series of these names, a histogram's among them, leave every
// second from second at on, which is the end of a bucket that has been flushed,
// as has all before at by FlushFast and nothing after it: else nothing changes.
// Where there are more contexts than Options.FastContexts, metrics of few
// contexts come first. The same names again cost little, and let in what fits by
// now.
func (a *Aggregator) SetFast(names []string, at int64) {
	if a.o.FastContexts <= 0 || a.fast.flushed > at {
		return
	}
	f := &a.fast
	f.flushed, f.from = at, at
	anew := !slices.Equal(names, f.list)
	if anew {
		a.relist(names)
	}
	if a.choose(anew) {
		a.settle(at)
	}
	f.order = slices.DeleteFunc(f.order, func(c *Context) bool { return c.dead })
}

// relist replaces the list. Contexts that are on both keep their twins.
func (a *Aggregator) relist(names []string) {
	f := &a.fast
	f.list, f.metrics = slices.Clone(names), map[string]*fastMetric{}
	add := func(name, suffix string) {
		m := f.metrics[name]
		if m == nil {
			m = &fastMetric{name: name}
			f.metrics[name] = m
		}
		m.suffixes = append(m.suffixes, suffix)
	}
	for _, name := range names {
		add(name, "")
		for _, suffix := range a.suffixes() {
			if of, ok := strings.CutSuffix(name, suffix); ok && of != "" {
				add(of, suffix)
			}
		}
	}
	for c := range a.live() {
		m := f.metrics[c.name]
		if m == nil || !m.has(c.kind) {
			a.leaveFast(c)
			continue
		}
		if c.fast = m; c.twin != nil {
			c.twin.fast = m
			m.twins++
		}
		m.contexts++
	}
}

// suffixes are those of a histogram's series.
func (a *Aggregator) suffixes() []string {
	out := make([]string, 0, maxSeries)
	for _, name := range a.o.Aggregates {
		out = append(out, "."+name)
	}
	for _, p := range a.percentiles {
		out = append(out, p.suffix)
	}
	return out
}

// choose decides whose contexts have twins: of a list that is new by the number
// of contexts, fewest first; later what is in stays, as a metric that came and
// went would be of no use. It reports whether somebody has to get or lose one.
func (a *Aggregator) choose(anew bool) bool {
	metrics := slices.SortedFunc(maps.Values(a.fast.metrics), func(x, y *fastMetric) int {
		return cmp.Or(cmp.Compare(x.contexts, y.contexts), strings.Compare(x.name, y.name))
	})
	room := a.o.FastContexts
	for _, m := range metrics {
		if m.on && !anew {
			room -= m.contexts
		}
	}
	changes := anew
	for _, m := range metrics {
		if m.on && !anew {
			changes = changes || m.twins < m.contexts && a.fast.twins < a.o.FastContexts
			continue
		}
		if m.on = m.contexts <= room; m.on {
			room -= m.contexts
			changes = changes || m.contexts > 0
		}
	}
	return changes
}

// settle gives contexts their twins, from second at on, and takes those away
// that are none of theirs any more.
func (a *Aggregator) settle(at int64) {
	for c := range a.live() {
		if c.twin != nil && !c.fast.on {
			a.dropTwin(c)
		}
	}
	for c := range a.live() {
		if c.fast == nil || !c.fast.on || c.twin != nil {
			continue
		}
		since := at
		if c.current.open && c.current.start >= at {
			since += DefaultInterval // it has samples that the twin does not get
		}
		a.makeTwin(c, since)
	}
}

// enterFast gives c, which is new and about to be of kind k, what its metric has.
func (a *Aggregator) enterFast(c *Context, k kind) {
	m := a.fast.metrics[c.name]
	if m == nil || !m.has(k) {
		return
	}
	c.fast = m
	m.contexts++
	if m.on {
		a.makeTwin(c, a.fast.from)
	}
}

// leaveFast makes c one that is wanted every ten seconds only.
func (a *Aggregator) leaveFast(c *Context) {
	if c.fast == nil {
		return
	}
	a.dropTwin(c)
	c.fast.contexts--
	c.fast = nil
}

// makeTwin gives c a twin, if there is room for one, that goes on from second
// since as c does.
func (a *Aggregator) makeTwin(c *Context, since int64) {
	if a.fast.twins >= a.o.FastContexts {
		return
	}
	c.twin = &Context{
		interval: metric.FastInterval, since: since, fast: c.fast, name: c.name, host: c.host, device: c.device, tags: c.tags,
		kind: c.kind, timer: c.timer, counting: c.counting, counted: c.counted, next: since,
	}
	a.fast.add(c.twin)
	a.fast.twins++
	c.fast.twins++
}

// dropTwin takes c's twin, if it has one, with all that it holds.
func (a *Aggregator) dropTwin(c *Context) {
	if c.twin == nil {
		return
	}
	a.recycle(c.twin.take(nil, 0, true))
	c.twin.dead, c.twin = true, nil
	c.fast.twins--
	if a.fast.twins--; a.fast.twins == 0 {
		a.fast.order = nil
	}
}

// FastDue reports whether FlushFast would find a second that has ended by now.
func (a *Aggregator) FastDue(now time.Time) bool {
	return a.fast.twins > 0 && now.Unix() > a.fast.flushed
}

// FlushFast returns what the seconds that have ended by now hold of the series
// of SetFast, as Flush does for buckets of 10 s.
func (a *Aggregator) FlushFast(now time.Time) []metric.Series {
	if !a.FastDue(now) {
		return nil
	}
	return a.flushTwins(now.Unix(), false, false)
}

// FlushLast is FlushFast of all that there is at now, the second that is open
// included, before the Flush of an open bucket.
func (a *Aggregator) FlushLast(now time.Time) []metric.Series {
	return a.flushTwins(max(now.Unix(), a.fast.flushed)+metric.FastInterval, false, true)
}

// flushTwins ends seconds by sec; with last also those whose context has an older
// bucket that has not been flushed, which they must not overtake.
func (a *Aggregator) flushTwins(sec int64, back, last bool) []metric.Series {
	f := &a.fast
	f.flushed = sec
	room := f.room()
	e := emitter{a: a, out: make([]metric.Series, 0, room), points: make([]metric.Point, 0, room)}
	kept := f.order[:0]
	for _, c := range f.order {
		if c.dead {
			continue
		}
		if kept = append(kept, c); last || back || a.flushed >= c.since {
			e.context(c, sec, back)
		}
	}
	clear(f.order[len(kept):])
	f.order, f.emitted = kept, len(e.out)
	return e.out
}

// turnBack ends all seconds of twins, as the clock went back to sec; from then
// on the twins have all that their contexts have, which is nothing yet.
func (a *Aggregator) turnBack(sec int64) []metric.Series {
	out := a.flushTwins(sec, true, false)
	a.fast.from = min(a.fast.from, sec-sec%DefaultInterval)
	for c := range a.live() {
		if c.twin != nil {
			c.twin.since = min(c.twin.since, sec-sec%DefaultInterval)
		}
	}
	return out
}
