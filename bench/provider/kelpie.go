package main

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	dynamicfake "k8s.io/client-go/dynamic/fake"
	"sigs.k8s.io/custom-metrics-apiserver/pkg/provider"

	"kelpie.dev/kelpie/clusteragent/datadogmetric"
	"kelpie.dev/kelpie/clusteragent/externalmetrics"
	"kelpie.dev/kelpie/clusteragent/reference"
	"kelpie.dev/kelpie/clusteragent/source"
	"kelpie.dev/kelpie/metric/payload"
)

// queryAPI answers Datadog's query API in process: a value for every query.
type queryAPI struct{ asked func() }

// Query implements source.Querier.
func (a queryAPI) Query(_ context.Context, queries []string, _, to time.Time) (*payload.QueryResponse, error) {
	if a.asked != nil {
		a.asked()
	}
	resp := payload.NewQueryResponse(strings.Join(queries, ","), 0, 0)
	for i := range queries {
		s := payload.QuerySeries{Metric: "m", Scope: queries[i], Interval: 10, QueryIndex: &i}
		for back := 2; back >= 0; back-- {
			ms, v := float64(to.Add(-time.Duration(back)*10*time.Second).UnixMilli()), 12.5+float64(i)
			s.Pointlist = append(s.Pointlist, payload.QueryPoint{&ms, &v})
		}
		resp.Series = append(resp.Series, s)
	}
	return resp, nil
}

// inProcess is the cluster agent's parts without Kubernetes: the real index,
// source and reconciler, half of the metrics objects and half plain names.
type inProcess struct {
	provider *externalmetrics.Provider
	source   *source.Set
	objects  *datadogmetric.Reconciler
}

func objectMetric(i int) string {
	return reference.Prefix + namespaceOf(i) + ":" + nameOf(i)
}

func newInProcess(n int) (*inProcess, error) {
	rules := source.Rules{MaxAge: time.Hour, QueryValidity: time.Minute, BucketSize: 5 * time.Minute, MaxTimeWindow: 24 * time.Hour, Rollup: 30 * time.Second}
	poller, err := source.New(source.Options{Name: source.Kelpie, Querier: queryAPI{}, Period: 5 * time.Minute})
	if err != nil {
		return nil, err
	}
	p := &inProcess{}
	if p.source, err = source.NewSet(source.Kelpie, map[source.Name]*source.Poller{source.Kelpie: poller}); err != nil {
		return nil, err
	}
	index := reference.NewIndex(reference.Options{Builder: reference.Builder{Aggregator: "avg", Rollup: rules.Rollup}, Namespace: "datadog"}, func(c reference.Change) {
		var keys []source.Key
		for _, in := range c.Inline {
			keys = append(keys, source.Key{Query: in.Query, Window: rules.Window(0, 0)})
		}
		p.source.Use("hpa/"+c.By.String(), keys...)
	})
	var there []runtime.Object
	for i := range n {
		if i%2 == 0 {
			there = append(there, newObject(i))
			index.Set(newAutoscaler(i, objectMetric(i), nil))
			continue
		}
		index.Set(newAutoscaler(i, plainMetric, &metav1.LabelSelector{MatchLabels: map[string]string{"app": nameOf(i)}}))
	}
	client := dynamicfake.NewSimpleDynamicClientWithCustomListKinds(runtime.NewScheme(),
		map[schema.GroupVersionResource]string{datadogmetric.Resource: "DatadogMetricList"}, there...)
	if p.objects, err = datadogmetric.New(datadogmetric.Options{
		Client: client, Source: p.source, References: index, IsLeader: func() bool { return false }, Rules: rules, Namespace: "datadog",
	}); err != nil {
		return nil, err
	}
	p.provider = &externalmetrics.Provider{Index: index, Values: p.source, Objects: p.objects, Rules: rules, Autogen: true}
	p.provider.Instrument(prometheus.NewRegistry(), slog.New(slog.DiscardHandler))
	return p, nil
}

// readKelpie times reads of Kelpie's provider.
func readKelpie(ctx context.Context, n int) (any, error) {
	p, err := newInProcess(n)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return p.source.Run(ctx) })
	g.Go(func() error { return p.objects.Run(ctx) })
	var out readTimings
	g.Go(func() (err error) {
		defer cancel()
		if err := p.wait(ctx); err != nil {
			return err
		}
		out, err = p.time(ctx, n)
		return err
	})
	return out, g.Wait()
}

