package datadogmetric

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic/fake"

	"kelpie.dev/kelpie/clusteragent/reference"
	"kelpie.dev/kelpie/clusteragent/source"
)

type idle struct{}

func (idle) Use(string, ...source.Key)      {}
func (idle) Read(source.Key) source.Reading { return source.Reading{} }

// Before all autoscalers are known, an object in use looks unused: a leader would
// write so, and a replica would answer so.
func TestNothingIsJudgedBeforeReferencesAreComplete(t *testing.T) {
	object := func(name string) *unstructured.Unstructured {
		return &unstructured.Unstructured{Object: map[string]any{"apiVersion": "datadoghq.com/v1alpha1", "kind": "DatadogMetric",
			"metadata": map[string]any{"namespace": "a", "name": name}, "spec": map[string]any{"query": "avg:m{*}"}}}
	}
	ending := object("ending") // is about to go, and never becomes known
	ending.SetDeletionTimestamp(&metav1.Time{Time: time.Now()})
	ending.SetFinalizers([]string{"example.org/hold"})
	client := fake.NewSimpleDynamicClientWithCustomListKinds(runtime.NewScheme(),
		map[schema.GroupVersionResource]string{Resource: "DatadogMetricList"}, object("rate"), ending)
	var complete atomic.Bool
	r, err := New(Options{
		Client: client, Source: idle{}, References: reference.NewIndex(reference.Options{}, nil),
		IsLeader: func() bool { return true }, Complete: complete.Load,
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	writes := func() int {
		n := 0
		for _, a := range client.Actions() {
			if a.GetVerb() != "list" && a.GetVerb() != "watch" {
				n++
			}
		}
		return n
	}
	until := func(what string, ok func() bool) {
		t.Helper()
		for deadline := time.Now().Add(5 * time.Second); !ok(); time.Sleep(10 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("after 5 s: want %s", what)
			}
		}
	}
	until("the first list handled", r.handled)
	time.Sleep(250 * time.Millisecond) // more than two looks at Complete
	if _, known := r.Metric(types.NamespacedName{Namespace: "a", Name: "rate"}); known || r.Synced() || writes() != 0 {
		t.Errorf("before the references are complete: known %v, synced %v, %d writes; want none", known, r.Synced(), writes())
	}
	complete.Store(true)
	until("to be synced", r.Synced)
	if _, known := r.Metric(types.NamespacedName{Namespace: "a", Name: "rate"}); !known {
		t.Error("synced without knowing the object that was there")
	}
	until("the status written", func() bool { return writes() == 1 })
	cancel()
	if err := <-done; err != nil {
		t.Errorf("Run = %v", err)
	}
}

// uses remembers which queries each owner has in use.
type uses map[string][]source.Key

func (u uses) Use(owner string, keys ...source.Key) { u[owner] = keys }
func (uses) Read(source.Key) source.Reading         { return source.Reading{} }
func (u uses) queries(id types.NamespacedName) []string {
	var out []string
	for _, k := range u[owner(id)] {
		out = append(out, k.Query)
	}
	return out
}

// A query costs its source something: only what an autoscaler refers to is
// asked, and what the annotation keeps active.
func TestOnlyMetricsInUseAreQueried(t *testing.T) {
	used := uses{}
	index := reference.NewIndex(reference.Options{}, nil)
	r, err := New(Options{
		Client: fake.NewSimpleDynamicClientWithCustomListKinds(runtime.NewScheme(), map[schema.GroupVersionResource]string{Resource: "DatadogMetricList"}),
		Source: used, References: index, IsLeader: func() bool { return false },
	})
	if err != nil {
		t.Fatal(err)
	}
	id := types.NamespacedName{Namespace: "a", Name: "rate"}
	look := func(annotation string, query string) Metric {
		u := &unstructured.Unstructured{Object: map[string]any{"metadata": map[string]any{"namespace": "a", "name": "rate"}, "spec": map[string]any{"query": query}}}
		if annotation != "" {
			u.SetAnnotations(map[string]string{alwaysActive: annotation})
		}
		return r.remember(decode(u, "own"))
	}
	hpa := &autoscalingv2.HorizontalPodAutoscaler{ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: "h"},
		Spec: autoscalingv2.HorizontalPodAutoscalerSpec{Metrics: []autoscalingv2.MetricSpec{{Type: autoscalingv2.ExternalMetricSourceType,
			External: &autoscalingv2.ExternalMetricSource{Metric: autoscalingv2.MetricIdentifier{Name: "datadogmetric@a:rate"}}}}}}
	for _, c := range []struct {
		name, annotation, query string
		referred                bool
		want                    []string
	}{
		{"unused", "", "avg:m{*}", false, nil},
		{"annotated", "true", "avg:m{*}", false, []string{"avg:m{*}"}},
		{"annotated as Go writes it", "1", "avg:m{*}", false, []string{"avg:m{*}"}},
		{"annotated against it", "false", "avg:m{*}", false, nil},
		{"annotation that is no boolean", "yes please", "avg:m{*}", false, nil},
		{"referred to", "", "avg:m{*}", true, []string{"avg:m{*}"}},
		{"referred to, of no use", "", "avg:m{t:%%env_DD_API_KEY%%}", true, nil},
		{"no longer", "", "avg:m{*}", false, nil},
	} {
		index.Delete(reference.Autoscaler{NamespacedName: types.NamespacedName{Namespace: "a", Name: "h"}})
		if c.referred {
			index.Set(hpa)
		}
		m := look(c.annotation, c.query)
		if d := cmp.Diff(c.want, used.queries(id)); d != "" {
			t.Errorf("%s: queries (-want +got)\n%s", c.name, d)
		}
		if active := c.referred || c.want != nil; m.Active != active {
			t.Errorf("%s: active %v, want %v", c.name, m.Active, active)
		}
	}
}

