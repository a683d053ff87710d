// Package clusteragent is the role that makes queries' values available to
// Kubernetes' autoscalers.
//
// It owns the wiring of its parts and their configuration; this file is the
// parts list. What each part does stands in the part's own package.
package clusteragent

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"slices"
	"strconv"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"golang.org/x/sync/errgroup"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"

	"kelpie.dev/kelpie/clusteragent/datadogmetric"
	"kelpie.dev/kelpie/clusteragent/externalmetrics"
	"kelpie.dev/kelpie/clusteragent/metadata"
	"kelpie.dev/kelpie/clusteragent/reference"
	"kelpie.dev/kelpie/clusteragent/shadow"
	"kelpie.dev/kelpie/clusteragent/source"
	"kelpie.dev/kelpie/clusteragent/state"
	"kelpie.dev/kelpie/health"
	"kelpie.dev/kelpie/query"
)

// Process is what the program gives a role beside its configuration.
type Process struct {
	Version  string
	Log      *slog.Logger
	Listener net.Listener // serves external metrics instead of Config.Port; nil normally
}

// agent holds the parts that outlive their construction.
type agent struct {
	cfg  Config
	proc Process
	rest *rest.Config
	reg  prometheus.Registerer
	kube kubernetes.Interface

	leader *leader
	reach  *reach
	hpas   cache.SharedIndexInformer

	// External metrics; all nil when they are switched off.
	source   *source.Set
	shadow   *shadow.Shadow // nil without a source to compare with
	shadowed *source.Poller // that source
	index    *reference.Index
	objects  *datadogmetric.Reconciler // nil without CRD mode
	keeper   *externalmetrics.Keeper
	events   *events
	advices  advices
	keda     *externalmetrics.KEDA // nil without KEDA beside us
	wpas     *watermarks           // nil unless WatermarkPodAutoscalers are read
	indexed  cache.InformerSynced  // the index has seen all autoscalers of the first list
	serving  atomic.Bool

	state    *state.Collector // nil when Kubernetes state metrics are switched off
	metadata *metadata.Index  // nil without a token for the node agents
	agents   *metadata.Server // serves metadata
}

// Run runs the cluster agent until ctx ends, and then returns nil.
func Run(ctx context.Context, cfg Config, proc Process) error {
	reg := prometheus.NewRegistry()
	a := &agent{cfg: cfg, proc: proc, reg: reg, advices: advices{told: map[reference.Autoscaler]map[advised]bool{}}}
	a.reg.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	probe := health.New(health.Options{
		Addr: ":" + strconv.Itoa(cfg.HealthPort), Role: "cluster-agent", Version: proc.Version, Registry: reg,
		Ready: a.ready, Status: a.status, Reports: a.reports(), Log: proc.Log,
	})
	for _, s := range cfg.Unneeded {
		proc.Log.Info("setting has no effect here", "setting", s.name, "why", s.why)
	}
	if !cfg.Enabled {
		proc.Log.Warn("external metrics are switched off", "setting", emp+"ENABLED")
	}
	if !cfg.Enabled && !cfg.State.Enabled && cfg.AuthToken == "" {
		return probe.Run(ctx)
	}
	if err := a.build(); err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return probe.Run(ctx) })
	g.Go(func() error { return a.leader.run(ctx) })
	if a.hpas != nil {
		g.Go(func() error { a.hpas.RunWithContext(ctx); return nil })
	}
	if cfg.Enabled {
		g.Go(func() error { return a.reach.run(ctx) })
		g.Go(func() error { return a.source.Run(ctx) })
		if a.shadow != nil {
			g.Go(func() error { return a.shadow.Run(ctx) })
		}
		if a.objects != nil {
			g.Go(func() error { return a.objects.Run(ctx) })
		}
		if a.wpas != nil {
			g.Go(func() error { return a.wpas.run(ctx) })
		}
		g.Go(func() error { return a.events.run(ctx) })
		g.Go(func() error { return a.watchLosses(ctx) })
		g.Go(func() error { return a.serve(ctx) })
	}
	if a.state != nil {
		g.Go(func() error { return a.state.Run(ctx) })
	}
	if a.metadata != nil {
		g.Go(func() error { return a.metadata.Run(ctx) })
		g.Go(func() error { return a.agents.Run(ctx) })
	}
	return g.Wait()
}

// build makes the parts that are switched on, each after those it needs.
func (a *agent) build() error {
	parts := []func() error{a.connect}
	if a.cfg.Enabled || a.cfg.State.Enabled {
		parts = append(parts, a.newAutoscalers)
	}
	if a.cfg.Enabled {
		parts = append(parts, a.newSource, a.newShadow, a.newIndex, a.newObjects, a.newKeeper, a.newKEDA, a.newInventory)
	}
	if a.cfg.State.Enabled {
		parts = append(parts, a.newState)
	}
	if a.cfg.AuthToken != "" {
		parts = append(parts, a.newMetadata)
	}
	for _, part := range parts {
		if err := part(); err != nil {
			return err
		}
	}
	return nil
}

