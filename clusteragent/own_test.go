package clusteragent

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

func annotatedHPA(name, metric, selector, own string) string {
	return strings.Replace(hpaText(name, metric, selector), "namespace: test}", fmt.Sprintf("namespace: test, annotations: {kelpie.dev/queries: %q}}", own), 1)
}

// TestOwnQueriesOfPlainNames has plain names mean queries of autoscalers' own:
// within the policy, once they parse, and as long as two do not disagree.
func TestOwnQueriesOfPlainNames(t *testing.T) {
	c := startCluster(t)
	b := newBackend(t)
	ln := listen(t)
	c.register(t, ln)
	const sel = "{matchLabels: {kube_namespace: test}}"
	const generated = "avg:rps{kube_namespace:test}.rollup(30)"
	b.set(func(b *backend) {
		b.values[generated], b.values[generated+" * 2"], b.values["sum:lag{kube_namespace:test}"] = 5, 10, 7
	})
	c.start(t, "a", ln, map[string]string{
		"DD_EXTERNAL_METRICS_PROVIDER_ENDPOINT": b.URL, "DD_EXTERNAL_METRICS_PROVIDER_USE_DATADOGMETRIC_CRD": "true",
		"KELPIE_POLICY": `{"mode":"namespaced","namespaces":[{"match":"*","scope":["kube_namespace:%%namespace%%"]}]}`,
	})
	const at = "kube_namespace=test"
	c.apply(t, hpas, "horizontalpodautoscalers", annotatedHPA("double", "rps", sel, "rps: $metric * 2"))
	c.wantValue(t, 10*time.Second, "rps", at, "10")
	c.apply(t, hpas, "horizontalpodautoscalers", annotatedHPA("free", "any-name", "{}", `any-name: "sum:lag{kube_namespace:test}"`))
	c.wantValue(t, 10*time.Second, "any-name", "", "7")

	// Another that asks for the same and means something else: neither is served.
	c.apply(t, hpas, "horizontalpodautoscalers", hpaText("single", "rps", sel))
	c.wantError(t, "rps", at, 422, "DisputedQuery", "test/double", "test/single", "let them mean the same")
	c.wantTold(t, "single", "MetricNotTranslated", "do not agree", 1)
	c.wantTold(t, "double", "MetricNotTranslated", "do not agree", 1)
	c.remove(t, hpas, "horizontalpodautoscalers", "test", "double")
	c.wantValue(t, 10*time.Second, "rps", at, "5")

	for _, w := range []struct {
		name, own, reason, word, event string
		code                           int32
	}{
		{"escapes", "x: avg:rps{kube_namespace:test} + avg:rps{kube_namespace:other}", "Forbidden", "metric number 2 in the query reaches further", "Forbidden", 403},
		{"alternative", "x: avg:rps{kube_namespace:test OR env:prod}", "Forbidden", "reaches further", "Forbidden", 403},
		{"template", "x: avg:rps{kube_namespace:test AND %%env_SCOPE%%}", "InvalidQueryAnnotation", "has a template", "MetricNotTranslated", 422},
		{"torn", "x: avg:rps{kube_namespace:test", "InvalidQueryAnnotation", "does not parse: error at", "MetricNotTranslated", 422},
		{"two", "x: 'avg:rps{kube_namespace:test},avg:rps{*}'", "InvalidQueryAnnotation", "does not parse: error at", "MetricNotTranslated", 422},
		{"misspelt", "rqs: $metric", "InvalidQueryAnnotation", "is named \"rqs\"", "MetricNotTranslated", 422},
	} {
		c.apply(t, hpas, "horizontalpodautoscalers", annotatedHPA(w.name, "x", sel, w.own))
		c.wantError(t, "x", at, w.code, w.reason, w.word)
		c.wantTold(t, w.name, w.event, w.word, 1)
		c.remove(t, hpas, "horizontalpodautoscalers", "test", w.name)
	}
	b.set(func(b *backend) {
		for q := range b.asked {
			if strings.Contains(q, "other") || strings.Contains(q, "prod") || strings.Contains(q, "{*}") {
				t.Errorf("a query that the policy refuses left the process: %s", q)
			}
		}
	})
}
