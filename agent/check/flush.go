package check

import (
	"slices"
	"time"

	"kelpie.dev/kelpie/metric"
)

// surroundings are what every series of an instance has.
type surroundings struct {
	host     string
	tags     metric.Tags
	interval time.Duration
}

// end ends a run and returns what it said. Points have the time of the run.
func (s *Sender) end(o surroundings) ([]metric.Series, []metric.ServiceCheck) {
	series := make([]metric.Series, 0, len(s.order))
	for _, sub := range s.order {
		if sub.silent {
			continue
		}
		one := metric.Series{
			Name: sub.name, Host: o.host, Tags: o.tags.Union(sub.tags...), Type: metric.Gauge,
			Interval: max(1, int64(o.interval/time.Second)),
			Points:   []metric.Point{{Time: s.at.Unix(), Value: sub.value}},
		}
		switch sub.method {
		case count, monotonic:
			one.Type = metric.Count
		case histogram:
			series = appendHistogram(series, one, sub.values)
			continue
		}
		series = append(series, one)
	}
	for i := range s.checks {
		s.checks[i].Host = o.host
		s.checks[i].Tags = o.tags.Union(s.checks[i].Tags...)
	}
	s.forget(o.interval)
	return series, s.checks
}

// appendHistogram appends the aggregates of values that upstream's defaults
// name. The ranks are those of reference metrics-pipeline A2.2; the count is a
// rate over one second, as upstream's checks have it.
func appendHistogram(out []metric.Series, like metric.Series, values []float64) []metric.Series {
	slices.Sort(values)
	n, sum := len(values), 0.0
	for _, v := range values {
		sum += v
	}
	for _, a := range []struct {
		suffix string
		value  float64
	}{
		{".max", values[n-1]},
		{".median", values[(n-1)/2]},
		{".avg", sum / float64(n)},
		{".95percentile", values[(95*n-1)/100]},
	} {
		one := like
		one.Name += a.suffix
		one.Points = []metric.Point{{Time: like.Points[0].Time, Value: a.value}}
		out = append(out, one)
	}
	like.Name += ".count"
	like.Type, like.Interval = metric.Rate, 1
	like.Points = []metric.Point{{Time: like.Points[0].Time, Value: float64(n)}}
	return append(out, like)
}
