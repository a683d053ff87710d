package check

import (
	"context"
	"errors"
	"fmt"
	"time"

	"kelpie.dev/kelpie/metric"
)

// A Trial is an instance that is run by hand, to try a configuration.
type Trial struct {
	check    Check
	instance *Instance
	sender   *Sender
}

// NewTrial makes the check of an instance. The caller closes the trial.
func NewTrial(k Kind, i Instance) (*Trial, error) {
	if err := i.decodeCommon(); err != nil {
		return nil, err
	}
	c, err := k.New(&i)
	if err != nil {
		return nil, err
	}
	return &Trial{check: c, instance: &i, sender: newSender()}, nil
}

// Run runs the check as if it were at, and returns what it submitted.
func (t *Trial) Run(ctx context.Context, at time.Time) ([]metric.Series, []metric.ServiceCheck, error) {
	t.sender.begin(at)
	err := t.check.Run(ctx, t.sender)
	series, checks := t.sender.end(surroundings{tags: t.instance.tags(), interval: t.instance.interval()})
	return series, checks, err
}

// Warnings returns what the configuration and the last run should tell their
// owner, as one error for each, or nil.
func (t *Trial) Warnings() error {
	var errs []error
	for _, w := range append(t.instance.warnings, t.sender.warnings...) {
		errs = append(errs, errors.New(w))
	}
	for _, d := range Drops {
		if n := t.sender.dropped[d]; n > 0 {
			errs = append(errs, fmt.Errorf("%d submissions were dropped: %s", n, d.meaning(t.sender.limit)))
		}
	}
	return errors.Join(errs...)
}

// Close gives back what the check left open.
func (t *Trial) Close() { t.check.Close() }
