package query_test

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"kelpie.dev/kelpie/metric"
	"kelpie.dev/kelpie/query"
	"kelpie.dev/kelpie/query/querytest"
)

// gauges are contexts of the metric m with a point every 10 s from time 0.
func gauges(hosts map[string][]float64) sourceFunc {
	var all []metric.Series
	for host, values := range hosts {
		s := metric.Series{Name: "m", Host: host, Type: metric.Gauge, Interval: 10}
		for i, v := range values {
			s.Points = append(s.Points, metric.Point{Time: int64(10 * i), Value: v})
		}
		all = append(all, s)
	}
	return selectFrom(all)
}

func evalOne(t *testing.T, src query.Source, text string, w query.Window) query.Result {
	t.Helper()
	results, err := query.Eval(t.Context(), src, parse(t, text), w)
	if err != nil || len(results) != 1 {
		t.Fatalf("%s: %d results, %v", text, len(results), err)
	}
	return results[0]
}

// outside are the times of r's points that are out of their bounds.
func outside(r query.Result) (out []int64) {
	for i, lower := range r.Lower {
		for _, p := range r.Points {
			if p.Time == lower.Time && (p.Value < lower.Value || p.Value > r.Upper[i].Value) {
				out = append(out, p.Time)
			}
		}
	}
	return out
}

func noise(n int, at func(i int) float64) []float64 {
	random := rand.New(rand.NewPCG(1, 2))
	out := make([]float64, n)
	for i := range out {
		out[i] = at(i) + random.Float64() - 0.5
	}
	return out
}

// A point that leaps is out of its bounds, the others are in; three points make
// no bounds yet.
func TestAnomaliesBasic(t *testing.T) {
	src := gauges(map[string][]float64{"a": noise(60, func(i int) float64 {
		if i == 50 {
			return 200
		}
		return 100
	})})
	r := evalOne(t, src, "anomalies(avg:m{*}.rollup(10), 'basic', 4)", query.Window{To: 599})
	if got := outside(r); len(got) != 1 || got[0] != 500 {
		t.Errorf("out of bounds at %v", got)
	}
	if len(r.Lower) != 57 || r.Lower[0].Time != 30 || len(r.Upper) != 57 {
		t.Errorf("bounds at %d points from %v", len(r.Lower), r.Lower[0])
	}
}

// Functions that look at other days cannot be nested without end.
func TestNestedSeasons(t *testing.T) {
	text := "avg:m{*}"
	for range 20 {
		text = "anomalies(" + text + ", 'agile', 1)"
	}
	_, err := query.Eval(t.Context(), gauges(nil), parse(t, text), query.Window{To: 99})
	var e *query.Error
	if !errors.As(err, &e) || e.Kind != query.Limit || e.Offset != strings.Index(text, "avg") {
		t.Errorf("got %v", err)
	}
}

// What would cost too much is refused with its place before it is computed.
func TestCostLimits(t *testing.T) {
	hosts := map[string][]float64{}
	for i := range 200 {
		hosts[fmt.Sprint("h", i)] = make([]float64, 150)
	}
	src := gauges(hosts)
	for text, want := range map[string]string{
		"moving_rollup(avg:m{*} by {host}.rollup(1), 90000)":                      "error at 14: query has more groups than one answer may hold",
		"abs(moving_rollup(avg:m{*} by {host}.fill(last).rollup(1), 1000))":       `error at 4: function "moving_rollup" looks at too many values`,
		"1 + moving_rollup(moving_rollup(avg:m{*}.rollup(1), 90000), 90000, max)": "error at 32: a function reads more than 100000 values",
	} {
		e := parse(t, text)
		_, err := query.Eval(t.Context(), src, e, query.Window{To: 1499, Interval: 1})
		if err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%s over a window: %v", text, err)
		}
	}
	for text, want := range map[string]string{
		"moving_rollup(avg:m{*} by {host}.rollup(1), 90000)":                      "error at 14: query has more groups than one answer may hold",
		"1 + moving_rollup(moving_rollup(avg:m{*}.rollup(1), 90000), 90000, max)": "error at 32: a function reads more than 100000 values",
		"abs(moving_rollup(moving_rollup(avg:m{*}.rollup(1), 40000), 40000))":     `looks at too many values`,
	} {
		_, _, err := query.Value(t.Context(), src, parse(t, text), 1499)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s at an instant: %v", text, err)
		}
	}
}

