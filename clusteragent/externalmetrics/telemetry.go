package externalmetrics

import (
	"errors"
	"log/slog"
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"kelpie.dev/kelpie/clusteragent/policy"
	"kelpie.dev/kelpie/clusteragent/source"
)

// telemetry holds the provider's own metrics. Those without prefix have
// Datadog's names, types and labels.
type telemetry struct {
	answered, failed counts // a read looks up no label

	answers  *prometheus.CounterVec // by HTTP status
	ok       prometheus.Counter     // of them 200
	age      prometheus.Histogram
	standIns *prometheus.CounterVec
	refused  *prometheus.CounterVec

	authorizations *prometheus.CounterVec // the server counts them
}

// Authorizations returns the counter for the Server in front of p, once p is instrumented.
func (p *Provider) Authorizations() *prometheus.CounterVec { return p.tel.authorizations }

// counts count requests.
type counts struct {
	requests prometheus.Gauge // compat: Datadog counts with a gauge
	elapsed  prometheus.Observer
}

// count counts a request that met err.
func (t *telemetry) count(err error, took time.Duration) {
	c := t.answered
	if err != nil {
		c = t.failed
		t.answers.WithLabelValues(code(err)).Inc()
	} else {
		t.ok.Inc()
	}
	c.requests.Inc()
	c.elapsed.Observe(took.Seconds())
}

// Instrument registers the provider's own metrics and gives it a logger. It must
// be called once, before the first request.
func (p *Provider) Instrument(reg prometheus.Registerer, log *slog.Logger) {
	p.log = log
	requests := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "external_metrics_api_requests",
		Help: "Requests for external metrics, ever more of them: for rates take kelpie_external_metrics_requests_total."}, []string{"handler", "in_error"})
	elapsed := prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "external_metrics_api_elapsed",
		Help: "Seconds to answer a request."}, []string{"handler", "in_error"})
	p.tel = &telemetry{
		answered: counts{requests.WithLabelValues("get", "false"), elapsed.WithLabelValues("get", "false")},
		failed:   counts{requests.WithLabelValues("get", "true"), elapsed.WithLabelValues("get", "true")},
		answers: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "kelpie_external_metrics_requests_total",
			Help: "Requests for external metrics, by the HTTP status of the answer."}, []string{"code"}),
		age: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "kelpie_external_metrics_served_age_seconds",
			Help: "Age of the data points served.", Buckets: []float64{1, 2, 5, 10, 20, 30, 45, 60, 90, 120, 180, 300, 900}}),
		standIns: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "kelpie_external_metrics_stand_ins_total",
			Help: "Requests answered with what a DatadogMetric's annotation has stand in for data that there are not."}, []string{"reason"}),
		authorizations: newAuthorizations(),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "kelpie_external_metrics_refused_total",
			Help: "Requests that the policy refused."}, []string{"reason"}),
	}
	// A first increase shows only where there was a zero before.
	p.tel.ok = p.tel.answers.WithLabelValues("200")
	for _, c := range []string{"403", "404", "422", "500", "503"} {
		p.tel.answers.WithLabelValues(c)
	}
	for _, reason := range []source.Reason{source.NoData, source.Stale} {
		p.tel.standIns.WithLabelValues(string(reason))
	}
	for _, reason := range []string{policy.Forbidden, policy.QuotaExceeded} {
		p.tel.refused.WithLabelValues(reason)
	}
	reg.MustRegister(requests, p.tel.answers, elapsed, p.tel.age, p.tel.standIns, p.tel.refused, p.tel.authorizations)
}

// code is the HTTP status of an answer that met err.
func code(err error) string {
	if err == nil {
		return "200"
	}
	if s, ok := errors.AsType[*apierrors.StatusError](err); ok {
		return strconv.Itoa(int(s.ErrStatus.Code))
	}
	return strconv.Itoa(http.StatusInternalServerError)
}
