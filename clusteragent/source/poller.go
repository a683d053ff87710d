package source

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"kelpie.dev/kelpie/datadog"
	"kelpie.dev/kelpie/metric/payload"
)

// Backoff of a query that fails by its own fault: doubled from the first to the
// second at each failure. A changed query is a new query and starts afresh.
const (
	minBackoff = 30 * time.Second
	maxBackoff = 30 * time.Minute
)

// maxSlowBackoff bounds the backoff of a query that travels alone and is too
// slow: that may be over any time.
const maxSlowBackoff = 5 * time.Minute

// coalesce is how long a new query waits for others that appear with it.
const coalesce = 50 * time.Millisecond

// Querier asks a source for several queries over one window.
type Querier interface {
	Query(ctx context.Context, queries []string, from, to time.Time) (*payload.QueryResponse, error)
}

// Options configures a Poller. One of Querier and PromQL is required.
type Options struct {
	Name       Name // for status and telemetry
	Second     bool // another source is the cluster's own: the series shown bear this one's name
	Querier    Querier
	PromQL     *PromQL               // is asked for each query alone
	Stream     *Stream               // pushes values, instead of polling while it is there; nil for a source that has none
	SourceURL  string                // shown in messages; without credentials
	KeysHint   string                // where the keys are mended; shown when they are refused
	Check      func(string) error    // judges a query before it leaves the process; nil means Shape
	Period     time.Duration         // between two polls of a query; 0 means 30 s
	Timeout    time.Duration         // of one request; 0 means 10 s
	BatchSize  int                   // queries a request; 0 means, and at most, 35
	Parallel   int                   // requests at once; 0 means 10
	Latest     bool                  // the newest point of an answer counts, not the second newest
	Share      float64               // of what the rate limit leaves that may be spent; 0 means 0.9
	Registerer prometheus.Registerer // nil registers nowhere
	Log        *slog.Logger          // nil discards
}

// A Poller keeps the newest value of each query in use. All its methods may be
// called concurrently; only Await and AwaitAll wait for the source.
type Poller struct {
	opts       Options
	tel        *telemetry
	fresh      chan struct{} // holds a token when a query without attempt may exist
	used       chan struct{} // holds a token when the queries in use have changed
	overdue    atomic.Bool   // all queries are to be polled now
	budget     budget
	probeEvery time.Duration

	mu          sync.RWMutex // guards what follows
	queries     map[Key]*state
	texts       map[string][]Key // of queries, by their text
	owners      map[string][]Key
	notify      func(owner string)
	pausedUntil time.Time
	tick        time.Time // of the next cycle
	status      Status
	size        int // queries a request, at most
	calm        int // cycles without a timeout, while that is fewer than asked for
}

// state is all that is known of one query.
type state struct {
	reading  Reading
	owners   map[string]struct{}
	failures int // consecutive, by the query's own fault
	inFlight bool
	settled  chan struct{} // closed once there is something to tell, or no use any more; nil after that
	series   string        // label of the telemetry shown, or ""

	pushed bool      // the stream has said what it is worth
	polled bool      // the stream cannot say
	probed time.Time // when it was last looked for beyond its window
	quiet  bool      // a pushed value has changed since the owners were told
	told   time.Time // when they were
}

// tell returns the owners, who are about to be told.
func (s *state) tell(now time.Time) []string {
	s.quiet, s.told = false, now
	return slices.Collect(maps.Keys(s.owners))
}

