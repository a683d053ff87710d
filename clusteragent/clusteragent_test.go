package clusteragent

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/yaml"

	"kelpie.dev/kelpie/clusteragent/reference"
	"kelpie.dev/kelpie/health"
)

const (
	hpas    = "autoscaling/v2"
	metrics = "datadoghq.com/v1alpha1"
)

func schemaOf(group, version, resource string) schema.GroupVersionResource {
	return schema.GroupVersionResource{Group: group, Version: version, Resource: resource}
}

func hpaText(name, metric, selector string) string {
	return fmt.Sprintf(`{apiVersion: autoscaling/v2, kind: HorizontalPodAutoscaler, metadata: {name: %s, namespace: test},
spec: {scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: app}, minReplicas: 1, maxReplicas: 5,
metrics: [{type: External, external: {metric: {name: "%s", selector: %s}, target: {type: Value, value: "5"}}}]}}`, name, metric, selector)
}

func metricText(name, query, more string) string {
	return fmt.Sprintf(`{apiVersion: datadoghq.com/v1alpha1, kind: DatadogMetric, metadata: {name: %s, namespace: test}, spec: {query: '%s'%s}}`, name, query, more)
}

// ask reads a metric as the autoscaler's controller does.
func (c *cluster) ask(metric, selector string) (string, error) {
	sel, err := labels.Parse(selector)
	if err != nil {
		return "", err
	}
	list, err := c.external.NamespacedMetrics("test").List(metric, sel)
	if err != nil {
		return "", err
	}
	if len(list.Items) != 1 {
		return "", fmt.Errorf("%d items, want exactly one", len(list.Items))
	}
	return list.Items[0].Value.String(), nil
}

func (c *cluster) wantValue(t *testing.T, within time.Duration, metric, selector, want string) {
	t.Helper()
	eventually(t, within, func() string {
		if got, err := c.ask(metric, selector); err != nil || got != want {
			return fmt.Sprintf("%s{%s} = %q, %v; want %s", metric, selector, got, err, want)
		}
		return ""
	})
}

func (c *cluster) wantError(t *testing.T, metric, selector string, code int32, parts ...string) {
	t.Helper()
	eventually(t, 10*time.Second, func() string {
		_, err := c.ask(metric, selector)
		var se apierrors.APIStatus
		if !errors.As(err, &se) || se.Status().Code != code {
			return fmt.Sprintf("%s{%s}: error %v, want status %d", metric, selector, err, code)
		}
		for _, p := range parts {
			if !strings.Contains(se.Status().Message, p) {
				return fmt.Sprintf("%s{%s}: message %q, want %q in it", metric, selector, se.Status().Message, p)
			}
		}
		return ""
	})
}

// conditions waits until the object's conditions, in order, read as wanted:
// "Active=True/Referenced".
func (c *cluster) wantConditions(t *testing.T, name string, want ...string) *unstructured.Unstructured {
	t.Helper()
	var u *unstructured.Unstructured
	eventually(t, 10*time.Second, func() string {
		var err error
		u, err = c.resource(metrics, "datadogmetrics", "test").Get(t.Context(), name, metav1.GetOptions{})
		if err != nil {
			return err.Error()
		}
		var got []string
		list, _, _ := unstructured.NestedSlice(u.Object, "status", "conditions")
		for _, raw := range list {
			m := raw.(map[string]any)
			got = append(got, fmt.Sprintf("%v=%v/%v", m["type"], m["status"], m["reason"]))
			if m["message"] == "" {
				return fmt.Sprintf("condition %v has no message", m["type"])
			}
		}
		return cmp.Diff(want, got)
	})
	return u
}

func (c *cluster) counter(t *testing.T, r *replica, prefix string) string {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+r.health+"/metrics", nil)
	must(t, err)
	resp, err := http.DefaultClient.Do(req)
	must(t, err)
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	must(t, err)
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, prefix+" "); ok {
			return strings.TrimSpace(rest)
		}
	}
	return "absent"
}

