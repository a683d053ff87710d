package dialect

import (
	"errors"
	"math"
	"slices"

	"kelpie.dev/kelpie/metric"
)

// A histogram is the buckets of any of the histograms of OTLP and Prometheus.
// Those of an explicit one are between bounds; those of an exponential one grow
// by a factor of 2^(2^-scale), the bucket i from that to the power i on.
type histogram struct {
	bounds []float64 // ascending; nil when exponential
	counts []float64 // one more than bounds

	exponential        bool
	scale              int32
	zero               float64 // count of values around zero
	zeroWidth          float64
	positive, negative span

	count, sum float64
	hasSum     bool
	min, max   float64 // NaN when not known
}

// A span is neighbouring buckets, the first of which has the index offset.
type span struct {
	offset int32
	counts []float64
}

func (h *histogram) size() int {
	return len(h.counts) + len(h.positive.counts) + len(h.negative.counts)
}

// validate reports what contradicts itself.
func (h *histogram) validate() error {
	switch {
	case h.size() > maxBuckets || len(h.bounds) > maxBuckets:
		return errors.New("it has more than 4096 buckets")
	case len(h.bounds) > 0 && len(h.counts) != len(h.bounds)+1:
		return errors.New("it does not have one bucket more than bounds")
	case !slices.IsSorted(h.bounds):
		return errors.New("its bounds are not in ascending order")
	case h.scale < -10 || h.scale > 20:
		return errors.New("its scale is not between -10 and 20")
	case !finite(h.count) || h.count < 0 || h.hasSum && !finite(h.sum):
		return errors.New("its count or sum is not a finite number")
	}
	for _, b := range h.bounds {
		if math.IsNaN(b) {
			return errors.New("a bound is not a number")
		}
	}
	for _, counts := range [...][]float64{h.counts, h.positive.counts, h.negative.counts, {h.zero}} {
		for _, c := range counts {
			if !finite(c) || c < 0 {
				return errors.New("a bucket's count is not a finite number")
			}
		}
	}
	return nil
}

func finite(v float64) bool { return !math.IsNaN(v) && !math.IsInf(v, 0) }

// minus returns what was added to was to make h, or nil after a reset: when a
// count fell, or when the buckets are others. Neither is changed.
func (h *histogram) minus(was *histogram) *histogram {
	if was == nil || h.exponential != was.exponential || h.count < was.count || !slices.Equal(h.bounds, was.bounds) || len(h.counts) != len(was.counts) {
		return nil
	}
	d := &histogram{bounds: h.bounds, exponential: h.exponential, scale: h.scale, zeroWidth: h.zeroWidth, count: h.count - was.count,
		sum: h.sum - was.sum, hasSum: h.hasSum && was.hasSum, min: math.NaN(), max: math.NaN()}
	d.counts = slices.Clone(h.counts)
	for i, c := range was.counts {
		if d.counts[i] -= c; d.counts[i] < 0 {
			return nil
		}
	}
	if !h.exponential {
		return d
	}
	shift := was.scale - h.scale
	if shift < 0 || h.zeroWidth < was.zeroWidth {
		return nil // a stream only ever gets coarser
	}
	d.zero = h.zero - was.zero
	var ok [2]bool
	var taken [2]float64 // of was' buckets that h counts around zero
	d.positive, taken[0], ok[0] = h.positive.minus(was.positive.coarser(shift))
	d.negative, taken[1], ok[1] = h.negative.minus(was.negative.coarser(shift))
	if h.zeroWidth > was.zeroWidth {
		d.zero -= taken[0] + taken[1]
	} else if taken[0]+taken[1] > 0 {
		return nil
	}
	if !ok[0] || !ok[1] || d.zero < 0 {
		return nil
	}
	return d
}

// coarser returns s with shift fewer bits of scale.
func (s span) coarser(shift int32) span {
	if shift == 0 || len(s.counts) == 0 {
		return s
	}
	if shift > 31 {
		shift = 31
	}
	out := span{offset: s.offset >> shift}
	last := (s.offset + int32(len(s.counts)) - 1) >> shift
	out.counts = make([]float64, last-out.offset+1)
	for i, c := range s.counts {
		out.counts[(s.offset+int32(i))>>shift-out.offset] += c
	}
	return out
}

