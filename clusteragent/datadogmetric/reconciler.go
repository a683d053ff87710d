package datadogmetric

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/dynamic/dynamicinformer"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/workqueue"

	"kelpie.dev/kelpie/clusteragent/policy"
	"kelpie.dev/kelpie/clusteragent/reference"
	"kelpie.dev/kelpie/clusteragent/source"
)

// Source has the values of queries; *source.Poller is one.
type Source interface {
	Use(owner string, keys ...source.Key)
	Read(source.Key) source.Reading
}

// References knows who refers to an object; *reference.Index is one.
type References interface {
	Referrers(object types.NamespacedName) []reference.Autoscaler
	InlineOf(object types.NamespacedName) (reference.Inline, bool)
}

// Options configures a Reconciler. The first four fields are required.
type Options struct {
	Client     dynamic.Interface
	Source     Source
	Main       source.Name // of queries that name no source; "" means one in Datadog's language
	References References
	IsLeader   func() bool // only the leader writes to the API server

	// Complete reports whether References has seen all referrers. No object is
	// judged before: it would be shown as unused. Nil means always.
	Complete func() bool

	Policy  *policy.Policy // nil is the open one
	Changed func(Metric)   // told of an object that is new or asks another query than before; nil ignores it
	Refused func(Refusal)  // told, on the leader, when the policy begins to refuse something; nil ignores it

	Rules     source.Rules
	Templates Templates
	Autogen   bool          // make objects for plain metric names
	Namespace string        // of the objects made; those in others are not ours to delete
	Expiry    time.Duration // how long a generated object outlives its last reference; 0 means 3 h
	Heartbeat time.Duration // longest silence of an active object's status; 0 means 2 min
	Refreshes float64       // of statuses a second that tell no news, only numbers and heartbeats; 0 means 100
	Workers   int           // that write; 0 means 2

	Registerer prometheus.Registerer // nil registers nowhere
	Log        *slog.Logger          // nil discards
}

// A Reconciler watches DatadogMetric objects. Its methods may be called
// concurrently.
type Reconciler struct {
	opts     Options
	informer cache.SharedIndexInformer
	handled  cache.InformerSynced // the first list has gone through the handler
	synced   atomic.Bool
	queue    workqueue.TypedInterface[types.NamespacedName]             // to learn
	writes   workqueue.TypedRateLimitingInterface[types.NamespacedName] // to write, on the leader
	pace     *pace
	tel      *telemetry

	quota *policy.Quota

	mu      sync.RWMutex // guards what follows
	metrics map[types.NamespacedName]Metric
	told    map[types.NamespacedName]map[reference.Autoscaler]bool // refused, and told so
}