func (c *cluster) wantAvailable(t *testing.T) {
	t.Helper()
	eventually(t, 30*time.Second, func() string {
		u, err := c.resource("apiregistration.k8s.io/v1", "apiservices", "").Get(t.Context(), "v1beta1.external.metrics.k8s.io", metav1.GetOptions{})
		if err != nil {
			return err.Error()
		}
		if bundle, _, _ := unstructured.NestedString(u.Object, "spec", "caBundle"); bundle == "" {
			return "caBundle is not set"
		}
		if skip, _, _ := unstructured.NestedBool(u.Object, "spec", "insecureSkipTLSVerify"); skip {
			return "insecureSkipTLSVerify is set"
		}
		list, _, _ := unstructured.NestedSlice(u.Object, "status", "conditions")
		for _, raw := range list {
			if m := raw.(map[string]any); m["type"] == "Available" && m["status"] == "True" {
				return ""
			}
		}
		return fmt.Sprintf("APIService is not available: %v", list)
	})
}

func TestObjectsMode(t *testing.T) {
	c := startCluster(t)
	b := newBackend(t)
	lnA, lnB := listen(t), listen(t)
	c.register(t, lnA)
	env := map[string]string{
		"DD_EXTERNAL_METRICS_PROVIDER_ENDPOINT": b.URL, "DD_EXTERNAL_METRICS_PROVIDER_USE_DATADOGMETRIC_CRD": "true",
		"DD_EXTERNAL_METRICS_PROVIDER_MAX_AGE": "12", "DD_EXTERNAL_METRICS_PROVIDER_ROLLUP": "4", "DD_EXTERNAL_METRICS_PROVIDER_QUERY_VALIDITY_PERIOD": "1",
		"KELPIE_AUTOGEN_EXPIRY": "2",
	}
	first := c.start(t, "a", lnA, env)
	c.wantAvailable(t)
	if body := c.discovery(t); !strings.Contains(body, `"externalmetrics"`) {
		t.Errorf("discovery without metrics = %s, want the placeholder", body)
	}

	const query = "avg:flask.request.rate{kube_namespace:test}"
	b.set(func(b *backend) { b.values[query] = 12.5 })
	c.apply(t, metrics, "datadogmetrics", metricText("rate", query, ""))
	c.wantConditions(t, "rate", "Active=False/NotReferenced", "Valid=False/NotReferenced", "Updated=True/NoPointYet", "Error=False/NoError")
	c.wantError(t, "datadogmetric@test:rate", "", 422, "NotReferenced", "no HorizontalPodAutoscaler refers to")

	c.apply(t, hpas, "horizontalpodautoscalers", hpaText("crd", "DatadogMetric@Test:Rate", "{}"))
	c.wantValue(t, 2*time.Second, "datadogmetric@test:rate", "", "12500m")
	u := c.wantConditions(t, "rate", "Active=True/Referenced", "Valid=True/ValueAvailable", "Updated=True/PointReceived", "Error=False/NoError")
	value, _, _ := unstructured.NestedString(u.Object, "status", "currentValue")
	refs, _, _ := unstructured.NestedString(u.Object, "status", "autoscalerReferences")
	if value != "12.5" || refs != "hpa:test/crd" {
		t.Errorf("status has value %q and references %q, want 12.5 and hpa:test/crd", value, refs)
	}
	if body := c.discovery(t); !strings.Contains(body, `"datadogmetric@test:rate"`) {
		t.Errorf("discovery = %s, want the metric in use", body)
	}

	t.Run("bad input harms only itself", func(t *testing.T) { c.badInput(t, b, first) })
	t.Run("telemetry", func(t *testing.T) { c.conforms(t, b, first, "CRD") })
	t.Run("generated objects come and go", func(t *testing.T) { c.generated(t, b) })

	// A second replica serves from its own memory; the first one's death is not seen.
	second := c.start(t, "b", lnB, env)
	eventually(t, 20*time.Second, func() string {
		var s Status
		if err := health.Fetch(t.Context(), second.health, "/status", &s); err != nil || !s.Serving || s.Leader {
			return fmt.Sprintf("second replica: %v, serving %v, leader %v; want a serving follower", err, s.Serving, s.Leader)
		}
		// It says so only when it has the values: a rollout must not be seen.
		i := slices.IndexFunc(s.Metrics, func(r Row) bool { return r.Metric == "datadogmetric@test:rate" })
		if i < 0 || !s.Metrics[i].Valid || s.Metrics[i].Value != "12.5" {
			t.Errorf("second replica serves and knows of metrics %+v, want datadogmetric@test:rate with 12.5", s.Metrics)
		}
		return ""
	})
	c.moveEndpoint(t, lnB)
	first.kill(t)
	c.wantValue(t, 5*time.Second, "datadogmetric@test:rate", "", "12500m")
	b.set(func(b *backend) { b.values[query] = 40 })
	eventually(t, 15*time.Second, func() string {
		u, err := c.resource(metrics, "datadogmetrics", "test").Get(t.Context(), "rate", metav1.GetOptions{})
		if err != nil {
			return err.Error()
		}
		if v, _, _ := unstructured.NestedString(u.Object, "status", "currentValue"); v != "40" {
			return fmt.Sprintf("status has value %s, want 40 from the new leader", v)
		}
		return ""
	})

	t.Run("certificate replaced", func(t *testing.T) {
		c.remove(t, "v1", "secrets", "datadog", "datadog-cluster-agent-tls")
		eventually(t, 10*time.Second, func() string {
			_, err := c.kube.CoreV1().Secrets("datadog").Get(t.Context(), "datadog-cluster-agent-tls", metav1.GetOptions{})
			if err != nil {
				return err.Error()
			}
			return ""
		})
		c.wantAvailable(t)
		c.wantValue(t, 10*time.Second, "datadogmetric@test:rate", "", "40")
	})
	t.Run("source at fault", func(t *testing.T) { c.sourceAtFault(t, b) })
}

