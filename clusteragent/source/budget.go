package source

import (
	"cmp"
	"math"
	"slices"
	"sort"
	"sync"
	"time"

	"kelpie.dev/kelpie/datadog"
)

// reserve is the part of a limit that cycles leave alone: for new queries, and
// for what others take between two answers.
const reserve = 50 // one in

// budget spreads the requests that a source's rate limit leaves over the time
// until it is reset, so that no part of it finds nothing left. What others take
// of the same limit shows in the next answer. The zero budget with a share knows
// no limit and allows everything.
type budget struct {
	share float64 // of what is left that may be spent

	mu      sync.Mutex // guards what follows
	limit   datadog.RateLimit
	seen    time.Time // when limit was true; zero before the first
	credit  float64   // requests that may go now
	counted time.Time // up to when credit is
	lows    [2]int    // least remaining in this span and the one before
	span    time.Time // when this one began
}

// observe takes what an answer said of the limit.
func (b *budget) observe(l datadog.RateLimit, now time.Time, period time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.seen.IsZero() || now.Sub(b.span) >= 2*period {
		if b.seen.IsZero() {
			b.lows[0] = math.MaxInt
		}
		b.lows[1], b.lows[0], b.span = b.lows[0], math.MaxInt, now
	}
	b.lows[0] = min(b.lows[0], l.Remaining)
	b.limit, b.seen = l, now
}

// least is the smallest remainder of the last two to four periods.
func (b *budget) least() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return min(b.lows[0], b.lows[1])
}

// allow returns how many requests a cycle that begins now may send; ok is false
// when no limit is known.
func (b *budget) allow(now time.Time, period time.Duration) (n int, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.seen.IsZero() {
		return 0, false
	}
	left, until := float64(b.limit.Remaining), b.limit.Reset-now.Sub(b.seen)
	if until <= 0 { // it has been reset since
		left, until = float64(b.limit.Limit), b.limit.Period
	}
	left = max(left-float64(b.limit.Limit)/reserve, 0)
	rate := b.share * left / max(until.Seconds(), 1)
	if b.counted.IsZero() {
		b.counted = now.Add(-period)
	}
	b.credit += rate * now.Sub(b.counted).Seconds()
	// What was not used is no reason for a burst later.
	b.credit = min(b.credit, max(2*rate*period.Seconds(), 1), left)
	b.counted = now
	return int(b.credit), true
}

// spend takes n requests.
func (b *budget) spend(n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.credit = max(b.credit-float64(n), 0)
}

// afford returns those of a cycle's queries that the budget reaches for, and
// lets the others keep their values for a cycle more. First come those that need
// it most: whose value is oldest for what their owner's window says is old. A
// query that was never asked comes before all.
func (p *Poller) afford(clean, suspect []Key, now time.Time) (c, s []Key) {
	n, limited := p.budget.allow(now, p.opts.Period)
	size := p.chunk()
	if !limited || len(batches(clean, size))+len(suspect) <= n {
		p.tel.stretched.Set(0)
		if limited {
			p.budget.spend(len(batches(clean, size)) + len(suspect))
		}
		return clean, suspect
	}
	p.byNeed(clean, now)
	p.byNeed(suspect, now)
	alone := min(len(suspect), (n+3)/4) // the sick get a quarter, as each takes a whole request
	if len(clean) == 0 {
		alone = min(len(suspect), n)
	}
	// A batch more never makes room: the number of batches grows with the queries.
	fit := sort.Search(len(clean), func(i int) bool { return len(batches(clean[:i+1], size)) > n-alone })
	p.budget.spend(len(batches(clean[:fit], size)) + alone)
	p.postpone(now, clean[fit:], suspect[alone:])
	p.tel.stretched.Set(float64(len(clean) - fit + len(suspect) - alone))
	return clean[:fit], suspect[:alone]
}

// byNeed sorts keys, those that need an answer most first.
func (p *Poller) byNeed(keys []Key, now time.Time) {
	p.mu.RLock()
	need := make(map[Key]float64, len(keys))
	for _, k := range keys {
		need[k] = math.Inf(1)
		if s := p.queries[k]; s != nil && !s.reading.Attempted.IsZero() {
			// Failures count as well: a query without data is not asked at all costs.
			need[k] = now.Sub(s.reading.Attempted).Seconds() / max(k.Window, time.Second).Seconds()
		}
	}
	p.mu.RUnlock()
	slices.SortStableFunc(keys, func(a, b Key) int { return cmp.Compare(need[b], need[a]) })
}

// postpone returns keys that the budget does not reach for in this cycle. One
// that has waited for several is told so, as its value may become too old.
func (p *Poller) postpone(now time.Time, lists ...[]Key) {
	var tell []string
	p.mu.Lock()
	for _, list := range lists {
		for _, k := range list {
			s := p.queries[k]
			if s == nil {
				continue
			}
			s.inFlight = false
			if now.Sub(s.reading.Attempted) < 4*p.opts.Period || s.reading.Err != nil {
				continue
			}
			s.reading.Err = &Error{Reason: RateLimited, Message: p.name() + " allows fewer requests than the queries in use need, so this one is asked less often: " +
				"use fewer queries and time windows, raise the polling interval, or the limit there"}
			s.settle()
			tell = append(tell, s.tell(now)...)
		}
	}
	notify := p.notify
	p.mu.Unlock()
	for _, owner := range tell {
		notify(owner)
	}
}
