package intake

import (
	"cmp"
	"context"
	"fmt"

	"kelpie.dev/kelpie/metric"
)

// maxLines bounds what an answer tells of what was refused one by one.
const maxLines = 20

// An outcome is what was refused of a request that is accepted.
type outcome struct {
	told   []string
	more   int // lines beyond those
	points int // that the lines are about
}

// refuse notes lines.
func (o *outcome) refuse(lines ...string) {
	n := min(len(lines), maxLines-len(o.told))
	o.told = append(o.told, lines[:n]...)
	o.more += len(lines) - n
}

// count is how much was refused.
func (o *outcome) count() int { return len(o.told) + o.more }

// lines returns what was noted; never nil.
func (o *outcome) lines() []string {
	lines := append([]string{}, o.told...)
	if o.more > 0 {
		lines = append(lines, fmt.Sprintf("and %d more", o.more))
	}
	return lines
}

// refuse counts and notes a series, or a record of another kind, that is dropped.
func (in *Intake) refuse(out *outcome, reason string, s *metric.Series) {
	in.metrics.series.WithLabelValues(reason).Inc()
	out.points += max(1, len(s.Points))
	out.refuse(fmt.Sprintf("%.60q: %s", s.Name, seriesReasons[reason]))
}

// teller is an Appender that tells of each point that it refuses, by the index
// of its series and a reason.
type teller interface {
	AppendTelling(ctx context.Context, series []metric.Series, tell func(i int, reason string)) error
	AppendDistributionsTelling(ctx context.Context, ds []metric.Distribution, tell func(i int, reason string)) error
}

// append stores series and notes what the store refuses of them.
func (in *Intake) append(ctx context.Context, series []metric.Series, out *outcome) error {
	t, ok := in.store.(teller)
	if !ok {
		return in.store.Append(ctx, series)
	}
	list := refusals{name: func(i int) string { return series[i].Name }}
	err := t.AppendTelling(ctx, series, list.add)
	list.end(out)
	return err
}

// appendDistributions is append of distributions.
func (in *Intake) appendDistributions(ctx context.Context, ds []metric.Distribution, out *outcome) error {
	t, ok := in.store.(teller)
	if !ok {
		return in.store.AppendDistributions(ctx, ds)
	}
	list := refusals{name: func(i int) string { return ds[i].Name }}
	err := t.AppendDistributionsTelling(ctx, ds, list.add)
	list.end(out)
	return err
}

// refusals makes a line of the points that a store refuses of a series for one
// reason after the other.
type refusals struct {
	name   func(i int) string
	out    outcome
	at, n  int
	reason string
}

func (r *refusals) add(i int, reason string) {
	if r.n > 0 && (i != r.at || reason != r.reason) {
		r.line()
	}
	r.at, r.reason = i, reason
	r.n++
}

func (r *refusals) line() {
	if r.n == 0 {
		return
	}
	r.out.points += r.n
	points := "1 point"
	if r.n > 1 {
		points = fmt.Sprintf("%d points", r.n)
	}
	r.out.refuse(fmt.Sprintf("%.60q: %s refused: %s", r.name(r.at), points, cmp.Or(pointReasons[r.reason], r.reason)))
	r.n = 0
}

func (r *refusals) end(out *outcome) {
	r.line()
	out.refuse(r.out.told...)
	out.more += r.out.more
	out.points += r.out.points
}

// pointReasons has a sentence for reasons of the store; others speak for
// themselves.
var pointReasons = map[string]string{
	"future":             "more than 10 minutes in the future",
	"past":               "more than an hour old",
	"not_finite":         "not a finite number",
	"empty":              "without a value",
	"series_limit":       "the metric has as many series as it may have (KELPIE_MAX_SERIES_PER_METRIC)",
	"total_series_limit": "there are as many series as there may be (KELPIE_MAX_SERIES)",
	"metric_name_limit":  "there are as many metric names as there may be (KELPIE_MAX_METRIC_NAMES)",
}
