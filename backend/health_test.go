package backend

import (
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"
)

// TestNotReadyBeforeTheStoreIsOpen holds the store up at its beginning, and looks
// at what is said meanwhile.
func TestNotReadyBeforeTheStoreIsOpen(t *testing.T) {
	dir := t.TempDir()
	held, err := bolt.Open(filepath.Join(dir, "catalog.db"), 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	b := begin(t, dir, nil)
	b.waitFor(t, "write-ahead log is being replayed")
	if err := held.Close(); err != nil {
		t.Fatal(err)
	}
	b.waitReady(t)
	if err := b.end(t); err != nil {
		t.Error(err)
	}
}

// TestNotReadyWhileTheDiskIsFull refuses points so that agents keep them, and
// answers queries all the same.
func TestNotReadyWhileTheDiskIsFull(t *testing.T) {
	dir, now := t.TempDir(), time.Now().Unix()
	b := start(t, dir, nil)
	body := fmt.Sprintf(`{"series":[{"metric":"m","points":[[%d,42]]}]}`, now)
	if code, answer := b.do(t, http.MethodPost, "/api/v1/series", body); code != http.StatusAccepted {
		t.Fatal(code, answer)
	}
	if err := b.end(t); err != nil {
		t.Fatal(err)
	}
	b = begin(t, dir, map[string]string{"KELPIE_MIN_FREE_BYTES": fmt.Sprint(1 << 60)})
	b.waitFor(t, "not enough free disk space")
	if code, answer := b.do(t, http.MethodPost, "/api/v1/series", body); code != http.StatusServiceUnavailable || !strings.Contains(answer, "not enough free disk space") {
		t.Errorf("the intake answers %d %s", code, answer)
	}
	if code, answer := b.do(t, http.MethodGet, fmt.Sprintf("/api/v1/query?from=%d&to=%d&query=avg:m{*}", now-60, now+1), ""); code != http.StatusOK || !strings.Contains(answer, ",42]") {
		t.Errorf("a query is answered %d %s", code, answer)
	}
	if metrics := scrape(t, b); !strings.Contains(metrics, "kelpie_backend_writable 0\n") {
		t.Error("metrics say that the store is writable")
	}
	if code, answer := b.do(t, http.MethodPost, snapshotRoute, `{"name":"a"}`); code != http.StatusServiceUnavailable {
		t.Errorf("a snapshot is answered %d %s", code, answer)
	}
	if err := b.end(t); err != nil {
		t.Error(err)
	}
}
