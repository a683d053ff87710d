package clusteragent

import (
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"k8s.io/client-go/util/cert"

	"kelpie.dev/kelpie/clusteragent/externalmetrics"
)

// conformance is what Datadog's cluster agent exposes of external metrics, and
// under which names the datadog_cluster_agent check publishes it, as its mapping
// says. A histogram is published as its count and its sum.
var conformance = []struct {
	name, kind, labels string
	mode               string // "" for both
	published          string
}{
	{"datadog_requests", "counter", "join_leader status", "", "datadog.requests"},
	{"external_metrics", "gauge", "join_leader valid", "inline", "external_metrics"},
	{"external_metrics_api_elapsed", "histogram", "handler in_error", "", "external_metrics.api_elapsed"},
	{"external_metrics_api_requests", "gauge", "handler in_error", "", "external_metrics.api_requests"},
	{"external_metrics_datadog_metrics", "gauge", "active join_leader name namespace valid", "CRD", "external_metrics.datadog_metrics"},
	{"external_metrics_delay_seconds", "gauge", "join_leader metric", "", "external_metrics.delay_seconds"},
	{"external_metrics_processed_value", "gauge", "join_leader metric", "", "external_metrics.processed_value"},
	{"external_metrics_retriever_elapsed", "histogram", "", "", ""},
	{"external_metrics_updated", "counter", "join_leader metric", "", "external_metrics.updated"},
	{"leader_election_is_leader", "gauge", "is_leader join_leader", "", ""}, // joined to the others as the tag is_leader
	{"rate_limit_queries_limit", "gauge", "endpoint join_leader", "", "datadog.rate_limit_queries.limit"},
	{"rate_limit_queries_period", "gauge", "endpoint join_leader", "", "datadog.rate_limit_queries.period"},
	{"rate_limit_queries_remaining", "gauge", "endpoint join_leader", "", "datadog.rate_limit_queries.remaining"},
	{"rate_limit_queries_remaining_min", "gauge", "endpoint join_leader", "", "datadog.rate_limit_queries.remaining_min"},
	{"rate_limit_queries_reset", "gauge", "endpoint join_leader", "", "datadog.rate_limit_queries.reset"},

	// Of the process, which the check's mapping has as well.
	{"go_goroutines", "gauge", "", "", "go.goroutines"},
	{"go_memstats_alloc_bytes", "gauge", "", "", "go.memstats.alloc_bytes"},
	{"go_threads", "gauge", "", "", "go.threads"},
}

// buckets of the histograms above, which dashboards may name.
var conformanceBuckets = map[string][]float64{
	"external_metrics_api_elapsed":       prometheus.DefBuckets,
	"external_metrics_retriever_elapsed": {0.5, 1, 5, 10, 20, 30, 60, 120, 300},
}

// scrape reads a replica's exposition as Prometheus and the check do.
func (c *cluster) scrape(t *testing.T, r *replica) map[string]*dto.MetricFamily {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+r.health+"/metrics", nil)
	must(t, err)
	resp, err := http.DefaultClient.Do(req)
	must(t, err)
	defer func() { _ = resp.Body.Close() }()
	p := expfmt.NewTextParser(model.LegacyValidation)
	families, err := p.TextToMetricFamilies(resp.Body)
	must(t, err)
	return families
}