func (c *cluster) badInput(t *testing.T, b *backend, r *replica) {
	t.Helper()
	c.apply(t, metrics, "datadogmetrics", metricText("syntax", "avg:flask.request.rate{kube_namespace:test", ""))
	c.apply(t, metrics, "datadogmetrics", metricText("unknown", "avg:no.such.metric{*}", ""))
	c.apply(t, metrics, "datadogmetrics", metricText("age", "avg:flask.request.rate{kube_namespace:test}", ", maxAge: 1d"))
	c.apply(t, metrics, "datadogmetrics", metricText("seconds", "avg:flask.request.rate{kube_namespace:test}", `, maxAge: "300"`))
	c.apply(t, metrics, "datadogmetrics", `{apiVersion: datadoghq.com/v1alpha1, kind: DatadogMetric, spec: {query: 'avg:no.such.load{*}'},
metadata: {name: idle, namespace: test, annotations: {kelpie.dev/on-no-data: zero}}}`)
	for _, name := range []string{"syntax", "unknown", "age", "seconds", "idle"} {
		c.apply(t, hpas, "horizontalpodautoscalers", hpaText(name, "datadogmetric@test:"+name, "{}"))
	}
	c.wantError(t, "datadogmetric@test:syntax", "", 422, "SyntaxError", "error at ")
	c.wantConditions(t, "syntax", "Active=True/Referenced", "Valid=False/SyntaxError", "Updated=True/NoPointYet", "Error=True/SyntaxError")
	c.wantError(t, "datadogmetric@test:unknown", "", 422, "NoData", "matches no series")
	c.wantConditions(t, "unknown", "Active=True/Referenced", "Valid=False/NoData", "Updated=True/NoPointYet", "Error=True/NoData")
	c.wantValue(t, 5*time.Second, "datadogmetric@test:idle", "", "0")
	c.wantConditions(t, "idle", "Active=True/Referenced", "Valid=True/ZeroForNoData", "Updated=True/NoPointYet", "Error=True/NoData")
	c.wantError(t, "datadogmetric@test:age", "", 422, "InvalidSpec", "spec.maxAge", "1d")
	c.wantConditions(t, "age", "Active=True/Referenced", "Valid=False/InvalidSpec", "Updated=True/NoPointYet", "Error=True/InvalidSpec")
	c.wantValue(t, 5*time.Second, "datadogmetric@test:seconds", "", "12500m")
	c.wantError(t, "datadogmetric@test:absent", "", 404, `no DatadogMetric "absent" in namespace "test"`)
	c.wantError(t, "nobody.asks", "a=b", 404, "no HorizontalPodAutoscaler asks for metric")

	// An empty label value is a legal selector and no tag.
	c.apply(t, hpas, "horizontalpodautoscalers", hpaText("empty", "flask.request.rate", `{matchLabels: {kube_namespace: ""}}`))
	c.wantError(t, "flask.request.rate", "kube_namespace=", 422, "InvalidSelector", "has no value")
	eventually(t, 10*time.Second, func() string {
		list, err := c.kube.CoreV1().Events("test").List(t.Context(), metav1.ListOptions{FieldSelector: "involvedObject.name=empty"})
		if err != nil || len(list.Items) == 0 || !strings.Contains(list.Items[0].Message, "has no value") {
			return fmt.Sprintf("events of the autoscaler: %v, %v; want the refusal", list, err)
		}
		return ""
	})
	c.wantValue(t, time.Second, "datadogmetric@test:rate", "", "12500m") // the neighbour
	if got := c.counter(t, r, `kelpie_external_metrics_query_failures_total{reason="SyntaxError"}`); got != "1" {
		t.Errorf("syntax errors counted = %s, want 1: it backs off", got)
	}
	if got := c.counter(t, r, `kelpie_external_metrics_untranslatable_total{namespace="test"}`); got != "1" {
		t.Errorf("refused selectors counted = %s, want 1", got)
	}
	b.set(func(b *backend) {
		for q := range b.asked {
			if !strings.HasSuffix(q, "}") {
				t.Errorf("a query with a syntax error left the process: %s", q)
			}
		}
	})
}

