package reference

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation"
)

var builder = Builder{Aggregator: "avg", Rollup: 30 * time.Second}

// The vectors of reference external-metrics §3.2: a generated object must be
// found again by whichever agent runs.
func TestAutogenNameVectors(t *testing.T) {
	for query, want := range map[string]string{
		"avg:metricName1{Alabel2:bar,Dlabel3:baz,Zlabel1:foo}.rollup(30)":   "595b170252cd5c77580b802084753c17ed1a18",
		"avg:metricName1{*}.rollup(30)":                                     "cb3c76c6adbd97b438d75e29a6a8efc4cefa81",
		"avg:metricname1{*}.rollup(30)":                                     "b6f2abdd30687209a5b8679218883823a24807",
		"avg:docker.cpu.usage{foo:bar}.rollup(30)":                          "f311ac1e6b29e3723d1445645c43afd4340d22",
		"avg:docker.cpu.usage{bar:foo}.rollup(30)":                          "b6ea72b610c00aba6791b5eca1912e68dc7412",
		"avg:nginx.net.request_per_s{*}.rollup(30)":                         "32402d8dfc05cf540928a606d78ed68c0607f7",
		"avg:nginx.net.request_per_s{kube_container_name:nginx}.rollup(30)": "9a6e15492f67c189c2541d0a2864a7a7e1779e",
	} {
		if got := AutogenName(query); got != "dcaautogen-"+want {
			t.Errorf("AutogenName(%s) = %s, want suffix %s", query, got, want)
		}
	}
}

func TestBuilderQuery(t *testing.T) {
	expr := func(key string, op metav1.LabelSelectorOperator, values ...string) metav1.LabelSelectorRequirement {
		return metav1.LabelSelectorRequirement{Key: key, Operator: op, Values: values}
	}
	for _, c := range []struct {
		metric string
		sel    *metav1.LabelSelector
		want   string // query, or part of the error after "error: "
	}{
		{"m", nil, "avg:m{*}.rollup(30)"},
		{"m", &metav1.LabelSelector{}, "avg:m{*}.rollup(30)"},
		{"metricName1", &metav1.LabelSelector{MatchLabels: map[string]string{"Zlabel1": "foo", "Alabel2": "bar", "Dlabel3": "baz"}},
			"avg:metricName1{Alabel2:bar,Dlabel3:baz,Zlabel1:foo}.rollup(30)"},
		// Pairs are sorted as whole strings: '.' comes before ':'.
		{"m", &metav1.LabelSelector{MatchLabels: map[string]string{"a": "y", "a.b": "x"}}, "avg:m{a.b:x,a:y}.rollup(30)"},
		{"m", &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{expr("env", "In", "b", "a", "a")}}, "avg:m{env IN (a,b)}.rollup(30)"},
		{"m", &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{expr("env", "NotIn", "a", "b")}}, "avg:m{NOT env IN (a,b)}.rollup(30)"},
		{"m", &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{expr("env", "Exists")}}, "avg:m{env:*}.rollup(30)"},
		{"m", &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{expr("env", "DoesNotExist")}}, "avg:m{NOT env:*}.rollup(30)"},
		{"m", &metav1.LabelSelector{MatchLabels: map[string]string{"team": "web"}, MatchExpressions: []metav1.LabelSelectorRequirement{
			expr("env", "In", "prod", "stage"), expr("canary", "DoesNotExist")}}, "avg:m{NOT canary:* AND env IN (prod,stage) AND team:web}.rollup(30)"},

		{"9lives", nil, `error: metric name "9lives" cannot be queried`},
		{"with-dash", nil, "error: write a DatadogMetric"},
		{strings.Repeat("m", 201), nil, "error: 200 at most"},
		{"m", &metav1.LabelSelector{MatchLabels: map[string]string{"env": ""}}, `error: label "env" has no value`},
		{"m", &metav1.LabelSelector{MatchLabels: map[string]string{"env": "a,b}"}}, `error: value "a,b}" is no tag value`},
		{"m", &metav1.LabelSelector{MatchLabels: map[string]string{"a b": "x"}}, `error: "a b" is no tag key`},
		{"m", &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{expr("cpus", "Gt", "4")}}, `error: operator "Gt" means nothing in a query`},
		{"m", &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{expr("env", "In")}}, "error: operator In needs values"},
	} {
		got, err := builder.Query(c.metric, c.sel)
		if part, bad := strings.CutPrefix(c.want, "error: "); bad {
			if err == nil || !strings.Contains(err.Error(), part) {
				t.Errorf("Query(%q, %v) error = %v, want %q in it", c.metric, c.sel, err, part)
			}
			continue
		}
		if err != nil || got != c.want {
			t.Errorf("Query(%q, %v) = %q, %v; want %q", c.metric, c.sel, got, err, c.want)
		}
	}
}