// conforms holds a running cluster agent's exposition to Datadog's, and to what
// docs/telemetry.md says of it.
func (c *cluster) conforms(t *testing.T, b *backend, r *replica, mode string) {
	b.set(func(b *backend) { b.limit = true })
	var families map[string]*dto.MetricFamily
	eventually(t, 10e9, func() string { // an answer with a limit, and a cycle's end
		families = c.scrape(t, r)
		if families["rate_limit_queries_limit"] == nil || families["external_metrics_retriever_elapsed"].GetMetric()[0].GetHistogram().GetSampleCount() == 0 {
			return "no rate limit seen, or no cycle"
		}
		return ""
	})
	for _, w := range conformance {
		f := families[w.name]
		if w.mode != "" && w.mode != mode {
			if f != nil {
				t.Errorf("%s is exposed, and belongs to the other mode", w.name)
			}
			continue
		}
		if f == nil {
			t.Errorf("%s is not exposed", w.name)
			continue
		}
		if got := strings.ToLower(f.GetType().String()); got != w.kind {
			t.Errorf("%s is a %s, want a %s", w.name, got, w.kind)
		}
		for _, m := range f.GetMetric() {
			if got := strings.Join(labelNames(m), " "); got != w.labels {
				t.Errorf("%s has labels %q, want %q", w.name, got, w.labels)
			}
		}
		if want, ok := conformanceBuckets[w.name]; ok {
			var got []float64
			for _, bucket := range f.GetMetric()[0].GetHistogram().GetBucket() {
				got = append(got, bucket.GetUpperBound())
			}
			if diff := cmp.Diff(want, got[:len(got)-1]); diff != "" { // the last is +Inf
				t.Errorf("%s: buckets (-want +got):\n%s", w.name, diff)
			}
		}
	}
	documented := documentedMetrics(t)
	for name, f := range families {
		if d, ok := documented[name]; ok && d.kind != strings.ToLower(f.GetType().String()) {
			t.Errorf("docs/telemetry.md has %s as a %s, it is a %s", name, d.kind, strings.ToLower(f.GetType().String()))
		} else if !ok && !ofProcess(name) {
			t.Errorf("%s is exposed, and docs/telemetry.md does not have it", name)
		}
	}
	if got := families["rate_limit_queries_remaining"].GetMetric()[0].GetGauge().GetValue(); got != 999000 {
		t.Errorf("rate_limit_queries_remaining = %v, want 999000", got)
	}
	c.counts(t, r, mode)
}

// counts compares the counts by state to the status, which is made of the same.
func (c *cluster) counts(t *testing.T, r *replica, mode string) {
	t.Helper()
	if got := c.counter(t, r, `kelpie_external_metrics_values{source="kelpie",state="Valid"}`); got == "0" || got == "absent" {
		t.Errorf("valid values counted = %s, want some", got)
	}
	if mode == "inline" {
		for series, want := range map[string]string{`external_metrics{join_leader="true",valid="true"}`: "1", `external_metrics{join_leader="true",valid="false"}`: "0"} {
			if got := c.counter(t, r, series); got != want {
				t.Errorf("%s = %s, want %s", series, got, want)
			}
		}
		return
	}
	for state, want := range map[string]string{"SyntaxError": "1", "NoData": "1", "StandsIn": "1", "InvalidSpec": "1", "InvalidSelector": "1"} {
		series := fmt.Sprintf(`kelpie_external_metrics_values{source="kelpie",state="%s"}`, state)
		if got := c.counter(t, r, series); got != want {
			t.Errorf("%s = %s, want %s", series, got, want)
		}
	}
	for _, series := range []string{`kelpie_external_metrics_source_up{source="kelpie"}`, "kelpie_external_metrics_serving"} {
		if got := c.counter(t, r, series); got != "1" {
			t.Errorf("%s = %s, want 1", series, got)
		}
	}
}

func labelNames(m *dto.Metric) []string {
	var out []string
	for _, l := range m.GetLabel() {
		out = append(out, l.GetName())
	}
	slices.Sort(out)
	return out
}

// ofProcess are the metrics that the Prometheus client has of every Go process.
func ofProcess(name string) bool {
	return strings.HasPrefix(name, "go_") || strings.HasPrefix(name, "process_") || strings.HasPrefix(name, "promhttp_")
}

// documentedMetrics reads the tables of docs/telemetry.md.
func documentedMetrics(t *testing.T) map[string]struct{ kind, labels string } {
	t.Helper()
	text, err := os.ReadFile("../docs/telemetry.md")
	must(t, err)
	row := regexp.MustCompile("(?m)^\\| `([a-z_]+)` \\| (counter|gauge|histogram) \\| ([^|]*) \\| ([^|]+) \\| ([^|]+) \\|$")
	out := map[string]struct{ kind, labels string }{}
	for _, m := range row.FindAllStringSubmatch(string(text), -1) {
		labels := strings.Fields(strings.NewReplacer("`", "", ",", " ", "–", "").Replace(m[3]))
		slices.Sort(labels)
		out[m[1]] = struct{ kind, labels string }{m[2], strings.Join(labels, " ")}
	}
	return out
}

// registrations is a Registerer that keeps what is described to it.
type registrations map[string]string // name to labels

var described = regexp.MustCompile(`fqName: "([^"]*)".*constLabels: \{([^}]*)\}, variableLabels: \{([^}]*)\}`)

