package main

import (
	"context"
	"errors"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"kelpie.dev/kelpie/health"
)

// binary builds the program once.
var binary = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "kelpie-backend-test")
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "kelpie-backend")
	out, err := exec.Command("go", "build", "-o", path, ".").CombinedOutput()
	if err != nil {
		return string(out), err
	}
	return path, nil
})

func TestMain(m *testing.M) {
	code := m.Run()
	if path, err := binary(); err == nil { // built by now, or in vain
		_ = os.RemoveAll(filepath.Dir(path))
	}
	os.Exit(code)
}

// process is a backend that runs.
type process struct {
	cmd         *exec.Cmd
	vars        []string // its environment
	url, health string
	ended       chan struct{}   // closed when it has
	err         error           // how it ended, then
	log         strings.Builder // then
}

// launch starts the program on dir and waits until it takes data.
func launch(t *testing.T, dir string, vars ...string) *process {
	t.Helper()
	for {
		p := launchOnce(t, dir, vars...)
		err := p.waitReady(t)
		if err == nil {
			return p
		}
		_ = p.end(t, syscall.SIGKILL)
		// Between its choice and its use anybody may take a port.
		if !strings.Contains(p.log.String(), "address already in use") {
			t.Fatalf("not ready: %v\n%s", err, p.log.String())
		}
	}
}

func launchOnce(t *testing.T, dir string, vars ...string) *process {
	t.Helper()
	path, err := binary()
	if err != nil {
		t.Fatal(path, err)
	}
	listen, healthAddr := freeAddr(t), freeAddr(t)
	_, healthPort, err := net.SplitHostPort(healthAddr)
	if err != nil {
		t.Fatal(err)
	}
	p := &process{cmd: exec.Command(path), url: "http://" + listen, health: healthAddr, ended: make(chan struct{})}
	p.vars = append([]string{"DD_API_KEY=ak", "DD_APP_KEY=pk", "KELPIE_DATA_DIR=" + dir, "KELPIE_LISTEN=" + listen, "DD_HEALTH_PORT=" + healthPort}, vars...)
	p.cmd.Env = p.vars
	p.cmd.Stderr = &p.log
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		p.err = p.cmd.Wait()
		close(p.ended)
	}()
	t.Cleanup(func() { _ = p.end(t, syscall.SIGKILL) })
	return p
}

func freeAddr(t *testing.T) string {
	t.Helper()
	ln, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ln.Close() }()
	return ln.Addr().String()
}

func (p *process) waitReady(t *testing.T) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		var h health.Health
		err := health.Fetch(ctx, p.health, "/health", &h)
		if err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-p.ended:
			return err
		case <-ctx.Done():
			return err
		}
	}
}

// end sends the process a signal and returns how it ended.
func (p *process) end(t *testing.T, sig syscall.Signal) error {
	t.Helper()
	if err := p.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		t.Error(err)
	}
	<-p.ended
	http.DefaultClient.CloseIdleConnections()
	return p.err
}

// run runs another command of the program with the environment of p.
func (p *process) run(args ...string) (string, error) {
	path, err := binary()
	if err != nil {
		return path, err
	}
	cmd := exec.Command(path, args...)
	cmd.Env = p.vars
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func TestCommandsOfARunningBackend(t *testing.T) {
	dir := t.TempDir()
	p := launch(t, dir)
	says := func(want string, args ...string) {
		t.Helper()
		if out, err := p.run(args...); err != nil || !strings.Contains(out, want) {
			t.Errorf("%v: %v\n%s; want %s", args, err, out, want)
		}
	}
	fails := func(want string, args ...string) {
		t.Helper()
		if out, err := p.run(args...); err == nil || !strings.Contains(out, want) {
			t.Errorf("%v: %v\n%s; want %s", args, err, out, want)
		}
	}
	says("ready: ok", "health")
	says("points accepted   0", "status")
	says(`"started"`, "status", "-j")
	says("dev", "version")

	now := time.Now().Unix()
	post(t, p.url, point(now, 42))
	says("directory "+filepath.Join(dir, "snapshots", "one"), "snapshot", "one")
	fails("there is a snapshot of that name", "snapshot", "one")
	fails("a snapshot's name is", "snapshot", "../two")
	fails("a backend is running on", "restore", "one")
	if err := p.end(t, syscall.SIGTERM); err != nil {
		t.Fatalf("%v\n%s", err, p.log.String())
	}
	fails("is the backend running", "snapshot", "two")
	fails("is not empty", "restore", "one")
	fails("a snapshot is a directory with", "restore", "none")

	elsewhere := filepath.Join(t.TempDir(), "data")
	p.vars = append(p.vars, "KELPIE_DATA_DIR="+elsewhere)
	says("restored  one of 2", "restore", filepath.Join(dir, "snapshots", "one"))
	q := launch(t, elsewhere)
	if got := stored(t, q.url, now); !strings.Contains(got, "42]") {
		t.Errorf("the restored backend answers %s", got)
	}
	if err := q.end(t, syscall.SIGINT); err != nil {
		t.Fatalf("%v\n%s", err, q.log.String())
	}
}

func TestUnknownCommand(t *testing.T) {
	for _, args := range [][]string{{"frobnicate"}, {"snapshot"}, {"restore", "a", "b"}} {
		cmd := command()
		cmd.SetArgs(args)
		if err := cmd.ExecuteContext(t.Context()); err == nil {
			t.Errorf("%v succeeded", args)
		}
	}
}

func TestSignalHasLimitsReadAgain(t *testing.T) {
	path := filepath.Join(t.TempDir(), "limits.yaml")
	if err := os.WriteFile(path, []byte("maxSeries: 10\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	p := launch(t, t.TempDir(), "KELPIE_LIMITS_FILE="+path)
	if err := os.WriteFile(path, []byte("maxSeries: ten\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	// Sooner than it would look of itself.
	for deadline := time.Now().Add(4 * time.Second); ; {
		out, err := p.run("status")
		if err != nil {
			t.Fatal(out, err)
		}
		if strings.Contains(out, "not in force      KELPIE_LIMITS_FILE") {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("the limits are not read again:\n%s", out)
		}
	}
	if err := p.end(t, syscall.SIGTERM); err != nil {
		t.Errorf("%v\n%s", err, p.log.String())
	}
}