// New returns a Reconciler that does nothing until Run.
func New(o Options) (*Reconciler, error) {
	if o.Client == nil || o.Source == nil || o.References == nil || o.IsLeader == nil {
		return nil, errors.New("new DatadogMetric reconciler: Client, Source, References and IsLeader are required")
	}
	o.Expiry = cmp.Or(o.Expiry, 3*time.Hour)
	o.Heartbeat = cmp.Or(o.Heartbeat, 2*time.Minute)
	o.Refreshes = cmp.Or(o.Refreshes, 100)
	o.Workers = cmp.Or(o.Workers, 2)
	if o.Complete == nil {
		o.Complete = func() bool { return true }
	}
	if o.Changed == nil {
		o.Changed = func(Metric) {}
	}
	if o.Refused == nil {
		o.Refused = func(Refusal) {}
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	r := &Reconciler{
		opts:     o,
		informer: dynamicinformer.NewFilteredDynamicInformer(o.Client, Resource, "", 0, cache.Indexers{}, nil).Informer(),
		queue:    workqueue.NewTyped[types.NamespacedName](),
		writes: workqueue.NewTypedRateLimitingQueueWithConfig(workqueue.DefaultTypedControllerRateLimiter[types.NamespacedName](),
			workqueue.TypedRateLimitingQueueConfig[types.NamespacedName]{}),
		pace:    newPace(o.Refreshes),
		quota:   policy.NewQuota(o.Policy),
		metrics: map[types.NamespacedName]Metric{},
		told:    map[types.NamespacedName]map[reference.Autoscaler]bool{},
	}
	r.tel = newTelemetry(o.Registerer, r)
	if err := r.informer.SetTransform(r.trim); err != nil {
		return nil, fmt.Errorf("new DatadogMetric reconciler: %w", err)
	}
	handler := cache.ResourceEventHandlerFuncs{
		AddFunc:    func(o any) { r.touchObject(o) },
		UpdateFunc: func(_, o any) { r.touchObject(o) },
		DeleteFunc: func(o any) { r.touchObject(o) },
	}
	registration, err := r.informer.AddEventHandler(handler)
	if err != nil {
		return nil, fmt.Errorf("new DatadogMetric reconciler: %w", err)
	}
	r.handled = registration.HasSynced
	return r, nil
}

// trim has the informer keep the decoded object in the place of the whole.
func (r *Reconciler) trim(obj any) (any, error) {
	if u, ok := obj.(*unstructured.Unstructured); ok {
		return decode(u, r.opts.Namespace), nil
	}
	return obj, nil // trimmed before
}

func (r *Reconciler) touchObject(obj any) {
	if id, err := cache.DeletionHandlingObjectToName(obj); err == nil {
		r.Touch(types.NamespacedName{Namespace: id.Namespace, Name: id.Name})
	}
}

// Touch has objects looked at again soon: their references changed, say.
func (r *Reconciler) Touch(ids ...types.NamespacedName) {
	for _, id := range ids {
		r.queue.Add(id)
	}
}

// TouchAll has every known object looked at again, as after an election.
func (r *Reconciler) TouchAll() {
	for _, key := range r.informer.GetStore().ListKeys() {
		if ns, name, err := cache.SplitMetaNamespaceKey(key); err == nil {
			r.Touch(types.NamespacedName{Namespace: ns, Name: name})
		}
	}
}

const ownerPrefix = "datadogmetric/"

func owner(id types.NamespacedName) string { return ownerPrefix + id.String() }

// Polled is told by the source that a query of owner was attempted. That changes
// nothing that is known of the object but what its status should tell.
func (r *Reconciler) Polled(owner string) {
	if key, ok := strings.CutPrefix(owner, ownerPrefix); ok && r.opts.IsLeader() {
		if ns, name, err := cache.SplitMetaNamespaceKey(key); err == nil {
			r.writes.Add(types.NamespacedName{Namespace: ns, Name: name})
		}
	}
}

// Synced reports whether all objects that there were at first are known to
// Metric and to the source: that they were listed is not enough.
func (r *Reconciler) Synced() bool {
	if r.synced.Load() {
		return true
	}
	if !r.handled() {
		return false
	}
	for _, item := range r.informer.GetStore().List() {
		o, ok := item.(*object)
		if !ok || o.DeletionTimestamp != nil {
			continue
		}
		if _, known := r.Metric(o.id); !known {
			return false
		}
	}
	r.synced.Store(true)
	return true
}

// Metric returns what is known of an object.
func (r *Reconciler) Metric(id types.NamespacedName) (Metric, bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	m, ok := r.metrics[id]
	return m, ok
}

// Metrics returns what is known of all objects, sorted.
func (r *Reconciler) Metrics() []Metric {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return slices.SortedFunc(maps.Values(r.metrics), func(a, b Metric) int {
		return cmp.Or(cmp.Compare(a.ID.Namespace, b.ID.Namespace), cmp.Compare(a.ID.Name, b.ID.Name))
	})
}

// Run reconciles until ctx ends, and then returns nil. It must be called once.
func (r *Reconciler) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		r.informer.RunWithContext(ctx)
		return nil
	})
	g.Go(func() error {
		<-ctx.Done()
		r.queue.ShutDown()
		r.writes.ShutDown()
		return nil
	})
	work := func(next func(context.Context) bool) {
		g.Go(func() error {
			if !cache.WaitForCacheSync(ctx.Done(), r.handled, r.opts.Complete) {
				return nil
			}
			for next(ctx) {
			}
			return nil
		})
	}
	work(r.learnNext)
	for range r.opts.Workers {
		work(r.writeNext)
	}
	return g.Wait()
}

// learnNext learns one object. It returns false when the queue is shut down.
func (r *Reconciler) learnNext(context.Context) bool {
	id, shutdown := r.queue.Get()
	if shutdown {
		return false
	}
	defer r.queue.Done(id)
	r.learn(id)
	return true
}

// writeNext writes one object. It returns false when the queue is shut down.
func (r *Reconciler) writeNext(ctx context.Context) bool {
	id, shutdown := r.writes.Get()
	if shutdown {
		return false
	}
	defer r.writes.Done(id)
	again, err := r.write(ctx, id, time.Now())
	switch {
	case err != nil && ctx.Err() == nil:
		r.tel.errors.Inc()
		r.opts.Log.Warn("cannot reconcile DatadogMetric, will retry", "datadogmetric", id.String(), "error", err)
		r.writes.AddRateLimited(id)
	case err == nil:
		r.writes.Forget(id)
		if again > 0 {
			r.writes.AddAfter(id, again)
		}
	}
	return true
}
