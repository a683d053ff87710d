package backend

import (
	"bytes"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"kelpie.dev/kelpie/health"
)

// reread has the backend read its limits, and returns when it has.
func (r *running) reread() {
	r.reload <- syscall.SIGHUP
	r.reload <- syscall.SIGHUP // is taken after the first was followed
}

func (r *running) status(t *testing.T) *Status {
	t.Helper()
	var st Status
	if err := health.Fetch(t.Context(), r.health, "/status", &st); err != nil {
		t.Fatal(err)
	}
	return &st
}

func TestLimitsFileIsReadAgain(t *testing.T) {
	path := filepath.Join(t.TempDir(), "limits.yaml")
	put := func(text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	put("maxSeriesPerMetric: 2\nfastLane: -1\n")
	b := start(t, t.TempDir(), map[string]string{"KELPIE_LIMITS_FILE": path, "KELPIE_MAX_SERIES_PER_METRIC": "100"})
	now, n := time.Now().Unix(), 0
	sends := func(stored uint64) { // a series of its own
		t.Helper()
		n++
		before := b.status(t).Store.Series
		code, body := b.do(t, http.MethodPost, "/api/v1/series", fmt.Sprintf(`{"series":[{"metric":"m","points":[[%d,1]],"host":"h%d"}]}`, now, n))
		if code != http.StatusAccepted {
			t.Fatalf("%d %s", code, body)
		}
		if got := b.status(t).Store.Series - before; got != stored {
			t.Errorf("%d of series %d were stored, want %d", got, n, stored)
		}
	}
	query := func(want string) {
		t.Helper()
		if _, body := b.do(t, http.MethodGet, fmt.Sprintf("/api/v1/query?from=%d&to=%d&query=avg:m{*}", now-60, now+1), ""); !strings.Contains(body, want) {
			t.Errorf("the query got %s, want %s", body, want)
		}
	}
	sends(1)
	sends(1)
	sends(0) // the file's limit, not the environment's
	query(`"status":"ok"`)

	put("maxSeriesPerMetric: 3\nqueryMaxSeries: 1\nslowQuery: 1ns\n")
	b.reread()
	sends(1)
	sends(0)
	query("reads more than 1 series")
	if st := b.status(t); st.Limits == nil || st.Limits.Error != "" || st.Limits.File != path {
		t.Errorf("limits are %+v", st.Limits)
	}
	put("slowQuery: 0.000000001\n")
	b.reread()
	sends(1) // what the file names no more is the environment's again
	query(`"status":"ok"`)
	slow := false
	for _, line := range b.status(t).Errors {
		slow = slow || line.Message == "slow query"
	}
	if !slow {
		t.Error("the query was not logged as slow")
	}
	for i, bad := range []struct{ text, want string }{
		{"maxSerie: 1\n", "maxSerie"},
		{"maxSeries: [1]\n", "maxSeries"},
		{"maxSeries: -1\n", "KELPIE_MAX_SERIES must not be negative"},
		{"slowQuery: soon\n", "expected seconds"},
		{"slowQuery: 1e300\n", "expected seconds"},
		{"slowQuery: -1\n", "KELPIE_SLOW_QUERY must not be negative"},
		{"maxSeries: 1\nmaxSeries: 2\n", "maxSeries"},
		{strings.Repeat("#", maxLimitsFile+1), "larger than"},
		{"", "no such file"},
	} {
		put(bad.text)
		if bad.text == "" {
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
		}
		b.reread()
		sends(1) // by the limits of before
		st := b.status(t)
		if st.Limits.Failures != i+1 || !strings.Contains(st.Limits.Error, bad.want) {
			t.Errorf("%.80q: limits are %+v; want %s", bad.text, st.Limits, bad.want)
		}
		var page bytes.Buffer
		if err := st.Print(&page); err != nil || !strings.Contains(page.String(), "not in force      ") {
			t.Errorf("status: %v\n%s", err, page.String())
		}
	}
	if metrics := scrape(t, b); !strings.Contains(metrics, "kelpie_backend_limits_file_failures_total 9\n") {
		t.Error("the failures are not counted")
	}
	put("maxSeriesPerMetric: 1\n")
	b.reread()
	sends(0)
	if st := b.status(t); st.Limits.Error != "" {
		t.Errorf("limits are %+v", st.Limits)
	}
	if err := b.end(t); err != nil {
		t.Error(err)
	}
}

// A backend does not start with limits that it cannot read.
func TestLimitsFileAtTheStart(t *testing.T) {
	path := filepath.Join(t.TempDir(), "limits.yaml")
	for _, tt := range []struct{ text, want string }{{"", "no such file"}, {"x: 1\n", "KELPIE_LIMITS_FILE"}} {
		if tt.text != "" {
			if err := os.WriteFile(path, []byte(tt.text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		cfg, err := FromEnv(func(name string) (string, bool) {
			v, ok := map[string]string{"DD_API_KEY": "ak", "DD_APP_KEY": "pk", "KELPIE_DATA_DIR": t.TempDir(), "KELPIE_LIMITS_FILE": path}[name]
			return v, ok
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := Run(t.Context(), cfg, Deps{}); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%q: %v; want %s", tt.text, err, tt.want)
		}
	}
}
