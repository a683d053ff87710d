package metric

import (
	"math"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestKindAfter(t *testing.T) {
	for name, tc := range map[string]struct{ known, last, want Kind }{
		"first":                     {Kind{}, Kind{Rate, 10}, Kind{Rate, 10}},
		"the last decides":          {Kind{Rate, 10}, Kind{Gauge, 60}, Kind{Gauge, 60}},
		"silence changes nothing":   {Kind{Rate, 10}, Kind{}, Kind{Rate, 10}},
		"a second alone":            {Kind{}, Kind{Rate, 1}, Kind{Rate, 0}},
		"a second in the fast lane": {Kind{Rate, 10}, Kind{Rate, 1}, Kind{Rate, 10}},
		"nonsense":                  {Kind{Rate, 10}, Kind{Rate, -5}, Kind{Rate, 10}},
	} {
		if got := tc.known.After(tc.last); got != tc.want {
			t.Errorf("%s: got %+v, want %+v", name, got, tc.want)
		}
	}
}

func TestAtInterval(t *testing.T) {
	ramp := func(from, n int64, v float64) (out []Point) {
		for i := range n {
			out = append(out, Point{from + i, v})
		}
		return out
	}
	every := func(boundary, before, after int64) func([]Point) func(int) int64 {
		return func(ps []Point) func(int) int64 {
			return func(i int) int64 {
				if ps[i].Time < boundary {
					return before
				}
				return after
			}
		}
	}
	for name, tc := range map[string]struct {
		kind     Type
		points   []Point
		every    func([]Point) func(int) int64
		interval int64
		want     []Point
	}{
		"into the fast lane": {
			Rate, append([]Point{{10, 3}}, ramp(20, 3, 5)...), every(20, 10, 1), 1,
			append(ramp(10, 10, 3), ramp(20, 3, 5)...),
		},
		"out of the fast lane": {
			Rate, append(ramp(10, 10, 3), Point{20, 5}), every(20, 1, 10), 10,
			[]Point{{10, 3}, {20, 5}},
		},
		"a hole is zero": {
			Rate, append(ramp(10, 5, 4), Point{20, 5}), every(20, 1, 10), 10,
			[]Point{{10, 2}, {20, 5}},
		},
		"what was submitted so counts": {
			Rate, []Point{{10, 3}, {11, 7}, {12, 8}}, every(11, 10, 1), 1,
			append([]Point{{10, 3}, {11, 7}, {12, 8}}, ramp(13, 7, 3)...),
		},
		"before the epoch": {
			Rate, append(ramp(-10, 10, 3), Point{0, 5}), every(0, 1, 10), 10,
			[]Point{{-10, 3}, {0, 5}},
		},
		"counts stay": {
			Count, []Point{{10, 30}, {20, 4}, {21, 5}}, every(20, 10, 1), 1,
			[]Point{{10, 30}, {20, 4}, {21, 5}},
		},
		"gauges stay": {
			Gauge, []Point{{10, 3}, {20, 4}, {21, 5}}, every(20, 10, 1), 1,
			[]Point{{10, 3}, {20, 4}, {21, 5}},
		},
	} {
		got := AtInterval(tc.kind, tc.points, tc.every(tc.points), tc.interval)
		if diff := cmp.Diff(tc.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
		var before, after float64
		for i, p := range tc.points {
			before += p.Value * weight(tc.kind, tc.every(tc.points)(i))
		}
		for _, p := range got {
			after += p.Value * weight(tc.kind, tc.interval)
		}
		if tc.kind != Gauge && name != "what was submitted so counts" && math.Abs(before-after) > 1e-9 {
			t.Errorf("%s: counted %v before and %v after", name, before, after)
		}
	}
}

func weight(t Type, every int64) float64 {
	if t == Rate {
		return float64(every)
	}
	return 1
}
