package externalmetrics

import (
	"log/slog"

	"github.com/prometheus/client_golang/prometheus"
)

// counts count requests.
type counts struct {
	requests prometheus.Counter
	elapsed  prometheus.Observer
}

// Instrument registers the provider's own metrics and gives it a logger. It must
// be called once, before the first request. The metrics without prefix have
// Datadog's names.
func (p *Provider) Instrument(reg prometheus.Registerer, log *slog.Logger) {
	p.log = log
	requests := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "external_metrics_api_requests",
		Help: "Requests for external metrics."}, []string{"handler", "in_error"})
	elapsed := prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "external_metrics_api_elapsed",
		Help: "Seconds to answer a request."}, []string{"handler", "in_error"})
	p.age = prometheus.NewHistogram(prometheus.HistogramOpts{Name: "kelpie_external_metrics_served_age_seconds",
		Help: "Age of the data points served.", Buckets: []float64{1, 2, 5, 10, 20, 30, 45, 60, 90, 120, 180, 300, 900}})
	p.standIns = prometheus.NewCounterVec(prometheus.CounterOpts{Name: "kelpie_external_metrics_stand_ins_total",
		Help: "Requests answered with what a DatadogMetric's annotation has stand in for data that there are not."}, []string{"reason"})
	p.refused = prometheus.NewCounterVec(prometheus.CounterOpts{Name: "kelpie_external_metrics_refused_total",
		Help: "Requests that the policy refused."}, []string{"reason"})
	for i, inError := range []string{"false", "true"} {
		p.counts[i] = counts{requests.WithLabelValues("get", inError), elapsed.WithLabelValues("get", inError)}
	}
	reg.MustRegister(requests, elapsed, p.age, p.standIns, p.refused)
}
