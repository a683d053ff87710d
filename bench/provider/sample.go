package main

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"

	"github.com/emicklei/go-restful/v3"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/custom-metrics-apiserver/pkg/provider"
	sample "sigs.k8s.io/custom-metrics-apiserver/test-adapter/provider"
)

// tenth is a target that fits every autoscaler here.
var tenth = resource.MustParse("100m")

// readSample times reads of Kubernetes' sample adapter. n metrics are written by
// its own API; those are custom metrics, as it takes no others.
func readSample(ctx context.Context, n int) (any, error) {
	// A fixed mapper costs it less than its own, which asks the API server.
	mapper := apimeta.NewDefaultRESTMapper([]schema.GroupVersion{{Version: "v1"}})
	mapper.Add(schema.GroupVersionKind{Version: "v1", Kind: "Service"}, apimeta.RESTScopeNamespace)
	p, service := sample.NewFakeProvider(nil, mapper)
	write := restful.NewContainer()
	write.Add(service)
	for i := range n {
		path := fmt.Sprintf("/write-metrics/namespaces/%s/services/%s/rps", namespaceOf(i), nameOf(i))
		req := httptest.NewRequestWithContext(ctx, http.MethodPost, path, strings.NewReader(fmt.Sprintf("%q", fmt.Sprint(i))))
		req.Header.Set("Content-Type", "application/json")
		w := httptest.NewRecorder()
		if write.ServeHTTP(w, req); w.Code != http.StatusOK {
			return nil, fmt.Errorf("POST %s: %d %s", path, w.Code, w.Body)
		}
	}
	h, err := handler(p, p)
	if err != nil {
		return nil, err
	}
	out := readTimings{Provider: map[string]timing{}, Handler: map[string]timing{}}
	info := provider.CustomMetricInfo{GroupResource: schema.GroupResource{Resource: "services"}, Metric: "rps", Namespaced: true}
	bar := labels.SelectorFromSet(labels.Set{"foo": "bar"})
	for _, kind := range []struct {
		what string
		ask  func(i int) error
		path func(i int) string
	}{
		{fixedReads, func(int) error {
			list, err := p.GetExternalMetric(ctx, "team-0", bar, provider.ExternalMetricInfo{Metric: "my-external-metric"})
			if err == nil && len(list.Items) != 1 {
				err = fmt.Errorf("read my-external-metric: %d items", len(list.Items))
			}
			return err
		}, func(int) string { return externalPath("team-0", "my-external-metric", "foo=bar") }},
		{customReads, func(i int) error {
			_, err := p.GetMetricByName(ctx, types.NamespacedName{Namespace: namespaceOf(i), Name: nameOf(i)}, info, labels.Everything())
			return err
		}, func(i int) string {
			return "/apis/custom.metrics.k8s.io/v1beta2/namespaces/" + namespaceOf(i) + "/services/" + nameOf(i) + "/rps"
		}},
	} {
		if out.Provider[kind.what], err = timeReads(n, kind.ask); err != nil {
			return nil, err
		}
		if out.Handler[kind.what], err = timeReads(n, throughHandler(ctx, h, kind.path)); err != nil {
			return nil, err
		}
	}
	return out, nil
}
