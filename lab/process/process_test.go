package process

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestParseStat(t *testing.T) {
	tail := " S 1 7 7 0 -1 4194304 100 0 0 0 1 2 0 0 20 0 5 0 98765 1000 10 1"
	for name, tc := range map[string]struct {
		line string
		want stat
		bad  bool
	}{
		"plain":                   {line: "42 (etcd)" + tail, want: stat{state: 'S', start: 98765}},
		"spaces and parentheses":  {line: "42 (a b) c)" + tail, want: stat{state: 'S', start: 98765}},
		"zombie":                  {line: "42 (x)" + strings.Replace(tail, "S", "Z", 1), want: stat{state: 'Z', start: 98765}},
		"no name":                 {line: "42 etcd S 1", bad: true},
		"cut short":               {line: "42 (etcd) S 1 7", bad: true},
		"start time not a number": {line: "42 (etcd)" + strings.Replace(tail, "98765", "x", 1), bad: true},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := parseStat(tc.line)
			if (err != nil) != tc.bad {
				t.Fatalf("error = %v, want one: %v", err, tc.bad)
			}
			if got != tc.want {
				t.Fatalf("got %+v, want %+v", got, tc.want)
			}
		})
	}
}

// A table over a made-up /proc: the same pid with another start time, or after
// a reboot, is somebody else.
func TestAliveKnowsRecycledPIDs(t *testing.T) {
	proc := t.TempDir()
	write(t, filepath.Join(proc, "sys/kernel/random/boot_id"), "boot-2\n")
	write(t, filepath.Join(proc, "42/stat"), statLine('S', 500))
	write(t, filepath.Join(proc, "43/stat"), statLine('Z', 500))
	table := &Table{dir: t.TempDir(), proc: proc}
	for name, tc := range map[string]struct {
		record Record
		want   bool
	}{
		"the very process": {Record{PID: 42, Start: 500, Boot: "boot-2"}, true},
		"recycled pid":     {Record{PID: 42, Start: 499, Boot: "boot-2"}, false},
		"earlier boot":     {Record{PID: 42, Start: 500, Boot: "boot-1"}, false},
		"zombie":           {Record{PID: 43, Start: 500, Boot: "boot-2"}, false},
		"gone":             {Record{PID: 44, Start: 500, Boot: "boot-2"}, false},
		"zero record":      {Record{}, false},
	} {
		if got := table.Alive(tc.record); got != tc.want {
			t.Errorf("%s: alive = %v, want %v", name, got, tc.want)
		}
	}
}

func TestStartLookupStop(t *testing.T) {
	dir := t.TempDir()
	table := NewTable(filepath.Join(dir, "run"))
	placed := 0
	record, ended, err := table.Start(Command{
		Name:   "stubborn",
		Args:   []string{"/bin/sh", "-c", "trap '' TERM; echo ready; while :; do sleep 1; done"},
		Log:    filepath.Join(dir, "log"),
		Placed: func(pid int) error { placed = pid; return nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	if placed != record.PID {
		t.Errorf("placed pid %d, record has %d", placed, record.PID)
	}
	found, alive, err := table.Lookup("stubborn")
	if err != nil || !alive {
		t.Fatalf("lookup: alive %v, %v", alive, err)
	}
	if diff := cmp.Diff(record, found); diff != "" {
		t.Errorf("record read back differs (-want +got):\n%s", diff)
	}
	waitFor(t, func() bool {
		data, err := os.ReadFile(filepath.Join(dir, "log"))
		return err == nil && strings.Contains(string(data), "ready")
	})
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := table.Stop(ctx, []Record{record}, 50*time.Millisecond); err != nil {
		t.Fatal(err)
	}
	<-ended
	if _, alive, err := table.Lookup("stubborn"); alive || err != nil {
		t.Errorf("after stop: alive %v, %v", alive, err)
	}
	if left, err := table.List(); len(left) != 0 || err != nil {
		t.Errorf("after stop: records %v, %v", left, err)
	}
}

func TestStartSaysWhichProgramIsMissing(t *testing.T) {
	dir := t.TempDir()
	_, _, err := NewTable(dir).Start(Command{Name: "ghost", Args: []string{"/nonexistent/ghost"}, Log: filepath.Join(dir, "log")})
	if err == nil || !strings.Contains(err.Error(), "start ghost") {
		t.Fatalf("error = %v", err)
	}
}

func statLine(state byte, start uint64) string {
	return "1 (x) " + string(state) + " 1 7 7 0 -1 0 0 0 0 0 1 2 0 0 20 0 5 0 " + strconv.FormatUint(start, 10) + " 1000 10"
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

func waitFor(t *testing.T, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatal("gave up waiting")
		}
		time.Sleep(5 * time.Millisecond)
	}
}
