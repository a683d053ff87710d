package store

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"kelpie.dev/kelpie/metric"
	"kelpie.dev/kelpie/query"
)

const childEnv = "KELPIE_STORE_TEST_CHILD"

// childDir is set in the process that the crash tests start and kill.
func childDir() string { return os.Getenv(childEnv) }

// runChild writes batches until it is killed, and prints the number of each
// once it is acknowledged. With a limit on file size it goes on after errors.
func runChild(dir string) {
	limited := os.Getenv("KELPIE_STORE_TEST_FSIZE") != ""
	if limited {
		signal.Ignore(syscall.SIGXFSZ)
	}
	s, err := Open(Options{Dir: dir, MinFree: -1, WALSegmentSize: 1 << 20, Log: slog.New(slog.NewTextHandler(os.Stderr, nil))})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	start := time.Now().Unix() - 3000
	for i := range 200_000 {
		if limited && i == 20 {
			setFileLimit(24 << 10)
		}
		batch := crashBatch(i, start)
		if limited {
			batch = batch[:11] // late points also write chunks, which cannot fail gracefully
		}
		err := s.AppendDistributions(context.Background(), crashSketches(i, start))
		if err == nil {
			err = s.Append(context.Background(), batch)
		}
		switch {
		case err == nil:
			fmt.Println("ack", i, start)
		case limited && errors.Is(err, ErrUnavailable):
			setFileLimit(unix.RLIM_INFINITY)
			s.heal()
		default:
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
}

func setFileLimit(soft uint64) {
	if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: soft, Max: unix.RLIM_INFINITY}); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// crashBatch is the i-th batch: points of old contexts, of a new one, and late
// ones, so that both logs and the creation of series are under way.
func crashBatch(i int, start int64) []metric.Series {
	batch := make([]metric.Series, 0, 12)
	for c := range 10 {
		batch = append(batch, one("crash", fmt.Sprint("h", c), []string{"a:1", "a:2"}, metric.Point{Time: start + int64(i%3000), Value: float64(i)}))
	}
	return append(batch,
		one("fresh", "", []string{fmt.Sprint("batch:", i)}, metric.Point{Time: start, Value: float64(i)}),
		one("late", "", []string{fmt.Sprint("slot:", i/100)}, metric.Point{Time: start + int64(99-i%100), Value: float64(i)}))
}

// crashSketches go with the i-th batch: of an old context and of a new one. Each
// has i in its minimum, its maximum and its bins.
func crashSketches(i int, start int64) []metric.Distribution {
	var b metric.SketchBuilder
	b.Add(float64(i), 1)
	b.Add(float64(i)+0.5, 1)
	b.Add(1e6+float64(i), 1)
	at := metric.SketchPoint{Time: start + int64(i%3000), Sketch: b.Sketch()}
	return []metric.Distribution{
		{Name: "crash", Host: "h0", Tags: metric.NewTags("a:1", "a:2"), Points: []metric.SketchPoint{at}},
		{Name: "sketch", Tags: metric.NewTags(fmt.Sprint("slot:", i/10)), Points: []metric.SketchPoint{at}},
	}
}

// TestKillNineLosesNothingAcknowledged kills a writing process at several
// moments and looks for every point that it had acknowledged.
func TestKillNineLosesNothingAcknowledged(t *testing.T) {
	dir := t.TempDir()
	for round, acks := range []int{1, 37, 400} {
		got, start := runAndKill(t, dir+strconv.Itoa(round), nil, acks)
		verify(t, dir+strconv.Itoa(round), got, start, 12)
	}
}

// TestFailedWriteLosesNothingAcknowledged lets the write-ahead log fail in the
// middle of a record, as a full disk does, then mends it, and kills the process.
func TestFailedWriteLosesNothingAcknowledged(t *testing.T) {
	dir := t.TempDir()
	got, start := runAndKill(t, dir, []string{"KELPIE_STORE_TEST_FSIZE=1"}, 600)
	if got[len(got)-1] == len(got)-1 {
		t.Error("no write failed: the test did not test anything")
	}
	verify(t, dir, got, start, 11)
}

func runAndKill(t *testing.T, dir string, env []string, acks int) (acked []int, start int64) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(append(os.Environ(), childEnv+"="+dir), env...)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	sc := bufio.NewScanner(out)
	for sc.Scan() {
		var i int
		if _, err := fmt.Sscanf(sc.Text(), "ack %d %d", &i, &start); err != nil {
			break // the line that the kill cut
		}
		if acked = append(acked, i); len(acked) == acks {
			if err := cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := cmd.Wait(); err == nil || len(acked) < acks {
		t.Fatalf("the child acknowledged %d batches, want %d, and ended with %v:\n%s", len(acked), acks, err, stderr.String())
	}
	return acked, start
}

func verify(t *testing.T, dir string, acked []int, start int64, size int) {
	t.Helper()
	s := open(t, Options{Dir: dir, MinFree: -1})
	stored := make(map[string]float64)
	for _, name := range []string{"crash", "fresh", "late"} {
		series, err := s.Select(t.Context(), query.Selector{Metric: name, Scope: query.All{}}, start-10, start+4000)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range series {
			for _, p := range m.Points {
				stored[fmt.Sprint(name, m.Host, m.Tags, p.Time)] = p.Value
			}
		}
	}
	missing := 0
	for _, i := range acked {
		for _, m := range crashBatch(i, start)[:size] {
			p := m.Points[0]
			if v, ok := stored[fmt.Sprint(m.Name, m.Host, m.Tags, p.Time)]; !ok || v < p.Value {
				missing++
			}
		}
	}
	if missing > 0 {
		t.Errorf("%d acknowledged points of %d batches are gone", missing, len(acked))
	}
	verifySketches(t, s, acked, start)
}

func verifySketches(t *testing.T, s *Store, acked []int, start int64) {
	t.Helper()
	stored := make(map[string]metric.Sketch)
	for _, name := range []string{"crash", "sketch"} {
		for d, err := range s.Distributions(t.Context(), query.Selector{Metric: name, Scope: query.All{}}, start-10, start+4000) {
			if err != nil {
				t.Fatal(err)
			}
			for _, p := range d.Points {
				stored[fmt.Sprint(name, d.Host, d.Tags, p.Time)] = p.Sketch
			}
		}
	}
	missing := 0
	for _, i := range acked {
		for _, d := range crashSketches(i, start) {
			p := d.Points[0]
			// A batch that was not acknowledged may have come over it.
			if got, ok := stored[fmt.Sprint(d.Name, d.Host, d.Tags, p.Time)]; !ok || got.Count != 3 || got.Max < p.Sketch.Max || got.Min != got.Max-1e6 {
				missing++
			}
		}
	}
	if missing > 0 {
		t.Errorf("%d acknowledged sketches of %d batches are gone or torn", missing, len(acked))
	}
}
