package store

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"kelpie.dev/kelpie/metric"
)

// crashed returns a copy of s's directory as a kill at this moment leaves it.
func crashed(t *testing.T, s *Store) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "copy")
	// Copying takes longer than a moment: no file may go meanwhile.
	s.db.DisableCompactions()
	defer s.db.EnableCompactions()
	if err := os.CopyFS(dir, os.DirFS(s.opts.Dir)); err != nil {
		t.Fatal(err)
	}
	return dir
}

// TestNewNameOutlivesACrash kills the store before the catalog's flush noted the
// first point of a metric.
func TestNewNameOutlivesACrash(t *testing.T) {
	clock := &fixed{t0}
	s := open(t, Options{Now: clock.now, MinFree: -1})
	write(t, s, one("m", "h", nil, metric.Point{Time: t0, Value: 1}))
	after := open(t, Options{Dir: crashed(t, s), Now: clock.now, MinFree: -1})
	after.tidy(clock.now())
	if got := len(read(t, after, "m", "*")); got != 1 {
		t.Errorf("%d contexts after the crash, want 1: acknowledged points cannot be read", got)
	}
	after.tidy(clock.now().Add(after.opts.Retention + time.Second))
	if got := after.Search(""); len(got) != 0 {
		t.Errorf("names %v are listed past retention", got)
	}
}

// TestNameWithoutAPointCountsAsNew reads a catalog in which a crash left a name
// before its first point was noted.
func TestNameWithoutAPointCountsAsNew(t *testing.T) {
	path := filepath.Join(t.TempDir(), "catalog.db")
	c, err := openCatalog(path, t0)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.add(additions{names: map[string]item{"m": {Series: &metric.Series{}}}}, 0); err != nil {
		t.Fatal(err)
	}
	if err := c.close(); err != nil {
		t.Fatal(err)
	}
	if c, err = openCatalog(path, t0); err != nil {
		t.Fatal(err)
	}
	if err := c.forget(t0); err != nil || c.get("m") == nil {
		t.Errorf("forget: %v, name kept: %v, want nil and kept", err, c.get("m") != nil)
	}
	if err := c.close(); err != nil {
		t.Fatal(err)
	}
	if err := c.forget(t0 + 1); err == nil || c.get("m") == nil {
		t.Errorf("forget in a closed file: %v, name kept: %v, want an error and kept", err, c.get("m") != nil)
	}
}
