package query

import (
	"math"
	"slices"
)

// regressFunctions replace the values of a window by those of what fits them.
// They have no value at an instant: that would be another with every window.
func regressFunctions() map[string]function {
	return map[string]function{
		"trend_line":         {unit: true, along: func(s *series, _ input) { s.draw(leastSquares(s.points)) }},
		"robust_trend":       {unit: true, along: func(s *series, _ input) { s.draw(huber(s.points)) }, work: func(_ input, n int) int { return huberSteps * n }},
		"piecewise_constant": {unit: true, along: piecewiseConstant, work: squareWork},
	}
}

// A line is a + b·(t - origin).
type line struct {
	origin int64
	a, b   float64
}

func (l line) at(t int64) float64 { return l.a + l.b*float64(t-l.origin) }

// draw replaces every point of s, null or not, by that of l.
func (s *series) draw(l line) {
	points := make([]Point, len(s.points))
	for i, p := range s.points {
		points[i] = Point{Time: p.Time, Value: finite(l.at(p.Time))}
	}
	s.points = points
}

// leastSquares fits a line to the points that are not null, so that the squares
// of their distances are least. Without a point it is null everywhere.
func leastSquares(points []Point) line { return weightedLine(points, func(Point) float64 { return 1 }) }

func weightedLine(points []Point, weight func(Point) float64) line {
	l := line{a: null}
	var n, meanT, meanV float64
	for _, p := range points {
		if p.Null() {
			continue
		}
		if n == 0 {
			l.origin = p.Time
		}
		w := weight(p)
		n += w
		meanT += w * float64(p.Time-l.origin)
		meanV += w * p.Value
	}
	if n == 0 {
		return l
	}
	meanT, meanV = meanT/n, meanV/n
	var tt, tv float64
	for _, p := range points {
		if !p.Null() {
			dt := float64(p.Time-l.origin) - meanT
			tt += weight(p) * dt * dt
			tv += weight(p) * dt * (p.Value - meanV)
		}
	}
	if tt > 0 {
		l.b = tv / tt
	}
	l.a = meanV - l.b*meanT
	return l
}

const (
	// madScale makes the median absolute deviation of normal values their
	// standard deviation.
	madScale = 1.4826
	// huberBound is in standard deviations: distances up to it count by their
	// square, those beyond by their size alone. 1.345 keeps 95 % of the
	// efficiency of least squares where there are no outliers.
	huberBound = 1.345
	huberSteps = 50
)

// huber fits a line by Huber's loss, so that a few values far off hardly move
// it: least squares, weighted anew by the distances until the line stands still.
func huber(points []Point) line {
	l := leastSquares(points)
	for range huberSteps {
		var distances []float64
		for _, p := range points {
			if !p.Null() {
				distances = append(distances, math.Abs(p.Value-l.at(p.Time)))
			}
		}
		bound := huberBound * madScale * summary("median", distances)
		if !(bound > 0) {
			return l
		}
		next := weightedLine(points, func(p Point) float64 {
			return min(1, bound/math.Abs(p.Value-l.at(p.Time)))
		})
		if math.Abs(next.a-l.a)+math.Abs(next.b-l.b) <= 1e-12*(math.Abs(l.a)+math.Abs(l.b)) {
			return next
		}
		l = next
	}
	return l
}

// piecewiseConstant replaces values by the means of stretches between changes of
// level. Stretches are split in two where that lowers the squared distances the
// most, as long as it lowers them by more than 2·σ²·ln n (the Bayesian
// information criterion), where σ is estimated from the steps between
// neighbours, which a few changes of level hardly touch.
func piecewiseConstant(s *series, _ input) {
	values := s.values()
	penalty := 0.0
	if len(values) > 1 {
		steps := make([]float64, len(values)-1)
		for i := range steps {
			steps[i] = math.Abs(values[i+1] - values[i])
		}
		sigma := madScale * summary("median", steps) / math.Sqrt2
		penalty = 2 * sigma * sigma * math.Log(float64(len(values)))
	}
	sums := make([]float64, len(values)+1)
	for i, v := range values {
		sums[i+1] = sums[i] + v
	}
	levels := slices.Clone(values)
	stack := [][2]int{{0, len(values)}}
	for len(stack) > 0 {
		from, to := stack[len(stack)-1][0], stack[len(stack)-1][1]
		stack = stack[:len(stack)-1]
		if cut, gain := bestCut(sums, from, to); gain > penalty && gain > 1e-12*sums2(values[from:to]) {
			stack = append(stack, [2]int{from, cut}, [2]int{cut, to})
			continue
		}
		for i := from; i < to; i++ {
			levels[i] = (sums[to] - sums[from]) / float64(to-from)
		}
	}
	i := 0
	s.transform(func(float64) float64 { i++; return levels[i-1] })
}

// bestCut returns where to split values[from:to], whose running sums are given,
// and by how much that lowers the sum of squared distances from the mean.
func bestCut(sums []float64, from, to int) (cut int, gain float64) {
	for i := from + 1; i < to; i++ {
		n, m := float64(i-from), float64(to-i)
		d := (sums[i]-sums[from])/n - (sums[to]-sums[i])/m
		if g := d * d * n * m / (n + m); g > gain {
			cut, gain = i, g
		}
	}
	return cut, gain
}

func sums2(values []float64) float64 {
	sum := 0.0
	for _, v := range values {
		sum += v * v
	}
	return sum
}
