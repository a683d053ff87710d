package clusteragent

import (
	"os"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"
)

// admission has the API server judge by examples/admission.
func (c *cluster) admission(t *testing.T) {
	b, err := os.ReadFile("../examples/admission/datadogmetric.yaml")
	must(t, err)
	policy, binding, _ := strings.Cut(string(b), "\n---\n")
	c.apply(t, "admissionregistration.k8s.io/v1", "validatingadmissionpolicies", policy)
	c.apply(t, "admissionregistration.k8s.io/v1", "validatingadmissionpolicybindings", binding)
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
