package promapi

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
)

// farthest bounds times, so that arithmetic on milliseconds is safe.
const farthest = 1 << 40 // seconds

// instantOf reads a time: Unix seconds with a fraction, or RFC 3339.
func (r *request) instantOf(name string, otherwise time.Time) (time.Time, error) {
	s := r.FormValue(name)
	if s == "" {
		return otherwise, nil
	}
	if f, err := strconv.ParseFloat(s, 64); err == nil {
		if !(math.Abs(f) < farthest) {
			return time.Time{}, bad("invalid parameter %q: cannot parse %q to a valid timestamp", name, s)
		}
		return time.UnixMilli(int64(math.Round(f * 1000))), nil
	}
	t, err := time.Parse(time.RFC3339Nano, s)
	if err != nil || t.Unix() > farthest || t.Unix() < -farthest {
		return time.Time{}, bad("invalid parameter %q: cannot parse %q to a valid timestamp", name, s)
	}
	return t, nil
}

// durationOf reads a duration: seconds with a fraction, or one such as 5m.
func (r *request) durationOf(name string, otherwise time.Duration) (time.Duration, error) {
	s := r.FormValue(name)
	if s == "" {
		return otherwise, nil
	}
	d, err := parseDuration(s)
	if err != nil {
		return 0, bad("invalid parameter %q: %w", name, err)
	}
	return d, nil
}

func parseDuration(s string) (time.Duration, error) {
	if f, err := strconv.ParseFloat(s, 64); err == nil {
		if !(math.Abs(f) < math.MaxInt64/1e9) {
			return 0, fmt.Errorf("cannot parse %q to a valid duration", s)
		}
		return time.Duration(f * 1e9), nil
	}
	d, err := model.ParseDuration(s)
	if err != nil {
		return 0, fmt.Errorf("cannot parse %q to a valid duration", s)
	}
	return time.Duration(d), nil
}

// limitOf reads the parameter limit; what is not limited is limited by most.
func (r *request) limitOf(most int) (int, error) {
	s := r.FormValue("limit")
	if s == "" {
		return most, nil
	}
	n, err := strconv.Atoi(s)
	switch {
	case err != nil:
		return 0, bad(`invalid parameter "limit": %w`, err)
	case n < 0:
		return 0, bad(`invalid parameter "limit": limit must be non-negative`)
	case n == 0 || n > most:
		return most, nil
	}
	return n, nil
}

// truncate cuts list to the limit, and warns where that takes something away.
func truncate[T any](r *request, list []T, limit int) []T {
	if len(list) <= limit {
		return list
	}
	r.warnings = append(r.warnings, "results truncated due to limit")
	return list[:limit]
}

// span reads start and end; where they are not given it is all that there is.
func (r *request) span(now time.Time) (from, to int64, err error) {
	start, err := r.instantOf("start", time.Unix(0, 0))
	end, eerr := r.instantOf("end", now.Add(time.Hour))
	if err = errors.Join(err, eerr); err != nil {
		return 0, 0, bad("%w", err)
	}
	if end.Before(start) {
		return 0, 0, bad("end timestamp must not be before start time")
	}
	return start.UnixMilli(), end.UnixMilli(), nil
}

// matchers reads the parameters match[].
func (a *API) matchers(r *request) ([][]*labels.Matcher, error) {
	texts := r.Form["match[]"]
	if len(texts) > 100 {
		return nil, bad(`invalid parameter "match[]": more than 100 of them`)
	}
	sets := make([][]*labels.Matcher, 0, len(texts))
	for _, text := range texts {
		if len(text) > maxQuery {
			return nil, bad(`invalid parameter "match[]": longer than %d bytes`, maxQuery)
		}
		set, err := a.parser.ParseMetricSelector(text)
		if err != nil {
			return nil, bad(`invalid parameter "match[]": %w`, err)
		}
		someText := false
		for _, m := range set {
			someText = someText || !m.Matches("")
		}
		if !someText {
			return nil, bad(`invalid parameter "match[]": match[] must contain at least one non-empty matcher`)
		}
		sets = append(sets, set)
	}
	return sets, nil
}
