package metric

import (
	"math"
	"slices"
)

// The layout of a sketch's bins, as Datadog's agent has it (reference
// metrics-pipeline A2.7). Sketches merge key by key, so that a change of any of
// these parts what was stored from what comes.
const (
	// SketchGamma is the ratio of two neighbouring bins: 1 + 2 * SketchAccuracy.
	SketchGamma = 1.015625
	// SketchAccuracy bounds the relative error of a quantile: half a bin, which
	// is what Datadog documents for DDSketch. It holds for magnitudes from
	// SketchMinValue to some 4e211, and while no more than SketchMaxBins are in use.
	SketchAccuracy = 1.0 / 128
	// SketchBias is added to a logarithm's rounded value to make a positive key.
	SketchBias = 1338
	// SketchMinValue is the smallest magnitude that is told from zero:
	// SketchGamma to the power 1 - SketchBias.
	SketchMinValue = 9.941854089121455e-10
	// SketchMaxKey is the key of the largest finite values. The next is infinite.
	SketchMaxKey = math.MaxInt16 - 1
	// SketchMaxBins is how many bins a sketch has at most. Those below are
	// counted in the lowest that stays.
	SketchMaxBins = 4096
)

// logGamma is math.Log1p(2 * SketchAccuracy).
const logGamma = 0.015504186535965254

// A Sketch is a distribution of values as Datadog's agent keeps it: exact
// count, sum, minimum and maximum beside logarithmic bins (reference
// metrics-pipeline A2.7). The zero value is an empty sketch.
type Sketch struct {
	Count int64
	Min   float64
	Max   float64
	Sum   float64
	Bins  []Bin // ascending by Key, each Key once
}

// A Bin counts the values whose logarithm rounds to the same Key. N stays at
// its largest value rather than wrap around.
type Bin struct {
	Key int16 // negative for negative values, 0 around zero
	N   uint32
}

// A Distribution is the sketches of one context.
type Distribution struct {
	Name   string
	Host   string
	Tags   Tags
	Points []SketchPoint
}

// Clone returns a copy of d that shares nothing with it but text.
func (d *Distribution) Clone() Distribution {
	c := *d
	c.Tags = slices.Clone(d.Tags)
	c.Points = slices.Clone(d.Points)
	for i := range c.Points {
		c.Points[i].Sketch.Bins = slices.Clone(c.Points[i].Sketch.Bins)
	}
	return c
}

// A SketchPoint is the values of the bucket that starts at Time.
type SketchPoint struct {
	Time   int64 // Unix seconds
	Sketch Sketch
}

// BinKey returns the key of the bin that counts v, which must not be NaN.
func BinKey(v float64) int16 {
	if v < 0 {
		return -BinKey(-v)
	}
	if v < SketchMinValue {
		return 0
	}
	k := math.RoundToEven(math.Log(v)*(1/logGamma)) + SketchBias
	return int16(min(max(k, 1), SketchMaxKey))
}

// Value returns the value that stands for all of b: the geometric middle of its
// bounds, from which none is farther than SketchAccuracy of itself. (Datadog's
// code takes the same number for the bin's lower bound and interpolates towards
// the next, though keys are rounded: its quantiles come out half a bin high.)
func (b Bin) Value() float64 {
	switch {
	case b.Key < 0:
		return -Bin{Key: -max(b.Key, -math.MaxInt16)}.Value()
	case b.Key == 0:
		return 0
	case b.Key > SketchMaxKey:
		return math.Inf(1)
	}
	return math.Exp(float64(int(b.Key)-SketchBias) * logGamma)
}

// Avg returns the mean, NaN of an empty sketch.
func (s *Sketch) Avg() float64 {
	if s.Count == 0 {
		return math.NaN()
	}
	return s.Sum / float64(s.Count)
}

// Quantile returns the value of rank q*(n-1), rounded to even, among the n
// values: within SketchAccuracy of it, and exact for the first and the last.
// q below 0 counts as 0 and above 1 as 1. It is NaN for an empty sketch.
func (s *Sketch) Quantile(q float64) float64 {
	var total uint64
	for _, b := range s.Bins {
		total += uint64(b.N)
	}
	if total == 0 || math.IsNaN(q) {
		return math.NaN()
	}
	q = min(max(q, 0), 1)
	rank := math.RoundToEven(q * float64(total-1))
	switch rank {
	case 0:
		return s.Min
	case float64(total - 1):
		return s.Max
	}
	var running uint64
	for _, b := range s.Bins {
		running += uint64(b.N)
		if float64(running) > rank {
			return min(max(b.Value(), s.Min), s.Max)
		}
	}
	return s.Max
}

// Merge adds o's values to s. It does not keep or change o's memory. The order
// of several merges makes no difference but in the last digits of the sum.
func (s *Sketch) Merge(o *Sketch) {
	if o.Count == 0 {
		return
	}
	if s.Count == 0 {
		bins := append(s.Bins[:0], o.Bins...)
		*s = *o
		s.Bins = bins
		return
	}
	s.Count += o.Count
	s.Sum += o.Sum
	s.Min, s.Max = min(s.Min, o.Min), max(s.Max, o.Max)
	s.Bins = collapse(mergeBins(s.Bins, o.Bins))
}

// NormalizeBins puts bins from elsewhere into the order of Sketch.Bins: it adds
// up those of one key, drops empty ones, and counts those below the
// SketchMaxBins highest in the lowest of those. It reuses bins' memory.
func NormalizeBins(bins []Bin) []Bin {
	byKey := func(a, b Bin) int { return int(a.Key) - int(b.Key) }
	if !slices.IsSortedFunc(bins, byKey) {
		slices.SortFunc(bins, byKey)
	}
	out := bins[:0]
	for _, b := range bins {
		switch last := len(out) - 1; {
		case b.N == 0:
		case last >= 0 && out[last].Key == b.Key:
			out[last].N = addCapped(out[last].N, b.N)
		default:
			out = append(out, b)
		}
	}
	return collapse(out)
}

// mergeBins adds the bins of more to dst, both ascending, and returns dst.
func mergeBins(dst, more []Bin) []Bin {
	fresh, i := 0, 0
	for _, b := range more {
		for i < len(dst) && dst[i].Key < b.Key {
			i++
		}
		if i == len(dst) || dst[i].Key != b.Key {
			fresh++
		}
	}
	// From the back, so that what is moved overwrites nothing still needed.
	i = len(dst) - 1
	dst = slices.Grow(dst, fresh)[:len(dst)+fresh]
	j := len(more) - 1
	for w := len(dst) - 1; j >= 0; w-- {
		switch {
		case i < 0 || dst[i].Key < more[j].Key:
			dst[w] = more[j]
			j--
		case dst[i].Key > more[j].Key:
			dst[w] = dst[i]
			i--
		default:
			dst[w] = Bin{Key: more[j].Key, N: addCapped(dst[i].N, more[j].N)}
			i--
			j--
		}
	}
	return dst
}

// collapse counts the bins below the SketchMaxBins highest in the lowest of those.
func collapse(bins []Bin) []Bin {
	excess := len(bins) - SketchMaxBins
	if excess <= 0 {
		return bins
	}
	for _, b := range bins[:excess] {
		bins[excess].N = addCapped(bins[excess].N, b.N)
	}
	return bins[:copy(bins, bins[excess:])]
}

func addCapped(a, b uint32) uint32 {
	if sum := a + b; sum >= a {
		return sum
	}
	return math.MaxUint32
}
