// Package state tells, as Datadog's kubernetes_state metrics, how many replicas
// Kubernetes' workloads and autoscalers want and have.
//
// It owns those metrics' names and tags, what is kept of each object for them,
// and their way to the intake. It does not know who leads or what an intake is:
// both are asked by interface.
package state

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	"k8s.io/client-go/rest"

	"kelpie.dev/kelpie/clusteragent/mirror"
	"kelpie.dev/kelpie/datadog"
	"kelpie.dev/kelpie/metric"
)

// DefaultPeriod is the time between two runs: the default of Datadog's checks.
const DefaultPeriod = 15 * time.Second

// chunk is how many series are encoded together, so that a run holds a few
// megabytes however many objects there are.
const chunk = 10_000

// Autoscalers is the cache of all HorizontalPodAutoscalers (autoscaling/v2),
// trimmed by TrimAutoscaler at most. An informer is one.
type Autoscalers interface {
	List() []any
	HasSynced() bool
}

// Intake takes series.
type Intake interface {
	Submit(ctx context.Context, body datadog.SeriesBody) error
}

// Options configures a Collector. Apps, Autoscalers, Intake and IsLeader are required.
type Options struct {
	Apps        rest.Interface // client of the API group apps/v1
	Autoscalers Autoscalers
	Intake      Intake
	IsLeader    func() bool           // only the leader sends
	Tags        metric.Tags           // on every series, such as kube_cluster_name
	Period      time.Duration         // between two runs, whole seconds; 0 means DefaultPeriod
	Registerer  prometheus.Registerer // nil registers nowhere
	Log         *slog.Logger          // nil discards
}

// A Collector emits the state of all objects in each period.
type Collector struct {
	o       Options
	sources []source
	encoder *datadog.SeriesEncoder
	outbox  *outbox
	tel     *telemetry

	mu      sync.Mutex // guards what follows
	status  Status
	waiting string // what was last said to be waited for
}

// Status is what a Collector tells of itself.
type Status struct {
	LastRun     time.Time `json:"last_run,omitzero"` // of this replica as leader
	Series      int       `json:"series"`            // of the last run
	Objects     int       `json:"objects"`           // in memory
	Waiting     string    `json:"waiting,omitempty"` // for what, before the first run
	Queued      int       `json:"queued_bytes"`      // for the intake
	LastSuccess time.Time `json:"last_success,omitzero"`
	LastError   string    `json:"last_error,omitempty"` // of a delivery
	LastErrorAt time.Time `json:"last_error_at,omitzero"`
	Dropped     uint64    `json:"dropped_points"`
}

// New returns a Collector that does nothing until Run.
func New(o Options) (*Collector, error) {
	if o.Apps == nil || o.Autoscalers == nil || o.Intake == nil || o.IsLeader == nil {
		return nil, errors.New("new state collector: Apps, Autoscalers, Intake and IsLeader are required")
	}
	o.Period = cmp.Or(o.Period, DefaultPeriod)
	if o.Period < time.Second {
		return nil, fmt.Errorf("new state collector: period %s, want at least one second", o.Period)
	}
	o.Log = cmp.Or(o.Log, slog.New(slog.DiscardHandler))
	encoder, err := datadog.NewSeriesEncoder()
	if err != nil {
		return nil, fmt.Errorf("new state collector: %w", err)
	}
	c := &Collector{o: o, sources: sources(o.Apps), encoder: encoder}
	c.tel = newTelemetry(o.Registerer, c.objects)
	c.outbox = newOutbox(o.Intake, c.tel, o.Log)
	return c, nil
}

// Run collects and sends until ctx ends, and then returns nil.
func (c *Collector) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	for _, s := range c.sources {
		g.Go(func() error { s.Run(ctx); return nil })
	}
	g.Go(func() error { c.outbox.run(ctx); return nil })
	g.Go(func() error {
		tick := time.NewTicker(c.o.Period)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return nil
			case now := <-tick.C:
				c.tick(now)
			}
		}
	})
	return g.Wait()
}

// tick makes one run, if it is ours to make.
func (c *Collector) tick(now time.Time) {
	if !c.o.IsLeader() {
		c.tel.runs.WithLabelValues("not_leader").Inc()
		return
	}
	if what := c.waitingFor(); what != "" {
		c.tel.runs.WithLabelValues("not_synced").Inc()
		c.say(what)
		return
	}
	c.say("")
	series := c.collect(now)
	c.tel.runs.WithLabelValues("sent").Inc()
	c.tel.series.Set(float64(series))
	c.mu.Lock()
	c.status.LastRun, c.status.Series = now, series
	c.mu.Unlock()
}

// waitingFor names the first list that is not complete, or is "".
func (c *Collector) waitingFor() string {
	for _, s := range c.sources {
		if !s.Synced() {
			return s.name + "s"
		}
	}
	if !c.o.Autoscalers.HasSynced() {
		return "horizontalpodautoscalers"
	}
	return ""
}

// say logs, once, what keeps the metrics from being sent.
func (c *Collector) say(what string) {
	c.mu.Lock()
	news := c.waiting != what
	c.waiting = what
	c.mu.Unlock()
	if news && what != "" {
		c.o.Log.Warn("no Kubernetes state metrics yet: the list is not complete (may the cluster agent list and watch them?)", "waiting_for", what)
	}
}

// collect emits the state at now into the outbox and returns the number of series.
func (c *Collector) collect(now time.Time) (series int) {
	batch := make([]metric.Series, 0, 256)
	flush := func() {
		series += len(batch)
		bodies, dropped := c.encoder.Encode(batch)
		c.tel.drop("too_large", dropped)
		c.outbox.put(now, bodies)
		clear(batch)
		batch = batch[:0]
	}
	r := &run{tags: c.o.Tags, at: now.Unix(), interval: int64(c.o.Period / time.Second), emit: func(s metric.Series) {
		if batch = append(batch, s); len(batch) == chunk {
			flush()
		}
	}}
	for _, s := range c.sources {
		byNamespace := map[string]int{}
		s.all(func(k mirror.Key, w workload) bool {
			byNamespace[k.Namespace]++
			r.workload(s.kind, k, w)
			return true
		})
		if s.counted {
			r.count(s.name, byNamespace)
		}
	}
	byNamespace := map[string]int{}
	for _, obj := range c.o.Autoscalers.List() {
		if hpa, ok := obj.(*autoscalingv2.HorizontalPodAutoscaler); ok {
			byNamespace[hpa.Namespace]++
			r.autoscaler(hpa)
		}
	}
	r.count("hpa", byNamespace)
	flush()
	return series
}

// objects returns how many objects are in memory.
func (c *Collector) objects() int {
	n := len(c.o.Autoscalers.List())
	for _, s := range c.sources {
		n += s.Len()
	}
	return n
}

// Status returns what is known now.
func (c *Collector) Status() Status {
	c.mu.Lock()
	s := c.status
	s.Waiting = c.waiting
	c.mu.Unlock()
	s.Objects = c.objects()
	c.outbox.tell(&s)
	return s
}
