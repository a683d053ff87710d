package store

import (
	"cmp"
	"errors"
)

// Limits are the bounds of a Store that may change while it is open; see the
// fields of Options with the same names. 0 means the default.
type Limits struct {
	MaxMetricSeries, MaxSeries, MaxMetricNames, MaxSelectSeries, MaxSelectPoints int
}

// limits are those that o begins with.
func (o *Options) limits() Limits {
	return Limits{o.MaxMetricSeries, o.MaxSeries, o.MaxMetricNames, o.MaxSelectSeries, o.MaxSelectPoints}
}

func (l *Limits) validate() error {
	if min(l.MaxMetricSeries, l.MaxSeries, l.MaxMetricNames, l.MaxSelectSeries, l.MaxSelectPoints) < 0 {
		return errors.New("store: limits must not be negative")
	}
	l.MaxMetricSeries = cmp.Or(l.MaxMetricSeries, 200_000)
	l.MaxSeries = cmp.Or(l.MaxSeries, defaultMaxSeries)
	l.MaxMetricNames = cmp.Or(l.MaxMetricNames, defaultMaxMetricNames)
	l.MaxSelectSeries = cmp.Or(l.MaxSelectSeries, 100_000)
	l.MaxSelectPoints = cmp.Or(l.MaxSelectPoints, 20_000_000)
	return nil
}

// SetLimits has l hold from now on. A lower limit takes nothing back that was
// accepted.
func (s *Store) SetLimits(l Limits) error {
	if err := l.validate(); err != nil {
		return err
	}
	s.bounds.Store(&l)
	return nil
}