// The quick way must not let anything pass that the library refuses, nor, of
// labels, refuse what it lets pass.
func TestIsLabel(t *testing.T) {
	long := strings.Repeat("a", 63)
	for _, s := range []string{"", "a", "-", "a-", "-a", "a-b", "0", "a.b", "A", "a_b", "é", "a b", "a/b", "a:b", "z9-", "a{", "a`", "a@", long, long + "a"} {
		if got, want := isLabel(s), len(validation.IsDNS1123Label(s)) == 0; got != want {
			t.Errorf("isLabel(%q) = %v, the library says %v", s, got, want)
		}
	}
}

func TestParseObject(t *testing.T) {
	for _, c := range []struct{ in, want, err string }{
		{"datadogmetric@web:rps", "web/rps", ""},
		{"DatadogMetric@Web:RPS", "web/rps", ""},
		{"datadogmetric@web:rps.v2.total", "web/rps.v2.total", ""},
		{"datadogmetric@rps", "own/rps", ""},
		{"datadogmetric@:rps", "", "is no namespace"},
		{"datadogmetric@web:", "", "is no object name"},
		{"datadogmetric@web:a:b", "", "is no object name"},
		{"datadogmetric@we_b:rps", "", "is no namespace"},
		{"nginx.requests", "", "does not start with"},
	} {
		got, err := ParseObject(c.in, "own")
		if c.err != "" {
			if err == nil || !strings.Contains(err.Error(), c.err) {
				t.Errorf("ParseObject(%q) error = %v, want %q", c.in, err, c.err)
			}
		} else if err != nil || got.String() != c.want {
			t.Errorf("ParseObject(%q) = %v, %v; want %s", c.in, got, err, c.want)
		}
	}
}

func hpa(ns, name string, metrics ...autoscalingv2.MetricIdentifier) *autoscalingv2.HorizontalPodAutoscaler {
	h := &autoscalingv2.HorizontalPodAutoscaler{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name}}
	for _, m := range metrics {
		h.Spec.Metrics = append(h.Spec.Metrics, autoscalingv2.MetricSpec{
			Type: autoscalingv2.ExternalMetricSourceType, External: &autoscalingv2.ExternalMetricSource{Metric: m}})
	}
	return h
}

func plain(name string, kv ...string) autoscalingv2.MetricIdentifier {
	m := autoscalingv2.MetricIdentifier{Name: name}
	for i := 0; i < len(kv); i += 2 {
		if m.Selector == nil {
			m.Selector = &metav1.LabelSelector{MatchLabels: map[string]string{}}
		}
		m.Selector.MatchLabels[kv[i]] = kv[i+1]
	}
	return m
}

