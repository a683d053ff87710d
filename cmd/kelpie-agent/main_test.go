package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"kelpie.dev/kelpie/agent"
)

// execute runs the command line args against a health port that serves mux.
func execute(t *testing.T, mux http.Handler, args ...string) (string, error) {
	t.Helper()
	server := httptest.NewServer(mux)
	defer server.Close()
	_, port, _ := strings.Cut(strings.TrimPrefix(server.URL, "http://"), ":")
	t.Setenv("DD_HEALTH_PORT", port)
	var out strings.Builder
	cmd := command()
	cmd.SetArgs(args)
	cmd.SetOut(&out)
	err := cmd.ExecuteContext(context.Background())
	return out.String(), err
}

func TestStatus(t *testing.T) {
	want := agent.Status{Version: "1.2.3", Hostname: "node-1", Started: time.Unix(100, 0).UTC(), Now: time.Unix(165, 0).UTC(), Contexts: 7}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /status", func(w http.ResponseWriter, _ *http.Request) {
		if err := json.NewEncoder(w).Encode(want); err != nil {
			t.Error(err)
		}
	})
	out, err := execute(t, mux, "status")
	if err != nil || !strings.Contains(out, "Kelpie agent 1.2.3 on node-1") || !strings.Contains(out, "1m5s") || !strings.Contains(out, "contexts: 7") {
		t.Errorf("status: %v\n%s", err, out)
	}
	out, err = execute(t, mux, "status", "-j")
	var got agent.Status
	if err != nil || json.Unmarshal([]byte(out), &got) != nil {
		t.Fatalf("status -j: %v\n%s", err, out)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestHealth(t *testing.T) {
	for code, ready := range map[int]string{http.StatusOK: "ok", http.StatusServiceUnavailable: "no listener"} {
		mux := http.NewServeMux()
		mux.HandleFunc("GET /health", func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(code)
			_, _ = fmt.Fprintf(w, `{"live":"ok","ready":%q}`, ready)
		})
		out, err := execute(t, mux, "health")
		if (err == nil) != (code == http.StatusOK) || out != "live: ok\nready: "+ready+"\n" {
			t.Errorf("health with HTTP %d: %v\n%s", code, err, out)
		}
	}
}

func TestErrorsSayWhatToDo(t *testing.T) {
	t.Setenv("DD_API_KEY", "")
	if _, err := execute(t, http.NotFoundHandler(), "run"); err == nil || !strings.Contains(err.Error(), "DD_API_KEY is not set") {
		t.Errorf("run without a key: %v", err)
	}
	t.Setenv("DD_HEALTH_PORT", "1")
	cmd := command()
	cmd.SetArgs([]string{"status"})
	if err := cmd.ExecuteContext(context.Background()); err == nil || !strings.Contains(err.Error(), "is the process running") {
		t.Errorf("status of no agent: %v", err)
	}
	if _, err := execute(t, http.NotFoundHandler(), "frobnicate"); err == nil {
		t.Error("an unknown command is accepted")
	}
}
