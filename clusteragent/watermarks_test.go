package clusteragent

import (
	"context"
	"errors"
	"log/slog"
	"sync/atomic"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/dynamic/fake"
	"sigs.k8s.io/yaml"

	"kelpie.dev/kelpie/clusteragent/reference"
)

// installed is an API server that has the CRD or has not, or cannot be asked.
type installed struct {
	discovery.ServerResourcesInterface
	state atomic.Pointer[string]
}

func (i *installed) ServerResourcesForGroupVersion(string) (*metav1.APIResourceList, error) {
	switch *i.state.Load() {
	case "down":
		return nil, errors.New("connection refused")
	case "no group":
		return nil, apierrors.NewNotFound(schema.GroupResource{Group: "datadoghq.com"}, "")
	case "others":
		return &metav1.APIResourceList{APIResources: []metav1.APIResource{{Name: "datadogmetrics"}}}, nil
	}
	return &metav1.APIResourceList{APIResources: []metav1.APIResource{{Name: "datadogmetrics"}, {Name: reference.Watermarks.Resource}}}, nil
}

func TestWatermarksAreReadOnceInstalled(t *testing.T) {
	var object unstructured.Unstructured
	must(t, yaml.Unmarshal([]byte(`{apiVersion: datadoghq.com/v1alpha1, kind: WatermarkPodAutoscaler, metadata: {namespace: a, name: w},
spec: {metrics: [{type: External, external: {metricName: "datadogmetric@a:lag"}}]}}`), &object.Object))
	client := fake.NewSimpleDynamicClientWithCustomListKinds(runtime.NewScheme(),
		map[schema.GroupVersionResource]string{reference.Watermarks: "WatermarkPodAutoscalerList"}, &object)
	api := &installed{}
	index := reference.NewIndex(reference.Options{}, nil)
	w := &watermarks{discovery: api, client: client, index: index, first: time.Millisecond, log: slog.New(slog.DiscardHandler)}
	known := func() int { return len(index.Referrers(types.NamespacedName{Namespace: "a", Name: "lag"})) }
	at := func(state string) { api.state.Store(&state) }

	// Whoever cannot tell what there is must not say that he knows all.
	at("down")
	short, stop := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer stop()
	if w.await(short) || w.complete.Load() {
		t.Error("without an answer of the API server the index is called complete")
	}
	at("no group")
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- w.run(ctx) }()
	eventually(t, 5*time.Second, func() string {
		if !w.complete.Load() {
			return "without the CRD there is nothing to wait for, and the index is not complete"
		}
		return ""
	})
	if known() != 0 {
		t.Error("an autoscaler is known although its kind is not installed")
	}
	at("others")
	at("installed")
	eventually(t, 10*time.Second, func() string {
		if known() != 1 {
			return "the CRD is installed, and its autoscaler is not known"
		}
		return ""
	})
	cancel()
	if err := <-done; err != nil {
		t.Errorf("run = %v", err)
	}
}