// during calls a function in the middle of a look at who refers to an object.
type during struct {
	References
	do func()
}

func (d *during) Referrers(id types.NamespacedName) []reference.Autoscaler {
	if do := d.do; do != nil {
		d.do = nil
		do()
	}
	return d.References.Referrers(id)
}

// An object that goes while its expiry is looked at does not stay known: writers
// learn nothing, or two might, and the last be the one that knows less.
func TestWritersLearnNothing(t *testing.T) {
	id := types.NamespacedName{Namespace: "own", Name: reference.AutogenName("avg:m{*}")}
	u := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "datadoghq.com/v1alpha1", "kind": "DatadogMetric",
		"metadata": map[string]any{"namespace": id.Namespace, "name": id.Name, "creationTimestamp": "2026-01-01T00:00:00Z"},
		"spec":     map[string]any{"query": "avg:m{*}", "externalMetricName": "m"}}}
	refs := &during{References: reference.NewIndex(reference.Options{}, nil)}
	r, err := New(Options{
		Client: fake.NewSimpleDynamicClientWithCustomListKinds(runtime.NewScheme(), map[schema.GroupVersionResource]string{Resource: "DatadogMetricList"}, u),
		Source: uses{}, References: refs, IsLeader: func() bool { return true }, Namespace: "own",
	})
	if err != nil {
		t.Fatal(err)
	}
	o := decode(u, "own")
	if err := r.informer.GetStore().Add(o); err != nil {
		t.Fatal(err)
	}
	r.learn(id)
	refs.do = func() {
		if err := r.informer.GetStore().Delete(o); err != nil {
			t.Error(err)
		}
		r.learn(id)
	}
	if _, err := r.write(t.Context(), id, time.Now()); err != nil {
		t.Fatal(err)
	}
	if m := r.Metrics(); len(m) != 0 {
		t.Errorf("an object that is gone is known as %+v", m)
	}
}
