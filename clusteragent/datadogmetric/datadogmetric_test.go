package datadogmetric

import (
	"strings"
	"testing"
	"time"

	"github.com/DataDog/datadog-operator/api/datadoghq/v1alpha1"
	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/yaml"

	"kelpie.dev/kelpie/clusteragent/reference"
	"kelpie.dev/kelpie/clusteragent/source"
)

func TestDecode(t *testing.T) {
	for _, c := range []struct {
		name    string
		spec    map[string]any
		maxAge  time.Duration
		problem string
	}{
		{"plain", map[string]any{"query": "avg:m{*}"}, 0, ""},
		{"duration", map[string]any{"query": "q", "maxAge": "5m"}, 5 * time.Minute, ""},
		{"bare seconds", map[string]any{"query": "q", "maxAge": "300"}, 5 * time.Minute, ""},
		{"number", map[string]any{"query": "q", "maxAge": int64(300)}, 5 * time.Minute, ""},
		{"fraction", map[string]any{"query": "q", "maxAge": 0.5}, 500 * time.Millisecond, ""},
		{"many seconds", map[string]any{"query": "q", "maxAge": float64(1e6)}, 1e6 * time.Second, ""},
		{"no number", map[string]any{"query": "q", "maxAge": "NaN"}, 0, `spec.maxAge is "NaN"`},
		{"endless", map[string]any{"query": "q", "maxAge": "Inf"}, 0, `spec.maxAge is "Inf"`},
		{"longer than time", map[string]any{"query": "q", "maxAge": "1e300"}, 0, `spec.maxAge is "1e300"`},
		{"a list", map[string]any{"query": "q", "maxAge": []any{"5m"}}, 0, "spec.maxAge is "},
		{"days", map[string]any{"query": "q", "maxAge": "1d"}, 0, `spec.maxAge is "1d"`},
		{"negative", map[string]any{"query": "q", "timeWindow": "-5m"}, 0, "spec.timeWindow"},
		{"no query", map[string]any{}, 0, "spec.query is empty"},
		{"no spec", nil, 0, "spec.query is empty"},
		{"query of another type", map[string]any{"query": int64(3)}, 0, "spec.query must be a string"},
	} {
		u := &unstructured.Unstructured{Object: map[string]any{"metadata": map[string]any{"namespace": "a", "name": "b"}}}
		if c.spec != nil {
			u.Object["spec"] = c.spec
		}
		o := decode(u, "a")
		got := ""
		if o.problem != nil {
			got = o.problem.Message
		}
		if o.maxAge != c.maxAge || (c.problem == "") != (got == "") || !strings.Contains(got, c.problem) {
			t.Errorf("%s: max age %s, problem %q; want %s, %q", c.name, o.maxAge, got, c.maxAge, c.problem)
		}
	}
}

// A user's own object with the internal field is not ours to delete, nor is one
// that another cluster agent generated in its own namespace.
func TestOnlyOurGeneratedObjectsAreGenerated(t *testing.T) {
	for id, want := range map[types.NamespacedName]bool{
		{Namespace: "own", Name: "mine"}:              false,
		{Namespace: "own", Name: "dcaautogen-0123"}:   true,
		{Namespace: "other", Name: "dcaautogen-0123"}: false,
	} {
		u := &unstructured.Unstructured{Object: map[string]any{"metadata": map[string]any{"namespace": id.Namespace, "name": id.Name},
			"spec": map[string]any{"query": "q", "externalMetricName": "m"}}}
		if got := decode(u, "own").generated; got != want {
			t.Errorf("object %s is generated: %v, want %v", id, got, want)
		}
	}
}

func TestResolve(t *testing.T) {
	tm := Templates{ClusterName: "prod-1", Env: func(name string) (string, bool) { return "blue", name == "TEAM_COLOR" }}
	for _, c := range []struct{ in, want, err string }{
		{"avg:m{*}", "avg:m{*}", ""},
		{"avg:m{c:%%tag_kube_cluster_name%%,t:%% env_TEAM_COLOR %%}", "avg:m{c:prod-1,t:blue}", ""},
		{"avg:m{t:%%env_DD_API_KEY%%}", "", `"DD_API_KEY" is not allowed`},
		{"avg:m{t:%%tag_other%%}", "", `tag "other" is not supported`},
		{"avg:m{t:%%host%%}", "", `template variable "host" is unknown`},
	} {
		got, err := tm.Resolve(c.in)
		if c.err == "" && (err != nil || got != c.want) || c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)) {
			t.Errorf("Resolve(%s) = %q, %v; want %q, %q", c.in, got, err, c.want, c.err)
		}
	}
	if _, err := (Templates{}).Resolve("%%tag_kube_cluster_name%%"); err == nil || !strings.Contains(err.Error(), "DD_CLUSTER_NAME") {
		t.Errorf("without cluster name: %v, want the setting named", err)
	}
}

