// Package stream pushes what queries are worth to those who ask for them for
// ever, within moments of the batch that changed it.
//
// It owns the standing queries in use, who uses them, when they are brought up
// to date, and both wires on which their values are had: the value stream
// (package valuestream) and GET /api/kelpie/v1/value, the same number computed
// anew. From them it derives the fast lane, the metrics that agents are to send
// every second. It does not define what a value is (package query does), and
// reads the store only for what a new query has missed and for queries that look
// far back.
package stream

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"kelpie.dev/kelpie/metric"
	"kelpie.dev/kelpie/query"
)

const (
	// coalesce is how long an arriving batch waits for its neighbours: agents
	// flush together, and a query reads many of them.
	coalesce = 20 * time.Millisecond
	// heartbeat is the longest silence on a connection.
	heartbeat = 5 * time.Second
	// linger is how long a query without a user stays, and with it the fast lane:
	// a cluster agent that restarts comes back.
	linger = time.Minute

	defaultMaxMetrics = 500
)

// Authorizer checks both keys of a request.
type Authorizer interface {
	Read(r *http.Request) error
}

// Options are a Stream's parts. Source and Auth are required.
type Options struct {
	Source query.Source
	Auth   Authorizer

	MaxQueries  int           // standing at once; 0 means 50 000
	MaxContexts int           // that they read together; 0 means a million
	MaxMetrics  int           // in the fast lane; 0 means 500, negative none
	Timeout     time.Duration // of one evaluation over the source; 0 means 10 s
	Now         func() time.Time
	Registerer  prometheus.Registerer // nil registers nothing
	Log         *slog.Logger          // nil discards
}

// Stream keeps the standing queries. See New.
type Stream struct {
	opts    Options
	metrics *metrics
	wake    chan struct{} // holds a token when there is something to evaluate
	active  atomic.Bool   // there is a query
	lane    atomic.Pointer[fastLane]
	ended   chan struct{} // closed when Run ends

	mu       sync.Mutex // guards what follows
	standing *query.Standing
	uses     map[*query.StandingQuery]map[*subscriber]uint64 // with the id that each has for it
	idle     []idleUse                                       // oldest first
	arrived  time.Time                                       // of the oldest batch that is not evaluated yet
	asking   bool                                            // the source is being asked
	known    map[string]struct{}                             // metrics of the lane

	maxMetrics int // in the lane; negative for none

	subscribers int
}

// idleUse is a use of a query that ends at until.
type idleUse struct {
	q     *query.StandingQuery
	until time.Time
}

// New returns a Stream that evaluates nothing until Run.
func New(o Options) (*Stream, error) {
	if o.Source == nil || o.Auth == nil {
		return nil, errors.New("value stream: source and key check are required")
	}
	o.MaxQueries = cmp.Or(o.MaxQueries, 50_000)
	o.Timeout = cmp.Or(o.Timeout, 10*time.Second)
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	s := &Stream{
		opts: o, maxMetrics: cmp.Or(o.MaxMetrics, defaultMaxMetrics), wake: make(chan struct{}, 1), ended: make(chan struct{}),
		standing: query.NewStanding(o.MaxContexts), uses: map[*query.StandingQuery]map[*subscriber]uint64{},
	}
	s.lane.Store(newFastLane(nil))
	s.metrics = newMetrics(o.Registerer, s)
	return s, nil
}

// Accepted takes what the store has accepted. It keeps nothing of it, and costs
// next to nothing where no query reads it.
func (s *Stream) Accepted(series []metric.Series, distributions []metric.Distribution) {
	if !s.active.Load() {
		return
	}
	now := s.opts.Now()
	s.mu.Lock()
	s.standing.Observe(series, now.Unix())
	s.standing.ObserveDistributions(distributions, now.Unix())
	pending := s.standing.Pending()
	if pending && s.arrived.IsZero() {
		s.arrived = now
	}
	s.mu.Unlock()
	if pending {
		s.nudge()
	}
}

func (s *Stream) nudge() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// Run evaluates until ctx ends, and then ends every subscription.
func (s *Stream) Run(ctx context.Context) error {
	defer close(s.ended)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		s.loop(ctx, g)
		return nil
	})
	return g.Wait()
}

func (s *Stream) loop(ctx context.Context, g *errgroup.Group) {
	second := time.NewTimer(0)
	defer second.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.wake:
			select {
			case <-ctx.Done():
				return
			case <-time.After(coalesce):
			}
		case <-second.C:
			// Windows slide although nothing arrives.
			second.Reset(time.Until(time.Now().Truncate(time.Second).Add(time.Second)))
		}
		if ask := s.step(); len(ask) > 0 {
			g.Go(func() error {
				s.ask(ctx, ask)
				return nil
			})
		}
	}
}

