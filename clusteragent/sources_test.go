package clusteragent

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"kelpie.dev/kelpie/clusteragent/source"
)

func TestConfigOfSources(t *testing.T) {
	const endpoint = "DD_EXTERNAL_METRICS_PROVIDER_ENDPOINT"
	for _, c := range []struct {
		name, env string // "NAME=value NAME=value"
		main      source.Name
		apis      string // name@endpoint of each
		wrong     string
	}{
		{"nothing said", "", "datadog", "datadog@https://api.datadoghq.com", ""},
		{"a backend", endpoint + "=http://b:8080", "kelpie", "kelpie@http://b:8080", ""},
		{"Datadog beside", endpoint + "=http://b:8080 DD_SITE=datadoghq.eu KELPIE_SOURCE_DATADOG_API_KEY=a KELPIE_SOURCE_DATADOG_APP_KEY=b", "kelpie",
			"kelpie@http://b:8080 datadog@https://api.datadoghq.eu", ""},
		{"Datadog first", endpoint + "=http://b:8080 KELPIE_SOURCE=datadog KELPIE_SOURCE_DATADOG_API_KEY=a KELPIE_SOURCE_DATADOG_APP_KEY=b", "datadog",
			"kelpie@http://b:8080 datadog@https://api.datadoghq.com", ""},
		{"a proxy to Datadog", endpoint + "=http://proxy KELPIE_SOURCE=datadog", "datadog", "datadog@http://proxy", ""},
		{"a backend beside", "KELPIE_SOURCE_KELPIE_ENDPOINT=http://b KELPIE_SOURCE_KELPIE_API_KEY=a KELPIE_SOURCE_KELPIE_APP_KEY=b", "datadog",
			"datadog@https://api.datadoghq.com kelpie@http://b", ""},
		{"half of it", "KELPIE_SOURCE_KELPIE_API_KEY=secret-thing", "datadog", "datadog@https://api.datadoghq.com kelpie@", "KELPIE_SOURCE_KELPIE_APP_KEY is not set"},
		{"Prometheus beside", "KELPIE_PROMETHEUS_URL=http://p:9090", "datadog", "datadog@https://api.datadoghq.com", ""},
		{"Prometheus alone", "KELPIE_PROMETHEUS_URL=http://p:9090 KELPIE_SOURCE=prometheus", "prometheus", "", ""},
		{"Prometheus nowhere", "KELPIE_SOURCE=prometheus", "prometheus", "", "KELPIE_PROMETHEUS_URL is not set"},
		{"another point", "KELPIE_POINT=median", "datadog", "datadog@https://api.datadoghq.com", `KELPIE_POINT is "median": write penultimate or latest`},
		{"another", "KELPIE_SOURCE=graphite", "datadog", "datadog@https://api.datadoghq.com", `KELPIE_SOURCE is "graphite": write kelpie, datadog or prometheus`},
		{"two ways in", "KELPIE_PROMETHEUS_URL=http://p KELPIE_PROMETHEUS_BEARER_TOKEN=secret-thing KELPIE_PROMETHEUS_USERNAME=u", "datadog",
			"datadog@https://api.datadoghq.com", "give one of"},
		{"too often", "KELPIE_PROMETHEUS_INTERVAL=0.1", "datadog", "datadog@https://api.datadoghq.com", "KELPIE_PROMETHEUS_INTERVAL"},
	} {
		env := map[string]string{"DD_POD_NAME": "p"}
		for pair := range strings.FieldsSeq(c.env) {
			name, value, _ := strings.Cut(pair, "=")
			env[name] = value
		}
		got, err := fromMap(env)
		var apis []string
		for _, a := range got.Sources.APIs {
			apis = append(apis, fmt.Sprintf("%s@%s", a.Name, a.Endpoint))
		}
		if got.Sources.Main != c.main || strings.Join(apis, " ") != c.apis {
			t.Errorf("%s: main %s of %q, want %s of %q", c.name, got.Sources.Main, apis, c.main, c.apis)
		}
		if (err == nil) != (c.wrong == "") || err != nil && (!strings.Contains(err.Error(), c.wrong) || strings.Contains(err.Error(), "secret-thing")) {
			t.Errorf("%s: error %v, want %q in it", c.name, err, c.wrong)
		}
	}
	if _, err := fromMap(map[string]string{"DD_POD_NAME": "p", "DD_EXTERNAL_METRICS_PROVIDER_ENABLED": "true",
		"KELPIE_SOURCE": "prometheus", "KELPIE_PROMETHEUS_URL": "http://p:9090"}); err != nil {
		t.Errorf("Prometheus alone needs no keys of Datadog: %v", err)
	}
}

