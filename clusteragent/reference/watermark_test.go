package reference

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/cache"
	"sigs.k8s.io/yaml"
)

func wpa(t *testing.T, name, metrics string) *unstructured.Unstructured {
	t.Helper()
	u := &unstructured.Unstructured{}
	text := "{apiVersion: datadoghq.com/v1alpha1, kind: WatermarkPodAutoscaler, metadata: {namespace: a, name: " + name + "}, spec: {metrics: " + metrics + "}}"
	if err := yaml.Unmarshal([]byte(text), &u.Object); err != nil {
		t.Fatal(err)
	}
	return u
}

func TestWatermarkPodAutoscalers(t *testing.T) {
	x := NewIndex(Options{Builder: builder, Namespace: "datadog"}, nil)
	h := x.WatermarkHandler()
	// Both kinds may bear one name.
	x.Set(hpa("a", "web", plain("datadogmetric@a:lag")))
	first := wpa(t, "web", `[{type: External, external: {metricName: "datadogmetric@a:lag", highWatermark: "10", lowWatermark: "5"}},
		{type: External, external: {metricName: nginx.requests, metricSelector: {matchLabels: {app: web}}, highWatermark: 400m}},
		{type: Resource, resource: {name: cpu, highWatermark: 500m}}]`)
	first.SetGeneration(1)
	h.OnAdd(first, true)

	lag := types.NamespacedName{Namespace: "a", Name: "lag"}
	names := func() (out []string) {
		for _, by := range x.Referrers(lag) {
			out = append(out, by.Reference())
		}
		return out
	}
	if d := cmp.Diff([]string{"hpa:a/web", "wpa:a/web"}, names()); d != "" {
		t.Errorf("references (-want +got)\n%s", d)
	}
	in, ok := x.Inline("a", "nginx.requests", parse(t, "app=web"))
	if want := "avg:nginx.requests{app:web}.rollup(30)"; !ok || in.Query != want {
		t.Errorf("Inline = %+v, %v; want %s", in, ok, want)
	}
	status := wpa(t, "web", `[]`) // of the same generation: no news of the spec
	status.SetGeneration(1)
	h.OnUpdate(first, status)
	if len(names()) != 2 {
		t.Error("an update of the status was read as one of the spec")
	}
	edited := wpa(t, "web", `[{type: External, external: {metricName: nginx.requests, metricSelector: {matchLabels: {app: api}}}}]`)
	edited.SetGeneration(2)
	h.OnUpdate(first, edited)
	if d := cmp.Diff([]string{"hpa:a/web"}, names()); d != "" {
		t.Errorf("references after the edit (-want +got)\n%s", d)
	}
	if _, ok := x.Inline("a", "nginx.requests", parse(t, "app=web")); ok {
		t.Error("the old selector is still served after the edit")
	}
	h.OnDelete(cache.DeletedFinalStateUnknown{Key: "a/web", Obj: edited})
	if _, ok := x.Inline("a", "nginx.requests", parse(t, "app=api")); ok || len(names()) != 1 {
		t.Error("the deleted one is still served, or took the other kind's with it")
	}

	// What is not as the CRD has it is refused alone, or not there.
	for _, c := range []struct{ metrics, want string }{
		{`[{type: External, external: {metricName: m, metricSelector: {matchExpressions: [{key: n, operator: Gt, values: ["4"]}]}}}]`, "the selector of metric"},
		{`[{type: External, external: {metricName: m, metricSelector: {matchLabels: {env: ""}}}}]`, "has no value"},
		{`[{type: External, external: {metricName: m, metricSelector: {matchLabels: [a]}}}]`, "the selector of metric"},
		{`[{type: External, external: {metricName: m, metricSelector: text}}]`, "metricSelector: "},
		{`[{type: External, external: {metricName: 5}}, {type: External}, text]`, ""},
		{`text`, ""},
	} {
		x.SetWatermark(wpa(t, "bad", c.metrics))
		var got []string
		for _, change := range x.All() {
			for _, in := range change.Inline {
				if in.Err != nil {
					got = append(got, in.Err.Error())
				}
			}
		}
		if c.want == "" && len(got) != 0 || c.want != "" && (len(got) != 1 || !strings.Contains(got[0], c.want)) {
			t.Errorf("%s: refused with %q, want %q", c.metrics, got, c.want)
		}
	}
}
