package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	bolt "go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"kelpie.dev/kelpie/metric"
	"kelpie.dev/kelpie/query"
)

// content is all that a store answers about every metric, to be compared.
func content(t *testing.T, s *Store) map[string]any {
	t.Helper()
	out := make(map[string]any)
	for _, name := range s.Search("") {
		m, isDistribution, _ := s.Describe(name)
		tags, err := s.Tags(t.Context(), name, time.Unix(t0-86400, 0))
		if err != nil {
			t.Fatal(err)
		}
		sel := query.Selector{Metric: name, Scope: query.All{}}
		series, err := s.Select(t.Context(), sel, t0-86400, t0+86400)
		if err != nil {
			t.Fatal(err)
		}
		points := make(map[string][]metric.Point)
		for _, m := range series {
			points[m.Host+"|"+m.Tags.String()] = m.Points
		}
		sketches := make(map[string][]metric.SketchPoint)
		for d, err := range s.Distributions(t.Context(), sel, t0-86400, t0+86400) {
			if err != nil {
				t.Fatal(err)
			}
			sketches[d.Host+"|"+d.Tags.String()] = cloned(d.Points)
		}
		out[name] = []any{m, isDistribution, tags, points, sketches}
	}
	return out
}

// filled is a store with blocks, late points beyond what the TSDB holds in memory,
// rewritten seconds, several and bare tags, and distributions.
func filled(t *testing.T, clock *fixed) *Store {
	t.Helper()
	s := open(t, Options{Now: clock.now, MinFree: -1})
	fill(t, s, clock, 5*360)
	if err := s.db.Compact(t.Context()); err != nil {
		t.Fatal(err)
	}
	if len(s.db.Blocks()) == 0 {
		t.Fatal("there is no block: the test does not test anything")
	}
	fill(t, s, clock, 360) // after which there are late points and rewrites in memory
	return s
}

func fill(t *testing.T, s *Store, clock *fixed, steps int) {
	t.Helper()
	for range steps {
		clock.sec += 10
		m := one("requests", "Web-1", []string{"env:prod", "pod:a", "pod:b", "bare"}, metric.Point{Time: clock.sec, Value: float64(clock.sec % 977)})
		m.Type, m.Unit, m.Interval = metric.Rate, "byte", 10
		late := one("late", "h", nil, metric.Point{Time: clock.sec, Value: 1}, metric.Point{Time: clock.sec - 1801, Value: float64(clock.sec)})
		write(t, s, m, late, one("requests", "Web-1", []string{"env:prod", "pod:a", "pod:b", "bare"}, metric.Point{Time: clock.sec, Value: float64(clock.sec % 31)}))
		writeSketches(t, s, dist("took", "h", []string{"env:prod"}, sk(clock.sec, float64(clock.sec%100), 200), sk(clock.sec-1805, 7)))
	}
}

