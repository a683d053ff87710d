package datadogmetric

import (
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// telemetry holds the metrics of the objects. external_metrics_datadog_metrics
// is Datadog's name and shape.
type telemetry struct {
	writes, created, deleted, errors prometheus.Counter
}

func newTelemetry(reg prometheus.Registerer, r *Reconciler) *telemetry {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
	}
	t := &telemetry{
		writes:  counter("kelpie_datadogmetric_status_writes_total", "Status updates of DatadogMetric objects."),
		created: counter("kelpie_datadogmetric_generated_total", "DatadogMetric objects created for plain metric names."),
		deleted: counter("kelpie_datadogmetric_expired_total", "Generated DatadogMetric objects deleted after their last use."),
		errors:  counter("kelpie_datadogmetric_reconcile_errors_total", "Reconciliations that failed and are retried."),
	}
	if reg != nil {
		reg.MustRegister(t.writes, t.created, t.deleted, t.errors, &inventory{r: r})
	}
	return t
}

var inventoryDesc = prometheus.NewDesc("external_metrics_datadog_metrics", "DatadogMetric objects: 1 each.",
	[]string{"namespace", "name", "valid", "active"}, prometheus.Labels{"join_leader": "true"})

// inventory shows each object as it is at the scrape.
type inventory struct{ r *Reconciler }

// Describe implements prometheus.Collector.
func (*inventory) Describe(ch chan<- *prometheus.Desc) { ch <- inventoryDesc }

// Collect implements prometheus.Collector.
func (c *inventory) Collect(ch chan<- prometheus.Metric) {
	now := time.Now()
	for _, m := range c.r.Metrics() {
		_, err := m.Value(c.r.opts.Source.Read(m.Key), now)
		ch <- prometheus.MustNewConstMetric(inventoryDesc, prometheus.GaugeValue, 1,
			m.ID.Namespace, m.ID.Name, strconv.FormatBool(err == nil), strconv.FormatBool(m.Active))
	}
}