// wait waits until every metric has a value.
func (p *inProcess) wait(ctx context.Context) error {
	for !p.objects.Synced() {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
	}
	p.source.AwaitAll(ctx)
	return ctx.Err()
}

func (p *inProcess) time(ctx context.Context, n int) (out readTimings, err error) {
	out = readTimings{Provider: map[string]timing{}, Handler: map[string]timing{}}
	h, err := handler(nil, p.provider)
	if err != nil {
		return out, err
	}
	selectors := make([]labels.Selector, n)
	for i := range n {
		selectors[i] = labels.SelectorFromSet(labels.Set{"app": nameOf(i)})
	}
	for _, kind := range []struct {
		what string
		ask  func(k int) error
		path func(k int) string
	}{
		{objectReads, func(k int) error {
			return p.read(ctx, 2*k, objectMetric(2*k), labels.Everything())
		}, func(k int) string { return externalPath(namespaceOf(2*k), objectMetric(2*k), "") }},
		{inlineReads, func(k int) error {
			return p.read(ctx, 2*k+1, plainMetric, selectors[2*k+1])
		}, func(k int) string { return externalPath(namespaceOf(2*k+1), plainMetric, "app="+nameOf(2*k+1)) }},
	} {
		if out.Provider[kind.what], err = timeReads(n/2, kind.ask); err != nil {
			return out, err
		}
		if out.Handler[kind.what], err = timeReads(n/2, throughHandler(ctx, h, kind.path)); err != nil {
			return out, err
		}
	}
	return out, nil
}

func (p *inProcess) read(ctx context.Context, i int, metric string, sel labels.Selector) error {
	list, err := p.provider.GetExternalMetric(ctx, namespaceOf(i), sel, provider.ExternalMetricInfo{Metric: metric})
	if err == nil && len(list.Items) != 1 {
		err = fmt.Errorf("read %s: %d items", metric, len(list.Items))
	}
	return err
}

// plainMetric is the name that autoscalers without an object ask for.
const plainMetric = "bench.rps"

func nameOf(i int) string      { return fmt.Sprintf("web-%d", i) }
func namespaceOf(i int) string { return fmt.Sprintf("team-%d", i%namespaces) }

// namespaces that the objects are spread over.
const namespaces = 20

// newObject is the DatadogMetric of number i, its status left empty.
func newObject(i int) *unstructured.Unstructured {
	return &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "datadoghq.com/v1alpha1", "kind": "DatadogMetric",
		"metadata": map[string]any{"namespace": namespaceOf(i), "name": nameOf(i)},
		"spec":     map[string]any{"query": "avg:bench.rps{kube_deployment:" + nameOf(i) + "}"},
	}}
}

// newAutoscaler is the HorizontalPodAutoscaler of number i; without a metric's
// name it scales on the processor, and uses nothing of ours.
func newAutoscaler(i int, metric string, sel *metav1.LabelSelector) *autoscalingv2.HorizontalPodAutoscaler {
	h := &autoscalingv2.HorizontalPodAutoscaler{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespaceOf(i), Name: nameOf(i), Labels: map[string]string{"app": nameOf(i)}},
		Spec: autoscalingv2.HorizontalPodAutoscalerSpec{
			ScaleTargetRef: autoscalingv2.CrossVersionObjectReference{APIVersion: "apps/v1", Kind: "Deployment", Name: nameOf(i)},
			MinReplicas:    new(int32(1)), MaxReplicas: 10,
		},
	}
	h.Spec.Metrics = []autoscalingv2.MetricSpec{{Type: autoscalingv2.ResourceMetricSourceType, Resource: &autoscalingv2.ResourceMetricSource{
		Name: "cpu", Target: autoscalingv2.MetricTarget{Type: autoscalingv2.UtilizationMetricType, AverageUtilization: new(int32(50))},
	}}}
	if metric != "" {
		h.Spec.Metrics = []autoscalingv2.MetricSpec{external(metric, sel)}
	}
	return h
}

func external(metric string, sel *metav1.LabelSelector) autoscalingv2.MetricSpec {
	return autoscalingv2.MetricSpec{Type: autoscalingv2.ExternalMetricSourceType, External: &autoscalingv2.ExternalMetricSource{
		Metric: autoscalingv2.MetricIdentifier{Name: metric, Selector: sel},
		Target: autoscalingv2.MetricTarget{Type: autoscalingv2.AverageValueMetricType, AverageValue: new(tenth)},
	}}
}
