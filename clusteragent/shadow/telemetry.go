package shadow

import (
	"math"

	"github.com/prometheus/client_golang/prometheus"
)

// telemetry holds the comparisons' metrics. None has a label of a query: the
// report names those.
type telemetry struct {
	comparisons *prometheus.CounterVec // by outcome
	differences prometheus.Histogram
}

func newTelemetry(reg prometheus.Registerer, s *Shadow) *telemetry {
	t := &telemetry{
		comparisons: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "kelpie_shadow_comparisons_total",
			Help: "Comparisons of a query's values at the main source and at the shadow, by outcome."}, []string{"outcome"}),
		differences: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "kelpie_shadow_difference_ratio",
			Help: "Differences between the two values, in parts of the larger.", Buckets: []float64{0.001, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1}}),
	}
	for _, o := range outcomes {
		if o != Waiting {
			t.comparisons.WithLabelValues(string(o)) // shown as 0 from the start
		}
	}
	if reg != nil {
		reg.MustRegister(t.comparisons, t.differences, &verdicts{s})
	}
	return t
}

func (t *telemetry) count(o Outcome, c Comparison) {
	if o == Waiting {
		return
	}
	t.comparisons.WithLabelValues(string(o)).Inc()
	if o == Agree || o == Differ {
		t.differences.Observe(math.Abs(c.Difference))
	}
}

var verdictsDesc = prometheus.NewDesc("kelpie_shadow_queries", "Queries that are compared, by verdict.", []string{"verdict"}, nil)

// verdicts shows how many queries there are of each verdict at the scrape.
type verdicts struct{ s *Shadow }

// Describe implements prometheus.Collector.
func (*verdicts) Describe(ch chan<- *prometheus.Desc) { ch <- verdictsDesc }

// Collect implements prometheus.Collector.
func (v *verdicts) Collect(ch chan<- prometheus.Metric) {
	n := v.s.Summary().Verdicts
	for _, o := range outcomes {
		ch <- prometheus.MustNewConstMetric(verdictsDesc, prometheus.GaugeValue, float64(n[o]), string(o))
	}
}
