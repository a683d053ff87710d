package agent

import (
	"errors"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"kelpie.dev/kelpie/agent/aggregate"
	"kelpie.dev/kelpie/agent/dogstatsd"
	"kelpie.dev/kelpie/agent/origin"
)

// dropBlocked is a reason, beside aggregate's, for which a sample is dropped.
const dropBlocked = "blocklist"

// sharedGauge is the problem of a gauge that several origins send as one series.
const sharedGauge = "shared_gauge"

// metrics are the agent's own. Counters that a datagram touches are looked up
// by label once, here.
type metrics struct {
	samples               [len(aggregate.Types) + 1]prometheus.Counter // by aggregate.Type, which starts at 1
	events, serviceChecks prometheus.Counter
	parseErrors           map[string]prometheus.Counter
	dropped               map[string]prometheus.Counter
	origins               [origin.Waiting + 1]prometheus.Counter
	contexts              prometheus.Gauge
	notFinite             prometheus.Gauge
	fast, fastLeft        prometheus.Gauge
	flush                 prometheus.Histogram
	series                prometheus.Counter
	kubelet               *prometheus.CounterVec
	kubeletTime           prometheus.Histogram
}

const namespace = "kelpie_agent"

// outcomes are the labels of an origin.Outcome.
var outcomes = [...]string{origin.NoOrigin: "none", origin.Resolved: "resolved", origin.Unresolved: "unresolved", origin.Waiting: "waiting"}

func newMetrics(r prometheus.Registerer) (*metrics, error) {
	vec := func(name, help, label string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: namespace, Name: name, Help: help}, []string{label})
	}
	samples := vec("dogstatsd_samples_total", "Samples read from metric lines, by DogStatsD type.", "type")
	parseErrors := vec("dogstatsd_parse_errors_total", "Lines refused because they cannot be read, by reason.", "reason")
	dropped := vec("dogstatsd_dropped_total", "Readable lines that were dropped, by reason.", "reason")
	origins := vec("origin_lookups_total", "Metric lines by what became of their origin.", "outcome")
	m := &metrics{
		parseErrors:   map[string]prometheus.Counter{},
		events:        prometheus.NewCounter(prometheus.CounterOpts{Namespace: namespace, Name: "dogstatsd_events_total", Help: "Events taken."}),
		serviceChecks: prometheus.NewCounter(prometheus.CounterOpts{Namespace: namespace, Name: "dogstatsd_service_checks_total", Help: "Service checks taken."}),
		dropped:       map[string]prometheus.Counter{},
		contexts:      prometheus.NewGauge(prometheus.GaugeOpts{Namespace: namespace, Name: "contexts", Help: "Contexts (metric, host, tags) alive after the last flush."}),
		notFinite:     prometheus.NewGauge(prometheus.GaugeOpts{Namespace: namespace, Name: "not_finite_points", Help: "Points not sent since the start because their value overflowed."}),
		fast:          prometheus.NewGauge(prometheus.GaugeOpts{Namespace: namespace, Name: "fast_lane_contexts", Help: "Contexts that leave every second, as intakes ask for them."}),
		fastLeft:      prometheus.NewGauge(prometheus.GaugeOpts{Namespace: namespace, Name: "fast_lane_left_contexts", Help: "Contexts that intakes ask for every second and that do not fit: KELPIE_FAST_LANE_CONTEXTS."}),
		flush:         prometheus.NewHistogram(prometheus.HistogramOpts{Namespace: namespace, Name: "flush_duration_seconds", Help: "Time to make series of the buckets that have ended, without the samples handled meanwhile.", Buckets: prometheus.ExponentialBuckets(0.0001, 4, 8)}),
		series:        prometheus.NewCounter(prometheus.CounterOpts{Namespace: namespace, Name: "flushed_series_total", Help: "Series handed to the forwarder."}),
		kubelet:       vec("kubelet_requests_total", "Requests for the node's pods, by result.", "result"),
		kubeletTime:   prometheus.NewHistogram(prometheus.HistogramOpts{Namespace: namespace, Name: "kubelet_request_duration_seconds", Help: "Time of a request for the node's pods.", Buckets: prometheus.ExponentialBuckets(0.001, 4, 7)}),
	}
	for _, t := range aggregate.Types {
		m.samples[t] = samples.WithLabelValues(t.String())
	}
	for _, reason := range refusalReasons() {
		m.parseErrors[reason] = parseErrors.WithLabelValues(reason)
	}
	for _, d := range aggregate.Drops {
		m.dropped[string(d)] = dropped.WithLabelValues(string(d))
	}
	m.dropped[dropBlocked] = dropped.WithLabelValues(dropBlocked)
	for outcome, name := range outcomes {
		m.origins[outcome] = origins.WithLabelValues(name)
	}
	var errs []error
	for _, c := range []prometheus.Collector{samples, m.events, m.serviceChecks, parseErrors, dropped, origins, m.contexts, m.notFinite, m.fast, m.fastLeft, m.flush, m.series, m.kubelet, m.kubeletTime} {
		errs = append(errs, r.Register(c))
	}
	return m, errors.Join(errs...)
}

