// Command provider measures Kelpie's cluster agent as External Metrics Provider:
// reads beside Kubernetes' own sample adapter, and what ten thousand metrics and
// autoscalers cost against a real kube-apiserver.
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
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"k8s.io/klog/v2"
	ctrllog "sigs.k8s.io/controller-runtime/pkg/log"

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

// The cores: the cluster agent has one, and whatever it talks to the other.
const (
	testedCPU = 0
	otherCPU  = 1
)

// parts are what can be measured, in this order.
var parts = []string{"calls", "read", "cluster"}

func command(ctx context.Context) error {
	// The libraries' own words would drown the figures.
	klog.SetSlogLogger(slog.New(slog.DiscardHandler))
	ctrllog.SetLogger(klog.Background())
	quick := flag.Bool("quick", false, "a tenth of the size, and short: to see that it works, not to quote")
	only := flag.String("only", strings.Join(parts, ","), "what to measure")
	profile := flag.String("profile", "", "directory for profiles of the cluster agent")
	work := flag.String("work", "", "do this and tell as JSON what it took; what the run starts for itself")
	n := flag.Int("work-metrics", 10_000, "metrics of the work")
	flag.Parse()
	if *work != "" {
		return doWork(ctx, *work, *n)
	}
	wanted := map[string]bool{}
	for _, name := range strings.Split(*only, ",") {
		wanted[strings.TrimSpace(name)] = true
	}
	r, err := newRun(ctx, *quick, *profile)
	if err != nil {
		return err
	}
	defer r.close()
	return r.all(ctx, wanted)
}

// A run is one invocation: its settings, and what it has found.
type run struct {
	builder   *process.Builder
	self, dir string
	profile   string // directory; "" for none
	started   int
	metrics   int           // as many autoscalers
	steady    time.Duration // how long a state is watched
	report    figure.Report

	kelpieFlood flood
}

func newRun(ctx context.Context, quick bool, profile string) (*run, error) {
	if n := runtime.NumCPU(); n < 2 {
		return nil, fmt.Errorf("this machine shows %d core: what the cluster agent talks to needs one beside it", n)
	}
	r := &run{metrics: 10_000, steady: time.Minute}
	if quick {
		r.metrics, r.steady = 1000, 15*time.Second
	}
	var err error
	if profile != "" {
		if r.profile, err = filepath.Abs(profile); err != nil {
			return nil, fmt.Errorf("find the directory of profiles: %w", err)
		}
		if err := os.MkdirAll(r.profile, 0o755); err != nil {
			return nil, fmt.Errorf("make the directory of profiles: %w", err)
		}
	}
	if r.builder, err = process.NewBuilder(ctx, figure.Progress); err != nil {
		return nil, err
	}
	if r.self, err = os.Executable(); err != nil {
		return nil, fmt.Errorf("find this program: %w", err)
	}
	if r.dir, err = os.MkdirTemp("", "kelpie-bench-"); err != nil {
		return nil, fmt.Errorf("make a working directory: %w", err)
	}
	return r, nil
}

func (r *run) close() { _ = os.RemoveAll(r.dir) }

// all measures what is wanted and prints it. A part that fails is named at the
// end and spoils no other.
func (r *run) all(ctx context.Context, wanted map[string]bool) error {
	measure := map[string]func(context.Context) error{"calls": r.calls, "read": r.reads, "cluster": r.cluster}
	for name := range wanted {
		if measure[name] == nil {
			return fmt.Errorf("-only %q: expected some of %s", name, strings.Join(parts, ","))
		}
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

// file returns a path of its own for each call.
func (r *run) file(name string) string {
	r.started++
	return filepath.Join(r.dir, fmt.Sprintf("%d-%s", r.started, name))
}

// work has this program, alone on the tested core, do some work, and reads into
// result what it tells.
func (r *run) work(ctx context.Context, name string, result any) error {
	figure.Progress("run    %s", name)
	ctx, cancel := context.WithTimeout(ctx, 10*time.Minute)
	defer cancel()
	var out bytes.Buffer
	p, err := process.Start(ctx, process.Options{
		Args: []string{r.self, "-work", name, "-work-metrics", fmt.Sprint(r.metrics)}, Env: []string{"HOME=" + r.dir},
		Dir: r.dir, CPU: testedCPU, Log: r.file(name + ".log"), Stdout: &out,
	})
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

// doWork does a work and prints its result.
func doWork(ctx context.Context, name string, n int) error {
	works := map[string]func(context.Context, int) (any, error){
		"read-kelpie": readKelpie, "read-sample-adapter": readSample, "calls": countCalls,
	}
	do := works[name]
	if do == nil {
		return fmt.Errorf("-work %q is not known", name)
	}
	result, err := do(ctx, n)
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(result)
}
