package intake

import "github.com/prometheus/client_golang/prometheus"

// Reasons for which a request is refused, as the counter's label has them.
const (
	reasonForbidden   = "forbidden"
	reasonMalformed   = "malformed"
	reasonEncoding    = "encoding"
	reasonTooBig      = "too_big"
	reasonTimeout     = "timeout"
	reasonBusy        = "busy"
	reasonUnavailable = "unavailable"
	reasonInternal    = "internal"
	reasonItem        = "item" // the one item of the request cannot be kept
)

// Reasons for which one series of a request is dropped.
const (
	reasonName = "name"
	reasonHost = "host_too_long"
	reasonTags = "too_many_tags"
)

// seriesReasons has a sentence for each of them.
var seriesReasons = map[string]string{
	reasonName: "its name has no letter, or more than 200 characters",
	reasonHost: "its host or device has more than 255 bytes",
	reasonTags: "it has more than 500 tags",
}

type metrics struct {
	refused *prometheus.CounterVec // requests, by reason
	series  *prometheus.CounterVec // series, by reason
	ignored *prometheus.CounterVec // requests, by route
	bytes   *prometheus.CounterVec // of bodies, by form
	foreign *prometheus.CounterVec // points, by dialect and outcome
}

// dialects are the labels of what Datadog's agents do not speak.
const (
	dialectOTLP  = "otlp"
	dialectWrite = "remote_write"
)

func newMetrics(reg prometheus.Registerer) *metrics {
	m := &metrics{
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "kelpie_backend_intake_refused_total",
			Help: "Intake requests refused as a whole, by reason.",
		}, []string{"reason"}),
		series: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "kelpie_backend_series_refused_total",
			Help: "Series and distributions dropped from an accepted request, by reason.",
		}, []string{"reason"}),
		ignored: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "kelpie_backend_intake_ignored_total",
			Help: "Payloads taken without effect, by route.",
		}, []string{"route"}),
		bytes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "kelpie_backend_intake_bytes_total",
			Help: "Bytes of series and distribution payloads: on the wire, and decoded.",
		}, []string{"form"}),
	}
	m.foreign = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "kelpie_backend_foreign_points_total",
		Help: "Points of OTLP and remote write: taken, refused, first of a cumulative stream, repeated, or stating that there is none.",
	}, []string{"dialect", "outcome"})
	for _, d := range []string{dialectOTLP, dialectWrite} {
		for _, o := range []string{"taken", "refused", "first", "repeated", "stale"} {
			m.foreign.WithLabelValues(d, o)
		}
	}
	for _, r := range []string{reasonForbidden, reasonMalformed, reasonEncoding, reasonTooBig, reasonTimeout, reasonBusy, reasonUnavailable, reasonInternal, reasonItem} {
		m.refused.WithLabelValues(r)
	}
	for r := range seriesReasons {
		m.series.WithLabelValues(r)
	}
	if reg != nil {
		reg.MustRegister(m.refused, m.series, m.ignored, m.bytes, m.foreign)
	}
	return m
}