// New returns a Poller that asks nothing until Run.
func New(o Options) (*Poller, error) {
	if (o.Querier == nil) == (o.PromQL == nil) {
		return nil, errors.New("new poller: one of Querier and PromQL is required")
	}
	o.Period = cmp.Or(o.Period, 30*time.Second)
	o.Timeout = cmp.Or(o.Timeout, 10*time.Second)
	o.Parallel = cmp.Or(o.Parallel, 10)
	o.KeysHint = cmp.Or(o.KeysHint, "DD_API_KEY and DD_APP_KEY")
	if o.BatchSize <= 0 || o.BatchSize > maxBatchQueries {
		o.BatchSize = maxBatchQueries
	}
	o.Share = cmp.Or(o.Share, 0.9)
	if o.Check == nil {
		o.Check = Shape
	}
	if o.PromQL != nil {
		o.BatchSize, o.Check = 1, checkPromQL
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return &Poller{
		opts: o, tel: newTelemetry(o), size: o.BatchSize, budget: budget{share: o.Share}, probeEvery: probeEvery, fresh: make(chan struct{}, 1), used: make(chan struct{}, 1),
		queries: map[Key]*state{}, texts: map[string][]Key{}, owners: map[string][]Key{}, notify: func(string) {},
		status: Status{Name: o.Name, URL: o.SourceURL, Period: o.Period.Seconds()},
	}, nil
}

// Subscribe sets the function that is told an owner's name after each attempt
// of a query it uses. It must be called before Run and must not block.
func (p *Poller) Subscribe(notify func(owner string)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.notify = notify
}

// Use replaces the queries that owner uses; none ends its use. A query that
// nobody uses is forgotten, a new one is asked within a second.
func (p *Poller) Use(owner string, keys ...Key) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if slices.Equal(p.owners[owner], keys) {
		return
	}
	added := false
	old := p.owners[owner]
	for _, k := range keys {
		s := p.queries[k]
		if s == nil {
			s = &state{owners: map[string]struct{}{}, settled: make(chan struct{})}
			p.queries[k] = s
			p.share(k, s)
			p.texts[k.Query] = append(p.texts[k.Query], k)
			added = true
		}
		s.owners[owner] = struct{}{}
	}
	for _, k := range old {
		if !slices.Contains(keys, k) {
			p.release(owner, k)
		}
	}
	if len(keys) == 0 {
		delete(p.owners, owner)
	} else {
		p.owners[owner] = slices.Clone(keys)
	}
	p.tel.queries.Set(float64(len(p.queries)))
	select {
	case p.used <- struct{}{}:
	default:
	}
	if added {
		p.wake()
	}
}

// share gives a new query what is pushed for the same text in another window.
func (p *Poller) share(k Key, s *state) {
	for _, other := range p.texts[k.Query] {
		if o := p.queries[other]; o.pushed {
			s.reading, s.pushed = o.reading, true
			s.settle()
			return
		}
	}
}

func (p *Poller) release(owner string, k Key) {
	s := p.queries[k]
	delete(s.owners, owner)
	if len(s.owners) == 0 {
		p.tel.forget(s.series)
		s.settle()
		delete(p.queries, k)
		if p.texts[k.Query] = slices.DeleteFunc(p.texts[k.Query], func(other Key) bool { return other == k }); len(p.texts[k.Query]) == 0 {
			delete(p.texts, k.Query)
		}
	}
}

func (p *Poller) wake() {
	select {
	case p.fresh <- struct{}{}:
	default:
	}
}

// Read returns what is known of k, without asking anyone.
func (p *Poller) Read(k Key) Reading {
	p.mu.RLock()
	defer p.mu.RUnlock()
	if s := p.queries[k]; s != nil {
		return s.reading
	}
	return Reading{}
}

// Keys returns the queries in use, in no order.
func (p *Poller) Keys() []Key {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return slices.Collect(maps.Keys(p.queries))
}

