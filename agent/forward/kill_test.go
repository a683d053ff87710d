package forward

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// agentEnv tells a copy of the test's program to be the agent of TestKill: the
// intake's URL, the spool and the numbers of the first batch and of the one
// after the last, separated by spaces.
const agentEnv = "KELPIE_TEST_FORWARD_AGENT"

// runAsAgent forwards numbered batches, tells how many payloads it has on disk
// whenever that changes, and never ends by itself.
func runAsAgent() {
	var url, dir string
	var from, to int64
	if n, _ := fmt.Sscan(os.Getenv(agentEnv), &url, &dir, &from, &to); n != 4 {
		return
	}
	o := options(url)
	o.SpoolDir = dir
	f, err := New(o)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	in := make(chan Batch)
	go func() {
		for i := from; i < to; i++ {
			in <- batch(i)
		}
	}()
	go func() { _ = f.Run(context.Background(), in) }()
	for last := -1; ; time.Sleep(time.Millisecond) {
		if n := f.Status()[0].Spool.Payloads; n != last {
			fmt.Println(n)
			last = n
		}
	}
}

// killed starts an agent, waits until it has told enough, and kills it.
func killed(t *testing.T, config string, enough func(onDisk int) bool) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), self)
	cmd.Env = append(os.Environ(), agentEnv+"="+config)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if n, err := strconv.Atoi(lines.Text()); err != nil {
			t.Errorf("the agent says %q", lines.Text())
		} else if enough(n) {
			break
		}
	}
	if err := cmd.Process.Signal(syscall.SIGKILL); err != nil {
		t.Error(err)
	}
	_, _ = io.Copy(io.Discard, out)
	err = cmd.Wait()
	if cmd.ProcessState.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		t.Fatalf("the agent ended by %v, and not by SIGKILL", err)
	}
}

// TestKill kills agents with SIGKILL, twice with all they were given in the spool,
// and once in the middle of delivering it. Then every point arrives, in order; and
// once, but for the payload that was on its way at the third kill: its answer may
// have come before its file was removed.
func TestKill(t *testing.T) {
	const n = 300
	in := newIntake(t, nil)
	dir := t.TempDir()
	killed(t, fmt.Sprint("http://127.0.0.1:1 ", dir, " 0 ", n/2), func(onDisk int) bool { return onDisk == n/2 })
	killed(t, fmt.Sprint("http://127.0.0.1:1 ", dir, " ", n/2, " ", n), func(onDisk int) bool { return onDisk == n })
	// The same intake is now at another address, and may have what waits for it.
	o := options(in.URL)
	o.SpoolDir = dir
	if err := os.Rename(onlyDirectory(t, dir), directory(o)); err != nil {
		t.Fatal(err)
	}
	if waits := len(names(t, directory(o))); waits != n {
		t.Fatalf("%d payloads in the spool, want %d", waits, n)
	}

	const taken = 100 // the last of them without the agent's hearing of it
	asked, reached, dead := 0, make(chan struct{}), make(chan struct{})
	in.setAnswer(func(int) (int, string) {
		if asked++; asked == taken {
			close(reached)
			<-dead
		}
		return 0, ""
	})
	started := false
	killed(t, fmt.Sprint(in.URL, " ", dir, " 0 0"), func(onDisk int) bool {
		if started = started || onDisk > n-taken+1; !started || onDisk != n-taken+1 {
			return false
		}
		<-reached
		return true
	})
	close(dead)
	f := mustNew(t, o)
	_, end := run(t, f)
	eventually(t, "all arrives", func() bool { return len(in.got()) > n && f.Status()[0].QueuePayloads == 0 })
	end()
	if diff := cmp.Diff(append(sequence(taken), sequence(n)[taken-1:]...), in.got()); diff != "" {
		t.Errorf("(-want +got):\n%.2000s", diff)
	}
	if s := f.Status()[0]; s.DroppedPts != 0 || s.Spool.Foreign != 0 || len(names(t, directory(o))) != 0 {
		t.Errorf("status %+v, spool %+v", s, *s.Spool)
	}
}

func onlyDirectory(t *testing.T, dir string) string {
	t.Helper()
	all := names(t, dir)
	if len(all) != 1 {
		t.Fatalf("%q, want one directory", all)
	}
	return strings.TrimSuffix(dir, "/") + "/" + all[0]
}

func (in *intake) setAnswer(answer func(int) (int, string)) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.answer = answer
}
