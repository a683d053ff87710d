package intake

import (
	"fmt"

	"kelpie.dev/kelpie/metric"
)

// maxLines bounds what an answer tells of what was refused one by one.
const maxLines = 20

// An outcome is what was refused of a request that is accepted.
type outcome struct {
	told []string
	more int // beyond those
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
	out.refuse(fmt.Sprintf("%.60q: %s", s.Name, seriesReasons[reason]))
}