// Run polls until ctx ends, and then returns nil.
func (p *Poller) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		tick := time.NewTicker(p.opts.Period)
		defer tick.Stop()
		for {
			p.ticks(time.Now())
			select {
			case <-ctx.Done():
				return nil
			case <-tick.C:
				streaming := p.streaming()
				start := time.Now()
				p.cycle(ctx, func(s *state) bool { return !streaming || s.polled })
				p.tel.elapsed.Observe(time.Since(start).Seconds())
			}
		}
	})
	// New queries have a loop of their own: a slow cycle must not delay them.
	g.Go(func() error {
		for {
			select {
			case <-ctx.Done():
				return nil
			case <-p.fresh:
			}
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(coalesce):
			}
			streaming, all := p.streaming(), p.overdue.Swap(false)
			p.poll(ctx, func(s *state) bool {
				return all || s.reading.Attempted.IsZero() && (s.polled || !streaming)
			})
		}
	})
	if p.opts.Stream != nil {
		g.Go(func() error {
			p.follow(ctx)
			return nil
		})
	}
	return g.Wait()
}

// RateLimit takes what an answer said of the source's rate limit.
func (p *Poller) RateLimit(l datadog.RateLimit) {
	p.budget.observe(l, time.Now(), p.opts.Period)
	p.tel.rate(l, p.budget.least())
}

// cycle polls what is due and wanted, as far as the source's rate limit lets it.
func (p *Poller) cycle(ctx context.Context, want func(*state) bool) {
	now := time.Now()
	clean, suspect := p.due(now, want)
	clean, suspect = p.afford(clean, suspect, now)
	p.send(ctx, clean, suspect)
	p.probe(ctx, now)
}

// poll asks for every query that is due and wanted, and waits for the answers.
func (p *Poller) poll(ctx context.Context, want func(*state) bool) {
	clean, suspect := p.due(time.Now(), want)
	p.send(ctx, clean, suspect)
}

// send asks for queries, and waits for the answers.
func (p *Poller) send(ctx context.Context, clean, suspect []Key) {
	var mu sync.Mutex
	var rest []starved
	g := errgroup.Group{}
	g.SetLimit(p.opts.Parallel)
	for _, b := range batches(clean, p.chunk()) {
		g.Go(func() error {
			left := p.ask(ctx, b)
			mu.Lock()
			defer mu.Unlock()
			rest = append(rest, left...)
			return nil
		})
	}
	// A query that failed by its own fault travels alone until it succeeds.
	for _, k := range suspect {
		g.Go(func() error { p.ask(ctx, []Key{k}); return nil })
	}
	_ = g.Wait() // its functions return nil; what they meet is recorded per query
	if len(rest) > 0 {
		p.relieve(ctx, rest)
	} else {
		p.inTime()
	}
}

// due marks as in flight, and returns in a stable order, the queries to ask now.
func (p *Poller) due(now time.Time, want func(*state) bool) (clean, suspect []Key) {
	p.mu.Lock()
	defer p.mu.Unlock()
	paused := now.Before(p.pausedUntil)
	keys := slices.SortedFunc(maps.Keys(p.queries), compareKeys)
	for _, k := range keys {
		s := p.queries[k]
		if s.inFlight || !want(s) || s.reading.Err != nil && now.Before(s.reading.Err.RetryAt) {
			continue
		}
		if paused {
			p.hold(s)
			continue
		}
		s.inFlight = true
		if s.failures > 0 {
			suspect = append(suspect, k)
		} else {
			clean = append(clean, k)
		}
	}
	return clean, suspect
}

func compareKeys(a, b Key) int {
	return cmp.Or(cmp.Compare(a.Query, b.Query), cmp.Compare(a.Window, b.Window))
}

// paused reports whether the source asked for a pause that is not over.
func (p *Poller) paused() bool {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return time.Now().Before(p.pausedUntil)
}

// hold tells the owners of a query that was never asked that it has to wait.
func (p *Poller) hold(s *state) {
	if s.reading.Err != nil || !s.reading.At.IsZero() {
		return
	}
	s.reading.Err = &Error{Reason: RateLimited, Message: p.name() + " asked for a pause (HTTP 429); this query has not been asked yet", RetryAt: p.pausedUntil}
	s.settle()
	for owner := range s.owners {
		p.notify(owner)
	}
}
