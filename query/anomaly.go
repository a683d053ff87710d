package query

import (
	"context"
	"math"
)

// seasonDays is how many days before are looked at for what is usual at a time
// of day.
const seasonDays = 7

// forecastFunctions return the values of their argument with bounds: see
// Result.Lower. Datadog does not publish how it computes its own; the names of
// the algorithms are its, the computation is what the functions here say. None
// has a value at an instant.
func forecastFunctions() map[string]function {
	return map[string]function{
		"anomalies": {params: []param{oneOf("basic", "agile", "robust"), positive}, unit: true, over: anomalies},
		"forecast":  {params: []param{oneOf("linear", "seasonal"), positive}, unit: true, over: forecast},
		"outliers": {
			params: []param{oneOf("DBSCAN", "MAD"), positive, whole(0, 100, " of percent")}, optional: 1,
			unit: true, over: outliers,
		},
	}
}

func positive(a Arg) string {
	if a.Kind != NumberArg || !(a.Number > 0) {
		return "expected a positive number"
	}
	return ""
}

// noInstant refuses what draws on the whole window of a graph.
func (in input) noInstant() error {
	return refuse(in.Call, in.span, "function %q draws on the whole window of a graph and has no value at an instant", in.Func)
}

// anomalies puts bounds around what is usual, dev deviations away from it:
//   - basic: the mean and the standard deviation of the basicPoints points before;
//   - agile: the mean of the same time on the seasonDays days before, moved by the
//     mean distance of the basicPoints points before from theirs, so that it
//     follows a change of level at once; the deviation is that of those distances;
//   - robust: the median of the same time on the days before, moved by the median
//     distance of the whole window; the deviation is the median absolute one.
//
// A point that has too little before it has no bounds.
func anomalies(ctx context.Context, ev *evaluator, in input) (term, error) {
	if in.at.instants != nil {
		return term{}, in.noInstant()
	}
	t, err := ev.term(ctx, in.X, in.at)
	if err != nil {
		return term{}, err
	}
	method, dev := in.word(0, ""), in.number(1)
	var usual season
	if method != "basic" {
		if usual, err = ev.season(ctx, in); err != nil {
			return term{}, err
		}
	}
	return t.each(func(s *series) {
		switch method {
		case "basic":
			s.band(dev, make([]float64, len(s.points)), trailingSpread)
		case "agile":
			s.band(dev, usual.of(s, "avg"), trailingSpread)
		default:
			s.band(dev, usual.of(s, "median"), wholeSpread)
		}
		in.label(s)
	}), nil
}

const (
	basicPoints = 30 // before a point that its bounds are made from
	fewPoints   = 3  // fewer tell nothing
)

// A spread says, given how far all points are from what is expected, how far the
// i-th is expected to be, and the standard deviation. ok is false when there are
// too few to tell.
type spread func(distances []float64) func(i int) (middle, deviation float64, ok bool)

// trailingSpread is that of the points before.
func trailingSpread(distances []float64) func(int) (middle, deviation float64, ok bool) {
	near := make([]float64, 0, basicPoints)
	return func(i int) (middle, deviation float64, ok bool) {
		near = near[:0]
		for _, d := range distances[max(0, i-basicPoints):i] {
			if !math.IsNaN(d) {
				near = append(near, d)
			}
		}
		return summary("avg", near), summary("stddev", near), len(near) >= fewPoints
	}
}

// wholeSpread is that of all points, unmoved by a few of them.
func wholeSpread(distances []float64) func(int) (middle, deviation float64, ok bool) {
	var all []float64
	for _, d := range distances {
		if !math.IsNaN(d) {
			all = append(all, d)
		}
	}
	middle := summary("median", all)
	for i, d := range all {
		all[i] = math.Abs(d - middle)
	}
	deviation := madScale * summary("median", all)
	return func(int) (float64, float64, bool) { return middle, deviation, len(all) >= fewPoints }
}

// band sets the bounds of s around what is expected at each point.
func (s *series) band(dev float64, expected []float64, of spread) {
	distances := make([]float64, len(s.points))
	for i, p := range s.points {
		distances[i] = p.Value - expected[i]
	}
	usual := of(distances)
	for i, p := range s.points {
		if middle, deviation, ok := usual(i); ok && !math.IsNaN(expected[i]) {
			s.bound(p.Time, expected[i]+middle, dev*deviation)
		}
	}
}

// bound adds bounds at t, so far from the middle.
func (s *series) bound(t int64, middle, distance float64) {
	if lower, upper := finite(middle-distance), finite(middle+distance); !math.IsNaN(lower) && !math.IsNaN(upper) {
		s.lower = append(s.lower, Point{Time: t, Value: lower})
		s.upper = append(s.upper, Point{Time: t, Value: upper})
	}
}