func (c *cluster) generated(t *testing.T, b *backend) {
	t.Helper()
	const translated = "avg:Flask.Request.Rate{app:web AND env IN (a,b)}.rollup(4)"
	b.set(func(b *backend) { b.values[translated] = 7 })
	c.apply(t, hpas, "horizontalpodautoscalers", hpaText("inline", "Flask.Request.Rate",
		`{matchLabels: {app: web}, matchExpressions: [{key: env, operator: In, values: [b, a]}]}`))
	c.wantValue(t, 2*time.Second, "Flask.Request.Rate", "app=web,env in (a,b)", "7")
	objects := c.resource(metrics, "datadogmetrics", "datadog")
	name := reference.AutogenName(translated)
	eventually(t, 5*time.Second, func() string {
		u, err := objects.Get(t.Context(), name, metav1.GetOptions{})
		if err != nil {
			return err.Error()
		}
		got, _, _ := unstructured.NestedString(u.Object, "spec", "query")
		value, _, _ := unstructured.NestedString(u.Object, "status", "currentValue")
		return cmp.Diff([]string{translated, "7"}, []string{got, value})
	})
	must(t, objects.Delete(t.Context(), name, metav1.DeleteOptions{}))
	eventually(t, 5*time.Second, func() string { // under a live reference it comes back
		if _, err := objects.Get(t.Context(), name, metav1.GetOptions{}); err != nil {
			return err.Error()
		}
		return ""
	})
	c.remove(t, hpas, "horizontalpodautoscalers", "test", "inline")
	eventually(t, 10*time.Second, func() string {
		if _, err := objects.Get(t.Context(), name, metav1.GetOptions{}); !apierrors.IsNotFound(err) {
			return fmt.Sprintf("generated object: %v, want it gone after its expiry", err)
		}
		return ""
	})
}

