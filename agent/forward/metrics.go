package forward

import (
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are shared by all senders, told apart by the label endpoint: the
// intake's URL and the key's fingerprint, or the key's file.
type metrics struct {
	requests      *prometheus.CounterVec
	retries       *prometheus.CounterVec
	delivered     *prometheus.CounterVec
	deliveredItem *prometheus.CounterVec
	droppedPoints *prometheus.CounterVec
	droppedItems  *prometheus.CounterVec
	spoolErrors   *prometheus.CounterVec
	fastLane      *prometheus.CounterVec
	registerer    prometheus.Registerer
}

func newMetrics(r prometheus.Registerer) (*metrics, error) {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: "kelpie_agent", Subsystem: "forward", Name: name, Help: help},
			append([]string{"endpoint"}, labels...))
	}
	m := &metrics{
		requests:      counter("requests_total", "Requests to the intake, by HTTP status code, or error when there was no answer.", "kind", "code"),
		retries:       counter("retries_total", "Requests that failed and will be repeated.", "kind"),
		delivered:     counter("delivered_points_total", "Points that the intake has accepted; an event or a service check counts as one.", "kind"),
		deliveredItem: counter("delivered_payloads_total", "Payloads that the intake has accepted.", "kind"),
		droppedPoints: counter("dropped_points_total", "Points that will never be delivered, by reason.", "kind", "reason"),
		droppedItems:  counter("dropped_payloads_total", "Payloads that will never be delivered, by reason.", "kind", "reason"),
		spoolErrors:   counter("spool_errors_total", "Attempts to use the spool's directory that failed."),
		fastLane:      counter("fast_lane_malformed_total", "Answers of the intake whose list of metrics to send every second could not be read."),
		registerer:    r,
	}
	if r == nil {
		return m, nil
	}
	var errs []error
	for _, c := range []prometheus.Collector{m.requests, m.retries, m.delivered, m.deliveredItem, m.droppedPoints, m.droppedItems, m.spoolErrors, m.fastLane} {
		errs = append(errs, r.Register(c))
	}
	return m, errors.Join(errs...)
}

// senderMetrics are one endpoint's.
type senderMetrics struct {
	endpoint    string
	all         *metrics
	spoolErrors prometheus.Counter
}

func (m *metrics) sender(s *sender, endpoint string) *senderMetrics {
	if m.registerer != nil {
		// Two keys of one intake may share a fingerprint; their gauges
		// cannot, so that the second is left out.
		for name, g := range map[string]func(depth) float64{
			"queue_payloads": func(d depth) float64 { return float64(d.payloads) },
			"queue_bytes":    func(d depth) float64 { return float64(d.bytes) },
			"spool_payloads": func(d depth) float64 { return float64(d.files) },
			"spool_bytes":    func(d depth) float64 { return float64(d.diskBytes) },
			"queue_oldest_age_seconds": func(d depth) float64 {
				if d.payloads == 0 {
					return 0
				}
				return s.o.Now().Sub(d.oldest).Round(time.Millisecond).Seconds()
			},
		} {
			_ = m.registerer.Register(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
				Namespace: "kelpie_agent", Subsystem: "forward", Name: name,
				Help:        "State of the endpoint's payloads that wait for delivery: queue_payloads counts all, queue_bytes those in memory, spool_* those on disk.",
				ConstLabels: prometheus.Labels{"endpoint": endpoint},
			}, func() float64 { return g(s.queue.depth()) }))
		}
	}
	return &senderMetrics{endpoint: endpoint, all: m, spoolErrors: m.spoolErrors.WithLabelValues(endpoint)}
}

func (m *senderMetrics) request(k kind, code string) {
	m.all.requests.WithLabelValues(m.endpoint, k.String(), code).Inc()
}

func (m *senderMetrics) retry(k kind) { m.all.retries.WithLabelValues(m.endpoint, k.String()).Inc() }

func (m *senderMetrics) malformedOffer() { m.all.fastLane.WithLabelValues(m.endpoint).Inc() }

func (m *senderMetrics) delivered(f file) {
	m.all.delivered.WithLabelValues(m.endpoint, f.kind.String()).Add(float64(f.points))
	m.all.deliveredItem.WithLabelValues(m.endpoint, f.kind.String()).Inc()
}

func (m *senderMetrics) dropped(k kind, reason string, points, payloads int) {
	m.all.droppedPoints.WithLabelValues(m.endpoint, k.String(), reason).Add(float64(points))
	m.all.droppedItems.WithLabelValues(m.endpoint, k.String(), reason).Add(float64(payloads))
}