func (r registrations) Register(c prometheus.Collector) error {
	ch := make(chan *prometheus.Desc, 100)
	c.Describe(ch)
	close(ch)
	for d := range ch {
		m := described.FindStringSubmatch(d.String())
		if m == nil {
			return fmt.Errorf("cannot read %s", d)
		}
		labels := strings.Split(m[3], ",")
		for pair := range strings.SplitSeq(m[2], ",") {
			name, _, _ := strings.Cut(pair, "=")
			labels = append(labels, name)
		}
		labels = slices.DeleteFunc(labels, func(l string) bool { return l == "" })
		slices.Sort(labels)
		r[m[1]] = strings.Join(labels, " ")
	}
	return nil
}

func (r registrations) MustRegister(cs ...prometheus.Collector) {
	for _, c := range cs {
		if err := r.Register(c); err != nil {
			panic(err)
		}
	}
}

func (r registrations) Unregister(prometheus.Collector) bool { return false }

// Everything that any part registers, with all parts on, is in the document with
// its labels, and the document has nothing else. Types are compared to a running
// cluster agent's; a Desc does not know its own.
func TestTelemetryIsDocumented(t *testing.T) {
	kubeconfig := filepath.Join(t.TempDir(), "kubeconfig")
	must(t, os.WriteFile(kubeconfig, []byte(`{apiVersion: v1, kind: Config, current-context: c,
clusters: [{name: c, cluster: {server: "https://127.0.0.1:1"}}], contexts: [{name: c, context: {cluster: c, user: u}}], users: [{name: u, user: {token: t}}]}`), 0o600))
	crt, _, err := cert.GenerateSelfSignedCertKey("keda", nil, nil)
	must(t, err)
	authority := filepath.Join(t.TempDir(), "ca.crt")
	must(t, os.WriteFile(authority, crt, 0o600))
	got := registrations{}
	for _, crd := range []string{"true", "false"} {
		cfg, err := fromMap(map[string]string{
			"DD_EXTERNAL_METRICS_PROVIDER_ENABLED": "true", "DD_API_KEY": "api", "DD_APP_KEY": "app", "DD_POD_NAMESPACE": "datadog", "DD_POD_NAME": "p",
			"DD_EXTERNAL_METRICS_PROVIDER_ENDPOINT": "http://b.ns.svc:8080", "KELPIE_PROMETHEUS_URL": "http://prometheus:9090",
			"DD_EXTERNAL_METRICS_PROVIDER_USE_DATADOGMETRIC_CRD": crd, "DD_KUBE_STATE_METRICS_CORE_ENABLED": "true", "DD_DD_URL": "http://b.ns.svc:8080",
			"DD_CLUSTER_AGENT_AUTH_TOKEN": strings.Repeat("t", 40), "KELPIE_KEDA_URL": "https://keda:443", "KELPIE_KEDA_CA_FILE": authority,
		})
		must(t, err)
		cfg.Kubeconfig = kubeconfig
		a := &agent{cfg: cfg, proc: Process{Log: slog.New(slog.DiscardHandler)}, reg: got}
		must(t, a.build())
		(&externalmetrics.Provider{}).Instrument(got, a.proc.Log)
	}
	want := map[string]string{}
	for name, d := range documentedMetrics(t) {
		want[name] = d.labels
	}
	if diff := cmp.Diff(want, map[string]string(got)); diff != "" {
		t.Errorf("docs/telemetry.md and what is registered differ (-document +registered):\n%s", diff)
	}
	for _, w := range conformance {
		if labels, ok := want[w.name]; !ok && !ofProcess(w.name) || ok && labels != w.labels {
			t.Errorf("docs/telemetry.md has %s with labels %q, want %q", w.name, labels, w.labels)
		}
	}
	if len(want) < len(conformance) {
		t.Errorf("the document has %d metrics: %v", len(want), slices.Sorted(maps.Keys(want)))
	}
}

// What the check publishes stands in the document, which the monitors are held to.
func TestPublishedNames(t *testing.T) {
	text, err := os.ReadFile("../docs/telemetry.md")
	must(t, err)
	got := map[string]string{}
	for _, m := range regexp.MustCompile("(?m)^\\| `([a-z_]+)` \\| `datadog\\.cluster_agent\\.([a-z_.]+)`").FindAllStringSubmatch(string(text), -1) {
		got[m[1]] = m[2]
	}
	want := map[string]string{}
	for _, w := range conformance {
		if w.published != "" {
			want[w.name] = w.published
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("published names (-conformance +document):\n%s", diff)
	}
}
