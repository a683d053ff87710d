package clusteragent

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"kelpie.dev/kelpie/clusteragent/shadow"
	"kelpie.dev/kelpie/health"
)

func TestConfigOfShadow(t *testing.T) {
	const both = "DD_EXTERNAL_METRICS_PROVIDER_ENDPOINT=http://b:8080 KELPIE_SOURCE_DATADOG_API_KEY=a KELPIE_SOURCE_DATADOG_APP_KEY=b "
	for _, c := range []struct {
		env, wrong string
		tolerance  shadow.Tolerance
	}{
		{both, "", shadow.Tolerance{Relative: 0.05, Absolute: 0.001}},
		{both + "KELPIE_SHADOW_SOURCE=datadog", "", shadow.Tolerance{Relative: 0.05, Absolute: 0.001}},
		{both + "KELPIE_SOURCE=datadog KELPIE_SHADOW_SOURCE=kelpie KELPIE_SHADOW_TOLERANCE=12.5 KELPIE_SHADOW_ABSOLUTE_TOLERANCE=1", "", shadow.Tolerance{Relative: 0.125, Absolute: 1}},
		{both + "KELPIE_SHADOW_SOURCE=kelpie", "which is the cluster's own source", shadow.Tolerance{Relative: 0.05, Absolute: 0.001}},
		{"KELPIE_SHADOW_SOURCE=kelpie", "kelpie, which is not configured", shadow.Tolerance{Relative: 0.05, Absolute: 0.001}},
		{"KELPIE_SHADOW_SOURCE=graphite", `KELPIE_SHADOW_SOURCE is "graphite": write kelpie, datadog or prometheus`, shadow.Tolerance{Relative: 0.05, Absolute: 0.001}},
		{"KELPIE_SHADOW_SOURCE=prometheus KELPIE_PROMETHEUS_URL=http://p", "one takes PromQL", shadow.Tolerance{Relative: 0.05, Absolute: 0.001}},
		{both + "KELPIE_SHADOW_TOLERANCE=-1", "must not be negative", shadow.Tolerance{Relative: -0.01, Absolute: 0.001}},
		{both + "KELPIE_SHADOW_TOLERANCE=NaN", "KELPIE_SHADOW_TOLERANCE: expected a number", shadow.Tolerance{Relative: 0.05, Absolute: 0.001}},
	} {
		env := map[string]string{"DD_POD_NAME": "p"}
		for pair := range strings.FieldsSeq(c.env) {
			name, value, _ := strings.Cut(pair, "=")
			env[name] = value
		}
		got, err := fromMap(env)
		if (err == nil) != (c.wrong == "") || err != nil && !strings.Contains(err.Error(), c.wrong) {
			t.Errorf("%s: error %v, want %q in it", c.env, err, c.wrong)
		}
		if got.Sources.Shadow.Tolerance != c.tolerance {
			t.Errorf("%s: tolerance %+v, want %+v", c.env, got.Sources.Shadow.Tolerance, c.tolerance)
		}
	}
}

// TestShadowBesideWhatIsServed has a cluster agent serve Datadog's values with a
// backend in the shadow: equal, different, and then dead.
func TestShadowBesideWhatIsServed(t *testing.T) {
	c := startCluster(t)
	ours, theirs := newBackend(t), newBackend(t)
	ln := listen(t)
	c.register(t, ln)
	const query, plain, named = "avg:flask.request.rate{kube_namespace:test}", "avg:plain{*}.rollup(30)", "avg:moved{*}"
	theirs.set(func(b *backend) { b.values[query], b.values[plain] = 20, 7 })
	ours.set(func(b *backend) { b.values[query], b.values[plain], b.values[named] = 20, 9, 1 })
	r := c.start(t, "a", ln, map[string]string{
		"DD_EXTERNAL_METRICS_PROVIDER_ENDPOINT": ours.URL, "DD_EXTERNAL_METRICS_PROVIDER_USE_DATADOGMETRIC_CRD": "true",
		"KELPIE_SOURCE": "datadog", "KELPIE_SOURCE_DATADOG_ENDPOINT": theirs.URL, "KELPIE_SOURCE_DATADOG_API_KEY": "a", "KELPIE_SOURCE_DATADOG_APP_KEY": "b",
		"KELPIE_SHADOW_SOURCE": "kelpie",
	})
	moved := strings.Replace(metricText("moved", named, ""), "namespace: test", "namespace: test, annotations: {kelpie.dev/source: kelpie}", 1)
	c.apply(t, metrics, "datadogmetrics", metricText("web", query, ""))
	c.apply(t, metrics, "datadogmetrics", moved)
	for name, metric := range map[string]string{"web": "datadogmetric@test:web", "moved": "datadogmetric@test:moved", "plain": "plain"} {
		c.apply(t, hpas, "horizontalpodautoscalers", hpaText(name, metric, "{}"))
	}
	c.wantValue(t, 5*time.Second, "plain", "", "7")
	c.wantValue(t, 5*time.Second, "datadogmetric@test:moved", "", "1") // asked of the backend alone, and therefore not compared
	wantRows := func(want ...string) {
		t.Helper()
		eventually(t, 30*time.Second, func() string {
			var report shadow.Report
			if err := health.Fetch(t.Context(), r.health, "/shadow", &report); err != nil {
				return err.Error()
			}
			var got []string
			for _, row := range report.Rows {
				got = append(got, fmt.Sprintf("%s %s %s", row.Verdict, strings.Join(row.Metrics, ","), row.Query))
			}
			if strings.Join(got, "\n") != strings.Join(want, "\n") {
				return fmt.Sprintf("report has %q, want %q", got, want)
			}
			return ""
		})
	}
	wantRows("differ plain "+plain, "agree datadogmetric@test:web "+query)
	ours.set(func(b *backend) { b.status = http.StatusInternalServerError })
	wantRows("error plain "+plain, "error datadogmetric@test:web "+query) // the one that differed is still the worse
	theirs.set(func(b *backend) { b.values[query] = 30 })
	c.wantValue(t, 5*time.Second, "datadogmetric@test:web", "", "30")
	var s Status
	must(t, health.Fetch(t.Context(), r.health, "/status", &s))
	if s.Shadow == nil || s.Shadow.Queries != 2 || s.Shadow.Source.LastError == "" || s.Source.LastError != "" {
		t.Errorf("status: shadow %+v, main source %+v", s.Shadow, s.Source)
	}
	if n := c.counter(t, r, `kelpie_shadow_queries{verdict="error"}`); n != "2" {
		t.Errorf("%s queries counted as failing, want 2", n)
	}
}
