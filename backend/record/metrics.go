package record

import "github.com/prometheus/client_golang/prometheus"

// Labels of the counters.
const (
	kindEvent = "event"
	kindCheck = "service_check"
	kindHost  = "host"

	reasonTime  = "time"  // too far from now
	reasonLimit = "limit" // there are as many as there may be
)

type metrics struct {
	kept    *prometheus.CounterVec // by kind
	refused *prometheus.CounterVec // by kind and reason
	dropped *prometheus.CounterVec // by kind
	cut     *prometheus.CounterVec // by kind
}

func newMetrics(reg prometheus.Registerer, b *Book) *metrics {
	m := &metrics{
		kept: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "kelpie_backend_records_kept_total",
			Help: "Events, runs of service checks and hosts' metadata kept durably.",
		}, []string{"kind"}),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "kelpie_backend_records_refused_total",
			Help: "Events, runs of service checks and hosts that were not kept, by reason.",
		}, []string{"kind", "reason"}),
		dropped: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "kelpie_backend_records_dropped_total",
			Help: "Records that made room for newer ones before their retention was over.",
		}, []string{"kind"}),
		cut: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "kelpie_backend_records_cut_total",
			Help: "Records of which a text was too long and was cut.",
		}, []string{"kind"}),
	}
	m.dropped.WithLabelValues(kindEvent)
	for _, k := range []string{kindEvent, kindCheck, kindHost} {
		m.kept.WithLabelValues(k)
		m.cut.WithLabelValues(k)
	}
	for _, l := range [][2]string{{kindEvent, reasonTime}, {kindCheck, reasonTime}, {kindCheck, reasonLimit}, {kindHost, reasonLimit}} {
		m.refused.WithLabelValues(l[0], l[1])
	}
	if reg == nil {
		return m
	}
	reg.MustRegister(m.kept, m.refused, m.dropped, m.cut)
	gauge := func(kind string, count func() int) {
		reg.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "kelpie_backend_records", Help: "Records that are kept.",
			ConstLabels: prometheus.Labels{"kind": kind},
		}, func() float64 { return float64(count()) }))
	}
	gauge(kindEvent, func() int { return int(b.events.Load()) })
	gauge(kindCheck, func() int { return int(b.checks.Load()) })
	gauge(kindHost, b.hosts.count)
	return m
}
