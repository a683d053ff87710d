package dialect

import (
	"errors"
	"fmt"
	"math"

	"google.golang.org/protobuf/encoding/protowire"

	"kelpie.dev/kelpie/metric"
)

// Fields of a native histogram, the same in both versions of remote write.
const (
	nativeCountInt, nativeCountFloat             = 1, 2
	nativeSum, nativeSchema, nativeZeroThreshold = 3, 4, 5
	nativeZeroInt, nativeZeroFloat               = 6, 7
	nativeNegSpans, nativeNegDeltas, nativeNeg   = 8, 9, 10
	nativePosSpans, nativePosDeltas, nativePos   = 11, 12, 13
	nativeReset, nativeTime, nativeBounds        = 14, 15, 16
	nativeStart                                  = 17 // version 2

	resetGauge   = 3   // stands for itself
	customSchema = -53 // bounds instead of a scale
)

// native is a native histogram as it is on the wire.
type native struct {
	h           histogram
	schema      int64
	reset       uint64
	ms, startMS int64
	spans       [2][]nativeSpan // negative, positive
	deltas      [2][]int64
	counts      [2][]float64
	integer     bool
}

type nativeSpan struct {
	offset int32
	length uint32
}

// nativeHistogram adds one histogram of s to the batch.
func (b *Batch) nativeHistogram(s *metric.Series, body []byte) error {
	n := native{h: histogram{exponential: true, hasSum: true, min: math.NaN(), max: math.NaN()}}
	if err := eachField(body, n.field); err != nil {
		return fmt.Errorf("histogram: %w", err)
	}
	if math.Float64bits(n.h.sum) == staleMarker {
		b.Stale++
		return nil
	}
	if err := n.finish(); err != nil {
		b.refuse(1, s.Name, "%v", err)
		return nil
	}
	h := &n.h
	if n.reset != resetGauge {
		key := b.t.key("p", s.Name, s.Host, s.Device, s.Tags.String())
		added, _, ok := b.advance(key, s.Name, stream{start: n.startMS * 1e6, at: n.ms * 1e6, histogram: h})
		if !ok {
			return nil
		}
		h = added.histogram
	}
	tags := s.Tags
	if s.Device != "" {
		tags = tags.Union("device:" + s.Device)
	}
	b.Histograms++
	b.distribution(metric.Distribution{Name: s.Name, Host: s.Host, Tags: tags}, secondOf(n.ms), h)
	return nil
}

func (n *native) field(f field) (err error) {
	switch f.num {
	case nativeCountInt:
		n.h.count, n.integer = float64(f.varint), true
	case nativeCountFloat:
		n.h.count = math.Float64frombits(f.fixed)
	case nativeSum:
		n.h.sum = math.Float64frombits(f.fixed)
	case nativeSchema:
		n.schema = protowire.DecodeZigZag(f.varint)
	case nativeZeroThreshold:
		n.h.zeroWidth = math.Float64frombits(f.fixed)
	case nativeZeroInt:
		n.h.zero, n.integer = float64(f.varint), true
	case nativeZeroFloat:
		n.h.zero = math.Float64frombits(f.fixed)
	case nativeNegSpans:
		err = n.span(0, f.bytes)
	case nativePosSpans:
		err = n.span(1, f.bytes)
	case nativeNegDeltas:
		n.deltas[0], err = f.appendZigZags(n.deltas[0])
	case nativePosDeltas:
		n.deltas[1], err = f.appendZigZags(n.deltas[1])
	case nativeNeg:
		n.counts[0], err = f.appendDoubles(n.counts[0])
	case nativePos:
		n.counts[1], err = f.appendDoubles(n.counts[1])
	case nativeReset:
		n.reset = f.varint
	case nativeTime:
		n.ms = int64(f.varint)
	case nativeStart:
		n.startMS = int64(f.varint)
	case nativeBounds:
		n.h.bounds, err = f.appendDoubles(n.h.bounds)
	}
	return err
}

func (n *native) span(side int, body []byte) error {
	var s nativeSpan
	err := eachField(body, func(f field) error {
		switch f.num {
		case 1:
			s.offset = int32(protowire.DecodeZigZag(f.varint))
		case 2:
			s.length = uint32(min(f.varint, math.MaxUint32))
		}
		return nil
	})
	if len(n.spans[side]) > maxBuckets {
		return errors.New("it has more than 4096 spans")
	}
	n.spans[side] = append(n.spans[side], s)
	return err
}

// finish makes n.h of what was read.
func (n *native) finish() error {
	if n.ms < 0 || n.ms > math.MaxInt64/1_000_000 || n.startMS < 0 || n.startMS > n.ms {
		return errors.New("its time is out of range")
	}
	var sides [2]span
	for i := range sides {
		counts := n.counts[i]
		if n.integer {
			counts = make([]float64, 0, len(n.deltas[i]))
			sum := int64(0)
			for _, d := range n.deltas[i] {
				sum += d
				counts = append(counts, float64(sum))
			}
		}
		var err error
		if sides[i], err = dense(n.spans[i], counts); err != nil {
			return err
		}
	}
	if n.schema == customSchema {
		n.h.exponential = false
		n.h.counts = make([]float64, len(n.h.bounds)+1)
		for i, c := range sides[1].counts {
			at := int64(sides[1].offset) + int64(i)
			if at < 0 || at >= int64(len(n.h.counts)) {
				return errors.New("it has a bucket beyond its bounds")
			}
			n.h.counts[at] = c
		}
		return n.h.validate()
	}
	// Prometheus numbers a bucket by its upper bound, OTLP by its lower one.
	sides[0].offset--
	sides[1].offset--
	n.h.bounds, n.h.negative, n.h.positive = nil, sides[0], sides[1]
	n.h.scale = int32(min(max(n.schema, -99), 99))
	return n.h.validate()
}

// dense lays the buckets of spans beside each other.
func dense(spans []nativeSpan, counts []float64) (span, error) {
	var out span
	at, used := int64(0), 0
	for i, s := range spans {
		at += int64(s.offset)
		if i == 0 {
			out.offset = s.offset
		} else if s.offset < 0 {
			return span{}, errors.New("its spans overlap")
		}
		gap := at - int64(out.offset)
		if gap+int64(s.length) > maxBuckets {
			return span{}, errors.New("it has more than 4096 buckets")
		}
		if used+int(s.length) > len(counts) {
			return span{}, errors.New("it has fewer counts than its spans have buckets")
		}
		for int64(len(out.counts)) < gap {
			out.counts = append(out.counts, 0)
		}
		out.counts = append(out.counts, counts[used:used+int(s.length)]...)
		used += int(s.length)
		at += int64(s.length)
	}
	if used != len(counts) {
		return span{}, errors.New("it has more counts than its spans have buckets")
	}
	return out, nil
}