// wantEvent waits for an event of an autoscaler.
func (c *cluster) wantEvent(t *testing.T, name, reason, words string) {
	t.Helper()
	eventually(t, 20*time.Second, func() string {
		list, err := c.kube.CoreV1().Events("test").List(t.Context(), metav1.ListOptions{FieldSelector: "involvedObject.name=" + name + ",reason=" + reason})
		if err != nil || !slices.ContainsFunc(list.Items, func(e corev1.Event) bool { return strings.Contains(e.Message, words) }) {
			return fmt.Sprintf("events %s of %s: %v, %v; want %q", reason, name, list, err, words)
		}
		return ""
	})
}

func (c *cluster) sourceAtFault(t *testing.T, b *backend) {
	t.Helper()
	time.Sleep(lossPeriod + time.Second) // a replica that began just now has not seen what there was to lose
	b.set(func(b *backend) { b.status = http.StatusForbidden })
	c.wantConditions(t, "rate", "Active=True/Referenced", "Valid=True/ValueAvailable", "Updated=True/PointReceived", "Error=True/Unauthorized")
	// The value was fresh when it was read: it serves until it is too old, and no longer.
	c.wantError(t, "datadogmetric@test:rate", "", 503, "Unauthorized", "older than its max age 12s", "Secret datadog/datadog-secret")
	u := c.wantConditions(t, "rate", "Active=True/Referenced", "Valid=False/Unauthorized", "Updated=True/PointReceived", "Error=True/Unauthorized")
	if v, _, _ := unstructured.NestedString(u.Object, "status", "currentValue"); v != "40" {
		t.Errorf("currentValue = %s, want the last value kept", v)
	}
	c.wantEvent(t, "crd", metricLost, "replicas are held: Unauthorized")
	b.set(func(b *backend) { b.status = 0 })
	c.wantValue(t, 10*time.Second, "datadogmetric@test:rate", "", "40")
	c.wantEvent(t, "crd", metricFound, "has a value again: 40")
	b.set(func(b *backend) { b.frozen = time.Now().Add(-time.Minute) })
	c.wantError(t, "datadogmetric@test:rate", "", 422, "Stale", "older than its max age 12s", "check that the application still sends it")
	b.set(func(b *backend) { b.frozen = time.Time{} })
	c.wantValue(t, 10*time.Second, "datadogmetric@test:rate", "", "40")
	b.Close()
	c.wantError(t, "datadogmetric@test:rate", "", 503, "SourceUnavailable", "older than its max age 12s", "connection refused")
}

func (c *cluster) discovery(t *testing.T) string {
	t.Helper()
	var b []byte
	// The API server notes that a service is available in two places, the status
	// first.
	eventually(t, 5*time.Second, func() string {
		var err error
		if b, err = c.kube.RESTClient().Get().AbsPath("/apis/external.metrics.k8s.io/v1beta1").DoRaw(t.Context()); err != nil {
			return err.Error()
		}
		return ""
	})
	var list metav1.APIResourceList
	must(t, json.Unmarshal(b, &list))
	for _, r := range list.APIResources {
		if !r.Namespaced || r.Kind != "ExternalMetricValueList" || cmp.Diff(metav1.Verbs{"get"}, r.Verbs) != "" {
			t.Errorf("discovery lists %+v, want a namespaced ExternalMetricValueList with get", r)
		}
	}
	return string(b)
}