// What happens every day is usual; a day that is not like the others is not.
func TestAnomaliesSeasonal(t *testing.T) {
	const days, window = 5, 600
	s := metric.Series{Name: "m", Type: metric.Gauge, Interval: 10}
	random := rand.New(rand.NewPCG(3, 4))
	for d := int64(0); d < days; d++ {
		for at := int64(0); at < window; at += 10 {
			v := 100 + random.Float64()
			if at >= 300 { // every day at that time
				v += 500
			}
			if d == days-1 && at == 450 {
				v -= 500
			}
			s.Points = append(s.Points, metric.Point{Time: d*86400 + at, Value: v})
		}
	}
	src := selectFrom([]metric.Series{s})
	w := query.Window{From: (days - 1) * 86400, To: (days-1)*86400 + window - 1}
	for _, method := range []string{"agile", "robust"} {
		r := evalOne(t, src, "anomalies(avg:m{*}.rollup(10), '"+method+"', 5)", w)
		if got := outside(r); len(got) != 1 || got[0] != w.From+450 {
			t.Errorf("%s: out of bounds at %v", method, got)
		}
	}
	// basic knows of no other day: the daily leap is a surprise to it.
	r := evalOne(t, src, "anomalies(avg:m{*}.rollup(10), 'basic', 5)", w)
	if got := outside(r); len(got) == 0 || got[0] != w.From+300 {
		t.Errorf("basic: out of bounds at %v", got)
	}
	// The newest days are not told from a first day.
	first := evalOne(t, src, "anomalies(avg:m{*}.rollup(10), 'robust', 5)", query.Window{To: window - 1})
	if len(first.Lower) != 0 || len(first.Points) != window/10 {
		t.Errorf("bounds without a day before: %v", first.Lower)
	}
}

func TestForecastBounds(t *testing.T) {
	src := gauges(map[string][]float64{"a": noise(60, func(i int) float64 { return float64(i) })})
	r := evalOne(t, src, "forecast(avg:m{*}.rollup(10), 'linear', 2)", query.Window{To: 899})
	if len(r.Points) != 90 || len(r.Lower) != 30 || r.Lower[0].Time != 600 {
		t.Fatalf("%d points, %d bounds", len(r.Points), len(r.Lower))
	}
	for i, lower := range r.Lower {
		p, upper := r.Points[60+i], r.Upper[i]
		if math.Abs(p.Value-float64(60+i)) > 0.5 {
			t.Errorf("forecast of %d: %v", 60+i, p.Value)
		}
		if !(lower.Value < p.Value && p.Value < upper.Value) || i > 0 && upper.Value-lower.Value <= r.Upper[i-1].Value-r.Lower[i-1].Value {
			t.Errorf("bounds %v and %v of %v do not widen around it", lower, upper, p)
		}
	}
	// The outermost function alone has bounds.
	if r := evalOne(t, src, "abs(forecast(avg:m{*}.rollup(10), 'linear', 2))", query.Window{To: 899}); r.Lower != nil || len(r.Points) != 90 {
		t.Errorf("abs has bounds %v", r.Lower)
	}
}

func TestOutliers(t *testing.T) {
	hosts := map[string][]float64{
		"a": noise(30, func(int) float64 { return 10 }),
		"b": noise(30, func(int) float64 { return 10.3 }),
		"c": noise(30, func(int) float64 { return 9.8 }),
		"d": noise(30, func(int) float64 { return 40 }),
	}
	for _, text := range []string{
		"outliers(avg:m{*} by {host}.rollup(10), 'DBSCAN', 3)", "outliers(avg:m{*} by {host}.rollup(10), 'MAD', 5)",
		"outliers(avg:m{*} by {host}.rollup(10), 'MAD', 5, 99)",
	} {
		results, err := query.Eval(t.Context(), gauges(hosts), parse(t, text), query.Window{To: 299})
		if err != nil || len(results) != 4 {
			t.Fatalf("%s: %v, %v", text, results, err)
		}
		for _, r := range results {
			if r.Outlier != (r.Tags.String() == "host:d") {
				t.Errorf("%s: %s is an outlier: %v", text, r.Tags, r.Outlier)
			}
		}
	}
	// Two camps of the same size: neither is the odd one out.
	hosts["e"] = noise(30, func(int) float64 { return 40.2 })
	hosts["f"] = noise(30, func(int) float64 { return 39.7 })
	results, err := query.Eval(t.Context(), gauges(hosts), parse(t, "outliers(avg:m{*} by {host}.rollup(10), 'DBSCAN', 0.5)"), query.Window{To: 299})
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range results {
		if r.Outlier {
			t.Errorf("%s is an outlier of two camps", r.Tags)
		}
	}
}

