package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"runtime/pprof"
	"slices"
	"syscall"
	"time"
)

// A work is what a worker was started for: this same program, alone on a core.
type work struct {
	name, task string
	profile    string // file; "" for none
}

// do does the work and prints its result.
func (w work) do(ctx context.Context) (err error) {
	if w.profile != "" {
		stop, err := startProfile(w.profile)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, stop()) }()
	}
	var result any
	switch w.name {
	case "prometheus":
		return as(w.task, func(t peerTask) error { return servePrometheus(ctx, t) })
	case "fill":
		err = as(w.task, func(t storeTask) (err error) { result, err = fill(ctx, t); return })
	case "query-kelpie":
		err = as(w.task, func(t queryTask) (err error) { result, err = askKelpie(ctx, t); return })
	case "query-promql":
		err = as(w.task, func(t queryTask) (err error) { result, err = askPromQL(ctx, t); return })
	case "standing":
		err = as(w.task, func(t standingTask) (err error) { result, err = stand(t); return })
	case "value":
		err = as(w.task, func(t standingTask) (err error) { result, err = evaluateEach(ctx, t); return })
	default:
		return fmt.Errorf("-work %q is not known", w.name)
	}
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(result)
}

// as calls do with the task that text describes.
func as[T any](text string, do func(T) error) error {
	var task T
	if err := json.Unmarshal([]byte(text), &task); err != nil {
		return fmt.Errorf("-work-task: %w", err)
	}
	return do(task)
}

func startProfile(path string) (stop func() error, err error) {
	f, err := os.Create(path)
	if err != nil {
		return nil, fmt.Errorf("profile: %w", err)
	}
	if err := pprof.StartCPUProfile(f); err != nil {
		return nil, errors.Join(fmt.Errorf("profile: %w", err), f.Close())
	}
	return func() error {
		pprof.StopCPUProfile()
		return f.Close()
	}, nil
}

// cpuTime is the processor time of this process so far, its collector's too.
func cpuTime() (time.Duration, error) {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0, fmt.Errorf("read processor time: %w", err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()), nil
}

// spent is the processor time that do takes.
func spent(do func() error) (time.Duration, error) {
	before, err := cpuTime()
	if err != nil {
		return 0, err
	}
	if err := do(); err != nil {
		return 0, err
	}
	after, err := cpuTime()
	return after - before, err
}

// quantile returns the value that a part q of values does not exceed; it sorts
// them.
func quantile[T int64 | float64 | time.Duration](values []T, q float64) T {
	slices.Sort(values)
	return values[min(len(values)-1, int(q*float64(len(values))))]
}
