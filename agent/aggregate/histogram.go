package aggregate

import (
	"math"
	"slices"
)

// maxHistogramValues bounds the different values that one bucket of one
// context remembers. Beyond it neighbours are merged pairwise, which moves a
// percentile by at most its neighbour's rank; count, sum, average, minimum and
// maximum stay exact.
const maxHistogramValues = 1 << 16

// tightHistogramValues is that bound when all histograms together hold too much.
const tightHistogramValues = 512

// histogram keeps weighted values until the bucket closes.
type histogram struct {
	values   []weighted
	sorted   bool
	weight   float64
	sum      kahan
	min, max float64
}

type weighted struct{ value, weight float64 }

// kahan is a compensated sum.
type kahan struct{ sum, lost float64 }

func (k *kahan) add(v float64) {
	y := v - k.lost
	t := k.sum + y
	k.lost = (t - k.sum) - y
	k.sum = t
}

// reset empties h. It returns how many values it has no room for any more.
func (h *histogram) reset() int {
	values, gone := h.values[:0], 0
	if cap(values) > 4096 {
		values, gone = nil, cap(values) // one busy bucket must not hold its memory for ever
	}
	*h = histogram{values: values}
	return gone
}

// full reports whether the next value needs room.
func (h *histogram) full() bool { return len(h.values) == cap(h.values) }

// grow makes room for more values and returns how many more there is room for
// now. It merges what it holds instead when that is much already, or when
// tight says that memory is scarce.
func (h *histogram) grow(tight bool) int {
	before, limit := cap(h.values), maxHistogramValues
	if tight {
		limit = tightHistogramValues
	}
	if before >= 2*limit {
		h.sort()
		h.compact(limit)
		return 0
	}
	h.values = slices.Grow(h.values, max(8, before))
	return cap(h.values) - before
}

func (h *histogram) add(value, weight float64) {
	if h.weight == 0 {
		h.min, h.max = value, value
	}
	h.min, h.max = min(h.min, value), max(h.max, value)
	h.weight += weight
	h.sum.add(value * weight)
	h.values = append(h.values, weighted{value, weight})
	h.sorted = false
}

func (h *histogram) sort() {
	if h.sorted {
		return
	}
	slices.SortFunc(h.values, func(a, b weighted) int {
		switch {
		case a.value < b.value:
			return -1
		case a.value > b.value:
			return 1
		default:
			return 0
		}
	})
	h.sorted = true
}

// compact merges equal values, and neighbours when more than limit are left.
func (h *histogram) compact(limit int) {
	out := h.values[:1]
	for _, v := range h.values[1:] {
		if last := &out[len(out)-1]; last.value == v.value {
			last.weight += v.weight
			continue
		}
		out = append(out, v)
	}
	if len(out) > limit {
		n := len(out) / 2
		for i := range n {
			out[i] = weighted{out[2*i+1].value, out[2*i].weight + out[2*i+1].weight}
		}
		if len(out)%2 == 1 {
			out[n] = out[len(out)-1]
			n++
		}
		out = out[:n]
	}
	h.values = out
}

// above returns the first value whose running weight exceeds rank. There is no
// interpolation, as upstream has none.
func (h *histogram) above(rank float64) float64 {
	h.sort()
	running := 0.0
	for _, v := range h.values {
		running += v.weight
		if running > rank {
			return v.value
		}
	}
	return h.max
}

func (h *histogram) median() float64 { return h.above((h.weight - 1) / 2) }

func (h *histogram) percentile(p int) float64 { return h.above((float64(p)*h.weight - 1) / 100) }

func finite(v float64) bool { return !math.IsNaN(v) && !math.IsInf(v, 0) }
