package process

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestParseStat(t *testing.T) {
	got, err := parseStat("42 (a) b (c) S 1 2 3 4 5 6 7 8 9 10 250 50 0 0 20 0 9")
	if err != nil || got != 3*time.Second {
		t.Errorf("got %v, %v; want 3s", got, err)
	}
	if _, err := parseStat("42 (a) S 1"); err == nil {
		t.Error("a short line was taken")
	}
}

func TestParseStatus(t *testing.T) {
	got, err := parseStatus("Name:\tx\nVmHWM:\t   2048 kB\nVmRSS:\t  1024 kB\n")
	if want := (Memory{Now: 1 << 20, Peak: 2 << 20}); err != nil || got != want {
		t.Errorf("got %+v, %v; want %+v", got, err, want)
	}
	if _, err := parseStatus("Name:\tx\n"); err == nil {
		t.Error("a status without memory was taken")
	}
}

// TestProcess runs a program that tells which cores it may use.
func TestProcess(t *testing.T) {
	var out bytes.Buffer
	p, err := Start(t.Context(), Options{
		Args: []string{"/bin/sh", "-c", "echo $A; grep Cpus_allowed_list /proc/self/status"},
		Env:  []string{"A=given", "PATH=" + os.Getenv("PATH")}, CPU: 0, Log: filepath.Join(t.TempDir(), "log"), Stdout: &out,
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Wait(); err != nil {
		t.Fatal(err)
	}
	if got := strings.Fields(out.String()); len(got) != 3 || got[0] != "given" || got[2] != "0" {
		t.Errorf("it said %q, want its variable and core 0", out.String())
	}
}

func TestStop(t *testing.T) {
	p, err := Start(t.Context(), Options{Args: []string{"/bin/sleep", "600"}, CPU: 0, Log: filepath.Join(t.TempDir(), "log")})
	if err != nil {
		t.Fatal(err)
	}
	if m, err := p.Memory(); err != nil || m.Now <= 0 {
		t.Errorf("memory %+v, %v", m, err)
	}
	if _, err := p.CPU(); err != nil {
		t.Error(err)
	}
	if err := p.Stop(time.Minute); err != nil {
		t.Error(err)
	}
	if err := p.Stop(time.Minute); err == nil {
		t.Error("stopping it twice was no error")
	}
}

func TestWaitShowsTheLog(t *testing.T) {
	p, err := Start(t.Context(), Options{Args: []string{"/bin/sh", "-c", "echo why >&2; exit 3"}, CPU: 0, Log: filepath.Join(t.TempDir(), "log")})
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Wait(); err == nil || !strings.Contains(err.Error(), "exit status 3") || !strings.Contains(err.Error(), "why") {
		t.Errorf("error %v, want the status and the log", err)
	}
}
