package reference

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
)

// kedaLabel marks the autoscalers that KEDA generates. Their plain metric names
// are KEDA's own and mean no query of ours.
const (
	kedaLabel = "app.kubernetes.io/managed-by"
	kedaValue = "keda-operator"
)

// Inline is what one plain metric name and selector of an autoscaler means.
type Inline struct {
	Metric string // as the autoscaler spells it
	Query  string // empty when Err is set
	Err    error  // why it cannot be translated
	Own    bool   // the query is that of the autoscaler's annotation OwnQueries
}

// Options configures an Index. Builder is required.
type Options struct {
	Builder Builder
	// Autogen selects, by the autoscalers' own labels, whose plain metric names
	// are served. Nil selects all. References to objects are always followed.
	Autogen labels.Selector
	// Namespace is where generated objects live.
	Namespace string
	// OwnNamespace keeps autoscalers and requests to the objects of their own
	// namespace, and to what its autoscalers ask for.
	OwnNamespace bool
	// Judge says why those in namespace may not ask the query that a plain name
	// means. Nil lets all pass.
	Judge func(namespace, query string) error
	// Check says what is wrong with the text of a query of an autoscaler's own.
	// Nil lets all pass; the source judges them as well.
	Check func(query string) error
}

// Index holds what every autoscaler refers to. It is safe for concurrent use.
type Index struct {
	opts    Options
	changed func(Change)
	serial  sync.Mutex // held from a change until all were told of it, so that the last word is the newest

	mu      sync.RWMutex // guards what follows
	by      map[Autoscaler]refs
	objects map[types.NamespacedName]map[Autoscaler]struct{} // object → autoscalers
	inline  map[inlineKey]map[Autoscaler]Inline              // by autoscaler
	names   atomic.Pointer[[]string]                         // nil until asked for again
}

// inlineKey identifies what a request asks for; clients send names in lower case.
type inlineKey struct{ name, selector string }

type refs struct {
	uid     types.UID
	objects []types.NamespacedName
	inline  map[inlineKey]Inline
	targets []Target
}

// Change says what an autoscaler's coming, edit or going touched.
type Change struct {
	By      Autoscaler
	UID     types.UID              // of the autoscaler; empty once it is gone
	Objects []types.NamespacedName // objects referred to before or after
	Inline  []Inline               // what the autoscaler means now
}

// NewIndex returns an empty Index. changed is called after each change, from
// the goroutine that made it; nil ignores changes.
func NewIndex(o Options, changed func(Change)) *Index {
	if changed == nil {
		changed = func(Change) {}
	}
	return &Index{
		opts: o, changed: changed,
		by:      map[Autoscaler]refs{},
		objects: map[types.NamespacedName]map[Autoscaler]struct{}{},
		inline:  map[inlineKey]map[Autoscaler]Inline{},
	}
}

// An ask is one external metric of an autoscaler.
type ask struct {
	name     string
	selector *metav1.LabelSelector // nil for none
	err      error                 // why selector cannot be read
	target   autoscalingv2.MetricTargetType
}

// Set records what hpa refers to now.
func (x *Index) Set(hpa *autoscalingv2.HorizontalPodAutoscaler) {
	var asks []ask
	for _, m := range hpa.Spec.Metrics {
		if m.Type == autoscalingv2.ExternalMetricSourceType && m.External != nil {
			asks = append(asks, ask{name: m.External.Metric.Name, selector: m.External.Metric.Selector, target: m.External.Target.Type})
		}
	}
	x.replace(Autoscaler{NamespacedName: types.NamespacedName{Namespace: hpa.Namespace, Name: hpa.Name}}, x.parse(hpa, asks))
}

// Delete forgets an autoscaler.
func (x *Index) Delete(id Autoscaler) { x.replace(id, refs{}) }

