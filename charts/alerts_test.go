package charts_test

import (
	"context"
	"log/slog"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/rulefmt"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/promql/promqltest"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"
)

const alertsFile = "kelpie/files/alerts.yaml"

// prometheusRule is the kind of monitoring.coreos.com/v1, as far as the chart
// writes it. Prometheus' own reader judges the groups.
type prometheusRule struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`
	Spec              struct {
		Groups []struct {
			Name  string           `json:"name"`
			Rules []map[string]any `json:"rules"`
		} `json:"groups"`
	} `json:"spec"`
}

// alerts reads rules as Prometheus reads its files, which parses expressions and
// templates.
func alerts(t *testing.T, content []byte) map[string]rulefmt.Rule {
	t.Helper()
	groups, errs := rulefmt.Parse(content, false, model.LegacyValidation, parser.NewParser(parser.Options{}), slog.New(slog.DiscardHandler))
	for _, err := range errs {
		t.Errorf("Prometheus refuses a rule: %v", err)
	}
	out := map[string]rulefmt.Rule{}
	for _, g := range groups.Groups {
		for _, r := range g.Rules {
			out[r.Alert] = r
		}
	}
	return out
}

func alertsOf(t *testing.T) map[string]rulefmt.Rule {
	t.Helper()
	content, err := os.ReadFile(alertsFile)
	if err != nil {
		t.Fatal(err)
	}
	return alerts(t, content)
}

// healthy are the series of an installation with two replicas that is well.
const healthy = `
	kelpie_external_metrics_serving{instance="a"} 1x60
	kelpie_external_metrics_serving{instance="b"} 1x60
	kelpie_external_metrics_apiservice_registered{instance="a"} 1x60
	kelpie_external_metrics_source_up{instance="a",source="kelpie"} 1x60
	kelpie_external_metrics_source_up{instance="b",source="kelpie"} 1x60
	kelpie_external_metrics_values{instance="a",source="kelpie",state="Valid"} 5x60
	kelpie_external_metrics_values{instance="a",source="kelpie",state="Aging"} 1x60
	kelpie_external_metrics_values{instance="a",source="kelpie",state="StandsIn"} 1x60
	kelpie_external_metrics_values{instance="a",source="kelpie",state="NotReferenced"} 2x60
	kelpie_external_metrics_oldest_age_seconds{instance="a",source="kelpie"} 30x60
	kelpie_external_metrics_requests_total{instance="a",code="200"} 0+4x60
	kelpie_external_metrics_requests_total{instance="a",code="503"} 7x60
	rate_limit_queries_remaining_min{instance="a",endpoint="/api/v1/query"} 900x60
	rate_limit_queries_limit{instance="a",endpoint="/api/v1/query"} 1600x60
	leader_election_is_leader{instance="a",is_leader="true"} 1x60
	leader_election_is_leader{instance="b",is_leader="false"} 1x60
	leader_election_is_leader{instance="datadog",is_leader="true"} 1x60
	kelpie_external_metrics_certificate_remaining_seconds{instance="a"} 5000000x60
	kelpie_external_metrics_certificate_problem{instance="a"} 0x60
