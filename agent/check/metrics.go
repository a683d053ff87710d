package check

import (
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are the runner's own.
type metrics struct {
	instances prometheus.Gauge
	problems  prometheus.Gauge
	runs      *prometheus.CounterVec
	panics    *prometheus.CounterVec
	duration  *prometheus.HistogramVec
	series    *prometheus.CounterVec
	dropped   *prometheus.CounterVec
}

func newMetrics(r prometheus.Registerer) (*metrics, error) {
	const namespace, subsystem = "kelpie_agent", "check"
	vec := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: namespace, Subsystem: subsystem, Name: name, Help: help}, labels)
	}
	gauge := func(name, help string) prometheus.Gauge {
		return prometheus.NewGauge(prometheus.GaugeOpts{Namespace: namespace, Subsystem: subsystem, Name: name, Help: help})
	}
	m := &metrics{
		instances: gauge("instances", "Instances of checks that run."),
		problems:  gauge("config_problems", "Configurations of checks that cannot be used."),
		runs:      vec("runs_total", "Runs of checks, by check and result.", "check", "result"),
		panics:    vec("panics_total", "Runs of checks that panicked.", "check"),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Namespace: namespace, Subsystem: subsystem, Name: "run_duration_seconds", Help: "Time of a run of a check.",
			Buckets: prometheus.ExponentialBuckets(0.001, 4, 8),
		}, []string{"check"}),
		series:  vec("series_total", "Series that checks submitted.", "check"),
		dropped: vec("dropped_total", "Submissions of checks that were dropped, by check and reason.", "check", "reason"),
	}
	if r == nil {
		return m, nil
	}
	var errs []error
	for _, c := range []prometheus.Collector{m.instances, m.problems, m.runs, m.panics, m.duration, m.series, m.dropped} {
		errs = append(errs, r.Register(c))
	}
	return m, errors.Join(errs...)
}

func (m *metrics) configured(instances, problems int) {
	m.instances.Set(float64(instances))
	m.problems.Set(float64(problems))
}

func (m *metrics) panicked(check string) { m.panics.WithLabelValues(check).Inc() }

func (m *metrics) ran(check string, took time.Duration, series int, dropped map[Drop]int, err error) {
	result := "ok"
	if err != nil {
		result = "error"
	}
	m.runs.WithLabelValues(check, result).Inc()
	m.duration.WithLabelValues(check).Observe(took.Seconds())
	m.series.WithLabelValues(check).Add(float64(series))
	for reason, n := range dropped {
		m.dropped.WithLabelValues(check, string(reason)).Add(float64(n))
	}
}
