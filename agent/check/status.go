package check

import (
	"cmp"
	"slices"
	"time"
)

// Status is what is known of all checks.
type Status struct {
	Instances []InstanceStatus `json:"instances"` // by check, then source
	Problems  []Problem        `json:"problems"`  // configurations that do not run
}

// InstanceStatus is what is known of an instance that runs.
type InstanceStatus struct {
	Check         string     `json:"check"`
	Name          string     `json:"name,omitempty"` // given by its configuration
	Source        string     `json:"source"`
	Interval      string     `json:"interval"`
	Runs          uint64     `json:"runs"`
	Failures      uint64     `json:"failures"`
	Skipped       uint64     `json:"skipped"` // runs that fell out because the one before took too long
	LastRun       *time.Time `json:"last_run,omitempty"`
	LastDuration  string     `json:"last_duration,omitempty"`
	Series        int        `json:"series"`         // of the last run
	ServiceChecks int        `json:"service_checks"` // of the last run
	LastError     string     `json:"last_error,omitempty"`
	Warnings      []string   `json:"warnings,omitempty"`
	NextRun       time.Time  `json:"next_run"`
}

// Status describes what runs and what cannot.
func (r *Runner) Status() Status {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := Status{Problems: slices.Concat(r.fixed, r.problems)}
	for _, j := range r.jobs {
		s.Instances = append(s.Instances, j.snapshot())
	}
	slices.SortFunc(s.Instances, func(a, b InstanceStatus) int {
		return cmp.Or(cmp.Compare(a.Check, b.Check), cmp.Compare(a.Source, b.Source), cmp.Compare(a.Name, b.Name))
	})
	return s
}

func (j *job) snapshot() InstanceStatus {
	j.mu.Lock()
	defer j.mu.Unlock()
	s := InstanceStatus{
		Check: j.instance.Check, Name: j.instance.common.Name, Source: j.instance.Source, Interval: j.interval.String(),
		Runs: j.status.runs, Failures: j.status.failures, Skipped: j.status.skipped,
		Series: j.status.series, ServiceChecks: j.status.checks, LastError: j.status.err,
		Warnings: slices.Concat(j.instance.warnings, j.status.warnings), NextRun: j.status.next,
	}
	if j.status.runs > 0 {
		last := j.status.last
		s.LastRun, s.LastDuration = &last, j.status.took.Round(time.Microsecond).String()
	}
	return s
}
