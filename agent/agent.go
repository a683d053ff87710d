// Package agent is the node agent: it takes DogStatsD datagrams, aggregates
// them and forwards series to Datadog-compatible intakes.
//
// It owns the wiring of its parts, listed in Run in the order in which data
// flows, and the agent's configuration, metrics and status. The parts know
// nothing of each other: see dogstatsd, origin, aggregate and forward.
package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"kelpie.dev/kelpie/agent/aggregate"
	"kelpie.dev/kelpie/agent/check"
	"kelpie.dev/kelpie/agent/dogstatsd"
	"kelpie.dev/kelpie/agent/forward"
	"kelpie.dev/kelpie/agent/origin"
	"kelpie.dev/kelpie/health"
	"kelpie.dev/kelpie/metric"
)

// Deps are what an agent needs of its surroundings. The zero value is usable.
type Deps struct {
	Version  string               // "" means "dev"
	Log      *slog.Logger         // nil discards
	Registry *prometheus.Registry // for the agent's own metrics; nil means a new one
	Now      func() time.Time     // nil means time.Now
	// Flush, when not nil, replaces the timer: each time received is flushed
	// at, as if it were now.
	Flush <-chan time.Time
}

// liveAfter is how long the pipeline may stand still before the agent counts
// as dead.
const liveAfter = time.Minute

// Run runs an agent until ctx ends. Then the sockets are closed, the open
// buckets flushed and, for a bounded time, the queues delivered.
func Run(ctx context.Context, c Config, d Deps) error {
	d = d.withDefaults()
	m, err := newMetrics(d.Registry)
	if err != nil {
		return fmt.Errorf("register the agent's metrics: %w", err)
	}
	known, err := openOrigin(ctx, &c, d, m)
	if err != nil {
		return err
	}
	defer known.close()
	c.Aggregate.Host = c.Hostname
	aggregator, err := aggregate.New(c.Aggregate)
	if err != nil {
		return fmt.Errorf("set up aggregation: %w", err)
	}
	rewriter, err := dogstatsd.NewRewriter(c.DogStatsD.Rewrite)
	if err != nil {
		return fmt.Errorf("set up the mapping of names: %w", err)
	}
	forwarder, err := forward.New(forward.Options{
		Endpoints: c.Endpoints, Hostname: c.Hostname, Compression: c.Compress, Version: d.Version, Timeout: c.Timeout,
		QueueBytes: c.QueueBytes, SpoolDir: c.SpoolDir, SpoolBytes: int64(c.SpoolBytes), FastLane: c.Aggregate.FastContexts > 0,
		Now: d.Now, Log: d.Log, Registerer: d.Registry,
	})
	if err != nil {
		return fmt.Errorf("set up forwarding: %w", err)
	}
	runner, err := check.New(checkOptions(c, d, known))
	if err != nil {
		return fmt.Errorf("set up checks: %w", err)
	}
	listeners, err := openListeners(c, d)
	if err != nil {
		return err
	}
	p := &pipeline{
		parser: dogstatsd.Parser{ClientOrigin: c.Origin.Client}, rewriter: rewriter,
		copies: c.DogStatsD.Copies, toSketch: c.DogStatsD.CopyPrefix,
		resolver: origin.NewResolver(origin.ResolverOptions{
			Tagger: known.tagger, Base: c.Tags.Union(c.DogStatsD.Tags...),
			Cardinality: c.Origin.Cardinality, GaugeCardinality: c.Origin.GaugeCardinality,
			Unified: c.Origin.Unified, NoOptOut: !c.Origin.OptOut, EntityIDFirst: c.Origin.EntityIDFirst,
			Addresses: c.Origin.Addresses, ProcRoot: c.Origin.ProcRoot,
		}),
		aggregator: aggregator, metrics: m, log: d.Log, now: d.Now, manual: d.Flush, lines: newLines(), taps: &taps{},
		fast: fastLane{ask: forwarder.FastLane},
		running: metric.Series{
			Host: c.Hostname, Type: metric.Gauge,
			Interval: aggregate.DefaultInterval, Tags: c.Tags.Union("version:" + d.Version),
		},
		problems: &problems{log: d.Log, wantPID: c.Origin.Credentials, byReason: map[string]*problem{}},
	}
	if err := d.Registry.Register(refusedContexts{p}); err != nil {
		return fmt.Errorf("register the agent's metrics: %w", err)
	}
	p.ticked.Store(time.Now().UnixNano())
	status := &reporter{
		started: d.Now(), config: c, version: d.Version, listeners: listeners,
		tagger: known.tagger, pipeline: p, forwarder: forwarder, checks: runner,
	}
	server := health.New(health.Options{
		Addr: c.HealthAddr, Registry: d.Registry, Role: "agent", Version: d.Version, Log: d.Log,
		Live: p.alive, Ready: forwarder.Ready, Status: func() any { return status.report(d.Now()) }, Stream: p.taps,
	})

	packets := make(chan *dogstatsd.Batch, 64) // what it holds is bounded by the listeners
	batches := make(chan forward.Batch, 1)
	// Only the edges hear ctx end. Each later part ends when its input does.
	later := context.WithoutCancel(ctx)
	edges, ctx := errgroup.WithContext(ctx)
	rest, later := errgroup.WithContext(later)
	rest.Go(func() error { return p.run(later, packets, batches) })
	rest.Go(func() error { return forwarder.Run(later, batches) })
	edges.Go(func() error { return server.Run(ctx) })
	if known.tagger != nil {
		edges.Go(func() error { return known.tagger.Run(ctx) })
	}
	edges.Go(func() error {
		return runner.Run(ctx, func(ctx context.Context, series []metric.Series, checks []metric.ServiceCheck) {
			select {
			case batches <- forward.Batch{Series: series, Checks: checks}:
			case <-ctx.Done():
			}
		})
	})
	for _, l := range listeners {
		d.Log.Info("listening for DogStatsD", "transport", l.Transport(), "address", l.Addr())
		edges.Go(func() error { return l.Run(ctx, packets) })
	}
	edges.Go(func() error { // a part that fails ends the agent
		select {
		case <-ctx.Done():
			return nil
		case <-later.Done():
			return errors.New("the pipeline has ended")
		}
	})
	err = edges.Wait()
	close(packets)
	return errors.Join(rest.Wait(), err)
}

func (d Deps) withDefaults() Deps {
	d.Version = cmp.Or(d.Version, "dev")
	if d.Log == nil {
		d.Log = slog.New(slog.DiscardHandler)
	}
	if d.Registry == nil {
		d.Registry = prometheus.NewRegistry()
	}
	if d.Now == nil {
		d.Now = time.Now
	}
	return d
}

// alive reports whether the pipeline still turns.
func (p *pipeline) alive() error {
	if age := time.Since(time.Unix(0, p.ticked.Load())); age > liveAfter {
		return fmt.Errorf("the pipeline has not moved for %s", age.Round(time.Second))
	}
	return nil
}