func (c *cluster) moveEndpoint(t *testing.T, ln net.Listener) {
	t.Helper()
	endpoints := c.kube.DiscoveryV1().EndpointSlices("datadog")
	s, err := endpoints.Get(t.Context(), "replica-0", metav1.GetOptions{})
	must(t, err)
	s.Ports[0].Port = new(int32(ln.Addr().(*net.TCPAddr).Port))
	_, err = endpoints.Update(t.Context(), s, metav1.UpdateOptions{})
	must(t, err)
}

func TestInlineMode(t *testing.T) {
	c := startCluster(t)
	b := newBackend(t)
	ln := listen(t)
	r := c.start(t, "inline", ln, map[string]string{"DD_EXTERNAL_METRICS_PROVIDER_ENDPOINT": b.URL, "DD_EXTERNAL_METRICS_PROVIDER_WPA_CONTROLLER": "true"})
	c.register(t, ln) // the registration may come after the agent, too
	c.wantAvailable(t)
	const query = "avg:flask.request.rate{kube_deployment:test-metric-app,kube_namespace:test}.rollup(30)"
	b.set(func(b *backend) { b.values[query] = 25 })
	sel := "{matchLabels: {kube_namespace: test, kube_deployment: test-metric-app}}"
	c.apply(t, hpas, "horizontalpodautoscalers", hpaText("one", "flask.request.rate", sel))
	c.apply(t, hpas, "horizontalpodautoscalers", hpaText("two", "flask.request.rate", sel))
	c.wantValue(t, 2*time.Second, "flask.request.rate", "kube_deployment=test-metric-app,kube_namespace=test", "25")
	c.wantError(t, "datadogmetric@test:rate", "", 404, "useDatadogMetrics")
	c.wantError(t, "flask.request.rate", "kube_namespace=wrong", 404, "with this name there is", "kube_deployment=test-metric-app")
	if body := c.discovery(t); !strings.Contains(body, `"flask.request.rate"`) {
		t.Errorf("discovery = %s, want the metric in use", body)
	}
	var s Status
	must(t, health.Fetch(t.Context(), r.health, "/status", &s))
	if len(s.Metrics) != 1 || !s.Metrics[0].Valid || s.Metrics[0].Value != "25" || cmp.Diff([]string{"test/one", "test/two"}, s.Metrics[0].References) != "" {
		t.Errorf("status = %+v, want the one metric, valid, with both references", s)
	}
	if got := c.counter(t, r, `external_metrics_api_requests{handler="get",in_error="false"}`); got == "absent" || got == "0" {
		t.Errorf("requests counted = %s, want some", got)
	}
	must(t, health.Fetch(t.Context(), r.health, "/health", &health.Health{}))
	t.Run("telemetry", func(t *testing.T) { c.conforms(t, b, r, "inline") })
	t.Run("taken over", func(t *testing.T) { c.takenOver(t, r) })
	t.Run("secret edited by hand", c.secretEdited)
	t.Run("admission", c.admission)
	t.Run("admission of autoscalers", c.foreignMetrics)
	t.Run("watermarks", func(t *testing.T) { c.watermarks(t, b) })
}

// watermarks has the CRD come after the cluster agent.
func (c *cluster) watermarks(t *testing.T, b *backend) {
	t.Helper()
	c.apply(t, "apiextensions.k8s.io/v1", "customresourcedefinitions", `{apiVersion: apiextensions.k8s.io/v1, kind: CustomResourceDefinition,
metadata: {name: watermarkpodautoscalers.datadoghq.com}, spec: {group: datadoghq.com, scope: Namespaced,
names: {kind: WatermarkPodAutoscaler, listKind: WatermarkPodAutoscalerList, plural: watermarkpodautoscalers, singular: watermarkpodautoscaler},
versions: [{name: v1alpha1, served: true, storage: true, schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}}]}}`)
	const query = "avg:queue.lag{queue:orders}.rollup(30)"
	b.set(func(b *backend) { b.values[query] = 3 })
	text := `{apiVersion: datadoghq.com/v1alpha1, kind: WatermarkPodAutoscaler, metadata: {name: lag, namespace: test}, spec: {metrics: [
{type: External, external: {metricName: queue.lag, metricSelector: {matchLabels: {queue: orders}}, highWatermark: "10", lowWatermark: "5"}}]}}`
	var u unstructured.Unstructured
	must(t, yaml.Unmarshal([]byte(text), &u.Object))
	eventually(t, 10*time.Second, func() string { // until the new kind is served
		if _, err := c.resource(metrics, "watermarkpodautoscalers", "test").Create(t.Context(), &u, metav1.CreateOptions{}); err != nil {
			return err.Error()
		}
		return ""
	})
	c.wantValue(t, 45*time.Second, "queue.lag", "queue=orders", "3")
}

