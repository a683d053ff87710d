// Package backend is the backend role: it takes in what agents send, keeps it,
// and answers queries, as Datadog's API does.
//
// This file is its parts list: the parts in the order in which data flows
// through them, and their end in the same order. What each part does stands in
// its own package.
package backend

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"runtime"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"

	"kelpie.dev/kelpie/backend/auth"
	"kelpie.dev/kelpie/backend/eventapi"
	"kelpie.dev/kelpie/backend/intake"
	"kelpie.dev/kelpie/backend/promapi"
	"kelpie.dev/kelpie/backend/queryapi"
	"kelpie.dev/kelpie/backend/quota"
	"kelpie.dev/kelpie/backend/record"
	"kelpie.dev/kelpie/backend/store"
	"kelpie.dev/kelpie/backend/stream"
	"kelpie.dev/kelpie/health"
	"kelpie.dev/kelpie/metric"
	"kelpie.dev/kelpie/query"
)

// Deps are what the backend is given by the program around it.
type Deps struct {
	Version  string
	Log      *slog.Logger     // nil discards
	Listener net.Listener     // nil listens on Config.Listen; Run closes it
	Reload   <-chan os.Signal // has Config.LimitsFile read at once; nil never
}

// Run runs the backend until ctx ends or a part fails. On its way out it lets
// requests under way finish, then closes the store.
func Run(ctx context.Context, cfg Config, deps Deps) error {
	if err := cfg.validate(); err != nil {
		return err
	}
	if deps.Log == nil {
		deps.Log = slog.New(slog.DiscardHandler)
	}
	errs := newRecent(deps.Log.Handler())
	reg := prometheus.NewRegistry()
	reg.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	keys, err := cfg.keys(reg, slog.New(errs))
	if err != nil {
		return err
	}
	limits, cfg, err := openLimits(cfg, reg, slog.New(errs))
	if err != nil {
		return err
	}
	b := &backend{cfg: cfg, keys: keys, limits: limits, deps: deps, log: slog.New(errs), reg: reg}
	b.status = newStatus(deps.Version, errs, limits)

	hs := health.New(health.Options{
		Addr: cfg.Health, Role: "backend", Version: deps.Version, Registry: reg,
		Ready: b.ready, Status: b.status.snapshot, Log: b.log,
	})
	g, gctx := errgroup.WithContext(ctx)
	// Health outlives the rest, so that the end can be watched.
	healthCtx, stopHealth := context.WithCancel(context.WithoutCancel(ctx))
	g.Go(func() error { return hs.Run(healthCtx) })
	g.Go(func() error {
		defer stopHealth()
		return b.run(gctx)
	})
	return g.Wait()
}

type backend struct {
	cfg    Config
	keys   *auth.Checker
	limits *limitsFile // nil without one
	deps   Deps
	log    *slog.Logger
	reg    *prometheus.Registry
	status *status

	store  atomic.Pointer[store.Store]   // nil until it is open
	stream atomic.Pointer[stream.Stream] // likewise
	// listening is set once connections are taken, leaving once no more are.
	listening, leaving atomic.Bool
}

// run opens the store and the records, serves until ctx ends, and closes them.
func (b *backend) run(ctx context.Context) (err error) {
	if b.deps.Listener != nil {
		defer func() { _ = b.deps.Listener.Close() }() // also where run does not get to serve
	}
	st, err := store.Open(store.Options{
		Dir: b.cfg.DataDir, Retention: b.cfg.Retention, RetentionBytes: b.cfg.RetentionBytes,
		MaxMetricSeries: b.cfg.MaxSeriesPerMetric, MaxSeries: b.cfg.MaxSeries, MaxMetricNames: b.cfg.MaxMetricNames,
		MaxSelectSeries: b.cfg.QueryMaxSeries, MaxSelectPoints: b.cfg.QueryMaxPoints,
		MinFree: b.cfg.MinFree, Accepted: b.accepted, Registerer: b.reg, Log: b.log,
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, st.Close()) }()
	book, err := b.openBook(st)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, book.Close()) }()
	st.Include(book.Database())
	joined := book.Join(st, st)
	values, err := stream.New(stream.Options{
		Source: joined, Join: joined, Auth: valueKeys{b.keys}, MaxContexts: b.cfg.MaxSeries, MaxMetrics: b.cfg.FastLane, Registerer: b.reg, Log: b.log,
	})
	if err != nil {
		return err
	}
	handler, err := b.handler(st, book, values)
	if err != nil {
		return err
	}
	b.store.Store(st)
	b.stream.Store(values)

	// The store's housekeeping and the meter outlive the listener.
	g, gctx := errgroup.WithContext(ctx)
	keepCtx, stopKeeping := context.WithCancel(context.WithoutCancel(ctx))
	g.Go(func() error { return st.Run(keepCtx) })
	g.Go(func() error { return book.Run(keepCtx) })
	g.Go(func() error { return b.status.meter(keepCtx) })
	g.Go(func() error { return b.limits.run(keepCtx, b.deps.Reload) })
	g.Go(func() error { return values.Run(gctx) })
	g.Go(func() error {
		defer stopKeeping()
		return b.serve(gctx, b.newServer(handler))
	})
	return g.Wait()
}

