package clusteragent

import (
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"kelpie.dev/kelpie/clusteragent/source"
)

var (
	inlineDesc = prometheus.NewDesc("external_metrics", "External metrics without DatadogMetric, by whether they have a value.",
		[]string{"valid"}, prometheus.Labels{"join_leader": "true"})
	valuesDesc = prometheus.NewDesc("kelpie_external_metrics_values",
		"External metrics, by source and state: Valid, Aging, StandsIn, NotReferenced, or the reason why there is no value.", []string{"source", "state"}, nil)
	ageDesc = prometheus.NewDesc("kelpie_external_metrics_oldest_age_seconds",
		"Age of the oldest newest value of those in use, by source.", []string{"source"}, nil)
	upDesc = prometheus.NewDesc("kelpie_external_metrics_source_up",
		"1 unless the newest request to the source failed by the source's fault.", []string{"source"}, nil)
	successDesc = prometheus.NewDesc("kelpie_external_metrics_source_last_success_timestamp_seconds",
		"When the source last answered, or pushed.", []string{"source"}, nil)
	certDesc = prometheus.NewDesc("kelpie_external_metrics_certificate_remaining_seconds",
		"Seconds until the serving certificate ends, for monitors that cannot subtract times.", nil, nil)
	certBadDesc = prometheus.NewDesc("kelpie_external_metrics_certificate_problem",
		"1 while something is wrong with the serving certificate: its Secret is of no use, or it ends sooner than it should have been renewed.", nil, nil)
	servingDesc = prometheus.NewDesc("kelpie_external_metrics_serving", "1 once this replica serves external.metrics.k8s.io.", nil, nil)
)

// inventory shows the metrics and sources as they are at the scrape. Its labels
// are sources and states, of which there are few, never metrics.
type inventory struct{ a *agent }

// Describe implements prometheus.Collector.
func (c *inventory) Describe(ch chan<- *prometheus.Desc) {
	if !c.a.cfg.CRD {
		ch <- inlineDesc
	}
	for _, d := range []*prometheus.Desc{valuesDesc, ageDesc, upDesc, successDesc, certDesc, certBadDesc, servingDesc} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c *inventory) Collect(ch chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	now := time.Now()
	type kind struct{ source, state string }
	count, oldest, valid := map[kind]int{}, map[string]float64{}, map[bool]int{}
	for _, s := range c.sources() {
		count[kind{string(s.Name), stateValid}] = 0
		oldest[string(s.Name)] = 0
		up := 1.0
		if s.Failing() {
			up = 0
		}
		gauge(upDesc, up, string(s.Name))
		if !s.LastSuccess.IsZero() {
			gauge(successDesc, float64(s.LastSuccess.UnixMilli())/1e3, string(s.Name))
		}
	}
	for _, r := range c.a.rows(now) {
		count[kind{r.Source, r.State}]++
		valid[r.Valid]++
		if r.counts() {
			oldest[r.Source] = max(oldest[r.Source], r.Age)
		}
	}
	for k, n := range count {
		gauge(valuesDesc, float64(n), k.source, k.state)
	}
	for source, age := range oldest {
		gauge(ageDesc, age, source)
	}
	if !c.a.cfg.CRD {
		for _, v := range []bool{false, true} {
			gauge(inlineDesc, float64(valid[v]), strconv.FormatBool(v))
		}
	}
	wrong, ends := c.a.keeper.Certificate()
	problem := 0.0
	if wrong != "" {
		problem = 1
	}
	gauge(certBadDesc, problem)
	if !ends.IsZero() {
		gauge(certDesc, ends.Sub(now).Seconds())
	}
	serving := 0.0
	if c.a.serving.Load() {
		serving = 1
	}
	gauge(servingDesc, serving)
}

func (c *inventory) sources() []source.Status {
	return append([]source.Status{c.a.source.Status()}, c.a.source.Others()...)
}
