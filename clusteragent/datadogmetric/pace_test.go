package datadogmetric

import (
	"context"
	"fmt"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic/fake"
	clienttesting "k8s.io/client-go/testing"

	"kelpie.dev/kelpie/clusteragent/reference"
	"kelpie.dev/kelpie/clusteragent/source"
)

func named(i int) types.NamespacedName {
	return types.NamespacedName{Namespace: "a", Name: fmt.Sprint(i)}
}

func TestPace(t *testing.T) {
	p := newPace(10)
	start := time.Unix(1000, 0)
	for i := range 10 {
		if wait := p.turn(named(i), start); wait != 0 {
			t.Fatalf("turn %d of the first second waits %s", i, wait)
		}
	}
	for _, c := range []struct {
		what string
		id   int
		at   time.Duration
		want time.Duration
	}{
		{"the eleventh waits", 10, 0, 100 * time.Millisecond},
		{"and the twelfth longer", 11, 0, 200 * time.Millisecond},
		{"asking again takes no other place", 10, 50 * time.Millisecond, 50 * time.Millisecond},
		{"its turn has come", 10, 100 * time.Millisecond, 0},
		{"the next is behind the twelfth", 10, 100 * time.Millisecond, 200 * time.Millisecond},
		{"the twelfth was not overtaken", 11, 200 * time.Millisecond, 0},
	} {
		if got := p.turn(named(c.id), start.Add(c.at)).Round(time.Millisecond); got != c.want {
			t.Errorf("%s: waits %s, want %s", c.what, got, c.want)
		}
	}
	p.forget(named(10))
	if len(p.turns) != 0 {
		t.Errorf("%d places are held by nobody", len(p.turns))
	}
}

// asks tells of the queries that come into use.
type asks chan string

func (a asks) Use(_ string, keys ...source.Key) {
	for _, k := range keys {
		a <- k.Query
	}
}
func (asks) Read(source.Key) source.Reading { return source.Reading{Attempted: time.Now()} }

// An API server that is slow to take statuses keeps no metric from being asked.
func TestMetricsAreAskedWhileWritesWait(t *testing.T) {
	const n = 20
	var there []runtime.Object
	for i := range n {
		there = append(there, &unstructured.Unstructured{Object: map[string]any{"apiVersion": "datadoghq.com/v1alpha1", "kind": "DatadogMetric",
			"metadata": map[string]any{"namespace": "a", "name": fmt.Sprint(i), "annotations": map[string]any{alwaysActive: "true"}},
			"spec":     map[string]any{"query": fmt.Sprint("avg:m{*} + ", i)}}})
	}
	client := fake.NewSimpleDynamicClientWithCustomListKinds(runtime.NewScheme(),
		map[schema.GroupVersionResource]string{Resource: "DatadogMetricList"}, there...)
	stuck := make(chan struct{})
	client.PrependReactor("update", "datadogmetrics", func(clienttesting.Action) (bool, runtime.Object, error) {
		<-stuck
		return false, nil, nil
	})
	used := make(asks, n)
	r, err := New(Options{Client: client, Source: used, References: reference.NewIndex(reference.Options{}, nil), IsLeader: func() bool { return true }})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	for i := range n {
		select {
		case <-used:
		case <-time.After(5 * time.Second):
			t.Fatalf("after 5 s %d of %d queries are in use: the writes hold them up", i, n)
		}
	}
	close(stuck)
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// A status is written with what the API server needs to take it, and says again
// nothing that it would have to read.
func TestWithStatusKeepsIdentity(t *testing.T) {
	u := &unstructured.Unstructured{Object: map[string]any{"metadata": map[string]any{"namespace": "a", "name": "b", "uid": "u", "resourceVersion": "7",
		"annotations": map[string]any{"kubectl.kubernetes.io/last-applied-configuration": "{…}", "mine": "kept"}, "managedFields": []any{}},
		"spec": map[string]any{"query": "avg:m{*}"}, "status": map[string]any{"currentValue": "3"}}}
	o := decode(u, "own")
	got := o.withStatus(o.status)
	if got.GetName() != "b" || got.GetNamespace() != "a" || got.GetUID() != "u" || got.GetResourceVersion() != "7" {
		t.Errorf("identity is lost: %v", got.Object)
	}
	if v, _, _ := unstructured.NestedString(got.Object, "status", "currentValue"); v != "3" {
		t.Errorf("status %v, want the value that was read", got.Object["status"])
	}
	if a := got.GetAnnotations(); len(a) != 1 || a["mine"] != "kept" {
		t.Errorf("annotations %v, want all but the last applied configuration", a)
	}
	var _ metav1.Object = o // as the informer's cache needs it
}

// known is a source that knows one reading and is asked nothing.
type known struct{ source.Reading }

func (known) Use(string, ...source.Key)        {}
func (k known) Read(source.Key) source.Reading { return k.Reading }

// While a source asks for a pause nobody tells of its values; that they have
// become too old is written all the same.
func TestStatusLapsesWithoutAnAttempt(t *testing.T) {
	u := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "datadoghq.com/v1alpha1", "kind": "DatadogMetric",
		"metadata": map[string]any{"namespace": "a", "name": "1", "annotations": map[string]any{alwaysActive: "true"}}, "spec": map[string]any{"query": "avg:m{*}"}}}
	client := fake.NewSimpleDynamicClientWithCustomListKinds(runtime.NewScheme(), map[schema.GroupVersionResource]string{Resource: "DatadogMetricList"}, u)
	start := time.Unix(100_000, 0)
	from := known{source.Reading{Value: 3, At: start.Add(-20 * time.Second), Fetched: start, Attempted: start,
		Err: &source.Error{Reason: source.RateLimited, Message: "slow down", RetryAt: start.Add(time.Hour)}}}
	r, err := New(Options{Client: client, Source: from, References: reference.NewIndex(reference.Options{}, nil), IsLeader: func() bool { return true },
		Rules: source.Rules{MaxAge: 2 * time.Minute, QueryValidity: 30 * time.Second}})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		after       time.Duration
		want        time.Duration
		valid, code string
	}{
		{0, 131 * time.Second, "True", "ValueAvailable"},
		{131 * time.Second, 0, "False", "RateLimited"},
	} {
		there, err := client.Resource(Resource).Namespace("a").Get(t.Context(), "1", metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if err := r.informer.GetStore().Update(decode(there, "own")); err != nil {
			t.Fatal(err)
		}
		r.learn(named(1))
		again, err := r.write(t.Context(), named(1), start.Add(c.after))
		if err != nil || again != c.want {
			t.Errorf("after %s: looked at again in %s, %v; want %s", c.after, again, err, c.want)
		}
		if there, err = client.Resource(Resource).Namespace("a").Get(t.Context(), "1", metav1.GetOptions{}); err != nil {
			t.Fatal(err)
		}
		if valid := find(decode(there, "own").status.Conditions, "Valid"); string(valid.Status) != c.valid || valid.Reason != c.code {
			t.Errorf("after %s: Valid is %s, %s; want %s, %s", c.after, valid.Status, valid.Reason, c.valid, c.code)
		}
	}
}
