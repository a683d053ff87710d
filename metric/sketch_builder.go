package metric

import (
	"math"
	"slices"
)

// A page counts the values of neighbouring keys. Values of one metric lie close
// together, so that a few pages hold most distributions, and adding a value is
// an increment with nothing to sort.
type page [pageKeys]uint32

const (
	pageBits = 5
	pageKeys = 1 << pageBits
	// keptPages bounds what a builder keeps for reuse: 8 KiB, some 14 decades.
	keptPages = 64
)

// A SketchBuilder makes a Sketch of single values. The zero value is ready to
// use. It must not be used concurrently.
type SketchBuilder struct {
	count    int64
	min, max float64
	sum      float64
	lost     float64 // low-order part of sum (Kahan)
	owed     float64 // fraction of a value that sample rates still owe

	last  int     // index of the page used last
	index []int16 // the pages' keys without their low pageBits, ascending
	pages []page
}

// Add counts one value that was kept at sample rate rate, for 1/rate values. A
// rate outside (0, 1) counts as 1. Fractions are carried to the values that
// follow, also past Reset: three values at rate 0.3 count for ten. (Datadog's
// agent drops them, which loses up to half of what is counted.) A value that is
// not finite is ignored.
func (b *SketchBuilder) Add(v, rate float64) {
	if v-v != 0 {
		return
	}
	n := uint32(1)
	if rate > 0 && rate < 1 {
		n = b.weight(rate)
	}
	key := BinKey(v)
	if p := key >> pageBits; b.last >= len(b.index) || b.index[b.last] != p {
		b.seek(p)
	}
	bin := &b.pages[b.last][key&(pageKeys-1)]
	n = min(n, math.MaxUint32-*bin)
	*bin += n

	if b.count == 0 {
		b.min, b.max = v, v
	}
	b.min, b.max = min(b.min, v), max(b.max, v)
	b.count += int64(n)
	y := v*float64(n) - b.lost
	sum := b.sum + y
	if b.lost = (sum - b.sum) - y; b.lost != b.lost {
		b.lost = 0 // the sum is beyond all numbers, and stays there
	}
	b.sum = sum
}

// weight returns how many values one at the given rate stands for.
func (b *SketchBuilder) weight(rate float64) uint32 {
	w := min(1/rate+b.owed, math.MaxUint32)
	n := math.Floor(w)
	b.owed = w - n
	return uint32(n)
}

// seek makes the page p the last used.
func (b *SketchBuilder) seek(p int16) {
	i, found := slices.BinarySearch(b.index, p)
	if !found {
		b.index = slices.Insert(b.index, i, p)
		b.pages = slices.Insert(b.pages, i, page{})
	}
	b.last = i
}

// Count returns how many values were added since Reset, each by its weight.
func (b *SketchBuilder) Count() int64 { return b.count }

// Reset empties b and keeps its memory for the next values.
func (b *SketchBuilder) Reset() {
	index, pages := b.index[:0], b.pages[:0]
	if cap(pages) > keptPages {
		index, pages = nil, nil // one wide bucket must not hold its memory for ever
	}
	*b = SketchBuilder{owed: b.owed, index: index, pages: pages}
}

// Sketch returns what was added since Reset. It shares no memory with b.
func (b *SketchBuilder) Sketch() Sketch {
	used := 0
	for i := range b.pages {
		for _, n := range b.pages[i] {
			if n > 0 {
				used++
			}
		}
	}
	s := Sketch{Count: b.count, Min: b.min, Max: b.max, Sum: b.sum}
	if used == 0 {
		return s
	}
	s.Bins = make([]Bin, 0, used)
	for i, p := range b.index {
		for slot, n := range b.pages[i] {
			if n > 0 {
				s.Bins = append(s.Bins, Bin{Key: p<<pageBits | int16(slot), N: n})
			}
		}
	}
	s.Bins = collapse(s.Bins)
	return s
}
