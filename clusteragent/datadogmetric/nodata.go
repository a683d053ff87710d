package datadogmetric

import (
	"fmt"
	"strings"
	"time"

	"kelpie.dev/kelpie/clusteragent/source"
)

// onNoData is the annotation that says what is served while the source answers
// and has no data: error, zero, last or last:<duration>.
const onNoData = "kelpie.dev/on-no-data"

// How old a last value may be that stands in for one that does not come: what is
// taken when the annotation does not say, and the most that it may say. A value
// that is served for longer is no measurement of anything.
const (
	lastDefault = 10 * time.Minute
	lastMost    = time.Hour
)

// noData is what stands in for data that there are not. The zero noData is an
// error, on which autoscalers keep their replicas.
type noData struct {
	zero bool
	last time.Duration // oldest value that stands in; 0 for none
}

func parseNoData(text string) (noData, error) {
	policy, bound, bounded := strings.Cut(text, ":")
	switch {
	case (policy == "" || policy == "error") && !bounded:
		return noData{}, nil
	case policy == "zero" && !bounded:
		return noData{zero: true}, nil
	case policy == "last" && !bounded:
		return noData{last: lastDefault}, nil
	case policy == "last":
		if d, err := time.ParseDuration(bound); err == nil && d > 0 && d <= lastMost {
			return noData{last: d}, nil
		}
	}
	return noData{}, fmt.Errorf("%q: write error, zero, last or last:<duration>, such as last:15m and at most last:%s", text, lastMost)
}

// standIn returns what is served instead of the value that is missing because of
// why, or why. It stands in for data that there are not, and for nothing else:
// while the source cannot be asked, nobody knows that there are none.
func (n noData) standIn(r source.Reading, why *source.Error, now time.Time) (Served, *source.Error) {
	if why.Reason != source.NoData && why.Reason != source.Stale {
		return Served{}, why
	}
	switch {
	case n.zero:
		return Served{At: now, StandsFor: why}, nil
	case n.last > 0 && !r.At.IsZero() && now.Sub(r.At) <= n.last:
		return Served{Value: r.Value, At: r.At, StandsFor: why}, nil
	}
	return Served{}, why
}

// reason is that of the condition Valid while something stands in.
func (n noData) reason() string {
	if n.zero {
		return "ZeroForNoData"
	}
	return "LastForNoData"
}

// String says what stands in.
func (n noData) String() string {
	switch {
	case n.zero:
		return "0"
	case n.last > 0:
		return fmt.Sprintf("the last value, until it is %s old", n.last)
	}
	return "an error"
}
