package datadogmetric

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

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
