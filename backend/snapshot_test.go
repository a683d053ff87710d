package backend

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"kelpie.dev/kelpie/backend/store"
)

func TestSnapshotRoute(t *testing.T) {
	dir := t.TempDir()
	b := start(t, dir, nil)
	for _, tt := range []struct {
		name, body, apiKey, appKey string
		code                       int
		want                       string
	}{
		{"no key", `{"name":"a"}`, "", "", http.StatusForbidden, "Forbidden"},
		{"no application key", `{"name":"a"}`, "ak", "", http.StatusForbidden, "Forbidden"},
		{"a wrong application key", `{"name":"a"}`, "ak", "ak", http.StatusForbidden, "Forbidden"},
		{"a wrong API key", `{"name":"a"}`, "pk", "pk", http.StatusForbidden, "Forbidden"},
		{"no body", ``, "ak", "pk", http.StatusBadRequest, "expected"},
		{"no name", `{}`, "ak", "pk", http.StatusBadRequest, "name is letters"},
		{"a path", `{"name":"../a"}`, "ak", "pk", http.StatusBadRequest, "name is letters"},
		{"an unknown field", `{"nam":"a"}`, "ak", "pk", http.StatusBadRequest, `unknown field \"nam\"`},
		{"a body without end", `{"name":"` + strings.Repeat("a", maxSnapshotBody), "ak", "pk", http.StatusBadRequest, "too large"},
		{"good", `{"name":"a"}`, "ak", "pk", http.StatusOK, `"name":"a"`},
		{"again", `{"name":"a"}`, "ak", "pk", http.StatusConflict, "there is a snapshot of that name"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			code, body := b.doAs(t, tt.apiKey, tt.appKey, http.MethodPost, snapshotRoute, tt.body)
			if code != tt.code || !strings.Contains(body, tt.want) {
				t.Errorf("got %d %s, want %d %s", code, body, tt.code, tt.want)
			}
		})
	}
	if code, body := b.do(t, http.MethodGet, snapshotRoute, ""); code != http.StatusNotFound {
		t.Errorf("GET: %d %s", code, body)
	}
	_, body := b.do(t, http.MethodPost, snapshotRoute, `{"name":"b"}`)
	var made store.Snapshot
	if err := json.Unmarshal([]byte(body), &made); err != nil || made.Bytes == 0 || made.Seconds <= 0 || made.Dir != filepath.Join(dir, "snapshots", "b") {
		t.Errorf("%v: %s", err, body)
	}
	entries, err := os.ReadDir(filepath.Join(dir, "snapshots"))
	if err != nil || len(entries) != 2 {
		t.Errorf("snapshots are %v, %v; want a and b", entries, err)
	}
	// The health port, which asks for no key, changes nothing.
	resp, err := http.Post("http://"+b.health+snapshotRoute, "application/json", strings.NewReader(`{"name":"c"}`))
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusNotFound {
		t.Errorf("the health port answers %s", resp.Status)
	}
	if err := b.end(t); err != nil {
		t.Error(err)
	}
}