// minus returns s without was, and how many of was' are in buckets that s lacks.
func (s span) minus(was span) (d span, outside float64, ok bool) {
	d = span{offset: s.offset, counts: slices.Clone(s.counts)}
	for i, c := range was.counts {
		if c == 0 {
			continue
		}
		at := int64(was.offset) + int64(i) - int64(s.offset)
		if at < 0 || at >= int64(len(d.counts)) {
			outside += c
			continue
		}
		if d.counts[at] -= c; d.counts[at] < 0 {
			return span{}, 0, false
		}
	}
	return d, outside, true
}

// sketch returns h as a distribution: exact count and sum, and its bins where
// the buckets are. Values of a bucket count as spread evenly over it, so that a
// quantile is off by no more than the bucket is wide.
func (h *histogram) sketch() metric.Sketch {
	var p placer
	switch {
	case h.exponential:
		h.placeExponential(&p)
	case len(h.bounds) == 0 && h.count > 0: // one bucket of all values tells nothing more
		p.add(h.sum/h.count, h.sum/h.count, h.count)
	default:
		h.placeExplicit(&p)
	}
	s := metric.Sketch{Bins: metric.NormalizeBins(p.bins), Count: int64(p.n), Sum: p.sum}
	if len(s.Bins) == 0 {
		return metric.Sketch{}
	}
	if h.hasSum && finite(h.sum) {
		s.Sum = h.sum
	}
	s.Min, s.Max = s.Bins[0].Value(), s.Bins[len(s.Bins)-1].Value()
	if finite(h.min) && finite(h.max) && h.min <= h.max {
		s.Min, s.Max = h.min, h.max
	}
	return s
}

// placeExplicit counts the buckets between bounds. The outermost end where the
// extremes are, or else at zero or at their one bound.
func (h *histogram) placeExplicit(p *placer) {
	for i, n := range h.counts {
		lo, hi := h.min, h.max
		switch {
		case i > 0:
			lo = h.bounds[i-1]
		case !finite(lo) && len(h.bounds) > 0:
			lo = min(0, h.bounds[0])
		}
		switch {
		case i < len(h.bounds):
			hi = h.bounds[i]
		case !finite(hi):
			hi = lo
		}
		if math.IsInf(lo, -1) || math.IsNaN(lo) {
			lo = hi
		}
		if math.IsInf(hi, 1) {
			hi = lo
		}
		if finite(h.min) && lo < h.min && h.min <= hi {
			lo = h.min
		}
		if finite(h.max) && hi > h.max && h.max >= lo {
			hi = h.max
		}
		p.add(lo, hi, n)
	}
}

func (h *histogram) placeExponential(p *placer) {
	factor := math.Exp2(-float64(h.scale)) // of indices, in powers of two
	each := func(s span, sign float64) {
		for i, n := range s.counts {
			at := float64(s.offset) + float64(i)
			lo, hi := math.Exp2(at*factor), math.Exp2((at+1)*factor)
			hi = min(hi, math.MaxFloat64)
			p.add(sign*min(lo, hi), sign*hi, n)
		}
	}
	each(h.negative, -1)
	p.add(0, 0, h.zero)
	each(h.positive, 1)
}

// A placer collects bins.
type placer struct {
	bins   []metric.Bin
	n, sum float64
}

// maxSteps is in how many parts a wide bucket is spread.
const maxSteps = 64

// add counts n values, rounded, spread from lo to hi.
func (p *placer) add(lo, hi, n float64) {
	n = min(math.Round(n), math.MaxUint32)
	if n < 1 || !finite(lo) || !finite(hi) {
		return
	}
	if lo > hi {
		lo, hi = hi, lo
	}
	// Where both ends are in one bin, or in neighbours, there is nothing to spread.
	apart := int(metric.BinKey(hi)) - int(metric.BinKey(lo))
	steps := float64(min(maxSteps, max(1, apart)))
	steps = min(steps, n)
	width := hi/steps - lo/steps
	done := 0.0
	for i := 1.0; i <= steps; i++ {
		upTo := math.Floor(n * i / steps)
		v := lo + width*(i-0.5)
		p.bins = append(p.bins, metric.Bin{Key: metric.BinKey(v), N: uint32(upTo - done)})
		p.n += upTo - done
		p.sum += (upTo - done) * v
		done = upTo
	}
}
