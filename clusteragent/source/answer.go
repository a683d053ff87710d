package source

import (
	"errors"
	"fmt"
	"math"
	"time"

	"kelpie.dev/kelpie/metric/payload"
)

// errMismatch reports an answer whose series cannot be assigned to the queries
// of its request: to guess would give one autoscaler another's number.
var errMismatch = errors.New("the answer does not say which of the queries its series belong to")

// outcome is what one query got from one answer.
type outcome struct {
	at      time.Time
	length  time.Duration // of the bucket that begins at; 0 of a value of an instant
	value   float64
	spacing time.Duration // of the points around it
	series  string        // name{scope} of the series, for telemetry
	err     *Error
	blamed  bool // err is the source's, and the query's size its cause
	pushed  bool // nobody asked
	unasked bool // err was found without an attempt
}

// answers assigns resp's series to the n queries of its request.
func answers(resp *payload.QueryResponse, n int, window time.Duration, latest bool) ([]outcome, error) {
	byQuery := make([][]payload.QuerySeries, n)
	for _, s := range resp.Series {
		i := 0
		switch {
		case s.QueryIndex != nil:
			i = *s.QueryIndex
		case n > 1:
			return nil, errMismatch
		}
		if i < 0 || i >= n {
			return nil, errMismatch
		}
		byQuery[i] = append(byQuery[i], s)
	}
	out := make([]outcome, n)
	for i, series := range byQuery {
		out[i] = one(series, window, latest)
	}
	return out, nil
}

// one judges the series that a single query returned.
func one(series []payload.QuerySeries, window time.Duration, latest bool) outcome {
	switch {
	case len(series) == 0:
		return outcome{err: &Error{Reason: NoData, Message: fmt.Sprintf("the query matches no series in the last %s: "+
			"check the metric name and the tags in its scope, and that the application sends it", window)}}
	case len(series) > 1:
		return outcome{err: &Error{Reason: MultipleSeries, Message: fmt.Sprintf("the query returns %d series and an autoscaler needs one: "+
			"remove \"by {…}\", or narrow the scope", len(series))}}
	}
	s := series[0]
	at, v, ok := point(s.Pointlist, latest)
	switch {
	case !ok:
		return outcome{err: &Error{Reason: NoData, Message: fmt.Sprintf("all %d points of the last %s are null (interval %d s): "+
			"widen timeWindow, or fill gaps in the query with .fill(zero)", len(s.Pointlist), window, s.Interval)}}
	case math.IsNaN(v) || math.IsInf(v, 0):
		return outcome{err: &Error{Reason: NotANumber, Message: fmt.Sprintf("the query's value is %v, which is no replica count's basis: "+
			"check for a division by zero", v)}}
	}
	return outcome{at: at, length: time.Duration(max(s.Interval, 0)) * time.Second, value: v, spacing: spacing(s.Pointlist), series: s.Metric + "{" + s.Scope + "}"}
}

// point chooses the point that counts: the second newest that has a value, as
// the newest bucket is still filling; or the only one. Who would rather have it
// early than whole takes the latest.
func point(list []payload.QueryPoint, latest bool) (at time.Time, value float64, ok bool) {
	for i := len(list) - 1; i >= 0; i-- {
		if list[i][0] == nil || list[i][1] == nil {
			continue
		}
		second := ok
		at, value, ok = time.UnixMilli(int64(*list[i][0])).Truncate(time.Second), *list[i][1], true
		if second || latest {
			return at, value, true
		}
	}
	return at, value, ok
}