func snap(t *testing.T, s *Store, name string) Snapshot {
	t.Helper()
	out, err := s.Snapshot(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// restored opens what Restore makes of a snapshot.
func restored(t *testing.T, clock *fixed, from string) *Store {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "data")
	if _, err := Restore(dir, from); err != nil {
		t.Fatal(err)
	}
	return open(t, Options{Dir: dir, Now: clock.now, MinFree: -1})
}

func TestSnapshotHoldsEverything(t *testing.T) {
	clock := &fixed{t0}
	s := filled(t, clock)
	extra, err := bolt.Open(filepath.Join(s.opts.Dir, "events.db"), 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = extra.Close() }()
	err = extra.Update(func(tx *bolt.Tx) error {
		b, err := tx.CreateBucket([]byte("b"))
		if err != nil {
			return err
		}
		return b.Put([]byte("k"), []byte("v"))
	})
	if err != nil {
		t.Fatal(err)
	}
	s.Include(extra)
	want := content(t, s)
	out := snap(t, s, "first")
	if out.Name != "first" || out.Dir != filepath.Join(s.opts.Dir, "snapshots", "first") || out.Bytes < out.Shared || out.Shared == 0 || out.Seconds <= 0 || out.Files < 6 {
		t.Errorf("snapshot is %+v", out)
	}
	own := out.Bytes - out.Shared
	if own > 8<<20 {
		t.Errorf("%d bytes were copied: what the TSDB reserved must not be", own)
	}
	if got := s.Stats().SnapshotBytes - own; got <= 0 || got > 4<<10 { // the list of files is not on itself
		t.Errorf("%d bytes beside the copied %d are told to be the snapshot's alone", got, own)
	}
	snap(t, s, "second")
	if got := s.Stats().SnapshotBytes; got < 2*own || got > 3*own {
		t.Errorf("two snapshots are told to hold %d bytes alone, each having copied some %d", got, own)
	}
	// What comes later is not in it, nor does it change what is.
	fill(t, s, clock, 400)
	if err := s.db.Compact(t.Context()); err != nil {
		t.Fatal(err)
	}
	r := restored(t, clock, out.Dir)
	if d := cmp.Diff(want, content(t, r)); d != "" {
		t.Errorf("restored (-before +after)\n%.3000s", d)
	}
	if _, err := os.Stat(filepath.Join(r.opts.Dir, "events.db")); err != nil {
		t.Errorf("the other database: %v", err)
	}
	// It goes on: late points and rewrites, over another start and a compaction.
	fill(t, r, clock, 50)
	want = content(t, r)
	again := open(t, Options{Dir: crashed(t, r), Now: clock.now, MinFree: -1})
	if d := cmp.Diff(want, content(t, again)); d != "" {
		t.Errorf("after a crash of the restored store (-before +after)\n%.3000s", d)
	}
	// A snapshot may be restored twice: the store did not write to it.
	if r2, err := readManifest(out.Dir); err != nil || len(r2.Files) != out.Files {
		t.Errorf("the snapshot after its use: %v", err)
	}
}

// TestSnapshotUnderLoad holds that a snapshot has every batch that was
// acknowledged before it, and of those that came meanwhile each as a whole.
func TestSnapshotUnderLoad(t *testing.T) {
	clock := &fixed{t0}
	s := open(t, Options{Now: clock.now, MinFree: -1, WALSegmentSize: 64 << 10})
	const senders = 4
	var mu sync.Mutex // guards acked
	var acked [senders]int64
	more := sync.NewCond(&mu)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var wg sync.WaitGroup
	for w := range senders {
		wg.Go(func() {
			for i := int64(0); ctx.Err() == nil && i < 3500; i++ {
				// The second goes to the log of late points.
				err := s.Append(t.Context(), []metric.Series{
					one("a", fmt.Sprint(w), []string{fmt.Sprint("batch:", i)}, metric.Point{Time: t0, Value: float64(i)}),
					one("b", fmt.Sprint(w), nil, metric.Point{Time: t0 - i, Value: float64(i)}),
				})
				if err != nil {
					panic(err) // whoever waits would wait for ever
				}
				mu.Lock()
				acked[w] = i + 1
				more.Signal()
				mu.Unlock()
			}
		})
	}
	var before [3][senders]int64
	var snaps [3]Snapshot
	for n := range snaps {
		mu.Lock()
		for slices.Min(acked[:]) < int64(n+1)*100 { // there is load, and more than before
			more.Wait()
		}
		before[n] = acked
		mu.Unlock()
		snaps[n] = snap(t, s, fmt.Sprint("s", n))
	}
	stop()
	wg.Wait()
	for n, snapshot := range snaps {
		r := restored(t, clock, snapshot.Dir)
		a, b := read(t, r, "a", "*"), read(t, r, "b", "*")
		for w := range senders {
			late := b[fmt.Sprint(w, "|")]
			inOrder := 0
			for i := range int64(3500) {
				inOrder += len(a[fmt.Sprintf("%d|batch:%d", w, i)])
			}
			if len(late) != inOrder {
				t.Errorf("%s has batches by half: of sender %d the first of %d, the second of %d", snapshot.Name, w, inOrder, len(late))
			}
			for i := range before[n][w] {
				if p := a[fmt.Sprintf("%d|batch:%d", w, i)]; len(p) != 1 || p[0].Value != float64(i) {
					t.Fatalf("%s lacks batch %d of sender %d, acknowledged before it: %v", snapshot.Name, i, w, p)
				}
			}
		}
	}
}

func TestSnapshotThatFailsLeavesNothing(t *testing.T) {
	s := open(t, Options{Now: (&fixed{t0}).now, MinFree: -1})
	write(t, s, one("m", "h", nil, metric.Point{Time: t0, Value: 1}))
	nothing := func(when string) {
		t.Helper()
		entries, err := os.ReadDir(filepath.Join(s.opts.Dir, snapshotsDir))
		if err != nil && !errors.Is(err, os.ErrNotExist) || len(entries) != 0 {
			t.Errorf("%s: %v, %v are left", when, err, entries)
		}
	}
	fails := func(when, name string, want error) {
		t.Helper()
		if _, err := s.Snapshot(t.Context(), name); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", when, err, want)
		}
		nothing(when)
	}
	for _, name := range []string{"", ".", "..", "../x", "a/b", ".hidden", strings.Repeat("x", 101), "a b", "ä"} {
		fails(fmt.Sprintf("name %q", name), name, ErrSnapshotName)
	}
	s.opts.MinFree = 1 << 62
	fails("a full disk", "full", ErrNoSpace)
	s.opts.MinFree = -1
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Snapshot(ctx, "cancelled"); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	nothing("cancelled")
	s.snapshots.making.Lock()
	fails("beside another", "busy", ErrSnapshotBusy)
	s.snapshots.making.Unlock()

	// The last file cannot be copied: all others are there already.
	broken, err := bolt.Open(filepath.Join(s.opts.Dir, "broken.db"), 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := broken.Close(); err != nil {
		t.Fatal(err)
	}
	s.Include(broken)
	fails("half-way", "half", bolterrors.ErrDatabaseNotOpen)
	s.snapshots.databases = nil
	snap(t, s, "half")
	if _, err := s.Snapshot(t.Context(), "half"); !errors.Is(err, ErrSnapshotExists) {
		t.Errorf("twice the name: %v", err)
	}
	// Compaction goes on after all that.
	write(t, s, one("m", "h", nil, metric.Point{Time: t0 + 1, Value: 1}))
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Snapshot(t.Context(), "closed"); !errors.Is(err, ErrClosed) {
		t.Errorf("closed: %v", err)
	}
	// What a kill left goes with the next start.
	left := filepath.Join(s.opts.Dir, snapshotsDir, unfinished+"x")
	if err := os.MkdirAll(filepath.Join(left, "tsdb"), 0o750); err != nil {
		t.Fatal(err)
	}
	open(t, Options{Dir: s.opts.Dir, Now: s.opts.Now, MinFree: -1})
	if _, err := os.Stat(left); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("an unfinished snapshot stays: %v", err)
	}
}

