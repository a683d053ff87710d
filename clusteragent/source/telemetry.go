package source

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// telemetry holds the source's own metrics. The names without prefix are those
// of Datadog's cluster agent, which its dashboards and its check read; the
// constant label join_leader is theirs as well.
type telemetry struct {
	requests  *prometheus.CounterVec // by class of answer
	failures  *prometheus.CounterVec // attempts of queries, by reason
	value     *prometheus.GaugeVec   // by series
	delay     *prometheus.GaugeVec   // by series
	updated   *prometheus.CounterVec // by series
	elapsed   prometheus.Histogram   // of a cycle
	queries   prometheus.Gauge       // in use
	streaming prometheus.Gauge       // 1 while values are pushed
}

func newTelemetry(reg prometheus.Registerer) *telemetry {
	join := prometheus.Labels{"join_leader": "true"}
	series := []string{"metric"}
	t := &telemetry{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "datadog_requests", ConstLabels: join,
			Help: "Requests to the query API, by kind of answer."}, []string{"status"}),
		failures: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "kelpie_external_metrics_query_failures_total",
			Help: "Attempts of queries that brought no new value, by reason."}, []string{"reason"}),
		value: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "external_metrics_processed_value", ConstLabels: join,
			Help: "Newest value of each series in use."}, series),
		delay: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "external_metrics_delay_seconds", ConstLabels: join,
			Help: "Age of the newest value's point when it was read."}, series),
		updated: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "external_metrics_updated", ConstLabels: join,
			Help: "Values read."}, series),
		elapsed: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "external_metrics_retriever_elapsed",
			Help: "Seconds that a polling cycle takes.", Buckets: []float64{0.5, 1, 5, 10, 20, 30, 60, 120, 300}}),
		queries: prometheus.NewGauge(prometheus.GaugeOpts{Name: "kelpie_external_metrics_queries",
			Help: "Distinct queries in use."}),
		streaming: prometheus.NewGauge(prometheus.GaugeOpts{Name: "kelpie_external_metrics_streaming",
			Help: "1 while the source pushes values, 0 while it is polled."}),
	}
	if reg != nil {
		reg.MustRegister(t.requests, t.failures, t.value, t.delay, t.updated, t.elapsed, t.queries, t.streaming)
	}
	return t
}

// show publishes a value under its series, which replaces the one in *shown.
func (t *telemetry) show(shown *string, o outcome, now time.Time) {
	if *shown != o.series {
		t.forget(*shown)
		*shown = o.series
	}
	t.value.WithLabelValues(o.series).Set(o.value)
	t.delay.WithLabelValues(o.series).Set(now.Sub(o.at).Seconds())
	t.updated.WithLabelValues(o.series).Inc()
}

// forget drops a series that is no longer read, so that cardinality follows use.
func (t *telemetry) forget(series string) {
	if series == "" {
		return
	}
	t.value.DeleteLabelValues(series)
	t.delay.DeleteLabelValues(series)
	t.updated.DeleteLabelValues(series)
}