// The trend of least squares follows a few values far off, the robust one does
// not; levels are found in noise.
func TestTrends(t *testing.T) {
	values := noise(100, func(i int) float64 {
		if i >= 90 && i < 95 {
			return 1000
		}
		return float64(2 * i)
	})
	src := gauges(map[string][]float64{"a": values})
	w := query.Window{To: 999}
	last := func(text string) float64 {
		points := evalOne(t, src, text, w).Points
		return points[len(points)-1].Value
	}
	if v := last("robust_trend(avg:m{*}.rollup(10))"); math.Abs(v-198) > 2 {
		t.Errorf("robust trend ends at %v, want 198", v)
	}
	if v := last("trend_line(avg:m{*}.rollup(10))"); v < 220 {
		t.Errorf("least squares end at %v, unmoved", v)
	}
	levels := gauges(map[string][]float64{"a": noise(90, func(i int) float64 { return float64(10 * (i / 30)) })})
	r := evalOne(t, levels, "piecewise_constant(avg:m{*}.rollup(10))", w)
	seen := map[float64]int{}
	for i, p := range r.Points {
		seen[p.Value]++
		if math.Abs(p.Value-float64(10*(i/30))) > 0.5 {
			t.Errorf("level at %d is %v", i, p.Value)
		}
	}
	if len(seen) > 6 {
		t.Errorf("%d levels, of 3", len(seen))
	}
}

// autosmooth takes the noise from a slow wave, and leaves its height.
func TestAutosmooth(t *testing.T) {
	wave := func(i int) float64 { return 10 * math.Sin(float64(i)/40) }
	src := gauges(map[string][]float64{"a": noise(300, wave)})
	r := evalOne(t, src, "autosmooth(avg:m{*}.rollup(10))", query.Window{To: 2999})
	raw := evalOne(t, src, "avg:m{*}.rollup(10)", query.Window{To: 2999})
	steps := func(points []query.Point) (sum float64) {
		for i := 1; i < len(points); i++ {
			sum += math.Abs(points[i].Value - points[i-1].Value)
		}
		return sum
	}
	if steps(r.Points) > steps(raw.Points)/1.5 {
		t.Errorf("steps of %v, of %v before", steps(r.Points), steps(raw.Points))
	}
	low, high := math.Inf(1), math.Inf(-1)
	for _, p := range r.Points {
		low, high = min(low, p.Value), max(high, p.Value)
	}
	if high < 8.5 || low > -8.5 {
		t.Errorf("the wave is %v to %v high", low, high)
	}
}

