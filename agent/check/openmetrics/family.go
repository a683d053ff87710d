package openmetrics

import (
	"math"
	"slices"
	"strconv"
	"strings"

	dto "github.com/prometheus/client_model/go"

	"kelpie.dev/kelpie/agent/check"
)

// family submits the samples of a family. It returns false when nobody says
// what type the family has.
func (o *openmetrics) family(s *check.Sender, f *dto.MetricFamily) bool {
	t, ok := o.names.find(o.bare(f.GetName()))
	if !ok {
		return true
	}
	kind := t.kind
	if kind == "" {
		kind = strings.ToLower(f.GetType().String())
	}
	if kind == "untyped" {
		return false
	}
	if kind != "counter" && t.name == strings.TrimSuffix(o.bare(f.GetName()), "_total") {
		t.name = o.bare(f.GetName()) // _total is part of the name of what is no counter
	}
	name := o.c.Namespace + "." + t.name
	for _, m := range f.GetMetric() {
		tags, ok := o.labelTags(m.GetLabel())
		if !ok {
			continue
		}
		switch h, q := m.GetHistogram(), m.GetSummary(); {
		case h != nil && kind == "histogram":
			o.histogram(s, name, h, tags)
		case q != nil && kind == "summary":
			o.summary(s, name, q, tags)
		case h == nil && q == nil:
			o.sample(s, name, kind, value(m), tags)
		}
	}
	return true
}

// value returns the value of a sample that is a single number.
func value(m *dto.Metric) float64 {
	switch {
	case m.GetCounter() != nil:
		return m.GetCounter().GetValue()
	case m.GetGauge() != nil:
		return m.GetGauge().GetValue()
	default:
		return m.GetUntyped().GetValue()
	}
}

func (o *openmetrics) sample(s *check.Sender, name, kind string, v float64, tags []string) {
	switch kind {
	case "counter":
		s.MonotonicCount(name+".count", v, o.flushFirst, tags...)
	case "counter_gauge":
		s.Gauge(name+".total", v, tags...)
		s.MonotonicCount(name+".count", v, o.flushFirst, tags...)
	case "rate":
		s.Rate(name, v, tags...)
	case "time_elapsed": // the value is a time in Unix seconds
		s.Gauge(name, float64(s.Time().UnixNano())/1e9-v, tags...)
	default:
		s.Gauge(name, v, tags...)
	}
}

// histogram submits the count, the sum and, each with its bound as a tag, the
// buckets. The last bucket has no bound and is the count.
func (o *openmetrics) histogram(s *check.Sender, name string, h *dto.Histogram, tags []string) {
	s.MonotonicCount(name+".sum", h.GetSampleSum(), o.flushFirst, tags...)
	s.MonotonicCount(name+".count", floatOr(h.GetSampleCountFloat(), h.GetSampleCount()), o.flushFirst, tags...)
	if o.c.Buckets != nil && !*o.c.Buckets {
		return
	}
	buckets := slices.SortedFunc(slices.Values(h.GetBucket()), func(a, b *dto.Bucket) int {
		switch {
		case a.GetUpperBound() < b.GetUpperBound():
			return -1
		case a.GetUpperBound() > b.GetUpperBound():
			return 1
		default:
			return 0
		}
	})
	below, lower := 0.0, math.Inf(-1)
	if len(buckets) > 0 && buckets[0].GetUpperBound() > 0 {
		lower = 0
	}
	for _, b := range buckets {
		n, upper := floatOr(b.GetCumulativeCountFloat(), b.GetCumulativeCount()), b.GetUpperBound()
		if math.IsInf(upper, 1) {
			continue
		}
		bounds := []string{o.boundTag("upper_bound", upper)}
		if o.c.NonCumulative {
			bounds = append(bounds, "lower_bound:"+number(lower))
			n, below = n-below, n
		}
		lower = upper
		s.MonotonicCount(name+".bucket", n, o.flushFirst, slices.Concat(tags, bounds)...)
	}
}

func floatOr(f float64, n uint64) float64 {
	if f != 0 {
		return f
	}
	return float64(n)
}

func (o *openmetrics) summary(s *check.Sender, name string, q *dto.Summary, tags []string) {
	s.MonotonicCount(name+".sum", q.GetSampleSum(), o.flushFirst, tags...)
	s.MonotonicCount(name+".count", float64(q.GetSampleCount()), o.flushFirst, tags...)
	for _, quantile := range q.GetQuantile() {
		if math.IsNaN(quantile.GetValue()) {
			continue // nothing was observed lately
		}
		s.Gauge(name+".quantile", quantile.GetValue(), slices.Concat(tags, []string{o.boundTag("quantile", quantile.GetQuantile())})...)
	}
}

func (o *openmetrics) boundTag(label string, v float64) string {
	if renamed, ok := o.c.RenameLabels[label]; ok {
		label = renamed
	}
	return label + ":" + number(v)
}

// number writes a bound as Datadog's check does: 1.0, 0.005, 1e+16; zero is 0.
func number(v float64) string {
	switch abs := math.Abs(v); {
	case v == 0:
		return "0"
	case math.IsInf(v, 0):
		return strings.ToLower(strings.TrimPrefix(strconv.FormatFloat(v, 'g', -1, 64), "+"))
	case abs < 1e-4 || abs >= 1e16:
		return strconv.FormatFloat(v, 'e', -1, 64)
	default:
		text := strconv.FormatFloat(v, 'f', -1, 64)
		if !strings.Contains(text, ".") {
			text += ".0"
		}
		return text
	}
}

// labelTags returns a sample's tags. ok is false when its labels exclude it.
func (o *openmetrics) labelTags(labels []*dto.LabelPair) (tags []string, ok bool) {
	tags = slices.Clone(o.tags)
	for _, l := range labels {
		name, value := l.GetName(), l.GetValue()
		if p := o.excludeLabels[name]; p != nil && p.MatchString(value) {
			return nil, false
		}
		if value == "" || slices.Contains(o.c.ExcludeLabels, name) ||
			len(o.c.IncludeLabels) > 0 && !slices.Contains(o.c.IncludeLabels, name) {
			continue
		}
		if renamed, ok := o.c.RenameLabels[name]; ok {
			name = renamed
		}
		tags = append(tags, name+":"+value)
	}
	return tags, true
}
