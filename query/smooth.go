package query

import (
	"fmt"
	"math"
	"slices"
)

// smoothFunctions smooth over points, not over time. What a point has too few
// before it for, it takes of those that there are. Points that are null stay so.
func smoothFunctions() map[string]function {
	all := map[string]function{"autosmooth": {unit: true, along: autosmooth, work: squareWork}}
	for _, n := range [...]int{3, 5, 7, 10, 20} {
		all[fmt.Sprintf("ewma_%d", n)] = function{unit: true, along: ewma(n), points: func(*Call, int64) int { return ewmaPoints(n) }}
	}
	for _, n := range [...]int{3, 5, 7, 9} {
		all[fmt.Sprintf("median_%d", n)] = trailingFunction(n, "median")
	}
	for _, n := range [...]int{5, 13, 21, 29} {
		all[fmt.Sprintf("rollingavg_%d", n)] = trailingFunction(n, "avg")
	}
	return all
}

// squareWork is that of what compares points with many others.
func squareWork(_ input, n int) int { return n * n / 4 }

// ewma is the exponentially weighted mean of span n: each value has the weight
// 2/(n+1), and what came before it the rest.
func ewma(n int) func(*series, input) {
	alpha := 2 / float64(n+1)
	return func(s *series, _ input) {
		mean := null
		s.transform(func(v float64) float64 {
			if math.IsNaN(mean) {
				mean = v
			} else {
				mean = alpha*v + (1-alpha)*mean
			}
			return mean
		})
	}
}

// ewmaPoints is how many points an instant's ewma is taken over: those before
// would have less than a hundredth of the weight. For n = 3, 5, 7, 10 and 20
// these are 7, 12, 17, 23 and 47.
func ewmaPoints(n int) int {
	return int(math.Ceil(math.Log(0.01) / math.Log(1-2/float64(n+1))))
}

// trailingFunction aggregates each value and the n-1 before it.
func trailingFunction(n int, method string) function {
	return function{
		unit:   true,
		points: func(*Call, int64) int { return n },
		along: func(s *series, _ input) {
			window, scratch := make([]float64, 0, n), make([]float64, 0, n)
			s.transform(func(v float64) float64 {
				if len(window) == n {
					window = slices.Delete(window, 0, 1)
				}
				window = append(window, v)
				scratch = append(scratch[:0], window...)
				return summary(method, scratch)
			})
		},
	}
}

// mostKurtosis is the share of the values' kurtosis that autosmooth keeps at
// least.
const mostKurtosis = 0.9

// autosmooth is the mean of a trailing window whose width is chosen so that the
// result is as smooth as can be without hiding what stands out: of the widths up
// to a tenth of the points, the one whose means have the least rough steps (the
// smallest deviation of differences) while their kurtosis is still nine tenths of
// the values' own. It follows Rong and Bailis, ASAP (VLDB 2017), who want all of
// it; but then the least noise on a wave keeps the wave as it is.
func autosmooth(s *series, _ input) {
	values := s.values()
	best, rough := 1, roughness(values)
	least := mostKurtosis * kurtosis(values)
	for width := 2; width <= len(values)/10; width++ {
		means := movingMeans(values, width)
		if r := roughness(means); r < rough && kurtosis(means) >= least {
			best, rough = width, r
		}
	}
	trailingFunction(best, "avg").along(s, input{})
}

// values are those of s that are not null.
func (s *series) values() []float64 {
	out := make([]float64, 0, len(s.points))
	for _, p := range s.points {
		if !p.Null() {
			out = append(out, p.Value)
		}
	}
	return out
}

// movingMeans are the means of all whole windows of the given width.
func movingMeans(values []float64, width int) []float64 {
	out := make([]float64, 0, len(values))
	sum := 0.0
	for i, v := range values {
		sum += v
		if i >= width {
			sum -= values[i-width]
		}
		if i >= width-1 {
			out = append(out, sum/float64(width))
		}
	}
	return out
}

// roughness is the standard deviation of the steps between values.
func roughness(values []float64) float64 {
	if len(values) < 2 {
		return 0
	}
	steps := make([]float64, len(values)-1)
	for i := range steps {
		steps[i] = values[i+1] - values[i]
	}
	return summary("stddev", steps)
}

// kurtosis is the fourth standardized moment: how far the outermost values stand
// out. That of equal values is 0.
func kurtosis(values []float64) float64 {
	mean, second, fourth := summary("avg", values), 0.0, 0.0
	for _, v := range values {
		d := (v - mean) * (v - mean)
		second += d
		fourth += d * d
	}
	if second == 0 {
		return 0
	}
	return fourth / (second * second) * float64(len(values))
}