// accepted passes on what the store has taken.
func (b *backend) accepted(series []metric.Series, contexts []uint64, distributions []metric.Distribution) {
	if s := b.stream.Load(); s != nil {
		s.Accepted(series, contexts, distributions)
	}
}

// openBook opens the records beside the store, whose disk they share.
func (b *backend) openBook(st *store.Store) (*record.Book, error) {
	return record.Open(record.Options{
		Dir: b.cfg.DataDir, Retention: b.cfg.Retention, MaxEvents: b.cfg.MaxEvents, MaxChecks: b.cfg.MaxChecks, MaxHosts: b.cfg.MaxHosts,
		Writable: st.Ready, Registerer: b.reg, Log: b.log,
	})
}

// handler builds the HTTP side.
func (b *backend) handler(st *store.Store, book *record.Book, values *stream.Stream) (http.Handler, error) {
	in, err := intake.New(intake.Options{
		Store: st, Records: book, RawKeys: book, Auth: b.keys, FastLane: values,
		BodyBytes: b.cfg.IntakeBodyBytes, DecodeBytes: b.cfg.IntakeDecodeBytes,
		Registerer: b.reg, Log: b.log,
	})
	if err != nil {
		return nil, err
	}
	limits, err := quota.New(quota.Options{
		Rates: b.cfg.RateLimits, MaxCost: b.cfg.QueryMaxCost, Budget: b.cfg.QueryBudget, Registerer: b.reg,
	})
	if err != nil {
		return nil, fmt.Errorf("KELPIE_RATE_LIMITS: %w", err)
	}
	slots := semaphore.NewWeighted(int64(cmp.Or(b.cfg.QueryConcurrency, 2*runtime.GOMAXPROCS(0))))
	joined := book.Join(st, st)
	api, err := queryapi.New(queryapi.Options{
		Source: joined, Store: catalog{st, joined, book}, Auth: b.keys, Cache: query.NewCache(b.cfg.QueryCache << 20 / query.CachedValueSize), Quota: limits, Slots: slots, Timeout: b.cfg.QueryTimeout,
		Slow: b.cfg.SlowQuery, Retention: b.cfg.Retention, Registerer: b.reg, Log: b.log,
	})
	if err != nil {
		return nil, err
	}
	prom, err := promapi.New(promapi.Options{
		Queryable: st.Queryable(), Catalog: st, Auth: b.keys, Quota: limits, Slots: slots, Slow: api.NoteSlow,
		MaxSamples: b.cfg.QueryMaxPoints, MaxSeries: b.cfg.QueryMaxSeries, Timeout: b.cfg.QueryTimeout, Registerer: b.reg, Log: b.log,
	})
	if err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	in.Register(mux)
	api.Register(mux)
	prom.Register(mux)
	values.Register(mux, api.GuardValue)
	eventapi.New(book, b.keys, b.log).Register(mux)
	mux.HandleFunc("POST "+snapshotRoute, b.snapshot(st))
	mux.HandleFunc("/", notFound)
	b.status.observe(st, api, values)
	b.limits.follow(func(cfg Config) error {
		api.SetSlow(cfg.SlowQuery)
		values.SetMaxMetrics(cfg.FastLane)
		return st.SetLimits(cfg.storeLimits())
	})
	return instrument(mux, b.reg), nil
}

// ready reports why the backend cannot take data now.
func (b *backend) ready() error {
	st := b.store.Load()
	switch {
	case b.leaving.Load():
		return errors.New("shutting down")
	case st == nil:
		return errors.New("opening the store: the write-ahead log is being replayed")
	}
	if err := st.Ready(); err != nil {
		return fmt.Errorf("store: %w", err)
	}
	if !b.listening.Load() {
		return errors.New("not listening yet")
	}
	return nil
}
