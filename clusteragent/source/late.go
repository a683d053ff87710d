package source

import (
	"context"
	"fmt"
	"slices"
	"time"

	"kelpie.dev/kelpie/metric/payload"
)

const (
	// probeWindow is how far back is looked for a query that has no data in its
	// own window: metrics of clouds come ten minutes late and more.
	probeWindow = time.Hour
	// probeEvery is how often, at most.
	probeEvery = 5 * time.Minute
	// arrivals are needed to tell what comes late from what has stopped.
	arrivals = 2
)

// Lateness is how late a query's points come, as far as it has been seen.
type Lateness struct {
	newest  time.Time // of the points seen, the one that is read
	came    int       // points that came while it was watched
	lags    [4]time.Duration
	Spacing time.Duration // between two points
	period  time.Duration // between two polls
}

// saw takes the point that an answer has.
func (l *Lateness) saw(o outcome, period time.Duration, now time.Time) {
	l.period = period
	if o.spacing > 0 {
		l.Spacing = o.spacing
	}
	if !l.newest.IsZero() && o.at.After(l.newest) {
		l.lags[l.came%len(l.lags)] = now.Sub(o.at)
		l.came++
	}
	if o.at.After(l.newest) {
		l.newest = o.at
	}
}

// Lag is how old the latest points were, at most, when they came.
func (l Lateness) Lag() time.Duration { return slices.Max(l.lags[:]) }

// Enough is the max age with which points that come so late are served until the
// next comes, in whole minutes. ok is false while too little has been seen, or
// when the newest is older than that: then data have stopped.
func (l Lateness) Enough(age time.Duration) (d time.Duration, ok bool) {
	d = (l.Lag() + l.Spacing + l.period + time.Minute - 1).Truncate(time.Minute)
	return d, l.came >= arrivals && age <= d
}

// advice says which max age helps a newest point of that age; "" when none is
// known to.
func (l Lateness) advice(age time.Duration) string {
	enough, ok := l.Enough(age)
	if !ok {
		return ""
	}
	minutes := func(d time.Duration) time.Duration { return max(d.Round(time.Minute), time.Minute) }
	return fmt.Sprintf("metrics like this come late (points are about %s old when they come, and %s apart): set maxAge to at least %s",
		minutes(l.Lag()), l.Spacing, enough)
}

// missing says what is known of the data of a query that has none in its window.
// Those are looked for less often than by polls.
func (l Lateness) missing(now time.Time) string {
	if text := l.advice(now.Sub(l.newest) - probeEvery); text != "" {
		return "; " + text
	}
	if l.newest.IsZero() || now.Sub(l.newest) > 2*probeWindow {
		return ""
	}
	return "; the newest point before is of " + l.newest.UTC().Format(time.RFC3339)
}

// spacing is the largest gap between a series' newest points.
func spacing(list []payload.QueryPoint) (gap time.Duration) {
	var after *float64
	for i, seen := len(list)-1, 0; i >= 0 && seen < 10; i-- {
		if list[i][0] == nil || list[i][1] == nil {
			continue
		}
		if after != nil {
			gap = max(gap, time.Duration(*after-*list[i][0])*time.Millisecond)
		}
		after = list[i][0]
		seen++
	}
	return gap
}

// probe looks further back for some of the queries that have no data, so that
// their errors can say whether data come late, have stopped, or never were. What
// it finds is not served.
func (p *Poller) probe(ctx context.Context, now time.Time) {
	keys := p.unseen(now)
	if len(keys) == 0 || p.paused() {
		return
	}
	if n, limited := p.budget.allow(now, p.opts.Period); limited && n < 1 {
		return
	}
	p.budget.spend(1)
	out, err := p.request(ctx, keys, now)
	if err != nil {
		if f := p.judge(err); f.pause > 0 {
			p.mu.Lock()
			p.pausedUntil = now.Add(min(f.pause, maxBackoff))
			p.mu.Unlock()
		}
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for i, k := range keys {
		for _, of := range p.texts[k.Query] {
			if s := p.queries[of]; s != nil && out[i].err == nil {
				s.reading.Late.saw(out[i], p.opts.Period, now)
			}
		}
	}
}

// unseen returns what to probe now, as one request asks it.
func (p *Poller) unseen(now time.Time) []Key {
	if p.opts.PromQL != nil {
		return nil // its windows stand in its queries
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	var keys []Key
	for k, s := range p.queries {
		if s.pushed || s.reading.Err == nil || s.reading.Err.Reason != NoData || k.Window >= probeWindow || now.Sub(s.probed) < p.probeEvery {
			continue
		}
		if wide := (Key{Query: k.Query, Window: probeWindow}); !slices.Contains(keys, wide) {
			keys = append(keys, wide)
		}
	}
	if len(keys) == 0 {
		return nil
	}
	slices.SortFunc(keys, compareKeys)
	keys = batches(keys, p.size)[0]
	for _, k := range keys {
		for _, of := range p.texts[k.Query] {
			p.queries[of].probed = now
		}
	}
	return keys
}
