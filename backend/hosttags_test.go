package backend

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"
)

// TestHostTagsReachQueries goes the way of a stock agent: a series of a host,
// the host's tags by /intake/, a query that names and groups by them.
func TestHostTagsReachQueries(t *testing.T) {
	dir := t.TempDir()
	now := time.Now().Unix()
	b := start(t, dir, nil)
	post := func(path, body string) {
		t.Helper()
		if code, answer := b.do(t, "POST", path, body); code != http.StatusAccepted {
			t.Fatalf("%d %s", code, answer)
		}
	}
	query := func(q, want string) {
		t.Helper()
		code, body := b.do(t, "GET", fmt.Sprintf("/api/v1/query?from=%d&to=%d&query=%s", now-60, now+1, q), "")
		if found := strings.Contains(body, fmt.Sprintf(`[%d,42]`, now*1000)); code != http.StatusOK || found != (want != "") || !strings.Contains(body, want) {
			t.Errorf("%s: %d %s\nwant %q", q, code, body, want)
		}
	}
	post("/api/v1/series", fmt.Sprintf(`{"series":[{"metric":"m","points":[[%d,42]],"host":"Node-1"}]}`, now))
	query("avg:m{kube_cluster_name:one}", "")
	post("/intake/", `{"internalHostname":"node-1","host-tags":{"system":["kube_cluster_name:one"]}}`)
	query("avg:m{kube_cluster_name:one}", `"scope":"kube_cluster_name:one"`)
	query("avg:m{*}%20by%20{kube_cluster_name}", `"tag_set":["kube_cluster_name:one"]`)
	if _, body := b.do(t, "GET", "/api/v2/metrics/m/all-tags", ""); !strings.Contains(body, `["host:node-1","kube_cluster_name:one"]`) {
		t.Errorf("tags of m: %s", body)
	}
	if err := b.end(t); err != nil {
		t.Fatal(err)
	}
	b = start(t, dir, nil)
	query("avg:m{kube_cluster_name:one}", `"scope":"kube_cluster_name:one"`)
	post("/intake/", `{"internalHostname":"node-1","host-tags":{"system":[]}}`)
	query("avg:m{kube_cluster_name:one}", "")
	if err := b.end(t); err != nil {
		t.Error(err)
	}
}
