package query

import "math"

// A function transforms every series of its argument. A new one is a row in
// functions; see Check for how its arguments are held to numbers.
type function struct {
	numbers int  // arguments after the first, all of them numbers
	counts  bool // counts stay counts
	apply   func(s *series, args []float64, g grid)
}

// functions holds what is implemented. The table is never modified.
var functions = map[string]function{
	"abs":       {counts: true, apply: pointwise(func(v, _ float64) float64 { return math.Abs(v) })},
	"clamp_min": {numbers: 1, apply: pointwise(func(v, bound float64) float64 { return max(v, bound) })},
	"clamp_max": {numbers: 1, apply: pointwise(func(v, bound float64) float64 { return min(v, bound) })},
	"cutoff_min": {numbers: 1, apply: pointwise(func(v, bound float64) float64 {
		if v < bound {
			return null
		}
		return v
	})},
	"cutoff_max": {numbers: 1, apply: pointwise(func(v, bound float64) float64 {
		if v > bound {
			return null
		}
		return v
	})},
	"default_zero": {counts: true, apply: defaultZero},
}

// catalogue lists Datadog's functions, so that one that is not implemented is
// told from one that does not exist.
const catalogue = `
abs log2 log10 cumsum integral exclude_null clamp_min clamp_max cutoff_min cutoff_max default_zero
count_nonzero count_nonzero_finite count_not_null top
top5_mean top5_min top5_max top5_last top5_area top5_l2norm top5 bottom5
top10_mean top10_min top10_max top10_last top10_area top10_l2norm top10 bottom10
top15_mean top15_min top15_max top15_last top15_area top15_l2norm top15 bottom15
top20_mean top20_min top20_max top20_last top20_area top20_l2norm top20 bottom20
bottom5_mean bottom5_min bottom5_max bottom5_last bottom5_area bottom5_l2norm
bottom10_mean bottom10_min bottom10_max bottom10_last bottom10_area bottom10_l2norm
bottom15_mean bottom15_min bottom15_max bottom15_last bottom15_area bottom15_l2norm
bottom20_mean bottom20_min bottom20_max bottom20_last bottom20_area bottom20_l2norm
per_second per_minute per_hour dt diff monotonic_diff derivative throughput
ewma_3 ewma_5 ewma_7 ewma_10 ewma_20 median_3 median_5 median_7 median_9 autosmooth
rollingavg_5 rollingavg_13 rollingavg_21 rollingavg_29
timeshift hour_before day_before week_before month_before calendar_shift moving_rollup
anomalies outliers forecast robust_trend trend_line piecewise_constant
is_greater is_less is_between`

// call applies the function of c to t. Check has seen c.
func (ev *evaluator) call(c *Call, t term) term {
	f := functions[c.Func]
	args := make([]float64, len(c.Args))
	for i, a := range c.Args {
		args[i] = a.Number
	}
	if t.number {
		s := series{points: []Point{{Value: t.value}}}
		f.apply(&s, args, grid{interval: 1, n: 1})
		return term{number: true, value: s.points[0].Value}
	}
	return t.each(func(s *series) {
		f.apply(s, args, ev.grid(s.interval))
		s.counting = s.counting && f.counts
	})
}

// pointwise is the function that maps every value by itself; f's second
// argument is the function's, if it has one.
func pointwise(f func(v, arg float64) float64) func(*series, []float64, grid) {
	return func(s *series, args []float64, _ grid) {
		arg := 0.0
		if len(args) > 0 {
			arg = args[0]
		}
		s.transform(func(v float64) float64 { return f(v, arg) })
	}
}

// defaultZero gives every bucket of the window a value: the interpolated one
// where s interpolates and a sample is near, else 0. A query without any series
// stays without.
func defaultZero(s *series, _ []float64, g grid) {
	values := make([]float64, g.n)
	for i := range values {
		values[i] = null
	}
	for _, p := range s.points {
		if i := (p.Time - g.first) / max(g.interval, 1); p.Time >= g.first && i < int64(g.n) {
			values[i] = p.Value
		}
	}
	if s.interpolated {
		interpolate(values, "linear", defaultFill, g.interval)
	}
	points := make([]Point, g.n)
	for i, v := range values {
		if math.IsNaN(v) {
			v = 0
		}
		points[i] = Point{Time: g.time(i), Value: v}
	}
	s.points = points
}