// Days and months are those of the zone's clocks, whatever they are set to.
func TestCalendarShift(t *testing.T) {
	at := func(zone, text string) int64 {
		t.Helper()
		loc, err := time.LoadLocation(zone)
		if err != nil {
			t.Fatal(err)
		}
		v, err := time.ParseInLocation("2006-01-02 15:04", text, loc)
		if err != nil {
			t.Fatal(err)
		}
		return v.Unix()
	}
	for _, tt := range []struct{ shift, zone, now, then string }{
		{"-1d", "UTC", "2026-03-29 12:00", "2026-03-28 12:00"},
		{"-1d", "Europe/Berlin", "2026-03-29 12:00", "2026-03-28 12:00"}, // 23 hours
		{"-1d", "Europe/Berlin", "2026-10-25 12:00", "2026-10-24 12:00"}, // 25 hours
		{"-7d", "America/New_York", "2026-03-10 08:00", "2026-03-03 08:00"},
		{"-1mo", "UTC", "2026-03-31 12:00", "2026-02-28 12:00"},
		{"-1mo", "Europe/Berlin", "2026-01-15 12:00", "2025-12-15 12:00"},
		{"-2w", "UTC", "2026-01-10 00:00", "2025-12-27 00:00"},
	} {
		now, then := at(tt.zone, tt.now), at(tt.zone, tt.then)
		src := selectFrom([]metric.Series{{Name: "m", Type: metric.Gauge, Interval: 10, Points: []metric.Point{{Time: then, Value: 7}}}})
		text := "calendar_shift(avg:m{*}, '" + tt.shift + "', '" + tt.zone + "')"
		r, ok, err := query.Value(t.Context(), src, parse(t, text), now)
		if err != nil || !ok || r.Value != 7 || r.Time != now {
			t.Errorf("%s at %s: %v %v %v", text, tt.now, r, ok, err)
		}
		points := evalOne(t, src, "calendar_shift(avg:m{*}.rollup(10), '"+tt.shift+"', '"+tt.zone+"')", query.Window{From: now - 600, To: now + 600}).Points
		if len(points) != 1 || points[0].Time != now {
			t.Errorf("%s around %s: %v", text, tt.now, points)
		}
		if back := now - then; query.Lookback(parse(t, text)) < back {
			t.Errorf("%s looks back %d", text, back)
		}
	}
	// Over the change of the clocks, within one window: noon is noon on both days.
	src := selectFrom([]metric.Series{{Name: "m", Type: metric.Gauge, Interval: 10, Points: []metric.Point{
		{Time: at("Europe/Berlin", "2026-03-21 12:00"), Value: 1}, {Time: at("Europe/Berlin", "2026-03-22 12:00"), Value: 2},
	}}})
	w := query.Window{From: at("Europe/Berlin", "2026-03-28 00:00"), To: at("Europe/Berlin", "2026-03-29 23:00")}
	r := evalOne(t, src, "calendar_shift(avg:m{*}.rollup(3600), '-7d', 'Europe/Berlin')", w)
	want := []query.Point{{Time: at("Europe/Berlin", "2026-03-28 12:00"), Value: 1}, {Time: at("Europe/Berlin", "2026-03-29 12:00"), Value: 2}}
	if len(r.Points) != 2 || r.Points[0] != want[0] || r.Points[1] != want[1] {
		t.Errorf("got %v, want %v", r.Points, want)
	}
}

// stddev and count(v: …) of merged sketches against the values themselves.
func TestDistributionDeviation(t *testing.T) {
	random := rand.New(rand.NewPCG(5, 6))
	for range 50 {
		var values []float64
		var ds []metric.Distribution
		for _, host := range []string{"a", "b"} {
			var b metric.SketchBuilder
			for range 1 + random.IntN(200) {
				v := math.Exp(random.NormFloat64()*2) * float64(1-2*random.IntN(2))
				values = append(values, v)
				b.Add(v, 1)
			}
			ds = append(ds, metric.Distribution{Name: "m", Host: host, Points: []metric.SketchPoint{{Time: 0, Sketch: b.Sketch()}}})
		}
		src := &querytest.Memory{}
		if err := src.Load(t.Context(), nil, ds); err != nil {
			t.Fatal(err)
		}
		mean, squares, largest, above := 0.0, 0.0, 0.0, 0.0
		for _, v := range values {
			mean += v / float64(len(values))
			largest = max(largest, math.Abs(v))
			if v >= 1 {
				above++
			}
		}
		near := 0.0
		for _, v := range values {
			squares += (v - mean) * (v - mean)
			if v > 1/1.02 && v < 1.02 {
				near++
			}
		}
		want := math.Sqrt(squares / float64(len(values)))
		if got := evalOne(t, src, "stddev:m{*}.rollup(10)", query.Window{To: 9}).Points[0].Value; math.Abs(got-want) > 0.01*largest {
			t.Errorf("stddev %v, want %v", got, want)
		}
		if got := evalOne(t, src, "count(v: v>=1):m{*}.rollup(10)", query.Window{To: 9}).Points[0].Value; math.Abs(got-above) > near {
			t.Errorf("%v values from 1 on, want %v", got, above)
		}
	}
}