func TestRestoreRefuses(t *testing.T) {
	clock := &fixed{t0}
	s := open(t, Options{Now: clock.now, MinFree: -1})
	write(t, s, one("m", "h", nil, metric.Point{Time: t0, Value: 1}))
	good := snap(t, s, "good").Dir
	refuses := func(data, from, want string) {
		t.Helper()
		before, _ := os.ReadDir(data)
		if _, err := Restore(data, from); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("restored to %s: %v; want %s", data, err, want)
		}
		after, _ := os.ReadDir(data)
		if len(before) != len(after) {
			t.Errorf("%s: there was %v, there is %v", want, before, after)
		}
	}
	refuses(s.opts.Dir, good, "a backend is running on")
	refuses(t.TempDir(), t.TempDir(), "a snapshot is a directory with a file snapshot.json")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	refuses(s.opts.Dir, good, "is not empty, it has catalog.db")

	other := t.TempDir()
	if err := os.WriteFile(filepath.Join(other, "notes.txt"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	refuses(other, good, "is not empty, it has notes.txt")

	half := t.TempDir()
	if err := os.Mkdir(filepath.Join(half, restoring), 0o750); err != nil {
		t.Fatal(err)
	}
	refuses(half, good, "one was killed")
	if _, err := Open(Options{Dir: half, Now: clock.now}); err == nil || !strings.Contains(err.Error(), "is being restored") {
		t.Errorf("opened half a restore: %v", err)
	}

	torn := copyDir(t, good)
	if err := os.Truncate(filepath.Join(torn, "catalog.db"), 100); err != nil {
		t.Fatal(err)
	}
	refuses(t.TempDir(), torn, "is not whole: catalog.db has 100 bytes")
	if err := os.Remove(filepath.Join(torn, "catalog.db")); err != nil {
		t.Fatal(err)
	}
	refuses(t.TempDir(), torn, "is not whole")
	for text, want := range map[string]string{`{`: "unexpected end", `{"version":2}`: "is of version 2", `{"version":1,"files":{"../x":1}}`: "expected a path below it"} {
		if err := os.WriteFile(filepath.Join(torn, manifestFile), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		refuses(t.TempDir(), torn, want)
	}
}

// TestRestoreWithin puts a snapshot back in the directory that it lies in, as
// whoever goes back to it does.
func TestRestoreWithin(t *testing.T) {
	clock := &fixed{t0}
	s := filled(t, clock)
	want := content(t, s)
	out := snap(t, s, "mine")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{tsdbDir, catalogFile} {
		if err := os.RemoveAll(filepath.Join(s.opts.Dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		back, err := Restore(s.opts.Dir, out.Dir)
		if err != nil {
			t.Fatal(err)
		}
		if back.Bytes != out.Bytes || back.Files != out.Files || back.Name != "mine" {
			t.Errorf("restored %+v of %+v", back, out)
		}
		r := open(t, Options{Dir: s.opts.Dir, Now: clock.now, MinFree: -1})
		if d := cmp.Diff(want, content(t, r)); d != "" {
			t.Errorf("(-before +after)\n%.3000s", d)
		}
		fill(t, r, clock, 3)
		if err := r.db.Compact(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{tsdbDir, catalogFile} {
			if err := os.RemoveAll(filepath.Join(s.opts.Dir, name)); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func copyDir(t *testing.T, from string) string {
	t.Helper()
	to := t.TempDir()
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
	return to
}