// step brings all values up to now. What it returns is to be asked.
func (s *Stream) step() []*query.StandingQuery {
	began := time.Now()
	now := s.opts.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.retire(now)
	arrived := s.arrived
	s.arrived = time.Time{}
	ask := s.standing.Step(now.Unix(), func(q *query.StandingQuery) { s.changed(q, now, arrived) })
	s.metrics.step.Observe(time.Since(began).Seconds())
	if s.asking || len(ask) == 0 {
		return nil // the round under way is late; the next takes those of this one
	}
	s.asking = true
	return ask
}

// ask evaluates queries that look back beyond what is held here.
func (s *Stream) ask(ctx context.Context, queries []*query.StandingQuery) {
	for _, q := range queries {
		now := s.opts.Now()
		a := s.evaluate(ctx, q.Expr, now)
		if ctx.Err() != nil {
			break
		}
		s.mu.Lock()
		s.standing.Answered(q, a, func(q *query.StandingQuery) { s.changed(q, now, now) })
		s.mu.Unlock()
	}
	s.mu.Lock()
	s.asking = false
	s.mu.Unlock()
}

// evaluate asks the source what e is worth at now.
func (s *Stream) evaluate(ctx context.Context, e query.Expr, now time.Time) query.Answer {
	ctx, cancel := context.WithTimeout(ctx, s.opts.Timeout)
	defer cancel()
	r, ok, err := query.Value(ctx, s.opts.Source, e, now.Unix())
	return query.Answer{Reading: r, OK: ok, Err: err}
}

// changed tells q's subscribers. The caller holds mu.
func (s *Stream) changed(q *query.StandingQuery, now, arrived time.Time) {
	for sub, id := range s.uses[q] {
		sub.note(id, q, now, arrived)
	}
}

// use adds sub to q's users; it gets what q is worth now. The caller holds mu.
func (s *Stream) use(sub *subscriber, id uint64, text string) ([]query.Missing, error) {
	now := s.opts.Now()
	if s.standing.Size() >= s.opts.MaxQueries {
		return nil, errTooMany(s.opts.MaxQueries)
	}
	q, missing, err := s.standing.Add(text, now.Unix())
	if err != nil {
		return nil, err
	}
	if s.uses[q] == nil {
		s.uses[q] = map[*subscriber]uint64{}
	}
	if old, twice := s.uses[q][sub]; twice {
		s.standing.Remove(q)
		return nil, errTwice(old)
	}
	s.uses[q][sub] = id
	sub.queries[id] = q
	if _, known := q.Last(); known {
		sub.note(id, q, now, time.Time{})
	}
	s.active.Store(true)
	s.updateLane()
	return missing, nil
}

// release ends sub's use of its query id; the query itself lingers. The caller
// holds mu.
func (s *Stream) release(sub *subscriber, id uint64) {
	q := sub.queries[id]
	if q == nil {
		return
	}
	delete(sub.queries, id)
	delete(sub.dirty, id)
	if delete(s.uses[q], sub); len(s.uses[q]) == 0 {
		delete(s.uses, q)
	}
	s.idle = append(s.idle, idleUse{q, s.opts.Now().Add(linger)})
}

// retire ends the uses whose time has come. The caller holds mu.
func (s *Stream) retire(now time.Time) {
	n := 0
	for n < len(s.idle) && !s.idle[n].until.After(now) {
		s.standing.Remove(s.idle[n].q)
		n++
	}
	if n > 0 {
		s.idle = append(s.idle[:0], s.idle[n:]...)
		s.active.Store(s.standing.Size() > 0)
		s.updateLane()
	}
}

// load reads what a new query has missed.
func (s *Stream) load(ctx context.Context, missing []query.Missing) {
	for _, m := range missing {
		series, distributions, err := s.read(ctx, m)
		s.mu.Lock()
		s.standing.Fill(m, series, distributions, err, s.opts.Now().Unix())
		s.mu.Unlock()
		s.nudge()
	}
}

func (s *Stream) read(ctx context.Context, m query.Missing) ([]metric.Series, []metric.Distribution, error) {
	ctx, cancel := context.WithTimeout(ctx, s.opts.Timeout)
	defer cancel()
	series, err := s.opts.Source.Select(ctx, m.Selector, m.From, m.To)
	if err != nil {
		return nil, nil, err
	}
	src, ok := s.opts.Source.(query.DistributionSource)
	if !ok {
		return series, nil, nil
	}
	var distributions []metric.Distribution
	for d, err := range src.Distributions(ctx, m.Selector, m.From, m.To) {
		if err != nil {
			return nil, nil, err
		}
		distributions = append(distributions, d.Clone())
	}
	return series, distributions, nil
}
