package main

import (
	"strings"
	"testing"
	"time"

	"kelpie.dev/kelpie/clusteragent"
	"kelpie.dev/kelpie/clusteragent/shadow"
	"kelpie.dev/kelpie/clusteragent/source"
)

func TestPrintStatus(t *testing.T) {
	now := time.Unix(100_000, 0)
	var b strings.Builder
	err := printStatus(&b, clusteragent.Status{
		Replica: "pod-1", Leader: true, Serving: true, CertEnds: time.Date(2027, 11, 26, 0, 0, 0, 0, time.UTC), Registration: "APIService points to service \"keda/x\"",
		Source: source.Status{URL: "http://backend:8080", LastSuccess: now.Add(-5 * time.Second), LastError: "HTTP 503", LastErrorAt: now.Add(-time.Minute), Queries: 2},
		OtherSources: []source.Status{{Name: source.Prometheus, URL: "http://prom:9090", Queries: 3, Period: 15,
			Endpoints: []source.EndpointStatus{{URL: "http://second", Status: "OK", Used: true, LastSuccess: now.Add(-3 * time.Second)}}}},
		Metrics: []clusteragent.Row{
			{Metric: "nginx.requests", Query: "avg:nginx.requests{*}.rollup(30)", Value: "12.5", At: now.Add(-40 * time.Second), Age: 40, Valid: true, References: []string{"web/a", "web/b"}, Advice: []string{"web/a: TotalWithValueTarget: take another"}},
			{Metric: "datadogmetric@web:bad", Query: "avg:x{", Error: "SyntaxError: position 7"},
		},
	}, now)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"Leader:        yes", "APIService:    APIService points to", "Certificate:   ends 2027-11-26", "last success: 5s ago", "last error:   1m0s ago: HTTP 503",
		"Source:        http://prom:9090 (prometheus)\n  queries:      3, polled every 15s\n  last success: never\n  endpoint:     http://second: OK, used now; last success: 3s ago, last failure: never",
		"Advice on nginx.requests, to web/a: TotalWithValueTarget: take another",
		"nginx.requests         12.5   40s  yes    web/a, web/b  avg:nginx.requests{*}.rollup(30)  -",
		"datadogmetric@web:bad  -      -    no     -             avg:x{                            SyntaxError: position 7",
	} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("status lacks %q:\n%s", want, b.String())
		}
	}
}

func TestStatusSaysWhatStandsInAndWhatIsWrongWithTheCertificate(t *testing.T) {
	var b strings.Builder
	err := printStatus(&b, clusteragent.Status{Certificate: "the certificate in secret/a/b ends soon", Metrics: []clusteragent.Row{
		{Metric: "datadogmetric@web:idle", Value: "0", Valid: true, StandsIn: true, Query: "avg:x{*}", Error: "NoData: no series"}}}, time.Now())
	for _, want := range []string{"Certificate:   the certificate in secret/a/b ends soon", "0 (stands in)", "NoData: no series"} {
		if err != nil || !strings.Contains(b.String(), want) {
			t.Errorf("status lacks %q: %v\n%s", want, err, b.String())
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
	b.Reset()
	err := printStatus(&b, clusteragent.Status{Shadow: &clusteragent.ShadowStatus{Summary: r.Summary, Source: source.Status{Name: source.Kelpie, URL: "http://b:8080"}}}, at)
	if want := "Shadow:        kelpie beside datadog: 1 of 3 queries agree, 1 differ, 1 error\nSource:        http://b:8080 (kelpie)"; err != nil || !strings.Contains(b.String(), want) {
		t.Errorf("the status lacks %q: %v\n%s", want, err, b.String())
	}
}
