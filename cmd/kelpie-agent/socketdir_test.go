package main

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

func TestPrepareSocketDir(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "var", "run")
	run := func(args ...string) error {
		c := command()
		c.SetArgs(append([]string{"prepare-socket-dir"}, args...))
		return c.ExecuteContext(t.Context())
	}
	// Its own user may give a folder to itself without privilege.
	for range 2 {
		if err := run(dir, strconv.Itoa(os.Getuid())); err != nil {
			t.Fatal(err)
		}
	}
	info, err := os.Stat(dir)
	if err != nil {
		t.Fatal(err)
	}
	if mode := info.Mode().Perm(); mode != 0o755 {
		t.Errorf("mode %o, want 755", mode)
	}
	for _, uid := range []string{"root", "-1", "99999999999"} {
		if err := run(dir, uid); err == nil || !strings.Contains(err.Error(), uid) {
			t.Errorf("user id %q: error %v does not name it", uid, err)
		}
	}
}
