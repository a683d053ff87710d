package main

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"kelpie.dev/kelpie/clusteragent"
	"kelpie.dev/kelpie/clusteragent/shadow"
	"kelpie.dev/kelpie/clusteragent/source"
)

// printed is what the status command prints of a status.
func printed(t *testing.T, s clusteragent.Status, now time.Time) string {
	t.Helper()
	raw, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	if err := printStatus(&b, raw, 120, now); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestPrintStatus(t *testing.T) {
	now := time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)
	got := printed(t, clusteragent.Status{
		Replica: "pod-1", LeaderName: "pod-2", Serving: true, CertEnds: now.AddDate(1, 0, 0), Registration: "APIService points to service \"keda/x\"",
		Source: source.Status{URL: "http://backend:8080", LastSuccess: now.Add(-5 * time.Second), LastError: "HTTP 503", LastErrorAt: now.Add(-time.Minute), Queries: 2,
			Streaming: true, Period: 15, RateLimit: &source.RateLimit{Limit: 100, Remaining: 7, Least: 3, Period: 3600, Resets: now.Add(10 * time.Minute)}},
		OtherSources: []source.Status{{Name: source.Prometheus, URL: "http://prom:9090", Queries: 3, Period: 15,
			Endpoints: []source.EndpointStatus{{URL: "http://second", Status: "OK", Used: true, LastSuccess: now.Add(-3 * time.Second)}}}},
		Metrics: []clusteragent.Row{
			{Metric: "datadogmetric@web:bad", Query: "avg:x{", State: "SyntaxError", Source: "kelpie", Error: "SyntaxError: position 7", NextAttempt: now.Add(time.Hour), BackOff: true},
			{Metric: "nginx.requests", Query: "avg:nginx.requests{*}.rollup(30)", State: "Valid", Source: "kelpie", Value: "12.5", At: now.Add(-40 * time.Second), Age: 40,
				Valid: true, Pushed: true, References: []string{"web/a", "web/b"}},
		},
	}, now)
	want := `Replica:       pod-1
Leader:        pod-2
DatadogMetric: no
Serving:       yes
APIService:    APIService points to service "keda/x"
Certificate:   ends 2027-11-26, in 365d
Source:        http://backend:8080: up, 2 queries, values are pushed, and otherwise polled every 15s
               last success 5s ago
               last error 60s ago: HTTP 503
               rate limit: 7 of 100 requests left (of late at least 3), is reset in 10m
Source:        prometheus http://prom:9090: not asked yet, 3 queries, polled every 15s
               endpoint http://second: OK, used now; last success 3s ago, last failure never
Metrics:       1 of 2 are valid: 1 SyntaxError, 1 Valid

STATE        METRIC                 VALUE  AGE  NEXT          REFERENCES
SyntaxError  datadogmetric@web:bad  -      -    back-off 60m  -
Valid        nginx.requests         12.5   40s  pushed        web/a +1

datadogmetric@web:bad: SyntaxError: position 7
  query: avg:x{
`
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("status (-want +got):\n%s", diff)
	}
}

func TestStatusSaysWhatIsWrong(t *testing.T) {
	off := printed(t, clusteragent.Status{Replica: "p"}, time.Now())
	if strings.Contains(off, "Source:") || !strings.Contains(off, "Leader:        NONE") {
		t.Errorf("without external metrics:\n%s", off)
	}
	bad := printed(t, clusteragent.Status{Leader: true, Source: source.Status{URL: "u"}, Certificate: "the certificate in secret/a/b ends soon"}, time.Now())
	for _, want := range []string{"Leader:        this replica", "Certificate:   the certificate in secret/a/b ends soon", "APIService:    registered to this installation"} {
		if !strings.Contains(bad, want) {
			t.Errorf("status lacks %q:\n%s", want, bad)
		}
	}
}

func TestCommands(t *testing.T) {
	for _, args := range [][]string{{"run"}, {"start"}, {"status"}, {"health"}, {"shadow"}, {"version"}} {
		if c, _, err := command().Find(args); err != nil || c.RunE == nil {
			t.Errorf("command %v: %v", args, err)
		}
	}
	var out strings.Builder
	c := command()
	c.SetOut(&out)
	c.SetArgs([]string{"version"})
	if err := c.Execute(); err != nil || out.String() != "dev\n" {
		t.Errorf("version prints %q, %v", out.String(), err)
	}
}

func TestPrintShadow(t *testing.T) {
	at := time.Date(2026, 11, 26, 10, 0, 0, 0, time.UTC)
	value := func(v float64) shadow.Newest { return shadow.Newest{Value: &v, At: at} }
	r := shadow.Report{
		Summary: shadow.Summary{Main: source.Datadog, Shadow: source.Kelpie, Queries: 3, Verdicts: map[shadow.Outcome]int{shadow.Agree: 1, shadow.Differ: 1, shadow.Error: 1}},
		Since:   at, Period: 30, Tolerance: shadow.Tolerance{Relative: 0.05, Absolute: 0.001},
		Rows: []shadow.Row{
			{Query: "avg:odd{*}", Verdict: shadow.Error, Main: value(3), Shadow: shadow.Newest{Error: "QueryRejected: no such function"}, Outcomes: map[shadow.Outcome]uint64{shadow.Error: 7}},
			{Query: "avg:half{*}", Verdict: shadow.Differ, Main: value(100), Shadow: value(50), Metrics: []string{"half"}, Outcomes: map[shadow.Outcome]uint64{shadow.Agree: 1, shadow.Differ: 3},
				Outside: 0.75, Bias: -0.375, Last: &shadow.Comparison{Difference: -0.5}, Worst: &shadow.Comparison{At: at, Difference: -0.5}},
			{Query: "avg:same{*}", Verdict: shadow.Agree, Main: value(1), Shadow: value(1), Outcomes: map[shadow.Outcome]uint64{shadow.Agree: 9}, Last: &shadow.Comparison{}},
		},
	}
	var b strings.Builder
	if err := printShadow(&b, r); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"kelpie beside datadog: 1 of 3 queries agree, 1 differ, 1 error\n", "within 5% of the larger, or 0.001",
		"error    3     -       -           -       -        -       -                     7         -        avg:odd{*}",
		"differ   100   50      -50.0%      -37.5%  75.0%    -50.0%  2026-11-26T10:00:00Z  4         half     avg:half{*}",
		"agree    1     1       +0.0%       +0.0%   0.0%     -       -                     9         -        avg:same{*}",
		"\navg:odd{*}\n  kelpie: QueryRejected: no such function\n",
	} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("the report lacks %q:\n%s", want, b.String())
		}
	}
	got := printed(t, clusteragent.Status{Source: source.Status{URL: "u"}, Shadow: &clusteragent.ShadowStatus{Summary: r.Summary, Source: source.Status{Name: source.Kelpie, URL: "http://b:8080"}}}, at)
	if want := "Shadow:        kelpie beside datadog: 1 of 3 queries agree, 1 differ, 1 error\n               kelpie http://b:8080: not asked yet"; !strings.Contains(got, want) {
		t.Errorf("the status lacks %q:\n%s", want, got)
	}
	advised := printed(t, clusteragent.Status{Source: source.Status{URL: "u"}, Metrics: []clusteragent.Row{{Metric: "rps", State: "Valid", Valid: true, Advice: []string{"web/a: TotalWithValueTarget: take another"}}}}, at)
	if want := "Advice on rps, to web/a: TotalWithValueTarget: take another"; !strings.Contains(advised, want) {
		t.Errorf("the status lacks %q:\n%s", want, advised)
	}
}
