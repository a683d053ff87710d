package store

import (
	"errors"
	"fmt"
	"testing"

	"kelpie.dev/kelpie/metric"
	"kelpie.dev/kelpie/query"
)

// TestLimitsChangeWhileOpen raises and lowers every limit of an open store.
func TestLimitsChangeWhileOpen(t *testing.T) {
	s := open(t, Options{Now: (&fixed{t0}).now, MinFree: -1})
	n := 0
	stores := func(what string, want bool, m metric.Series) {
		t.Helper()
		before, _ := s.Counts()
		write(t, s, m)
		after, refused := s.Counts()
		if (after > before) != want {
			t.Errorf("%s: stored %v, want %v; refused %v", what, after > before, want, refused)
		}
	}
	series := func(name string) metric.Series {
		n++
		return one(name, fmt.Sprint("h", n), nil, metric.Point{Time: t0, Value: 1})
	}
	set := func(l Limits) {
		t.Helper()
		if err := s.SetLimits(l); err != nil {
			t.Fatal(err)
		}
	}
	stores("by default", true, series("a"))
	set(Limits{MaxMetricSeries: 1})
	stores("a second series of a metric", false, series("a"))
	set(Limits{MaxMetricSeries: 2})
	stores("a second series of a metric, raised", true, series("a"))
	set(Limits{MaxMetricNames: 1})
	stores("a second name", false, series("b"))
	set(Limits{MaxMetricNames: 2})
	stores("a second name, raised", true, series("b"))
	set(Limits{MaxSeries: 3})
	stores("a fourth series", false, series("a"))
	set(Limits{})
	stores("a fourth series, by default", true, series("a"))
	for _, tt := range []struct {
		limits Limits
		what   string
	}{{Limits{MaxSelectSeries: 2}, "series"}, {Limits{MaxSelectPoints: 2}, "points"}, {Limits{}, ""}} {
		set(tt.limits)
		_, err := s.Select(t.Context(), query.Selector{Metric: "a", Scope: query.All{}}, t0, t0)
		var limit *LimitError
		if errors.As(err, &limit) != (tt.what != "") || limit != nil && limit.What != tt.what {
			t.Errorf("%+v: %v", tt.limits, err)
		}
	}
	if err := s.SetLimits(Limits{MaxSeries: -1}); err == nil {
		t.Error("a negative limit was taken")
	}
}