// takenOver has another installer register itself, and go again.
func (c *cluster) takenOver(t *testing.T, r *replica) {
	t.Helper()
	services := c.resource("apiregistration.k8s.io/v1", "apiservices", "")
	point := func(service string) {
		t.Helper()
		u, err := services.Get(t.Context(), "v1beta1.external.metrics.k8s.io", metav1.GetOptions{})
		must(t, err)
		must(t, unstructured.SetNestedField(u.Object, service, "spec", "service", "name"))
		_, err = services.Update(t.Context(), u, metav1.UpdateOptions{})
		must(t, err)
	}
	says := func(words, registered string) {
		t.Helper()
		eventually(t, 10*time.Second, func() string {
			var s Status
			if err := health.Fetch(t.Context(), r.health, "/status", &s); err != nil || (s.Registration == "") != (words == "") || !strings.Contains(s.Registration, words) {
				return fmt.Sprintf("status says %q, %v; want %q", s.Registration, err, words)
			}
			if got := c.counter(t, r, "kelpie_external_metrics_apiservice_registered"); got != registered {
				return fmt.Sprintf("the metric says %s, want %s", got, registered)
			}
			return ""
		})
	}
	says("", "1")
	point("keda-operator-metrics-apiserver")
	says("another external metrics server owns it", "0")
	eventually(t, 10*time.Second, func() string {
		list, err := c.kube.CoreV1().Events("default").List(t.Context(), metav1.ListOptions{FieldSelector: "involvedObject.kind=APIService"})
		if err != nil || len(list.Items) != 1 || !strings.Contains(list.Items[0].Message, "keda-operator-metrics-apiserver") {
			return fmt.Sprintf("events of the APIService: %v, %v; want one that names the other", list, err)
		}
		return ""
	})
	point("datadog-cluster-agent")
	says("", "1")
	c.wantAvailable(t)
}

func (c *cluster) secretEdited(t *testing.T) {
	secrets := c.kube.CoreV1().Secrets("datadog")
	s, err := secrets.Get(t.Context(), "datadog-cluster-agent-tls", metav1.GetOptions{})
	must(t, err)
	authority := string(s.Data["ca.crt"])
	s.Data["tls.key"] = []byte("changed by hand")
	_, err = secrets.Update(t.Context(), s, metav1.UpdateOptions{})
	must(t, err)
	eventually(t, 10*time.Second, func() string {
		s, err := secrets.Get(t.Context(), "datadog-cluster-agent-tls", metav1.GetOptions{})
		if err != nil || strings.Contains(string(s.Data["tls.key"]), "hand") || string(s.Data["ca.crt"]) != authority {
			return fmt.Sprintf("the Secret after the edit: %v; want it repaired with its authority kept", err)
		}
		events, err := c.kube.CoreV1().Events("datadog").List(t.Context(), metav1.ListOptions{FieldSelector: "involvedObject.kind=Secret"})
		if err != nil || len(events.Items) == 0 {
			return fmt.Sprintf("events of the Secret: %v, %v; want the repair", events, err)
		}
		return ""
	})
	c.wantAvailable(t)
}
