package source

import (
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"kelpie.dev/kelpie/datadog"
)

// telemetry holds the source's own metrics. The names without prefix are those
// of Datadog's cluster agent, which its dashboards and its check read; the
// constant label join_leader is theirs as well.
type telemetry struct {
	requests  *prometheus.CounterVec  // by class of answer
	failures  *prometheus.CounterVec  // attempts of queries, by reason
	value     *prometheus.GaugeVec    // by series
	delay     *prometheus.GaugeVec    // by series
	updated   *prometheus.CounterVec  // by series
	elapsed   prometheus.Histogram    // of a cycle
	queries   prometheus.Gauge        // in use
	prefix    string                  // of a series' name
	stretched prometheus.Gauge        // queries that the last cycle had no budget for
	limits    [5]*prometheus.GaugeVec // limit, remaining, period, reset, least remaining
	streaming prometheus.Gauge        // 1 while values are pushed
	latency   prometheus.Observer     // of a request
}

// newTelemetry returns the telemetry of one source. Several sources share the
// metrics of one registerer.
func newTelemetry(o Options) *telemetry {
	join := prometheus.Labels{"join_leader": "true"}
	series := []string{"metric"}
	t := &telemetry{}
	t.requests = register(o.Registerer, prometheus.NewCounterVec(prometheus.CounterOpts{Name: "datadog_requests", ConstLabels: join,
		Help: "Requests to the query API, by kind of answer."}, []string{"status"}))
	if o.PromQL != nil { // those are none of Datadog's API
		t.requests = register(o.Registerer, prometheus.NewCounterVec(prometheus.CounterOpts{Name: "kelpie_external_metrics_prometheus_requests_total",
			Help: "Queries to Prometheus' API, by kind of answer."}, []string{"status"}))
	}
	t.failures = register(o.Registerer, prometheus.NewCounterVec(prometheus.CounterOpts{Name: "kelpie_external_metrics_query_failures_total",
		Help: "Attempts of queries that brought no new value, by reason."}, []string{"reason"}))
	t.value = register(o.Registerer, prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "external_metrics_processed_value", ConstLabels: join,
		Help: "Newest value of each series in use."}, series))
	t.delay = register(o.Registerer, prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "external_metrics_delay_seconds", ConstLabels: join,
		Help: "Age of the newest value's point when it was read."}, series))
	t.updated = register(o.Registerer, prometheus.NewCounterVec(prometheus.CounterOpts{Name: "external_metrics_updated", ConstLabels: join,
		Help: "Values read."}, series))
	for _, reason := range Reasons {
		t.failures.WithLabelValues(string(reason)) // an increase is seen only from something
	}
	t.elapsed = register(o.Registerer, prometheus.NewHistogram(prometheus.HistogramOpts{Name: "external_metrics_retriever_elapsed",
		Help: "Seconds that a polling cycle takes.", Buckets: []float64{0.5, 1, 5, 10, 20, 30, 60, 120, 300}}))
	t.queries = register(o.Registerer, prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "kelpie_external_metrics_queries",
		Help: "Distinct queries in use, by source."}, []string{"source"})).WithLabelValues(string(o.Name))
	t.latency = register(o.Registerer, prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "kelpie_external_metrics_source_request_seconds",
		Help: "Seconds that a source takes to answer a request, or to fail.", Buckets: []float64{.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30}},
		[]string{"source"})).WithLabelValues(string(o.Name))
	t.streaming = register(o.Registerer, prometheus.NewGauge(prometheus.GaugeOpts{Name: "kelpie_external_metrics_streaming",
		Help: "1 while the source pushes values, 0 while it is polled."}))
	t.stretched = register(o.Registerer, prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "kelpie_external_metrics_stretched_queries",
		Help: "Queries that the last cycle left to a later one, as the source's rate limit allows no more requests."}, []string{"source"})).WithLabelValues(string(o.Name))
	for i, g := range []struct{ name, help string }{
		{"limit", "Requests that a period allows."}, {"remaining", "Requests left in this period."}, {"period", "Seconds of a period."},
		{"reset", "Seconds until the next period."}, {"remaining_min", "Least requests left of late."},
	} {
		vec := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "rate_limit_queries_" + g.name, ConstLabels: join, Help: g.help}, []string{"endpoint"})
		if !o.Second && o.PromQL == nil {
			vec = register(o.Registerer, vec) // upstream has one source
		}
		t.limits[i] = vec // without series until an answer names a limit: no limit is not a limit of 0
	}
	if o.Second {
		t.prefix = string(o.Name) + ":"
	}
	return t
}

// register returns c, or what another source has registered in its place. A nil
// reg registers nothing.
func register[C prometheus.Collector](reg prometheus.Registerer, c C) C {
	if reg == nil {
		return c
	}
	err := reg.Register(c)
	var there prometheus.AlreadyRegisteredError
	if errors.As(err, &there) {
		return there.ExistingCollector.(C) // of the same name and labels, from the line that made c
	}
	if err != nil {
		panic(err) // a name that means two things
	}
	return c
}

// show publishes a value under its series, which replaces the one in *shown.
func (t *telemetry) show(shown *string, o outcome, now time.Time) {
	o.series = t.prefix + o.series
	if *shown != o.series {
		t.forget(*shown)
		*shown = o.series
	}
	t.value.WithLabelValues(o.series).Set(o.value)
	t.delay.WithLabelValues(o.series).Set(now.Sub(o.at).Seconds())
	t.updated.WithLabelValues(o.series).Inc()
}

// rate publishes a rate limit.
func (t *telemetry) rate(l datadog.RateLimit, least int) {
	for i, v := range [...]float64{float64(l.Limit), float64(l.Remaining), l.Period.Seconds(), l.Reset.Seconds(), float64(least)} {
		t.limits[i].WithLabelValues("/api/v1/query").Set(v)
	}
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
