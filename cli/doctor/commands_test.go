package doctor_test

import (
	"bytes"
	"encoding/json"
	"regexp"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"

	"kelpie.dev/kelpie/cli"
	"kelpie.dev/kelpie/cli/release"
	"kelpie.dev/kelpie/cli/served"
)

// kelpie runs the command line against the lab's cluster.
func (l *lab) kelpie(t *testing.T, args ...string) (code int, out, errs string) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	code = cli.Main(t.Context(), append(args, "--kubeconfig", l.config), cli.Options{Version: "v1", Out: &stdout, Err: &stderr})
	return code, stdout.String(), stderr.String()
}

// testCommands reads what a person reads.
func testCommands(t *testing.T, l *lab) {
	l.set(t, func() {
		l.backend = `{"points_accepted_per_second":12.5,"store":{"series":7,"metric_names":2},"last_errors":[{"at":"2026-08-20T10:00:00Z","message":"write slow","attributes":{"error":"disk"}}]}`
		l.clusterAgent = release.ClusterAgentStatus{Replica: "datadog-cluster-agent-y1", Leader: true, Source: served.Source{URL: "http://datadog-agent-backend", Period: 30},
			CertEnds: time.Date(2126, 1, 1, 0, 0, 0, 0, time.UTC),
			Metrics: []served.Metric{
				{Metric: "flask.request.rate", Value: "4.5", At: time.Now(), Valid: true, References: []string{"test/inline"}},
				{Metric: "shop.orders", Error: "NoData: no data", References: []string{"test/other"}},
			}}
	})
	for _, c := range []struct {
		name string
		args []string
		code int
		want []string // regular expressions, each of which a line matches
	}{
		{"status", []string{"status"}, 0, []string{
			`^release        datadog-agent in namespace datadog$`,
			`^agents         1 of 1 ready \(datadog-agent\)$`,
			`^backend        1 of 1 ready \(datadog-agent-backend\), 7 series of 2 metrics, 12.5 points/s$`,
			`last error: 2026-08-20T10:00:00Z: write slow: disk$`,
			`^cluster agent  1 of 1 ready \(datadog-cluster-agent\), leader datadog-cluster-agent-y1$`,
			`^APIService     available$`,
			`^source         http://datadog-agent-backend: not asked yet, 0 queries, polled every 30s$`,
			`^certificate    ends 2126-01-01, in \d+d$`,
			`^metrics        1 of 2 are valid: 1 NoData, 1 Valid$`,
			`^STATE   METRIC              VALUE  AGE  NEXT  REFERENCES$`,
			`^Valid   flask.request.rate  4.5    \ds   -     test/inline$`,
			`^NoData  shop.orders         -      -    -     test/other$`,
			`^shop.orders: NoData: no data$`,
			`find the mend: kelpie doctor hpa/other -n test$`,
		}},
		{"doctor", []string{"doctor", "hpa/inline", "-n", "test"}, 0, []string{`^ok  cluster .*Kubernetes`, `^ok  store +each scope matches`, `^no broken link$`}},
		{"query", []string{"query", "avg:flask.request.rate{kube_deployment:other-app}", "--from", "5m"}, 0, []string{`^last: 4.5, its bucket began \d+s ago$`}},
		{"doctor of a wrong name", []string{"doctor", "hpa/inlin", "-n", "test"}, 1, []string{
			`^broken  HPA +there is no HPA inlin in namespace test$`, `^broken: HPA \(check hpa-exists\)$`, `^mend:   did you mean hpa/inline\?$`, `^The \d+ checks behind it were not run.$`}},
		{"elsewhere", []string{"doctor", "--kelpie-namespace", "test"}, 1, []string{`no Kelpie cluster agent in namespace test$`, `^mend:   install the chart`}},
	} {
		code, out, errs := l.kelpie(t, c.args...)
		if code != c.code || errs != "" {
			t.Errorf("%s: exit code %d, want %d; stderr %q", c.name, code, c.code, errs)
		}
		for _, want := range c.want {
			if !regexp.MustCompile("(?m)" + want).MatchString(out) {
				t.Errorf("%s: no line matches %s in\n%s", c.name, want, out)
			}
		}
	}
	testStatusWithoutClusterAgent(t, l)
}

// testStatusWithoutClusterAgent asks when the cluster agent cannot be asked: the
// metrics are then those that autoscalers name, as the API serves them.
func testStatusWithoutClusterAgent(t *testing.T, l *lab) {
	notReady("datadog", "datadog-cluster-agent-y1")(t, l)
	edit(t, l, &appsv1.Deployment{}, "datadog", "datadog-cluster-agent", func(d *appsv1.Deployment) { d.Status.ReadyReplicas = 0 })
	code, out, errs := l.kelpie(t, "status", "-o", "json")
	if code != 0 || errs != "" {
		t.Fatalf("exit code %d, stderr %q", code, errs)
	}
	var got struct {
		ClusterAgent struct {
			Ready, Desired int
			Error          string
		} `json:"cluster_agent"`
		Metrics []struct {
			Name, Value string
			Valid       bool
			References  []string
		}
	}
	if err := json.Unmarshal([]byte(out), &got); err != nil {
		t.Fatal(err)
	}
	if got.ClusterAgent.Ready != 0 || got.ClusterAgent.Desired != 1 || got.ClusterAgent.Error != "no pod is ready" {
		t.Errorf("cluster agent %+v", got.ClusterAgent)
	}
	if len(got.Metrics) != 2 || got.Metrics[1].Name != "flask.request.rate" || got.Metrics[1].Value != "4500m" || !got.Metrics[1].Valid || strings.Join(got.Metrics[1].References, " ") != "test/inline" {
		t.Errorf("metrics %+v", got.Metrics)
	}
}