func parse(t *testing.T, sel string) labels.Selector {
	t.Helper()
	s, err := labels.Parse(sel)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestIndexInline(t *testing.T) {
	x := NewIndex(Options{Builder: builder, Namespace: "datadog"}, nil)
	x.Set(hpa("a", "one", plain("Nginx.Requests", "env", "prod", "app", "web"), plain("nginx.requests")))
	x.Set(hpa("b", "two", plain("nginx.requests", "app", "web", "env", "prod")))
	k := hpa("c", "keda", plain("s0-kafka"), plain("datadogmetric@c:lag"))
	k.Labels = map[string]string{"app.kubernetes.io/managed-by": "keda-operator"}
	x.Set(k)

	get := func(ns, metric, sel string) string {
		in, ok := x.Inline(ns, metric, parse(t, sel))
		if !ok {
			return "absent"
		}
		return in.Query
	}
	for _, c := range []struct{ ns, metric, sel, want string }{
		// The client lower-cases names; each namespace gets its own spelling.
		{"a", "nginx.requests", "app=web,env=prod", "avg:Nginx.Requests{app:web,env:prod}.rollup(30)"},
		{"b", "nginx.requests", "env=prod,app=web", "avg:nginx.requests{app:web,env:prod}.rollup(30)"},
		{"z", "NGINX.requests", "app=web,env=prod", "avg:Nginx.Requests{app:web,env:prod}.rollup(30)"},
		// Two entries of one name in one autoscaler are two metrics.
		{"a", "nginx.requests", "", "avg:nginx.requests{*}.rollup(30)"},
		{"a", "nginx.requests", "app=web", "absent"},
		{"c", "s0-kafka", "", "absent"},
	} {
		if got := get(c.ns, c.metric, c.sel); got != c.want {
			t.Errorf("Inline(%s, %s, %s) = %s, want %s", c.ns, c.metric, c.sel, got, c.want)
		}
	}
	want := []string{"Nginx.Requests", "datadogmetric@c:lag", "nginx.requests"}
	if d := cmp.Diff(want, x.Names()); d != "" {
		t.Errorf("Names (-want +got)\n%s", d)
	}
	auto := x.Autogen("avg:nginx.requests{app:web,env:prod}.rollup(30)")
	if d := cmp.Diff([]Autoscaler{{NamespacedName: types.NamespacedName{Namespace: "b", Name: "two"}}}, x.Referrers(auto)); d != "" {
		t.Errorf("Referrers (-want +got)\n%s", d)
	}
	x.Delete(Autoscaler{NamespacedName: types.NamespacedName{Namespace: "b", Name: "two"}})
	if got := x.Referrers(auto); len(got) != 0 {
		t.Errorf("Referrers after the delete = %v, want none", got)
	}
	if in, ok := x.InlineOf(auto); ok {
		t.Errorf("InlineOf after the delete = %v, want none", in)
	}
}

func TestIndexReportsChanges(t *testing.T) {
	var got []Change
	sel, err := labels.Parse("managed!=elsewhere")
	if err != nil {
		t.Fatal(err)
	}
	x := NewIndex(Options{Builder: builder, Autogen: sel, Namespace: "datadog"}, func(c Change) { got = append(got, c) })
	x.Set(hpa("a", "one", plain("datadogmetric@a:first")))
	x.Set(hpa("a", "one", plain("datadogmetric@a:second")))
	other := hpa("a", "two", plain("nginx.requests"))
	other.Labels = map[string]string{"managed": "elsewhere"}
	x.Set(other)                                  // not selected: nothing to serve
	x.Set(hpa("a", "bad", plain("m", "env", ""))) // not translatable
	x.Delete(Autoscaler{NamespacedName: types.NamespacedName{Namespace: "a", Name: "one"}})

	first, second := types.NamespacedName{Namespace: "a", Name: "first"}, types.NamespacedName{Namespace: "a", Name: "second"}
	var touched [][]types.NamespacedName
	for _, c := range got {
		touched = append(touched, c.Objects)
	}
	want := [][]types.NamespacedName{{first}, {first, second}, nil, {second}}
	if d := cmp.Diff(want, touched); d != "" {
		t.Errorf("touched objects (-want +got)\n%s", d)
	}
	all := x.All()
	if len(all) != 1 || len(all[0].Inline) != 1 || !strings.Contains(all[0].Inline[0].Err.Error(), `label "env" has no value`) {
		t.Errorf("All = %v, want the refused selector alone", all)
	}
	in, ok := x.Inline("a", "m", parse(t, "env="))
	if !ok || in.Err == nil {
		t.Errorf("Inline of the refused selector = %v, %v; want its error", in, ok)
	}
}

func TestNamespacesKeptApart(t *testing.T) {
	x := NewIndex(Options{Builder: builder, Namespace: "datadog", OwnNamespace: true}, nil)
	x.Set(hpa("a", "one", plain("datadogmetric@datadog:dcaautogen-595b170252cd5c77580b802084753c17ed1a18"), plain("datadogmetric@b:lag"), plain("datadogmetric@a:lag"), plain("datadogmetric@lag2"), plain("rps", "app", "web")))
	x.Set(hpa("a", "malformed", plain("datadogmetric@a:b:c")))
	refers := func(ns, name string) int { return len(x.Referrers(types.NamespacedName{Namespace: ns, Name: name})) }
	// Whether b lends its metric to a stands in the object, which is not known here.
	generated := refers("datadog", "dcaautogen-595b170252cd5c77580b802084753c17ed1a18")
	if generated != 0 || refers("b", "lag") != 1 || refers("a", "lag") != 1 || refers("a", "lag2") != 1 {
		t.Errorf("references: generated %d, b/lag %d, a/lag %d, a/lag2 %d; want no generated one", generated, refers("b", "lag"), refers("a", "lag"), refers("a", "lag2"))
	}
	var said []string
	for _, c := range x.All() {
		for _, in := range c.Inline {
			if in.Err != nil {
				said = append(said, c.By.String()+" "+in.Err.Error())
			}
		}
	}
	if len(said) != 2 || !strings.Contains(said[0], "is no object name") || !strings.Contains(said[1], `write a DatadogMetric in "a"`) {
		t.Errorf("said %q, want each refused reference with its mend", said)
	}
	if _, ok := x.Inline("a", "rps", parse(t, "app=web")); !ok {
		t.Error("the own namespace's metric is not served")
	}
	x.opts.Judge = func(namespace, query string) error { return fmt.Errorf("%s may not ask %s", namespace, query) }
	x.Set(hpa("c", "judged", plain("rps", "app", "web")))
	if in, ok := x.Inline("c", "rps", parse(t, "app=web")); !ok || in.Err == nil || in.Err.Error() != "c may not ask "+in.Query {
		t.Errorf("judged: %v, %v; want the judge's words", in, ok)
	}
	if in, ok := x.Inline("b", "rps", parse(t, "app=web")); ok || len(x.Selectors("b", "rps")) != 0 || len(x.Selectors("a", "rps")) != 1 {
		t.Errorf("in another namespace: %v, selectors %q; want nothing known", in, x.Selectors("b", "rps"))
	}
}
