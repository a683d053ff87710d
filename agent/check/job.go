package check

import (
	"context"
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync"
	"time"

	"kelpie.dev/kelpie/agent/origin"
	"kelpie.dev/kelpie/metric"
)

// job is an instance that runs.
type job struct {
	id          uint64
	instance    *Instance
	check       Check
	sender      *Sender
	interval    time.Duration
	tags        metric.Tags // of the agent and of the configuration
	host        string
	pods        Pods
	cardinality origin.Cardinality
	now         func() time.Time
	log         *slog.Logger
	metrics     *metrics
	cancel      context.CancelFunc

	mu     sync.Mutex // guards status
	status runStatus
}

// runStatus is what is known of an instance's runs.
type runStatus struct {
	runs, failures, skipped uint64
	last                    time.Time
	took                    time.Duration
	series, checks          int
	err                     string
	warnings                []string
	next                    time.Time
}

// loop runs the check at its interval until ctx ends. A run that takes longer
// than the interval makes the next one fall out, and moves no other.
func (j *job) loop(ctx context.Context, out Output) {
	defer j.check.Close()
	wait := time.Duration(j.id % uint64(min(j.interval, maxFirstWait)))
	slot := time.Now().Add(wait)
	timer := time.NewTimer(wait)
	defer timer.Stop()
	j.setNext(j.now().Add(wait))
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		j.once(ctx, out)
		slot = slot.Add(j.interval)
		missed := uint64(0)
		if late := time.Since(slot); late > 0 {
			missed = uint64(late/j.interval) + 1
			slot = slot.Add(time.Duration(missed) * j.interval)
		}
		j.mu.Lock()
		j.status.skipped += missed
		j.mu.Unlock()
		wait := time.Until(slot)
		j.setNext(j.now().Add(wait))
		timer.Reset(wait)
	}
}

func (j *job) setNext(at time.Time) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.status.next = at
}

// minTimeout is what a run is given at least.
const minTimeout = DefaultInterval

// once runs the check and tells what it submitted.
func (j *job) once(ctx context.Context, out Output) {
	at, began := j.now(), time.Now()
	limited, cancel := context.WithTimeout(ctx, max(j.interval, minTimeout))
	defer cancel()
	j.sender.begin(at)
	err := j.guarded(limited)
	if ctx.Err() != nil {
		return // the instance is not wanted any more
	}
	series, checks := j.sender.end(surroundings{host: j.host, tags: j.tagsNow(at), interval: j.interval})
	took := time.Since(began)
	if len(series)+len(checks) > 0 {
		out(ctx, series, checks)
	}
	j.metrics.ran(j.instance.Check, took, len(series), j.sender.dropped, err)
	j.record(at, took, len(series), len(checks), err)
}

// guarded turns a panic of the check into its error: it must not take the
// agent down.
func (j *job) guarded(ctx context.Context) (err error) {
	defer func() {
		if p := recover(); p != nil {
			j.metrics.panicked(j.instance.Check)
			j.log.Error("a check panicked", "check", j.instance.Check, "source", j.instance.Source, "panic", p, "stack", string(debug.Stack()))
			err = fmt.Errorf("the check panicked: %v: this is a defect of the check, please report it", p)
		}
	}()
	return j.check.Run(ctx, j.sender)
}

// tagsNow returns the tags of all series, those of the watched pod included.
func (j *job) tagsNow(now time.Time) metric.Tags {
	if j.pods == nil || !j.instance.Entity.Known() {
		return j.tags
	}
	levels, _ := j.pods.Lookup(j.instance.Entity, now)
	if levels == nil {
		return j.tags
	}
	return j.tags.Union(levels.At(j.cardinality)...)
}

func (j *job) record(at time.Time, took time.Duration, series, checks int, err error) {
	warnings := j.sender.warnings
	for _, d := range Drops {
		if n := j.sender.dropped[d]; n > 0 {
			warnings = append(warnings, fmt.Sprintf("%d submissions of the last run were dropped: %s", n, d.meaning(j.sender.limit)))
		}
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	s := &j.status
	failedBefore := s.err != ""
	s.runs++
	s.last, s.took, s.series, s.checks, s.warnings, s.err = at, took, series, checks, warnings, ""
	if err != nil {
		s.failures++
		s.err = shorten(err.Error())
		if !failedBefore {
			j.log.Warn("a check failed", "check", j.instance.Check, "source", j.instance.Source, "error", s.err)
		}
	} else if failedBefore {
		j.log.Info("a check is well again", "check", j.instance.Check, "source", j.instance.Source)
	}
}

// meaning says what a drop is, with its mend.
func (d Drop) meaning(limit int) string {
	switch d {
	case DropLimit:
		return fmt.Sprintf("more than %d contexts (exclude metrics or labels, or raise max_returned_metrics)", limit)
	case DropNotFinite:
		return "the value is not a finite number"
	default:
		return "too many service checks"
	}
}
