package datadogmetric

import (
	"strings"
	"testing"
	"time"

	"github.com/DataDog/datadog-operator/api/datadoghq/v1alpha1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"kelpie.dev/kelpie/clusteragent/source"
)

func TestOnNoData(t *testing.T) {
	const maxAge = time.Minute
	start := time.Unix(100_000, 0)
	fresh := source.Reading{Value: 5, At: start, Fetched: start, Attempted: start}
	with := func(r source.Reading, reason source.Reason) source.Reading {
		r.Err = &source.Error{Reason: reason, Message: "so it is"}
		return r
	}
	for _, c := range []struct {
		annotation string
		reading    source.Reading
		age        time.Duration
		want       float64
		valid      string // status and reason of the condition
		current    string // of the status
	}{
		{"zero", fresh, 10 * time.Second, 5, "True/ValueAvailable", "5"},
		{"zero", with(fresh, source.NoData), 10 * time.Second, 0, "True/ZeroForNoData", "0"},
		{"zero", with(source.Reading{Attempted: start}, source.NoData), 0, 0, "True/ZeroForNoData", "0"},
		{"zero", fresh, time.Hour, 0, "True/ZeroForNoData", "0"},
		{"last", with(fresh, source.NoData), 10 * time.Second, 5, "True/LastForNoData", "5"},
		{"last", fresh, 10 * time.Minute, 5, "True/LastForNoData", "5"},
		{"last:15m", fresh, 15 * time.Minute, 5, "True/LastForNoData", "5"},

		// An error, by wish, by default, or beyond the bound.
		{"error", with(fresh, source.NoData), 10 * time.Second, -1, "False/NoData", "5"},
		{"", with(fresh, source.NoData), 10 * time.Second, -1, "False/NoData", "5"},
		{"last", with(source.Reading{Attempted: start}, source.NoData), 0, -1, "False/NoData", "0"},
		{"last", fresh, 10*time.Minute + time.Second, -1, "False/Stale", "5"},
		{"last:15m", with(fresh, source.NoData), 16 * time.Minute, -1, "False/NoData", "5"},

		// A source that cannot be asked has not said that there are no data.
		{"zero", with(fresh, source.SourceUnavailable), time.Hour, -1, "False/SourceUnavailable", "5"},
		{"zero", with(fresh, source.Unauthorized), time.Hour, -1, "False/Unauthorized", "5"},
		{"zero", with(fresh, source.RateLimited), time.Hour, -1, "False/RateLimited", "5"},
		{"last", with(fresh, source.SourceUnavailable), 5 * time.Minute, -1, "False/SourceUnavailable", "5"},
		// Nor is a query that is wrong one without data.
		{"zero", with(fresh, source.SyntaxError), 0, -1, "False/SyntaxError", "5"},
		{"zero", with(fresh, source.MultipleSeries), 0, -1, "False/MultipleSeries", "5"},
		{"last", with(fresh, source.NotANumber), 0, -1, "False/NotANumber", "5"},
	} {
		o := annotated(c.annotation)
		if o.problem != nil {
			t.Fatalf("%s: %v", c.annotation, o.problem)
		}
		m := Metric{ID: o.id, Active: true, Limits: source.Limits{MaxAge: maxAge}, noData: o.noData}
		now := start.Add(c.age)
		served, why := m.Value(c.reading, now)
		got := served.Value
		if why != nil {
			got = -1
		}
		s := compose(m, c.reading, v1alpha1.DatadogMetricStatus{}, now)
		valid := find(s.Conditions, v1alpha1.DatadogMetricConditionTypeValid)
		if got != c.want || string(valid.Status)+"/"+valid.Reason != c.valid || s.Value != c.current {
			t.Errorf("%q, reading %+v, %s later: %v, Valid=%s/%s, currentValue %s; want %v, Valid=%s, %s",
				c.annotation, c.reading, c.age, got, valid.Status, valid.Reason, s.Value, c.want, c.valid, c.current)
		}
		if fault := find(s.Conditions, v1alpha1.DatadogMetricConditionTypeError); (served.StandsFor != nil) && (fault.Status != "True" || !strings.Contains(valid.Message, onNoData)) {
			t.Errorf("%q stands in with Error=%s and Valid's message %q: want the cause, and the annotation named", c.annotation, fault.Status, valid.Message)
		}
	}
	for _, text := range []string{"null", "zero:5m", "last:", "last:0s", "last:-5m", "last:2h", "last:1d", "Zero"} {
		if o := annotated(text); o.problem == nil || o.problem.Reason != invalidSpec || !strings.Contains(o.problem.Message, "write error, zero, last or last:<duration>") {
			t.Errorf("annotation %q: problem %v, want it refused with what may be written", text, o.problem)
		}
	}
}

func annotated(policy string) *object {
	u := &unstructured.Unstructured{Object: map[string]any{"spec": map[string]any{"query": "avg:m{*}"},
		"metadata": map[string]any{"namespace": "a", "name": "b"}}}
	if policy != "" {
		u.SetAnnotations(map[string]string{onNoData: policy})
	}
	return decode(u, "datadog")
}