`

// with returns healthy with the series that begin as lines do replaced by them;
// a line without values removes its series.
func with(lines ...string) string {
	out := healthy
	for _, l := range lines {
		name, values, _ := strings.Cut(l, " ")
		drop := regexp.MustCompile(`(?m)^\t` + regexp.QuoteMeta(name) + ` .*\n`)
		out = drop.ReplaceAllString(out, "")
		if values != "" {
			out += "\t" + l + "\n"
		}
	}
	return out
}

// fires evaluates a rule each minute and returns the labels with which it is
// firing after minutes, as Prometheus would: its expression held throughout For.
func fires(t *testing.T, r rulefmt.Rule, series string, minutes int) []string {
	t.Helper()
	storage := promqltest.LoadedStorage(t, "load 1m\n"+strings.TrimLeft(series, "\n"))
	defer func() { _ = storage.Close() }()
	engine := promqltest.NewTestEngine(t, false, 0, 100000)
	since := map[string]int{}
	for m := range minutes + 1 {
		q, err := engine.NewInstantQuery(context.Background(), storage, nil, r.Expr, time.Unix(int64(m)*60, 0)) //nolint:usetesting // the engine ends after the test's context
		if err != nil {
			t.Fatal(err)
		}
		res := q.Exec(t.Context())
		vector, err := res.Vector()
		if err != nil {
			t.Fatalf("%s: %v", r.Alert, err)
		}
		now := map[string]int{}
		for _, s := range vector {
			key := s.Metric.String()
			now[key] = m
			if began, ok := since[key]; ok {
				now[key] = began
			}
		}
		since = now
		q.Close()
	}
	var out []string
	for key, began := range since {
		if time.Duration(minutes-began)*time.Minute >= time.Duration(r.For) {
			out = append(out, key)
		}
	}
	slices.Sort(out)
	return out
}

func TestAlerts(t *testing.T) {
	t.Parallel()
	all := alertsOf(t)
	tested := map[string]bool{}
	for _, c := range []struct {
		alert   string
		series  string
		minutes int // at which it fires
		labels  string
	}{
		{"KelpieProviderNotServing", with(`kelpie_external_metrics_serving{instance="a"} 0x60`, `kelpie_external_metrics_serving{instance="b"} 0x60`), 5, "{}"},
		{"KelpieProviderNotServing", "\tup 1x60\n", 5, "{}"},
		{"KelpieAPIServiceNotRegistered", with(`kelpie_external_metrics_apiservice_registered{instance="a"} 0x60`), 5, "{}"},
		{"KelpieSourceUnavailable", with(`kelpie_external_metrics_source_up{instance="b",source="kelpie"} 1x10 0x50`), 13, `{source="kelpie"}`},
		{"KelpieExternalMetricWithoutValue", healthy + `	kelpie_external_metrics_values{instance="b",source="kelpie",state="Stale"} 0x5 2x50` + "\n", 16, `{source="kelpie", state="Stale"}`},
		{"KelpieExternalMetricWithoutValue", healthy + `	kelpie_external_metrics_values{instance="b",source="datadog",state="NoData"} 1x60` + "\n", 10, `{source="datadog", state="NoData"}`},
		{"KelpieExternalMetricOld", with(`kelpie_external_metrics_oldest_age_seconds{instance="a",source="kelpie"} 30+60x60`), 20, `{source="kelpie"}`},
		{"KelpieRequestsFail", with(`kelpie_external_metrics_requests_total{instance="a",code="503"} 0+1x60`), 11, "{}"},
		{"KelpieRateLimitNearlyExhausted", with(`rate_limit_queries_remaining_min{instance="a",endpoint="/api/v1/query"} 100x60`), 10, `{endpoint="/api/v1/query"}`},
		{"KelpieNoLeader", with(`leader_election_is_leader{instance="a",is_leader="true"}`), 5, "{}"},
		{"KelpieSeveralLeaders", with(`leader_election_is_leader{instance="b",is_leader="false"}`) + `	leader_election_is_leader{instance="b",is_leader="true"} 1x60` + "\n", 5, "{}"},
		{"KelpieCertificateEnds", with(`kelpie_external_metrics_certificate_problem{instance="a"} 1x80`), 60, "{}"},
		{"KelpieCertificateEnds", with(`kelpie_external_metrics_certificate_remaining_seconds{instance="a"} -5x80`), 60, "{}"},
	} {
		r, ok := all[c.alert]
		if !ok {
			t.Errorf("there is no alert %s", c.alert)
			continue
		}
		tested[c.alert] = true
		if got := fires(t, r, c.series, c.minutes); cmp.Diff([]string{c.labels}, got) != "" {
			t.Errorf("%s after %d min fires with %q, want %s", c.alert, c.minutes, got, c.labels)
		}
		if got := fires(t, r, c.series, c.minutes-1); len(got) > 0 {
			t.Errorf("%s fires a minute early, with %q", c.alert, got)
		}
		if got := fires(t, r, healthy, 60); len(got) > 0 {
			t.Errorf("%s fires with %q although all is well", c.alert, got)
		}
	}
	for name, r := range all {
		if !tested[name] {
			t.Errorf("alert %s has no case", name)
		}
		if r.Annotations["summary"] == "" || len(r.Annotations["description"]) < 100 || r.Labels["severity"] == "" {
			t.Errorf("alert %s lacks its summary, severity, or a description that says what to do", name)
		}
	}
}

// An alert on a metric that nobody exposes never fires.
func TestAlertsUseDocumentedMetrics(t *testing.T) {
	t.Parallel()
	known := exposed(t)
	for name, r := range alertsOf(t) {
		expr, err := parser.NewParser(parser.Options{}).ParseExpr(r.Expr)
		if err != nil {
			t.Fatal(err)
		}
		for _, selectors := range parser.ExtractSelectors(expr) {
			for _, m := range selectors {
				if m.Name == model.MetricNameLabel && !known[m.Value] {
					t.Errorf("alert %s reads %s, which docs/telemetry.md does not have", name, m.Value)
				}
			}
		}
	}
}

// exposed are the metrics of docs/telemetry.md, which the cluster agent's own
// tests hold to what it exposes.
func exposed(t *testing.T) map[string]bool {
	t.Helper()
	text, err := os.ReadFile("../docs/telemetry.md")
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]bool{}
	for _, m := range regexp.MustCompile("(?m)^\\| `([a-z_]+)` \\| (?:counter|gauge|histogram) \\|").FindAllStringSubmatch(string(text), -1) {
		out[m[1]] = true
	}
	return out
}

func TestPrometheusRule(t *testing.T) {
	t.Parallel()
	const on = `
clusterAgent:
  metricsProvider: {enabled: true}
  monitors: {prometheusRule: {enabled: true, labels: {release: prom}, for: {KelpieNoLeader: 1h}, disabled: [KelpieExternalMetricOld]}}
`
	if names := render(t, "--values", inline).names(); slices.ContainsFunc(names, func(n string) bool { return strings.HasPrefix(n, "PrometheusRule") }) {
		t.Errorf("a PrometheusRule is rendered though nobody asked: %v", names)
	}
	read := func(args ...string) (prometheusRule, map[string]rulefmt.Rule) {
		rule := into[prometheusRule](t, render(t, args...).one(t, "PrometheusRule", "datadog-cluster-agent"))
		content, err := yaml.Marshal(rule.Spec)
		if err != nil {
			t.Fatal(err)
		}
		return rule, alerts(t, content)
	}
	rule, got := read(values(t, on))
	if rule.APIVersion != "monitoring.coreos.com/v1" || rule.Labels["release"] != "prom" || rule.Namespace != "datadog" {
		t.Errorf("rule %+v", rule.ObjectMeta)
	}
	want := alertsOf(t)
	delete(want, "KelpieExternalMetricOld")
	leader := want["KelpieNoLeader"]
	leader.For = model.Duration(time.Hour)
	want["KelpieNoLeader"] = leader
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("alerts (-file +rendered):\n%s", diff)
	}
	_, got = read(values(t, on), "--set", "clusterAgent.metricsProvider.registerAPIService=false")
	if _, there := got["KelpieAPIServiceNotRegistered"]; there || len(got) != len(want)-1 {
		t.Errorf("without an APIService of ours the alert on it stays: %d alerts", len(got))
	}
}
