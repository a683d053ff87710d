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
	"slices"
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

// Joiner adds to the tags of series those of their hosts.
type Joiner interface {
	// State returns another comparable value once JoinTags answers otherwise, and
	// nil while it changes nothing.
	State() any
	JoinTags(host string, own metric.Tags) metric.Tags
}

// Options are a Stream's parts. Source and Auth are required.
type Options struct {
	Source query.Source
	Auth   Authorizer
	Join   Joiner // gives series the tags that Source gives them; nil adds none

	MaxQueries  int           // standing at once; 0 means 50 000
	MaxContexts int           // that they read together; 0 means a million
	MaxMetrics  int           // in the fast lane; 0 means 500, negative none
	Timeout     time.Duration // of one evaluation over the source; 0 means 10 s
	Patience    time.Duration // that a response waits for its subscriber to read; 0 means 30 s
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
	joined   any                                             // state of the join that standing's series bear
	missing  []query.Missing                                 // since that changed
	again    []missed                                        // that could not be read, oldest first

	maxMetrics int // in the lane; negative for none

	subscribers int
}

// missed is what could not be read, and is tried again at a time.
type missed struct {
	query.Missing
	at time.Time
}

// retryLoad is how long after a failure what a query has missed is read again.
const retryLoad = 5 * time.Second

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
	o.Patience = cmp.Or(o.Patience, 30*time.Second)
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

// Accepted takes what the store has accepted, as it tells of it. It keeps nothing
// of it, and costs next to nothing where no query reads it.
func (s *Stream) Accepted(series []metric.Series, contexts []uint64, distributions []metric.Distribution) {
	if !s.active.Load() {
		return
	}
	now := s.opts.Now()
	s.mu.Lock()
	s.follow(now)
	// Not before: what bears tags of before the change would stand beside what is
	// read anew, and count twice.
	series, distributions = s.join(series, distributions)
	s.standing.Observe(series, contexts, now.Unix())
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

// join returns series and distributions with the tags that the source gives them.
func (s *Stream) join(series []metric.Series, distributions []metric.Distribution) ([]metric.Series, []metric.Distribution) {
	if s.opts.Join == nil || s.opts.Join.State() == nil {
		return series, distributions
	}
	series, distributions = slices.Clone(series), slices.Clone(distributions)
	for i := range series {
		series[i].Tags = s.opts.Join.JoinTags(series[i].Host, series[i].Tags)
	}
	for i := range distributions {
		distributions[i].Tags = s.opts.Join.JoinTags(distributions[i].Host, distributions[i].Tags)
	}
	return series, distributions
}

// follow begins anew when the tags that hosts lend have changed. The caller holds
// mu.
func (s *Stream) follow(now time.Time) {
	if s.opts.Join == nil {
		return
	}
	if state := s.opts.Join.State(); state != s.joined {
		s.joined = state
		s.missing = s.standing.Reset(now.Unix())
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
		ask, missing := s.step()
		if len(ask) > 0 {
			g.Go(func() error {
				s.ask(ctx, ask)
				return nil
			})
		}
		if len(missing) > 0 {
			g.Go(func() error {
				s.load(ctx, missing)
				return nil
			})
		}
	}
}

// step brings all values up to now. What it returns is to be asked, and loaded.
func (s *Stream) step() (ask []*query.StandingQuery, missing []query.Missing) {
	began := time.Now()
	now := s.opts.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.retire(now)
	s.follow(now)
	missing, s.missing = s.missing, nil
	for len(s.again) > 0 && !s.again[0].at.After(now) {
		missing, s.again = append(missing, s.again[0].Missing), s.again[1:]
	}
	arrived := s.arrived
	s.arrived = time.Time{}
	ask = s.standing.Step(now.Unix(), func(q *query.StandingQuery) { s.changed(q, now, arrived) })
	s.metrics.step.Observe(time.Since(began).Seconds())
	if s.asking || len(ask) == 0 {
		return nil, missing // the round under way is late; the next takes those of this one
	}
	s.asking = true
	return ask, missing
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
