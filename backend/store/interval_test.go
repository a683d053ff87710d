package store

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"kelpie.dev/kelpie/metric"
	"kelpie.dev/kelpie/query"
)

// An agent sends a metric every ten seconds, every second while an autoscaler
// reads it, and every ten again; another agent never changes. What is counted
// is the same all the time, for each of them, also after a restart.
func TestIntervalIsAPropertyOfThePoint(t *testing.T) {
	clock := &fixed{t0 + 60}
	o := Options{Dir: t.TempDir(), Now: clock.now, MinFree: -1}
	s := open(t, o)
	hits := func(host string, interval, from, n int64) metric.Series {
		out := metric.Series{Name: "hits", Host: host, Type: metric.Rate, Interval: interval}
		for i := range n {
			out.Points = append(out.Points, metric.Point{Time: t0 + from + i*interval, Value: 7})
		}
		return out
	}
	write(t, s, hits("a", 10, 0, 2), hits("b", 10, 0, 6))
	write(t, s, hits("a", 1, 20, 20))
	for _, sec := range []int64{33, 33, 39, 39, 39} { // written again, each in its way
		write(t, s, hits("a", 1, sec, 1))
	}
	check := func(when string, s *Store, newestIsFast bool, texts ...string) {
		t.Helper()
		for _, text := range texts {
			e, err := query.Parse(text)
			if err != nil {
				t.Fatal(err)
			}
			got, err := query.Eval(t.Context(), s, e, query.Window{From: t0, To: t0 + 59})
			if err != nil || len(got) != 1 {
				t.Fatalf("%s: %s: %+v, %v", when, text, got, err)
			}
			for _, p := range got[0].Points {
				if p.Time < t0+40 && p.Value != 70 {
					t.Errorf("%s: %s: %v at %d, want 70", when, text, p.Value, p.Time-t0)
				}
			}
		}
		found, err := s.Select(t.Context(), parseSelector(t, "hits", "host:a"), t0, t0+60)
		if err != nil || len(found) != 1 || found[0].Interval != 10 || found[0].Fast[len(found[0].Fast)-1] != newestIsFast {
			t.Errorf("%s: %+v, %v, want every 10 s and at the end fast: %v", when, found, err, newestIsFast)
		}
	}
	texts := []string{
		"sum:hits{host:a}.as_count().rollup(10)", "sum:hits{host:b}.as_count().rollup(10)",
		"sum:hits{*}.as_count().rollup(10) / 2", "avg:hits{*}.rollup(10) * 10", "sum:hits{host:a}.as_rate().rollup(20) * 10",
	}
	check("in the fast lane", s, true, texts...)
	write(t, s, hits("a", 10, 40, 2))
	check("after it", s, false, texts...)
	if m, _, _ := s.Describe("hits"); m.Interval != 10 {
		t.Errorf("the metric's interval is %d, want 10", m.Interval)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	check("after a restart", open(t, o), false, texts...)
}

func TestFastGaugesKeepTheirPoints(t *testing.T) {
	s := open(t, Options{Now: (&fixed{t0 + 60}).now, MinFree: -1})
	slow := one("queue", "a", nil, metric.Point{Time: t0, Value: 1}, metric.Point{Time: t0 + 10, Value: 2})
	quick := one("queue", "a", nil, metric.Point{Time: t0 + 20, Value: 3}, metric.Point{Time: t0 + 21, Value: 4})
	quick.Interval = metric.FastInterval
	write(t, s, slow, quick)
	want := map[string][]metric.Point{"a|": {{Time: t0, Value: 1}, {Time: t0 + 10, Value: 2}, {Time: t0 + 20, Value: 3}, {Time: t0 + 21, Value: 4}}}
	if diff := cmp.Diff(want, read(t, s, "queue", "*")); diff != "" {
		t.Error(diff)
	}
}