func TestConfigOfFallbacks(t *testing.T) {
	const name = "DD_EXTERNAL_METRICS_PROVIDER_ENDPOINTS"
	c, err := fromMap(map[string]string{"DD_POD_NAME": "p", name: `[{"site":"datadoghq.eu","api_key":"a","app_key":"b"},{"url":"http://proxy","api_key":"c","app_key":"d"}]`})
	if f := c.Sources.APIs[0].Fallbacks; err != nil || len(f) != 2 || f[0].Endpoint != "https://api.datadoghq.eu" || f[1].Endpoint != "http://proxy" || f[1].AppKey != "d" {
		t.Errorf("fallbacks %+v, %v", f, err)
	}
	for text, want := range map[string]string{
		`[{"url":"http://x","api_key":"secret-thing"}]`: "entry 1 lacks url or site, api_key, or app_key",
		`{"secret-thing"`: "expected a JSON list",
	} {
		if _, err := fromMap(map[string]string{"DD_POD_NAME": "p", name: text}); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "secret-thing") {
			t.Errorf("%s: %v, want %q and no value", text, err, want)
		}
	}
}

// TestSourcePerMetric serves metrics of three sources side by side.
func TestSourcePerMetric(t *testing.T) {
	c := startCluster(t)
	ours, theirs := newBackend(t), newBackend(t)
	prom := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = fmt.Fprintf(w, `{"status":"success","data":{"resultType":"vector","result":[{"metric":{},"value":[%d,"30"]}]}}`, time.Now().Unix())
	}))
	t.Cleanup(prom.Close)
	ln := listen(t)
	c.register(t, ln)
	const query = "avg:flask.request.rate{kube_namespace:test}"
	ours.set(func(b *backend) { b.values[query] = 10 })
	theirs.set(func(b *backend) { b.values[query] = 20 })
	c.start(t, "a", ln, map[string]string{
		"DD_EXTERNAL_METRICS_PROVIDER_ENDPOINT": ours.URL, "DD_EXTERNAL_METRICS_PROVIDER_USE_DATADOGMETRIC_CRD": "true",
		"KELPIE_SOURCE_DATADOG_ENDPOINT": theirs.URL, "KELPIE_SOURCE_DATADOG_API_KEY": "a", "KELPIE_SOURCE_DATADOG_APP_KEY": "b",
		"KELPIE_PROMETHEUS_URL": prom.URL,
	})
	for name, m := range map[string]struct{ source, query, want string }{
		"own": {"", query, "10"}, "theirs": {"datadog", query, "20"}, "promql": {"prometheus", `sum by () (rate(http_requests_total{job="web"}[1m]))`, "30"},
	} {
		text := strings.Replace(metricText(name, m.query, ""), "namespace: test", fmt.Sprintf("namespace: test, annotations: {kelpie.dev/source: %q}", m.source), 1)
		c.apply(t, metrics, "datadogmetrics", text)
		c.apply(t, hpas, "horizontalpodautoscalers", hpaText(name, "datadogmetric@test:"+name, "{}"))
		c.wantValue(t, 5*time.Second, "datadogmetric@test:"+name, "", m.want)
		c.wantConditions(t, name, "Active=True/Referenced", "Valid=True/ValueAvailable", "Updated=True/PointReceived", "Error=False/NoError")
	}
	text := strings.Replace(metricText("odd", query, ""), "namespace: test", "namespace: test, annotations: {kelpie.dev/source: graphite}", 1)
	c.apply(t, metrics, "datadogmetrics", text)
	c.apply(t, hpas, "horizontalpodautoscalers", hpaText("odd", "datadogmetric@test:odd", "{}"))
	c.wantError(t, "datadogmetric@test:odd", "", 422, "InvalidSpec", `kelpie.dev/source is "graphite": write kelpie, datadog or prometheus`)
}
