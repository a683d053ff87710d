package charts_test

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"kelpie.dev/kelpie/query"
)

// monitor is the body of Datadog's POST /api/v1/monitor, as far as ours go.
type monitor struct {
	Name     string   `json:"name"`
	Type     string   `json:"type"`
	Query    string   `json:"query"`
	Message  string   `json:"message"`
	Tags     []string `json:"tags"`
	Priority int      `json:"priority"`
	Options  struct {
		Thresholds struct {
			Critical *float64 `json:"critical"`
			Warning  *float64 `json:"warning"`
		} `json:"thresholds"`
		IncludeTags       bool `json:"include_tags"`
		RequireFullWindow bool `json:"require_full_window"`
		NotifyAudit       bool `json:"notify_audit"`
		NewGroupDelay     int  `json:"new_group_delay"`
		RenotifyInterval  int  `json:"renotify_interval"`
		NotifyNoData      bool `json:"notify_no_data"`
		NoDataTimeframe   int  `json:"no_data_timeframe"`
	} `json:"options"`
}

func monitors(t *testing.T) map[string]monitor {
	t.Helper()
	files, err := filepath.Glob("kelpie/monitors/*.json")
	if err != nil || len(files) == 0 {
		t.Fatalf("monitors: %v, %v", files, err)
	}
	out := map[string]monitor{}
	for _, f := range files {
		raw, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		dec := json.NewDecoder(bytes.NewReader(raw))
		dec.DisallowUnknownFields()
		var m monitor
		if err := dec.Decode(&m); err != nil {
			t.Fatalf("%s: %v", f, err)
		}
		out[filepath.Base(f)] = m
	}
	return out
}

// published are the names under which metrics reach Datadog: by its own check of
// the cluster agent, and by the openmetrics check that docs/telemetry.md gives.
func published(t *testing.T) map[string]bool {
	t.Helper()
	text, err := os.ReadFile("../docs/telemetry.md")
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]bool{}
	for _, m := range regexp.MustCompile("(?m)^\\| `[a-z_]+` \\| `(datadog\\.cluster_agent\\.[a-z_.]+)` \\|$").FindAllStringSubmatch(string(text), -1) {
		out[m[1]] = true
	}
	_, rest, _ := strings.Cut(string(text), "cluster-agent.checks: |\n")
	annotation, _, _ := strings.Cut(rest, "\n\n")
	var checks struct {
		Openmetrics struct {
			Instances []struct {
				Namespace string
				Metrics   []map[string]string
			}
		}
	}
	if err := json.Unmarshal([]byte(annotation), &checks); err != nil {
		t.Fatalf("the annotation in docs/telemetry.md is no JSON: %v", err)
	}
	known := exposed(t)
	for _, mapping := range checks.Openmetrics.Instances[0].Metrics {
		for from, to := range mapping {
			if !known[from] {
				t.Errorf("the annotation in docs/telemetry.md maps %s, which is not exposed", from)
			}
			out[checks.Openmetrics.Instances[0].Namespace+"."+to] = true
		}
	}
	return out
}

var (
	monitorQuery = regexp.MustCompile(`^(avg|min|max|sum)\(last_[0-9]+[mh]\):(.+) (<|>) ([0-9.]+)$`)
	monitorName  = regexp.MustCompile(`[a-z_]+(?:\.[a-z_]+)+\{`)
	monitorBy    = regexp.MustCompile(`by \{([a-z_,]+)\}`)
	monitorVar   = regexp.MustCompile(`\{\{([a-z_]+)\.name\}\}`)
)

func TestMonitors(t *testing.T) {
	t.Parallel()
	known, names := published(t), map[string]bool{}
	for file, m := range monitors(t) {
		if names[m.Name] || m.Name == "" || m.Type != "query alert" || len(m.Tags) == 0 || m.Priority < 1 || m.Priority > 5 || len(m.Message) < 100 {
			t.Errorf("%s: name, type, tags, priority or message are not what a monitor has: %+v", file, m)
		}
		names[m.Name] = true
		if m.Options.NotifyNoData != (m.Options.NoDataTimeframe > 0) {
			t.Errorf("%s: notify_no_data and no_data_timeframe do not agree", file)
		}
		parts := monitorQuery.FindStringSubmatch(m.Query)
		if parts == nil {
			t.Errorf("%s: query %q is not aggregation(last_window):query comparison threshold", file, m.Query)
			continue
		}
		threshold, err := strconv.ParseFloat(parts[4], 64)
		if critical := m.Options.Thresholds.Critical; err != nil || critical == nil || *critical != threshold {
			t.Errorf("%s: the query's threshold %s is not options.thresholds.critical", file, parts[4])
		}
		if warning := m.Options.Thresholds.Warning; warning != nil && (parts[3] == ">") != (*warning < threshold) {
			t.Errorf("%s: the warning %v comes after the alert at %v", file, *warning, threshold)
		}
		inner := parts[2]
		e, err := query.Parse(inner)
		if err == nil {
			err = query.Check(e)
		}
		if err != nil {
			t.Errorf("%s: %s does not parse: %v", file, inner, err)
		}
		for _, name := range monitorName.FindAllString(inner, -1) {
			if !known[strings.TrimSuffix(name, "{")] {
				t.Errorf("%s reads %s, which nobody publishes", file, name)
			}
		}
		var groups []string
		if by := monitorBy.FindStringSubmatch(inner); by != nil {
			groups = strings.Split(by[1], ",")
		}
		for _, v := range monitorVar.FindAllStringSubmatch(m.Name+m.Message, -1) {
			if !slices.Contains(groups, v[1]) {
				t.Errorf("%s: {{%s.name}} is not among the groups %v", file, v[1], groups)
			}
		}
	}
}

// The two sets of alerts are about the same things.
func TestMonitorsAndAlertsAgree(t *testing.T) {
	t.Parallel()
	pairs := map[string][]string{
		"KelpieProviderNotServing":         {"not-serving.json"},
		"KelpieAPIServiceNotRegistered":    {"apiservice.json"},
		"KelpieSourceUnavailable":          {"source-unavailable.json"},
		"KelpieExternalMetricWithoutValue": {"value-missing-object.json", "value-missing-inline.json", "value-missing-reason.json"},
		"KelpieExternalMetricOld":          {"value-late.json"},
		"KelpieRequestsFail":               {"requests-failing.json"},
		"KelpieRateLimitNearlyExhausted":   {"rate-limit.json"},
		"KelpieNoLeader":                   {"no-leader.json"},
		"KelpieSeveralLeaders":             {"several-leaders.json"},
		"KelpieCertificateEnds":            {"certificate.json"},
	}
	var wantAlerts, wantMonitors, gotAlerts, gotMonitors []string
	for alert, files := range pairs {
		wantAlerts, wantMonitors = append(wantAlerts, alert), append(wantMonitors, files...)
	}
	for alert := range alertsOf(t) {
		gotAlerts = append(gotAlerts, alert)
	}
	for file := range monitors(t) {
		gotMonitors = append(gotMonitors, file)
	}
	for _, l := range [][]string{wantAlerts, wantMonitors, gotAlerts, gotMonitors} {
		slices.Sort(l)
	}
	if diff := cmp.Diff(wantAlerts, gotAlerts) + cmp.Diff(wantMonitors, gotMonitors); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
