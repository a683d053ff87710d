package store

import (
	"math"

	"github.com/prometheus/prometheus/model/histogram"

	"kelpie.dev/kelpie/metric"
)

// A sketch is stored as a native histogram of this schema: buckets whose bounds
// grow by the 64th root of 2, 1.0109. That is less than metric.SketchGamma, so
// that each bin has a bucket of its own, the one that holds the bin's value, and
// is found again from it: what is read is bin by bin what was written, and the
// store adds nothing to the sketch's own error of 1/128 (TestHistogramIsLossless).
//
// Whoever reads the blocks without this package sees a bin's values within one
// bucket, so at most 1.9 % from where they were (TestBucketsForOthers).
const sketchSchema = 6

// perBin is how many buckets of sketchSchema a bin is wide: some 1.43.
var perBin = 64 * math.Log2(metric.SketchGamma)

// bucketOf returns the index of the bucket for a positive key.
func bucketOf(key int16) int32 {
	return int32(math.Ceil(float64(int(key)-metric.SketchBias) * perBin))
}

// keyOf is the inverse of bucketOf. The middle of a bucket is off its bin's
// value by less than half a bin.
func keyOf(bucket int32) int16 {
	k := math.Round((float64(bucket)-0.5)/perBin) + metric.SketchBias
	return int16(min(max(k, 1), metric.SketchMaxKey))
}

// histogramOf returns s as a gauge histogram: one that stands for itself and is
// no sum of those before it. It shares no memory with s, whose keys are those of
// finite values.
func histogramOf(s *metric.Sketch) *histogram.Histogram {
	h := &histogram.Histogram{
		CounterResetHint: histogram.GaugeType,
		Schema:           sketchSchema,
		ZeroThreshold:    metric.SketchMinValue,
		Sum:              s.Sum,
	}
	positive := 0
	for positive < len(s.Bins) && s.Bins[positive].Key <= 0 {
		positive++
	}
	negative := positive
	if negative > 0 && s.Bins[negative-1].Key == 0 {
		negative--
		h.ZeroCount = uint64(s.Bins[negative].N)
	}
	var side buckets
	for i := negative - 1; i >= 0; i-- {
		side.add(-s.Bins[i].Key, s.Bins[i].N, negative)
	}
	h.NegativeSpans, h.NegativeBuckets = side.spans, side.deltas
	h.Count = h.ZeroCount + side.count
	side = buckets{}
	for _, b := range s.Bins[positive:] {
		side.add(b.Key, b.N, len(s.Bins)-positive)
	}
	h.PositiveSpans, h.PositiveBuckets = side.spans, side.deltas
	h.Count += side.count
	return h
}

// buckets are one side of a histogram as the TSDB has it: runs of buckets, and
// each count as the difference from the one before.
type buckets struct {
	spans  []histogram.Span
	deltas []int64
	next   int32 // bucket after the last
	last   int64 // its count
	count  uint64
}

// add adds the bin of a positive key above all before; total is how many come.
func (b *buckets) add(key int16, n uint32, total int) {
	if b.deltas == nil {
		b.deltas = make([]int64, 0, total)
	}
	at := bucketOf(key)
	if len(b.spans) == 0 || at != b.next {
		b.spans = append(b.spans, histogram.Span{Offset: at - b.next})
	}
	b.spans[len(b.spans)-1].Length++
	b.deltas = append(b.deltas, int64(n)-b.last)
	b.next, b.last = at+1, int64(n)
	b.count += uint64(n)
}

// sketchOf is the inverse of histogramOf. It reuses the memory of s. Minimum and
// maximum are those of the bins.
func sketchOf(s *metric.Sketch, h *histogram.Histogram) {
	bins := s.Bins[:0]
	eachBucket(h.NegativeSpans, h.NegativeBuckets, func(bucket int32, n uint32) {
		bins = append(bins, metric.Bin{Key: -keyOf(bucket), N: n})
	})
	for i, j := 0, len(bins)-1; i < j; i, j = i+1, j-1 {
		bins[i], bins[j] = bins[j], bins[i]
	}
	if h.ZeroCount > 0 {
		bins = append(bins, metric.Bin{N: uint32(min(h.ZeroCount, math.MaxUint32))})
	}
	eachBucket(h.PositiveSpans, h.PositiveBuckets, func(bucket int32, n uint32) {
		bins = append(bins, metric.Bin{Key: keyOf(bucket), N: n})
	})
	*s = metric.Sketch{Count: int64(h.Count), Sum: h.Sum, Bins: bins}
	if len(bins) > 0 {
		s.Min, s.Max = bins[0].Value(), bins[len(bins)-1].Value()
	}
}

// eachBucket visits the buckets of one side that are not empty.
func eachBucket(spans []histogram.Span, deltas []int64, visit func(bucket int32, n uint32)) {
	var at int32
	var n int64
	i := 0
	for _, span := range spans {
		at += span.Offset
		for range span.Length {
			n += deltas[i]
			if n > 0 {
				visit(at, uint32(min(n, math.MaxUint32)))
			}
			i++
			at++
		}
	}
}