// connect makes the clients of the Kubernetes API server.
func (a *agent) connect() error {
	var err error
	if a.cfg.Kubeconfig != "" {
		a.rest, err = clientcmd.BuildConfigFromFlags("", a.cfg.Kubeconfig)
	} else {
		a.rest, err = rest.InClusterConfig()
	}
	if err != nil {
		return fmt.Errorf("connect to Kubernetes: %w (outside of a cluster, give --kubeconfig)", err)
	}
	a.rest.UserAgent = "kelpie-cluster-agent/" + a.proc.Version
	a.rest.QPS, a.rest.Burst = 50, 100
	typed := rest.CopyConfig(a.rest)
	// Cheaper by far to read than JSON, and every HPA comes by at each change of its status.
	typed.ContentType, typed.AcceptContentTypes = runtime.ContentTypeProtobuf, runtime.ContentTypeProtobuf+","+runtime.ContentTypeJSON
	if a.kube, err = kubernetes.NewForConfig(typed); err != nil {
		return fmt.Errorf("connect to Kubernetes: %w", err)
	}
	a.leader = newLeader(a.cfg, a.kube, a.reg, a.proc.Log)
	a.reach, err = newReach(a.rest, a.proc.Log)
	return err // names itself
}

func (a *agent) newIndex() error {
	a.index = reference.NewIndex(reference.Options{
		Builder: reference.Builder{Aggregator: a.cfg.Aggregator, Rollup: a.cfg.Rules.Rollup},
		Autogen: a.cfg.AutogenSelector, Namespace: a.cfg.Namespace, OwnNamespace: a.cfg.Policy.Apart(), Judge: a.judgePlain, Check: a.cfg.Sources.check(),
	}, a.referencesChanged)
	a.events = newEvents(a.kube, a.leader.isLeader, a.reg, a.proc.Log)
	a.leader.gained = a.tookOver
	registration, err := a.hpas.AddEventHandler(a.index.Handler())
	if err != nil {
		return fmt.Errorf("watch HorizontalPodAutoscalers: %w", err)
	}
	a.indexed = registration.HasSynced
	return a.newWatermarks()
}

func (a *agent) newObjects() error {
	if !a.cfg.CRD {
		return nil
	}
	config := rest.CopyConfig(a.rest)
	config.QPS, config.Burst = 200, 400 // with ten thousand metrics a leader's first statuses take a minute
	client, err := dynamic.NewForConfig(config)
	if err != nil {
		return fmt.Errorf("connect to Kubernetes: %w", err)
	}
	a.objects, err = datadogmetric.New(datadogmetric.Options{
		Client: client, Source: a.source, Main: a.cfg.Sources.Main, References: a.index, IsLeader: a.leader.isLeader, Complete: a.referencesComplete, Rules: a.cfg.Rules,
		Templates: datadogmetric.Templates{ClusterName: a.cfg.ClusterName, Env: a.cfg.templateEnv},
		Policy:    a.cfg.Policy, Refused: a.refused, Changed: a.adviseUsers,
		Autogen: a.cfg.Autogen, Namespace: a.cfg.Namespace, Expiry: a.cfg.AutogenExpiry, Workers: a.cfg.Workers, Registerer: a.reg, Log: a.proc.Log,
	})
	if err != nil {
		return err // names itself
	}
	a.source.Subscribe(a.objects.Polled)
	return nil
}

// templateEnv looks up a variable that queries may read.
func (c Config) templateEnv(name string) (string, bool) {
	if !slices.Contains(c.TemplateEnv, name) {
		return "", false
	}
	return os.LookupEnv(name)
}

func (a *agent) newKeeper() error {
	client, err := dynamic.NewForConfig(a.rest)
	if err != nil {
		return fmt.Errorf("connect to Kubernetes: %w", err)
	}
	a.keeper, err = externalmetrics.NewKeeper(externalmetrics.KeeperOptions{
		Client: client, Namespace: a.cfg.Namespace, Secret: a.cfg.TLSSecret, Issued: a.cfg.TLSIssued, Service: a.cfg.Service,
		Tell: a.events.warn, TellDone: a.events.tell, Registerer: a.reg, Log: a.proc.Log,
	})
	return err // names itself
}

func (a *agent) newKEDA() error {
	if a.cfg.KEDA.URL == "" {
		return nil
	}
	var err error
	a.keda, err = externalmetrics.NewKEDA(externalmetrics.KEDAOptions{
		Config: a.rest, URL: a.cfg.KEDA.URL, CAFile: a.cfg.KEDA.CAFile, Timeout: a.cfg.KEDA.Timeout, Registerer: a.reg, Log: a.proc.Log,
	})
	return err // names itself
}

func (a *agent) newInventory() error {
	if err := a.reg.Register(&inventory{a}); err != nil {
		return fmt.Errorf("register the metrics' metrics: %w", err)
	}
	return nil
}

// referencesChanged follows an autoscaler that came, changed or went.
func (a *agent) referencesChanged(c reference.Change) {
	var keys []source.Key
	if !a.cfg.CRD || a.cfg.Autogen {
		for _, in := range c.Inline {
			if in.Err == nil {
				keys = append(keys, source.Key{Query: in.Query, Window: a.cfg.Rules.Window(0, 0)})
			}
		}
	}
	a.source.Use("hpa/"+c.By.String(), keys...)
	if a.objects != nil {
		a.objects.Touch(c.Objects...)
	}
	a.events.untranslatable(c)
	a.advise(c.By)
}

// tookOver has the new leader write what the old one may have missed.
func (a *agent) tookOver() {
	for _, c := range a.index.All() {
		a.events.untranslatable(c)
	}
	a.adviseAll()
	a.keeper.Retell()
	if a.objects == nil {
		return
	}
	a.objects.TouchAll()
	for query := range a.index.Queries() {
		a.objects.Touch(a.index.Autogen(query))
	}
}

// checkQuery judges a query in our backend's language.
func checkQuery(text string) error {
	e, err := query.Parse(text)
	if err == nil {
		err = query.Check(e)
	}
	return err // names the place, as kelpie query does
}