func (x *Index) parse(by metav1.Object, asks []ask) refs {
	r := refs{uid: by.GetUID(), inline: map[inlineKey]Inline{}}
	plain := by.GetLabels()[kedaLabel] != kedaValue &&
		(x.opts.Autogen == nil || x.opts.Autogen.Matches(labels.Set(by.GetLabels())))
	own, wrong := ownQueries(by, asks)
	for _, a := range asks {
		if IsObject(a.name) {
			obj, err := ParseObject(a.name, by.GetNamespace())
			if err == nil {
				err = x.Allowed(by.GetNamespace(), obj)
			}
			if err == nil {
				r.objects = append(r.objects, obj)
				r.targets = append(r.targets, Target{Metric: a.name, Object: obj, Type: a.target})
			} else {
				r.inline[inlineKey{strings.ToLower(a.name), refused}] = Inline{Metric: a.name, Err: err}
			}
			continue
		}
		if !plain {
			continue
		}
		sel, err := metav1.LabelSelectorAsSelector(a.selector)
		if err = cmp.Or(a.err, err); err != nil {
			// The autoscaler's controller refuses it as well and says so itself.
			r.inline[inlineKey{strings.ToLower(a.name), "\x00" + err.Error()}] = Inline{Metric: a.name,
				Err: fmt.Errorf("the selector of metric %q cannot be translated: %w", a.name, err)}
			continue
		}
		if a.selector == nil {
			sel = labels.Everything()
		}
		in := Inline{Metric: a.name, Err: wrong, Own: true}
		if wrong == nil {
			in = x.plainQuery(by, a, own)
		}
		r.inline[inlineKey{strings.ToLower(a.name), Canonical(sel)}] = in
		if in.Err == nil {
			obj := x.Autogen(in.Query)
			r.objects = append(r.objects, obj)
			r.targets = append(r.targets, Target{Metric: a.name, Object: obj, Query: in.Query, Type: a.target})
		}
	}
	return r
}

// refused stands for the selector of what no request can ask for.
const refused = "\x00refused"

// Allowed returns why those in namespace may not refer to a generated object: it
// is there for plain names. Who may refer to others is for package policy to say.
func (x *Index) Allowed(namespace string, object types.NamespacedName) error {
	if !x.opts.OwnNamespace || object.Namespace == namespace || !IsAutogenName(object.Name) {
		return nil
	}
	return fmt.Errorf("metric %s%s:%s is of namespace %q and asked for in %q, and the cluster agent keeps namespaces apart "+
		"(policy.mode: namespaced): write a DatadogMetric in %q", Prefix, object.Namespace, object.Name, object.Namespace, namespace, namespace)
}

// Autogen returns the identity of the object generated for a query.
func (x *Index) Autogen(query string) types.NamespacedName {
	return types.NamespacedName{Namespace: x.opts.Namespace, Name: AutogenName(query)}
}

func (x *Index) replace(id Autoscaler, now refs) {
	x.serial.Lock()
	defer x.serial.Unlock()
	x.mu.Lock()
	old, had := x.by[id]
	if len(now.objects)+len(now.inline) == 0 {
		delete(x.by, id)
	} else {
		x.by[id] = now
	}
	for _, o := range old.objects {
		drop(x.objects, o, id)
	}
	for k := range old.inline {
		drop(x.inline, k, id)
	}
	for _, o := range now.objects {
		put(x.objects, o, id, struct{}{})
	}
	for k, in := range now.inline {
		put(x.inline, k, id, in)
	}
	x.names.Store(nil)
	changes := []Change{x.change(id)}
	for _, other := range x.concerned(id, old, now) {
		changes = append(changes, x.change(other))
	}
	x.mu.Unlock()
	if !had && len(now.objects)+len(now.inline) == 0 {
		return
	}
	touched := slices.Concat(old.objects, now.objects)
	slices.SortFunc(touched, compareIDs)
	changes[0].Objects = slices.Compact(touched)
	for _, c := range changes {
		x.changed(c)
	}
}

func compareInline(a, b Inline) int {
	return cmp.Or(cmp.Compare(a.Metric, b.Metric), cmp.Compare(a.Query, b.Query))
}

func put[K comparable, V any](m map[K]map[Autoscaler]V, k K, id Autoscaler, v V) {
	if m[k] == nil {
		m[k] = map[Autoscaler]V{}
	}
	m[k][id] = v
}

func drop[K comparable, V any](m map[K]map[Autoscaler]V, k K, id Autoscaler) {
	delete(m[k], id)
	if len(m[k]) == 0 {
		delete(m, k)
	}
}

func compareIDs(a, b types.NamespacedName) int {
	return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
}

// UID returns an autoscaler's, or "" if it refers to nothing.
func (x *Index) UID(id Autoscaler) types.UID {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return x.by[id].uid
}
