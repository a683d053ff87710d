package store

import (
	"sync"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are the store's own counters.
type metrics struct {
	accepted    prometheus.Counter
	refused     *prometheus.CounterVec
	writeErrors prometheus.Counter

	mu       sync.Mutex // guards what follows, the same counts for Stats
	taken    uint64
	byReason map[string]uint64
}

func newMetrics(reg prometheus.Registerer, s *Store) *metrics {
	m := &metrics{
		byReason: make(map[string]uint64),
		accepted: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "kelpie_backend_points_accepted_total",
			Help: "Points written durably. The sketch of one bucket is one point.",
		}),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "kelpie_backend_points_refused_total",
			Help: "Points discarded although their batch was acknowledged, by reason.",
		}, []string{"reason"}),
		writeErrors: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "kelpie_backend_store_write_errors_total",
			Help: "Batches that the store could not write; their senders were told to try again.",
		}),
	}
	for _, r := range []string{ReasonFuture, ReasonPast, ReasonNotFinite, ReasonEmpty, ReasonCardinality, ReasonTotal, ReasonNames, ReasonDuplicate, ReasonTooOld, ReasonInvalid} {
		m.refused.WithLabelValues(r)
	}
	if reg == nil {
		return m
	}
	reg.MustRegister(m.accepted, m.refused, m.writeErrors,
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "kelpie_backend_series",
			Help: "Contexts with a recent point, held in memory. A distribution counts as three.",
		}, func() float64 { return float64(s.liveSeries()) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "kelpie_backend_metric_names",
			Help: "Metric names within retention.",
		}, func() float64 { return float64(s.catalog.size()) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "kelpie_backend_writable",
			Help: "1 while the store accepts points.",
		}, func() float64 {
			if s.Ready() != nil {
				return 0
			}
			return 1
		}))
	return m
}

// observe counts a committed batch.
func (m *metrics) observe(b *batch) {
	m.accepted.Add(float64(b.accepted))
	m.mu.Lock()
	defer m.mu.Unlock()
	m.taken += uint64(b.accepted)
	for reason, n := range b.refused {
		m.refused.WithLabelValues(reason).Add(float64(n))
		m.byReason[reason] += uint64(n)
	}
}

// unregisterer remembers what was registered through it, so that a TSDB's
// metrics can go with it and another's come.
type unregisterer struct {
	inner prometheus.Registerer // nil registers nothing

	mu   sync.Mutex // guards list
	list []prometheus.Collector
}

// Register implements prometheus.Registerer.
func (u *unregisterer) Register(c prometheus.Collector) error {
	if u.inner == nil {
		return nil
	}
	if err := u.inner.Register(c); err != nil {
		return err
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.list = append(u.list, c)
	return nil
}

// MustRegister implements prometheus.Registerer.
func (u *unregisterer) MustRegister(cs ...prometheus.Collector) {
	for _, c := range cs {
		if err := u.Register(c); err != nil {
			panic(err)
		}
	}
}

// Unregister implements prometheus.Registerer.
func (u *unregisterer) Unregister(c prometheus.Collector) bool {
	return u.inner != nil && u.inner.Unregister(c)
}

func (u *unregisterer) unregisterAll() {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, c := range u.list {
		u.inner.Unregister(c)
	}
	u.list = nil
}
