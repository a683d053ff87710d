package served

import (
	"fmt"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
)

var now = time.Date(2026, 11, 26, 14, 0, 0, 0, time.UTC)

func TestTable(t *testing.T) {
	rows := []Metric{
		{Metric: "datadogmetric@web:bad", Query: "avg:x{", State: "SyntaxError", Source: "kelpie", NextAttempt: now.Add(29 * time.Minute), BackOff: true,
			Error: "SyntaxError: position 7", References: []string{"web/a", "web/b", "web/c"}},
		{Metric: "queue.lag", Query: "max:queue.lag{*}", State: "Aging", Source: "datadog", Value: "3", At: now.Add(-100 * time.Second), Valid: true,
			NextAttempt: now.Add(12 * time.Second), Warning: "Unauthorized: refused", References: []string{"web/d"}},
		{Metric: "nginx.requests", Query: "avg:nginx.requests{*}", State: "Valid", Source: "kelpie", Value: "12.5", At: now.Add(-3 * time.Hour), Valid: true, Pushed: true},
		{Metric: "old", Error: "NoData: no series"}, // of a cluster agent that tells no state
	}
	var b strings.Builder
	table := Table{Rows: rows, Now: now, Width: 120}
	table.Lines(&b)
	table.Words(&b)
	want := `STATE        METRIC                 VALUE  AGE   NEXT          SOURCE   REFERENCES
SyntaxError  datadogmetric@web:bad  -      -     back-off 29m  kelpie   web/a +2
Aging        queue.lag              3      100s  12s           datadog  web/d
Valid        nginx.requests         12.5   3h    pushed        kelpie   -
NoData       old                    -      -     -             -        -

datadogmetric@web:bad: SyntaxError: position 7
  query: avg:x{
  references: web/a, web/b, web/c
  find the mend: kelpie doctor hpa/a -n web

queue.lag: Unauthorized: refused
  query: max:queue.lag{*}
  find the mend: kelpie doctor hpa/d -n web

old: NoData: no series
`
	if diff := cmp.Diff(want, b.String()); diff != "" {
		t.Errorf("table (-want +got):\n%s", diff)
	}
	b.Reset()
	Table{Rows: rows[:1], Now: now}.Lines(&b)
	want = `STATE        METRIC                 VALUE  AGE  NEXT          REFERENCES         QUERY
SyntaxError  datadogmetric@web:bad  -      -    back-off 29m  web/a,web/b,web/c  avg:x{
`
	if diff := cmp.Diff(want, b.String()); diff != "" {
		t.Errorf("wide, of one source (-want +got):\n%s", diff)
	}
	if got, want := Summary(rows), "2 of 4 are valid: 1 Aging, 1 NoData, 1 SyntaxError, 1 Valid"; got != want {
		t.Errorf("summary %q, want %q", got, want)
	}
	if got := Summary(rows[2:3]); got != "1 of 1 are valid" {
		t.Errorf("summary of a healthy one %q", got)
	}
}

// However long names are, lines keep to their width, and names to their ends.
func TestLinesFit(t *testing.T) {
	long := Metric{Metric: "datadogmetric@" + strings.Repeat("namespace-", 6) + ":checkout-latency-p95", State: "SourceNotConfigured", Source: "prometheus",
		Value: "1.23457e+06", At: now.Add(-time.Minute), NextAttempt: now.Add(29 * time.Minute), BackOff: true,
		References: []string{strings.Repeat("n", 63) + "/" + strings.Repeat("h", 63), "a/b"}}
	for _, width := range []int{leastWidth, 100, mostWidth} {
		var b strings.Builder
		Table{Rows: []Metric{long, {Metric: "m", State: "Valid", Source: "kelpie"}}, Now: now, Width: width}.Lines(&b)
		for line := range strings.Lines(b.String()) {
			line = strings.TrimSuffix(line, "\n")
			if n := utf8.RuneCountInString(line); n > max(width, 105) { // the fixed columns have their own least
				t.Errorf("width %d: a line of %d: %s", width, n, line)
			}
		}
		if width == mostWidth && (!strings.Contains(b.String(), "datadogmetric@") || !strings.Contains(b.String(), "latency-p95")) {
			t.Errorf("width %d: the name lost its beginning or its end:\n%s", width, b.String())
		}
	}
}

func TestShort(t *testing.T) {
	for want, d := range map[string]time.Duration{
		"0s": -time.Second, "119s": 119 * time.Second, "2m": 2 * time.Minute, "119m": 119 * time.Minute, "2h": 2 * time.Hour, "47h": 47 * time.Hour, "2d": 50 * time.Hour,
	} {
		if got := short(d); got != want {
			t.Errorf("short(%s) = %s, want %s", d, got, want)
		}
	}
}

func TestSourceLines(t *testing.T) {
	for _, c := range []struct {
		source Source
		want   []string
	}{
		{Source{URL: "u", Period: 30}, []string{"u: not asked yet, 0 queries, polled every 30s"}},
		{Source{Name: "kelpie", URL: "u", LastSuccess: now.Add(-5 * time.Second), Queries: 2, Streaming: true, Period: 15},
			[]string{"kelpie u: up, 2 queries, values are pushed, and otherwise polled every 15s", "last success 5s ago"}},
		{Source{URL: "u", Period: 30, LastSuccess: now.Add(-time.Hour), LastError: "HTTP 503", LastErrorAt: now.Add(-time.Second), StreamError: "cut",
			RateLimit: &RateLimit{Limit: 1600, Remaining: 8, Least: 3, Resets: now.Add(10 * time.Minute)}},
			[]string{"u: FAILING, 0 queries, polled every 30s, as nothing is pushed: cut", "last success 60m ago", "last error 1s ago: HTTP 503",
				"rate limit: 8 of 1600 requests left (of late at least 3), is reset in 10m"}},
		{Source{URL: "u", Period: 30, PausedUntil: now.Add(time.Minute), Endpoints: []Endpoint{{URL: "http://second", Status: "OK", Used: true, LastSuccess: now.Add(-3 * time.Second)}}},
			[]string{"u: PAUSED for 60s by its own wish, 0 queries, polled every 30s", "endpoint http://second: OK, used now; last success 3s ago, last failure never"}},
	} {
		if diff := cmp.Diff(c.want, c.source.Lines(now)); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	}
}

func TestCertificate(t *testing.T) {
	for want, got := range map[string]string{
		"":                             Certificate("", time.Time{}, now),
		"ends 2026-12-06, in 10d":      Certificate("", now.Add(240*time.Hour), now),
		"bad; ends 2026-11-26, in 60m": Certificate("bad", now.Add(time.Hour), now),
	} {
		if fmt.Sprint(got) != want {
			t.Errorf("certificate %q, want %q", got, want)
		}
	}
}
