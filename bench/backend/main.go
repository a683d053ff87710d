// Command backend measures Kelpie's backend beside Prometheus: the same samples,
// the same queries over the same database, on the same core.
//
// It prints tables for people, then one JSON line for each figure. See
// bench/README.md.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"kelpie.dev/kelpie/bench/figure"
	"kelpie.dev/kelpie/bench/process"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := command(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// The cores: programs under test have one, what sends and asks the other.
const (
	testedCPU = 0
	senderCPU = 1
)

// parts are what can be measured, in this order.
var parts = []string{"intake", "range", "instant", "standing", "latency"}

func command(ctx context.Context) error {
	quick := flag.Bool("quick", false, "small loads: to see that it works, not to quote")
	only := flag.String("only", strings.Join(parts, ","), "what to measure")
	profile := flag.String("profile", "", "directory for processor profiles of what is measured in process")
	var w work
	flag.StringVar(&w.name, "work", "", "do this and tell as JSON what it took; what the run starts for itself")
	flag.StringVar(&w.task, "work-task", "{}", "JSON of the task")
	flag.StringVar(&w.profile, "work-profile", "", "file for a processor profile")
	flag.Parse()
	if w.name != "" {
		return w.do(ctx)
	}
	wanted, err := selected(*only)
	if err != nil {
		return err
	}
	r, err := newRun(ctx, *quick, *profile)
	if err != nil {
		return err
	}
	defer r.close()
	return r.all(ctx, wanted)
}

// selected reads a list of parts.
func selected(only string) (map[string]bool, error) {
	wanted := map[string]bool{}
	for _, name := range strings.Split(only, ",") {
		wanted[strings.TrimSpace(name)] = true
	}
	known := map[string]bool{}
	for _, p := range parts {
		known[p] = true
	}
	for name := range wanted {
		if !known[name] {
			return nil, fmt.Errorf("-only %q: expected some of %s", name, strings.Join(parts, ","))
		}
	}
	return wanted, nil
}

// A run is one invocation: its settings, and what it has found.
type run struct {
	backendBin string
	self, dir  string
	profile    string
	started    int
	quick      bool
	report     figure.Report
}

func newRun(ctx context.Context, quick bool, profile string) (*run, error) {
	if n := runtime.NumCPU(); n < 2 {
		return nil, fmt.Errorf("this machine shows %d core: the sender needs one beside the backend's", n)
	}
	r := &run{quick: quick, profile: profile}
	if profile != "" {
		var err error
		if r.profile, err = filepath.Abs(profile); err != nil {
			return nil, fmt.Errorf("find the directory of profiles: %w", err)
		}
		if err := os.MkdirAll(r.profile, 0o755); err != nil {
			return nil, fmt.Errorf("make the directory of profiles: %w", err)
		}
	}
	b, err := process.NewBuilder(ctx, figure.Progress)
	if err != nil {
		return nil, err
	}
	if r.backendBin, err = b.Build(ctx, "kelpie-backend", b.Kelpie, "./cmd/kelpie-backend"); err != nil {
		return nil, err
	}
	if r.self, err = os.Executable(); err != nil {
		return nil, fmt.Errorf("find this program: %w", err)
	}
	if r.dir, err = os.MkdirTemp("", "kelpie-bench-"); err != nil {
		return nil, fmt.Errorf("make a working directory: %w", err)
	}
	return r, process.PinSelf(senderCPU)
}

func (r *run) close() { _ = os.RemoveAll(r.dir) }

// all measures what is wanted and prints it. A part that fails is named at the
// end and spoils no other.
func (r *run) all(ctx context.Context, wanted map[string]bool) error {
	measure := map[string]func(context.Context) error{
		"intake": r.intake, "range": r.rangeQueries, "instant": r.instantQuery, "standing": r.standing, "latency": r.latency,
	}
	for _, part := range parts {
		if !wanted[part] {
			continue
		}
		if err := measure[part](ctx); err != nil {
			r.report.Failed(part, err)
		}
		if ctx.Err() != nil {
			return fmt.Errorf("interrupted while measuring %s", part)
		}
	}
	if load, err := os.ReadFile("/proc/loadavg"); err == nil {
		r.report.Note("load average at the end: %s", strings.TrimSpace(string(load)))
	}
	return r.report.Finish(os.Stdout)
}

// pick returns full, or quick in a quick run.
func pick[T any](r *run, full, quick T) T {
	if r.quick {
		return quick
	}
	return full
}

// file returns a path of its own for each call.
func (r *run) file(name string) string {
	r.started++
	return filepath.Join(r.dir, fmt.Sprintf("%d-%s", r.started, name))
}

// worker starts this program on the tested core to do some work.
func (r *run) worker(ctx context.Context, name string, task any, stdout *bytes.Buffer) (*process.Process, error) {
	text, err := json.Marshal(task)
	if err != nil {
		return nil, fmt.Errorf("describe %s: %w", name, err)
	}
	args := []string{r.self, "-work", name, "-work-task", string(text)}
	if r.profile != "" {
		args = append(args, "-work-profile", filepath.Join(r.profile, fmt.Sprintf("%s-%d.pprof", name, r.started)))
	}
	return process.Start(ctx, process.Options{Args: args, Env: []string{"HOME=" + r.dir}, Dir: r.dir, CPU: testedCPU, Log: r.file(name + ".log"), Stdout: stdout})
}

// work has a worker do a task, and reads into result what it tells.
func (r *run) work(ctx context.Context, name string, task, result any) error {
	figure.Progress("run    %s %+v", name, task)
	ctx, cancel := context.WithTimeout(ctx, 20*time.Minute)
	defer cancel()
	var out bytes.Buffer
	p, err := r.worker(ctx, name, task, &out)
	if err != nil {
		return err
	}
	if err := p.Wait(); err != nil {
		return err
	}
	if err := json.Unmarshal(out.Bytes(), result); err != nil {
		return fmt.Errorf("read what %s tells: %w", name, err)
	}
	return nil
}

func mib(n int64) float64 { return float64(n) / (1 << 20) }

func millis(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
