package datadogmetric

import (
	"fmt"
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

	"kelpie.dev/kelpie/clusteragent/policy"
	"kelpie.dev/kelpie/clusteragent/reference"
	"kelpie.dev/kelpie/clusteragent/source"
)

// A bench is a leading Reconciler whose objects exist in an API server.
type bench struct {
	*Reconciler
	t     *testing.T
	used  uses
	index *reference.Index
	told  []string // refusals, as "object by reason"
}

func newBench(t *testing.T, text string) *bench {
	t.Helper()
	p, err := policy.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{t: t, used: uses{}, index: reference.NewIndex(reference.Options{Namespace: "own", OwnNamespace: p.Apart()}, nil)}
	b.Reconciler, err = New(Options{
		Client: fake.NewSimpleDynamicClientWithCustomListKinds(runtime.NewScheme(), map[schema.GroupVersionResource]string{Resource: "DatadogMetricList"}),
		Source: b.used, References: b.index, IsLeader: func() bool { return true }, Policy: p, Namespace: "own",
		Templates: Templates{Env: func(string) (string, bool) { return "x} + avg:n{*", true }},
		Refused: func(r Refusal) {
			by := ""
			if r.By != nil {
				by = " " + r.By.String()
			}
			b.told = append(b.told, r.Object.String()+by+" "+r.Why.Reason)
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// put writes an always-active object, created at the second given.
func (b *bench) put(name, query, lent string, second int64) {
	b.t.Helper()
	u := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "datadoghq.com/v1alpha1", "kind": "DatadogMetric",
		"metadata": map[string]any{"namespace": "team-a", "name": name}, "spec": map[string]any{"query": query}}}
	u.SetAnnotations(map[string]string{alwaysActive: "true", policy.AllowedNamespaces: lent})
	u.SetCreationTimestamp(metav1.Unix(second, 0))
	objects := b.opts.Client.Resource(Resource).Namespace("team-a")
	if old, err := objects.Get(b.t.Context(), name, metav1.GetOptions{}); err == nil {
		u.Object["status"] = old.Object["status"]
		_, err = objects.Update(b.t.Context(), u, metav1.UpdateOptions{})
		b.must(err)
	} else {
		_, err = objects.Create(b.t.Context(), u, metav1.CreateOptions{})
		b.must(err)
	}
	b.look(name)
}

// look reconciles an object as the API server has it, and those touched by it.
func (b *bench) look(names ...string) {
	b.t.Helper()
	for _, name := range names {
		b.Touch(types.NamespacedName{Namespace: "team-a", Name: name})
	}
	for range 100 {
		if b.queue.Len() == 0 {
			return
		}
		id, _ := b.queue.Get()
		u, err := b.opts.Client.Resource(Resource).Namespace(id.Namespace).Get(b.t.Context(), id.Name, metav1.GetOptions{})
		if err == nil {
			b.must(b.informer.GetStore().Add(decode(u, b.opts.Namespace)))
		} else {
			b.must(b.informer.GetStore().Delete(&metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{Namespace: id.Namespace, Name: id.Name}}))
		}
		b.learn(id)
		b.queue.Done(id)
		_, err = b.write(b.t.Context(), id, time.Unix(1000, 0))
		b.must(err)
	}
	b.t.Fatal("objects touch each other for ever")
}

func (b *bench) delete(name string) {
	b.t.Helper()
	b.must(b.opts.Client.Resource(Resource).Namespace("team-a").Delete(b.t.Context(), name, metav1.DeleteOptions{}))
	b.look(name)
}

func (b *bench) must(err error) {
	b.t.Helper()
	if err != nil {
		b.t.Fatal(err)
	}
}

// queried returns which objects have their queries asked.
func (b *bench) queried(names ...string) (out []string) {
	for _, name := range names {
		if len(b.used.queries(types.NamespacedName{Namespace: "team-a", Name: name})) > 0 {
			out = append(out, name)
		}
	}
	return out
}

func (b *bench) expect(what string, want, got []string) {
	b.t.Helper()
	if d := cmp.Diff(want, got); d != "" {
		b.t.Errorf("%s (-want +got)\n%s", what, d)
	}
}

func TestRefusedQueriesAreNotAskedAndSaidOnce(t *testing.T) {
	b := newBench(t, "{mode: namespaced, namespaces: [{match: 'team-*', scope: ['kube_namespace:%%namespace%%']}]}")
	b.put("narrow", "avg:m{kube_namespace:team-a}", "", 1)
	b.put("wide", "avg:m{*}", "", 2)
	b.put("template", "avg:m{kube_namespace:team-a,t:%%env_T%%}", "", 3) // what it holds leaves the scope
	b.look("wide", "wide")
	b.expect("queried", []string{"narrow"}, b.queried("narrow", "wide", "template"))
	b.expect("told", []string{"team-a/wide Forbidden", "team-a/template Forbidden"}, b.told)
	u, err := b.opts.Client.Resource(Resource).Namespace("team-a").Get(t.Context(), "wide", metav1.GetOptions{})
	b.must(err)
	status := decode(u, "own").status
	if c := find(status.Conditions, "Valid"); c.Status != "False" || c.Reason != policy.Forbidden || c.Message == "" {
		t.Errorf("condition %+v, want Valid False with reason Forbidden", c)
	}
	b.put("wide", "avg:m{kube_namespace:team-a}", "", 2)
	b.expect("queried once mended", []string{"wide"}, b.queried("wide"))
	b.put("wide", "avg:m{*} + avg:n{kube_namespace:team-a}", "", 2)
	b.expect("queried once broken", nil, b.queried("wide"))
}

func TestQuotaOfDatadogMetrics(t *testing.T) {
	b := newBench(t, "{mode: namespaced, namespaces: [{match: 'team-*', metrics: 2}]}")
	b.put("third", "avg:m{*}", "", 3)
	b.put("second", "avg:m{*}", "", 2)
	b.expect("within", []string{"second", "third"}, b.queried("second", "third"))
	b.put("first", "avg:m{*}", "", 1)
	b.expect("the youngest gives way", []string{"first", "second"}, b.queried("first", "second", "third"))
	b.delete("second")
	b.expect("and comes back", []string{"first", "third"}, b.queried("first", "second", "third"))
	b.put("first", "", "", 1) // of no use, so not counted
	b.put("fourth", "avg:m{*}", "", 4)
	b.expect("an unusable one", []string{"third", "fourth"}, b.queried("first", "third", "fourth"))
	b.expect("told", []string{"team-a/third QuotaExceeded"}, b.told)
}

func TestOtherNamespacesAutoscalersAreRefusedUnlessLent(t *testing.T) {
	refer := func(ns, metric string) *autoscalingv2.HorizontalPodAutoscaler {
		return &autoscalingv2.HorizontalPodAutoscaler{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "h"},
			Spec: autoscalingv2.HorizontalPodAutoscalerSpec{Metrics: []autoscalingv2.MetricSpec{{Type: autoscalingv2.ExternalMetricSourceType,
				External: &autoscalingv2.ExternalMetricSource{Metric: autoscalingv2.MetricIdentifier{Name: metric}}}}}}
	}
	b := newBench(t, "mode: namespaced")
	b.index.Set(refer("team-b", "datadogmetric@team-a:rate"))
	b.index.Set(refer("team-a", "datadogmetric@team-a:rate"))
	users := func() (out []string) {
		m, _ := b.Metric(types.NamespacedName{Namespace: "team-a", Name: "rate"})
		for _, by := range m.References {
			out = append(out, by.String())
		}
		return out
	}
	b.look("rate") // not there yet: refused all the same
	b.put("rate", "avg:m{*}", "", 1)
	b.look("rate")
	b.expect("its own", []string{"team-a/h"}, users())
	b.expect("told once", []string{"team-a/rate team-b/h Forbidden"}, b.told)
	b.put("rate", "avg:m{*}", "team-b", 1)
	b.expect("lent", []string{"team-a/h", "team-b/h"}, users())
	b.put("rate", "avg:m{*}", "", 1)
	b.expect("no longer", []string{"team-a/h"}, users())
	b.expect("told again", []string{"team-a/rate team-b/h Forbidden", "team-a/rate team-b/h Forbidden"}, b.told)
	open := newBench(t, "")
	open.index.Set(refer("team-b", "datadogmetric@team-a:rate"))
	open.put("rate", "avg:m{*}", "", 1)
	m, _ := open.Metric(types.NamespacedName{Namespace: "team-a", Name: "rate"})
	if len(m.References) != 1 || len(open.told) != 0 {
		t.Errorf("open: references %v, told %v", m.References, open.told)
	}
}

// TestPolicyKnowsTheLanguageOfTheSource holds that a query is judged in the
// language of the source that it is asked of, named or the cluster's own.
func TestPolicyKnowsTheLanguageOfTheSource(t *testing.T) {
	const rule = "{mode: namespaced, namespaces: [{match: 'team-*', scope: ['team:a'], otherLanguages: %t}]}"
	for _, c := range []struct {
		main   source.Name
		others bool
		want   []string
	}{{source.Kelpie, true, nil}, {source.Prometheus, true, []string{"promql"}}, {source.Prometheus, false, nil}} {
		b := newBench(t, fmt.Sprintf(rule, c.others))
		b.opts.Main = c.main
		b.put("promql", "sum(up)", "", 1)
		b.expect(fmt.Sprintf("asked where %s is the cluster's own, other languages %t", c.main, c.others), c.want, b.queried("promql"))
	}
}