func TestStatusIsWrittenWhenItTellsSomethingNew(t *testing.T) {
	now := time.Unix(100_000, 0)
	m := Metric{ID: types.NamespacedName{Namespace: "a", Name: "b"}, Active: true, Limits: source.Limits{MaxAge: time.Minute},
		References: []reference.Autoscaler{{NamespacedName: types.NamespacedName{Namespace: "a", Name: "h"}}}}
	r := source.Reading{Value: 1000, At: now.Add(-10 * time.Second), Fetched: now, Attempted: now}
	old := compose(m, r, v1alpha1.DatadogMetricStatus{}, now)
	for _, c := range []struct {
		name string
		edit func(m *Metric, r *source.Reading)
		at   time.Duration
		want bool
	}{
		{"the same value, newer", func(_ *Metric, r *source.Reading) { r.At = r.At.Add(30 * time.Second) }, 30 * time.Second, false},
		{"nearly the same value", func(_ *Metric, r *source.Reading) { r.Value = 1000.01 }, 30 * time.Second, false},
		{"another value", func(_ *Metric, r *source.Reading) { r.Value = 1001 }, 30 * time.Second, true},
		{"another reference", func(m *Metric, _ *source.Reading) {
			m.References = append(m.References, reference.Autoscaler{NamespacedName: m.ID})
		}, time.Second, true},
		{"an error", func(_ *Metric, r *source.Reading) {
			r.Err = &source.Error{Reason: source.RateLimited, Message: "slow down"}
		}, time.Second, true},
		{"too old", func(*Metric, *source.Reading) {}, 51 * time.Second, true},
		{"heartbeat", func(_ *Metric, r *source.Reading) { r.At = r.At.Add(2 * time.Minute) }, 2 * time.Minute, true},
	} {
		m, r := m, r
		c.edit(&m, &r)
		next := compose(m, r, old, now.Add(c.at))
		if got := news(old, next) || moved(old, next, 2*time.Minute); got != c.want {
			t.Errorf("%s: written %v, want %v", c.name, got, c.want)
		}
	}
	// A network's error names the port that was tried from, another at each attempt.
	down := func(port string) v1alpha1.DatadogMetricStatus {
		failing := r
		failing.Err = &source.Error{Reason: source.SourceUnavailable, Message: "read udp 10.1.2.3:" + port + "->10.96.0.10:53: i/o timeout"}
		return compose(m, failing, old, now.Add(30*time.Second))
	}
	if !news(old, down("40001")) || news(down("40001"), down("40002")) || !moved(down("40001"), down("40002"), 2*time.Minute) {
		t.Error("an outage is news once; what words it anew has to wait for its turn")
	}
	stale := compose(m, r, old, now.Add(time.Hour))
	later := compose(m, r, stale, now.Add(time.Hour+time.Second))
	if news(stale, later) || moved(stale, later, 2*time.Minute) {
		t.Error("a stale value is written again each second: its message must not hold its age")
	}
	// compat: what a replica of Datadog's cluster agent needs to load the status.
	enc := encode(compose(Metric{ID: m.ID}, source.Reading{}, v1alpha1.DatadogMetricStatus{}, now))
	if enc["currentValue"] != "0" || len(enc["conditions"].([]any)) != 4 {
		t.Errorf("first status = %v, want currentValue 0 and four conditions", enc)
	}
	if _, ok := enc["conditions"].([]any)[2].(map[string]any)["lastUpdateTime"]; ok {
		t.Error("Updated has a time before the first point")
	}
}

