package state

import (
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
)

// telemetry holds the collector's own metrics.
type telemetry struct {
	runs          *prometheus.CounterVec // by result
	series        prometheus.Gauge       // of the last run
	delivered     prometheus.Counter     // points
	dropped       *prometheus.CounterVec // points, by reason
	droppedPoints atomic.Uint64          // the same, for the status
}

func newTelemetry(reg prometheus.Registerer, objects func() int) *telemetry {
	t := &telemetry{
		runs: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "kelpie_kubernetes_state_runs_total",
			Help: "Periods, by what was done: sent, not_leader, not_synced."}, []string{"result"}),
		series: prometheus.NewGauge(prometheus.GaugeOpts{Name: "kelpie_kubernetes_state_series",
			Help: "Series of the last run of this replica as leader."}),
		delivered: prometheus.NewCounter(prometheus.CounterOpts{Name: "kelpie_kubernetes_state_points_delivered_total",
			Help: "Points that the intake took."}),
		dropped: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "kelpie_kubernetes_state_points_dropped_total",
			Help: "Points that never reached the intake, by reason: queue_full, too_old, refused, too_large, shutdown."}, []string{"reason"}),
	}
	if reg != nil {
		reg.MustRegister(t.runs, t.series, t.delivered, t.dropped, prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "kelpie_kubernetes_state_objects", Help: "Workloads and autoscalers in memory.",
		}, func() float64 { return float64(objects()) }))
	}
	return t
}

func (t *telemetry) drop(reason string, points int) {
	if points > 0 {
		t.dropped.WithLabelValues(reason).Add(float64(points))
		t.droppedPoints.Add(uint64(points))
	}
}
