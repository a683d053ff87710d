package clusteragent

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/yaml"
)

// admits applies a policy of examples/admission.
func (c *cluster) admits(t *testing.T, file string) {
	t.Helper()
	b, err := os.ReadFile("../examples/admission/" + file)
	must(t, err)
	policy, binding, _ := strings.Cut(string(b), "\n---\n")
	c.apply(t, "admissionregistration.k8s.io/v1", "validatingadmissionpolicies", policy)
	c.apply(t, "admissionregistration.k8s.io/v1", "validatingadmissionpolicybindings", binding)
}

// admission has the API server judge DatadogMetrics by examples/admission.
func (c *cluster) admission(t *testing.T) {
	c.admits(t, "datadogmetric.yaml")
	create := func(spec, annotation string) string {
		t.Helper()
		u := &unstructured.Unstructured{}
		must(t, yaml.Unmarshal([]byte("{apiVersion: datadoghq.com/v1alpha1, kind: DatadogMetric, metadata: {namespace: test, generateName: admitted-}, spec: "+spec+"}"), &u.Object))
		if annotation != "" {
			u.SetAnnotations(map[string]string{"kelpie.dev/on-no-data": annotation})
		}
		_, err := c.resource(metrics, "datadogmetrics", "test").Create(t.Context(), u, metav1.CreateOptions{})
		if err != nil {
			return err.Error()
		}
		return ""
	}
	eventually(t, 30*time.Second, func() string { // until the policy is in force
		if create(`{query: ""}`, "") == "" {
			return "an empty query is admitted"
		}
		return ""
	})
	for _, s := range []struct{ spec, annotation, refused string }{
		{`{query: "avg:m{*}"}`, "", ""},
		{`{query: "avg:m{*}", maxAge: 5m, timeWindow: 1h30m}`, "last:15m", ""},
		{`{query: "avg:m{*}", maxAge: "300"}`, "zero", ""},
		{`{query: "avg:m{*}", maxAge: 1.5h}`, "error", ""},
		{`{}`, "", "spec.query is empty"},
		{`{query: " "}`, "", "spec.query is empty"},
		{`{query: "avg:m{*}", maxAge: 1d}`, "", "spec.maxAge must be a duration"},
		{`{query: "avg:m{*}", maxAge: 300}`, "", "spec.maxAge"},
		{`{query: "avg:m{*}", timeWindow: -5m}`, "", "spec.timeWindow must be a duration"},
		{`{query: "avg:m{*}"}`, "null", "kelpie.dev/on-no-data must be"},
		{`{query: "avg:m{*}"}`, "last:1d", "kelpie.dev/on-no-data must be"},
	} {
		if got := create(s.spec, s.annotation); (got == "") != (s.refused == "") || !strings.Contains(got, s.refused) {
			t.Errorf("%s with annotation %q: refused with %q, want %q", s.spec, s.annotation, got, s.refused)
		}
	}
}

// foreignMetrics has the API server judge autoscalers by examples/admission.
func (c *cluster) foreignMetrics(t *testing.T) {
	create := func(group, name, metrics string) string {
		t.Helper()
		u := &unstructured.Unstructured{}
		must(t, yaml.Unmarshal([]byte("{apiVersion: "+group+", kind: HorizontalPodAutoscaler, metadata: {namespace: test, name: "+name+"}, "+
			"spec: {scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: app}, maxReplicas: 5"+metrics+"}}"), &u.Object))
		_, err := c.resource(group, "horizontalpodautoscalers", "test").Create(t.Context(), u, metav1.CreateOptions{})
		if err != nil {
			return err.Error()
		}
		return ""
	}
	external := func(names ...string) string {
		var list []string
		for _, n := range names {
			list = append(list, "{type: External, external: {metric: {name: '"+n+"'}, target: {type: Value, value: '5'}}}")
		}
		return ", metrics: [" + strings.Join(list, ", ") + "]"
	}
	if got := create(hpas, "older", external("datadogmetric@other:lag")); got != "" {
		t.Fatalf("before the policy: %s", got)
	}
	c.admits(t, "horizontalpodautoscaler.yaml")
	attempt := 0
	eventually(t, 30*time.Second, func() string { // until the policy is in force
		attempt++
		if create(hpas, fmt.Sprint("foreign-", attempt), external("datadogmetric@other:lag")) == "" {
			return "an autoscaler that names another namespace's metric is admitted"
		}
		return ""
	})
	const refused = "it names a DatadogMetric of namespace other: write one in namespace test"
	for i, s := range []struct{ metrics, refused string }{
		{"", ""},
		{external("datadogmetric@test:lag"), ""},
		{external("queue.lag", "DatadogMetric@Test:lag", "datadogmetric@shared-metrics:lag"), ""},
		{", metrics: [{type: Resource, resource: {name: cpu, target: {type: Utilization, averageUtilization: 60}}}]", ""},
		{external("datadogmetric@test:lag", "DatadogMetric@Other:lag"), refused},
		{external("datadogmetric@testing:lag"), "of namespace testing"},
	} {
		if got := create(hpas, fmt.Sprint("h", i), s.metrics); (got == "") != (s.refused == "") || !strings.Contains(got, s.refused) {
			t.Errorf("%s: refused with %q, want %q", s.metrics, got, s.refused)
		}
	}
	// The oldest version has these metrics in an annotation, and is no way around.
	v1 := &unstructured.Unstructured{}
	must(t, yaml.Unmarshal([]byte(`{apiVersion: autoscaling/v1, kind: HorizontalPodAutoscaler, metadata: {namespace: test, name: old-version, annotations: {
autoscaling.alpha.kubernetes.io/metrics: '[{"type":"External","external":{"metricName":"datadogmetric@other:lag","targetValue":"5"}}]'}},
spec: {scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: app}, maxReplicas: 5}}`), &v1.Object))
	if _, err := c.resource("autoscaling/v1", "horizontalpodautoscalers", "test").Create(t.Context(), v1, metav1.CreateOptions{}); err == nil || !strings.Contains(err.Error(), refused) {
		t.Errorf("by autoscaling/v1: %v, want it refused", err)
	}
	old := c.resource(hpas, "horizontalpodautoscalers", "test")
	for patch, want := range map[string]string{
		`{"metadata":{"labels":{"a":"b"}},"spec":{"maxReplicas":9}}`:                                                                                 "",
		`{"spec":{"metrics":[{"type":"External","external":{"metric":{"name":"datadogmetric@other:rate"},"target":{"type":"Value","value":"5"}}}]}}`: refused,
	} {
		_, err := old.Patch(t.Context(), "older", types.MergePatchType, []byte(patch), metav1.PatchOptions{})
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("an autoscaler older than the policy, changed by %s: %v, want %q", patch, err, want)
		}
	}
}