// totals reads the counters that a status shows, of which it leaves zeros out.
func (m *metrics) totals() (Taken, map[string]uint64) {
	t := Taken{Samples: map[string]uint64{}, Events: total(m.events), ServiceChecks: total(m.serviceChecks), Dropped: map[string]uint64{}}
	add := func(to map[string]uint64, name string, c prometheus.Counter) {
		if n := total(c); n > 0 {
			to[name] += n
		}
	}
	for _, kind := range aggregate.Types {
		add(t.Samples, kind.String(), m.samples[kind])
	}
	for _, reasons := range []map[string]prometheus.Counter{m.parseErrors, m.dropped} {
		for reason, c := range reasons {
			add(t.Dropped, reason, c)
		}
	}
	lines := map[string]uint64{}
	for outcome, name := range outcomes {
		add(lines, name, m.origins[outcome])
	}
	return t, lines
}

func total(c prometheus.Counter) uint64 {
	var out dto.Metric
	if c.Write(&out) != nil {
		return 0
	}
	return uint64(out.GetCounter().GetValue())
}

// refusalReasons lists why a line of any kind may be refused.
func refusalReasons() []string {
	reasons := []string{"other"}
	for _, e := range dogstatsd.ParseErrors {
		reasons = append(reasons, string(e))
	}
	for _, e := range dogstatsd.EventErrors {
		reasons = append(reasons, string(e))
	}
	for _, e := range dogstatsd.CheckErrors {
		reasons = append(reasons, string(e))
	}
	return reasons
}

func (m *metrics) kubeletAsked(_ int, took time.Duration, err error) {
	result := "ok"
	if err != nil {
		result = "error"
	}
	m.kubelet.WithLabelValues(result).Inc()
	m.kubeletTime.Observe(took.Seconds())
}

// refusedContexts shows what the limit on contexts has refused, for the
// aggregate.MaxRefusals metrics and origins that were refused first.
type refusedContexts struct{ pipeline *pipeline }

var refusedDesc = prometheus.NewDesc(namespace+"_context_limit_samples_total",
	"Samples refused by the limit on contexts, by metric and by the pod (namespace/name) that sent them.", []string{"metric", "origin"}, nil)

func (refusedContexts) Describe(out chan<- *prometheus.Desc) { out <- refusedDesc }

func (r refusedContexts) Collect(out chan<- prometheus.Metric) {
	for _, refused := range r.pipeline.contexts().refused {
		out <- prometheus.MustNewConstMetric(refusedDesc, prometheus.CounterValue, float64(refused.Samples),
			strings.ToValidUTF8(refused.Metric, "?"), strings.ToValidUTF8(refused.Origin, "?"))
	}
}

// registerListener shows a listener's counts.
func registerListener(r prometheus.Registerer, l *dogstatsd.Listener) error {
	labels := prometheus.Labels{"transport": string(l.Transport())}
	var errs []error
	for _, c := range []struct {
		name, help string
		value      func(dogstatsd.Counts) uint64
	}{
		{"packets_total", "Datagrams received.", func(c dogstatsd.Counts) uint64 { return c.Packets }},
		{"bytes_total", "Bytes received.", func(c dogstatsd.Counts) uint64 { return c.Bytes }},
		{"truncated_total", "Datagrams larger than the buffer, whose tail was lost.", func(c dogstatsd.Counts) uint64 { return c.Truncated }},
		{"kernel_drops_total", "Datagrams that the kernel dropped because the socket's queue was full.", func(c dogstatsd.Counts) uint64 { return c.KernelDrops }},
		{"read_errors_total", "Failed reads of the socket.", func(c dogstatsd.Counts) uint64 { return c.ReadErrors }},
		{"unterminated_total", "Packets whose last line was dropped for want of a line feed: DD_DOGSTATSD_EOL_REQUIRED.", func(c dogstatsd.Counts) uint64 { return c.Unterminated }},
		{"connections_refused_total", "Connections closed at once because there were too many.", func(c dogstatsd.Counts) uint64 { return c.ConnectionsRefused }},
		{"frames_too_long_total", "Frames announced larger than the buffer, whose connections were closed.", func(c dogstatsd.Counts) uint64 { return c.FramesTooLong }},
		{"frames_cut_short_total", "Frames whose connection ended before they did.", func(c dogstatsd.Counts) uint64 { return c.FramesCutShort }},
	} {
		errs = append(errs, r.Register(prometheus.NewCounterFunc(prometheus.CounterOpts{
			Namespace: namespace, Subsystem: "dogstatsd", Name: c.name, Help: c.help, ConstLabels: labels,
		}, func() float64 { return float64(c.value(l.Counts())) })))
	}
	return errors.Join(errs...)
}