// An object that Datadog's cluster agent has written to is taken over: its value
// and times stand until there is news.
func TestStatusOfDatadogsClusterAgentLoads(t *testing.T) {
	u := &unstructured.Unstructured{}
	err := yaml.Unmarshal([]byte(`
metadata: {namespace: a, name: b}
spec: {query: "avg:m{*}"}
status:
  currentValue: "16.7"
  autoscalerReferences: hpa:a/h
  conditions:
    - {type: Active, status: "True", lastTransitionTime: "2026-08-20T09:00:00Z", lastUpdateTime: "2026-08-20T10:00:30Z"}
    - {type: Valid, status: "True", lastTransitionTime: "2026-08-20T09:00:30Z", lastUpdateTime: "2026-08-20T10:00:30Z"}
    - {type: Updated, status: "True", lastTransitionTime: "2026-08-20T09:00:00Z", lastUpdateTime: "2026-08-20T09:59:30Z"}
    - {type: Error, status: "False", lastTransitionTime: "2026-08-20T09:00:00Z", lastUpdateTime: "2026-08-20T10:00:30Z"}
`), &u.Object)
	if err != nil {
		t.Fatal(err)
	}
	o := decode(u, "own")
	now := time.Date(2026, 8, 20, 10, 1, 0, 0, time.UTC)
	r := source.Reading{Attempted: now, Err: &source.Error{Reason: source.SourceUnavailable, Message: "no answer"}}
	m := Metric{ID: o.id, Active: true, References: []reference.Autoscaler{{NamespacedName: types.NamespacedName{Namespace: "a", Name: "h"}}}, Limits: source.Limits{MaxAge: time.Minute}}
	next := compose(m, r, o.status, now)
	active := find(next.Conditions, v1alpha1.DatadogMetricConditionTypeActive)
	updated := find(next.Conditions, v1alpha1.DatadogMetricConditionTypeUpdated)
	if next.Value != "16.7" || !active.LastTransitionTime.Equal(&o.status.Conditions[0].LastTransitionTime) ||
		!updated.LastUpdateTime.Equal(&o.status.Conditions[2].LastUpdateTime) {
		t.Errorf("next status = %+v; want the value, the transition and the point's time of before", next)
	}
	var order []string
	for _, c := range next.Conditions {
		order = append(order, string(c.Type))
	}
	if d := cmp.Diff([]string{"Active", "Valid", "Updated", "Error"}, order); d != "" {
		t.Errorf("conditions (-want +got)\n%s", d)
	}
}

// A metric that falls out of use says so, and goes on showing what it was worth.
func TestUnusedKeepsItsValue(t *testing.T) {
	now := time.Unix(100_000, 0)
	m := Metric{ID: types.NamespacedName{Namespace: "a", Name: "b"}, Active: true, Limits: source.Limits{MaxAge: time.Minute},
		References: []reference.Autoscaler{{NamespacedName: types.NamespacedName{Namespace: "a", Name: "h"}}}}
	used := compose(m, source.Reading{Value: 16.7, At: now, Fetched: now, Attempted: now}, v1alpha1.DatadogMetricStatus{}, now)
	m.Active, m.References = false, nil
	unused := compose(m, source.Reading{}, used, now.Add(time.Minute))
	var got []string
	for _, c := range unused.Conditions {
		got = append(got, string(c.Type)+"="+string(c.Status)+"/"+c.Reason)
	}
	want := []string{"Active=False/NotReferenced", "Valid=False/NotReferenced", "Updated=True/PointReceived", "Error=False/NoError"}
	if d := cmp.Diff(want, got); d != "" || unused.Value != "16.7" || unused.AutoscalerReferences != "" || !news(used, unused) {
		t.Errorf("status %+v; want the value kept, and conditions (-want +got)\n%s", unused, d)
	}
}

func TestDecodeSource(t *testing.T) {
	for annotation, want := range map[string]string{"": "", "prometheus": "", "kelpie": "", "datadog": "", "Prom": `annotation kelpie.dev/source is "Prom": write kelpie, datadog or prometheus`} {
		u := &unstructured.Unstructured{Object: map[string]any{"metadata": map[string]any{"namespace": "a", "name": "b"}, "spec": map[string]any{"query": "sum(up)"}}}
		u.SetAnnotations(map[string]string{sourceOf: annotation})
		o := decode(u, "a")
		switch {
		case want == "" && (o.problem != nil || string(o.source) != annotation):
			t.Errorf("%q: %q, %v", annotation, o.source, o.problem)
		case want != "" && (o.problem == nil || o.problem.Message != want):
			t.Errorf("%q: %v, want %s", annotation, o.problem, want)
		}
	}
}

func TestDecodeMaxAge(t *testing.T) {
	for _, c := range []struct {
		annotation, maxAge, want string
		follows                  bool
	}{
		{"", "", "", false},
		{"", "5m", "", false},
		{"auto", "", "", true},
		{"auto", "5m", "annotation kelpie.dev/max-age is auto and spec.maxAge is set: remove one of them", false},
		{"5m", "", `annotation kelpie.dev/max-age is "5m": write auto, or set spec.maxAge`, false},
	} {
		spec := map[string]any{"query": "avg:m{*}"}
		if c.maxAge != "" {
			spec["maxAge"] = c.maxAge
		}
		u := &unstructured.Unstructured{Object: map[string]any{"metadata": map[string]any{"namespace": "a", "name": "b"}, "spec": spec}}
		u.SetAnnotations(map[string]string{maxAgeOf: c.annotation})
		o := decode(u, "a")
		got := ""
		if o.problem != nil {
			got = o.problem.Message
		}
		if got != c.want || o.followsLag != c.follows {
			t.Errorf("%+v: %q, follows %v", c, got, o.followsLag)
		}
	}
}