// A season is what a call's argument was on the days before, each by group and
// then by the time it is shown at.
type season []map[string]map[int64]float64

func (ev *evaluator) season(ctx context.Context, in input) (season, error) {
	var all season
	for k := int64(1); k <= seasonDays; k++ {
		t, err := ev.term(ctx, in.X, in.at.shifted(func(t int64) int64 { return t - k*day }))
		if err != nil {
			return nil, err
		}
		groups := make(map[string]map[int64]float64, len(t.series))
		for i := range t.series {
			values := make(map[int64]float64, len(t.series[i].points))
			for _, p := range t.series[i].points {
				if !p.Null() {
					values[p.Time] = p.Value
				}
			}
			groups[t.series[i].tags.String()] = values
		}
		all = append(all, groups)
	}
	return all, nil
}

// of returns what is usual at each point of s; null where no day before has a value.
func (u season) of(s *series, method string) []float64 {
	at := u.group(s, method)
	expected := make([]float64, len(s.points))
	for i, p := range s.points {
		expected[i] = at(p.Time)
	}
	return expected
}

// group returns what is usual for s at a time.
func (u season) group(s *series, method string) func(t int64) float64 {
	key := s.tags.String()
	days := make([]map[int64]float64, len(u))
	for i, groups := range u {
		days[i] = groups[key]
	}
	values := make([]float64, 0, len(days))
	return func(t int64) float64 {
		values = values[:0]
		for _, d := range days {
			if v, ok := d[t]; ok {
				values = append(values, v)
			}
		}
		return summary(method, values)
	}
}

// forecast goes on after the newest point of each series, to the end of the
// window, with bounds dev deviations away. A window that ends at its newest
// point is returned as it is. It goes on
//   - linear: along the least squares line of the window's points, by their
//     deviation from it, wider with the distance from their middle;
//   - seasonal: by the mean of the same time on the seasonDays days before, moved
//     by the mean distance of the window's points from theirs, with the standard
//     deviation of these distances. Where no day before has a value it ends.
func forecast(ctx context.Context, ev *evaluator, in input) (term, error) {
	if in.at.instants != nil {
		return term{}, in.noInstant()
	}
	t, err := ev.term(ctx, in.X, in.at)
	if err != nil {
		return term{}, err
	}
	var usual season
	if in.word(0, "") == "seasonal" {
		if usual, err = ev.season(ctx, in); err != nil {
			return term{}, err
		}
	}
	return t.each(func(s *series) {
		s.points = append(s.points[:0:0], s.points...)
		next := predictLine(s)
		if usual != nil {
			next = predictSeason(s, usual)
		}
		g := in.at.grid(s.interval)
		last := len(s.points) - 1
		if next != nil {
			for at := s.points[last].Time + s.interval; at < g.time(g.n); at += s.interval {
				middle, deviation := next(at)
				if v := finite(middle); !math.IsNaN(v) {
					s.points = append(s.points, Point{Time: at, Value: v})
					s.bound(at, v, in.number(1)*deviation)
				}
			}
		}
		in.label(s)
	}), nil
}

// A prediction is the value at a time to come, and its standard deviation.
type prediction func(at int64) (middle, deviation float64)

func predictLine(s *series) prediction {
	l := leastSquares(s.points)
	var n, squares, meanT, tt float64
	for _, p := range s.points {
		if !p.Null() {
			n++
			d := p.Value - l.at(p.Time)
			squares += d * d
			meanT += float64(p.Time - l.origin)
		}
	}
	if n < fewPoints {
		return nil
	}
	meanT /= n
	for _, p := range s.points {
		if !p.Null() {
			d := float64(p.Time-l.origin) - meanT
			tt += d * d
		}
	}
	sigma := math.Sqrt(squares / (n - 2))
	return func(at int64) (float64, float64) {
		d := float64(at-l.origin) - meanT
		return l.at(at), sigma * math.Sqrt(1+1/n+d*d/tt)
	}
}

func predictSeason(s *series, usual season) prediction {
	var distances []float64
	expected := usual.group(s, "avg")
	for _, p := range s.points {
		if d := p.Value - expected(p.Time); !math.IsNaN(d) {
			distances = append(distances, d)
		}
	}
	if len(distances) < fewPoints {
		return nil
	}
	level, deviation := summary("avg", distances), summary("stddev", distances)
	return func(at int64) (float64, float64) { return expected(at) + level, deviation }
}
