package stream

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	forbidden prometheus.Counter
	pushed    prometheus.Counter
	step      prometheus.Histogram
	latency   prometheus.Histogram
}

func newMetrics(reg prometheus.Registerer, s *Stream) *metrics {
	m := &metrics{
		forbidden: prometheus.NewCounter(prometheus.CounterOpts{Name: "kelpie_stream_forbidden_total",
			Help: "Requests for values that were refused for their keys."}),
		pushed: prometheus.NewCounter(prometheus.CounterOpts{Name: "kelpie_stream_updates_total",
			Help: "Changes of values that were pushed."}),
		step: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "kelpie_stream_step_seconds",
			Help: "Time to bring the standing queries up to date.", Buckets: prometheus.ExponentialBuckets(0.0001, 4, 8)}),
		latency: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "kelpie_stream_latency_seconds",
			Help: "From the arrival of a batch to the sending of what it changed.", Buckets: []float64{0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5}}),
	}
	if reg != nil {
		reg.MustRegister(m.forbidden, m.pushed, m.step, m.latency,
			prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "kelpie_stream_subscribers", Help: "Connections to which values are pushed."},
				func() float64 { return float64(s.Stats().Subscribers) }),
			prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "kelpie_stream_queries", Help: "Standing queries."},
				func() float64 { return float64(s.Stats().Queries) }),
			prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "kelpie_stream_contexts", Help: "Series that standing queries read."},
				func() float64 { return float64(s.Stats().Contexts) }))
	}
	return m
}

// Stats is what a person wants to know of a Stream.
type Stats struct {
	Queries     int `json:"queries"`
	Contexts    int `json:"contexts"`
	Subscribers int `json:"subscribers"`
	FastMetrics int `json:"fast_lane_metrics"`
}

// Stats returns the state of now.
func (s *Stream) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	return Stats{Queries: s.standing.Size(), Contexts: s.standing.Contexts(), Subscribers: s.subscribers, FastMetrics: len(s.lane.Load().metrics)}
}
