package payload

import (
	"errors"
	"fmt"
	"math"

	"google.golang.org/protobuf/encoding/protowire"

	"kelpie.dev/kelpie/metric"
)

// Field numbers of SketchPayload (agent-payload, metrics/agent_payload.proto):
//
//	message SketchPayload {
//	  repeated Sketch sketches = 1;
//	  CommonMetadata metadata = 2;      // always written, mostly empty
//	}
//	message Sketch {
//	  string metric = 1;
//	  string host = 2;
//	  repeated Distribution distributions = 3; // legacy, not used
//	  repeated string tags = 4;
//	  repeated Dogsketch dogsketches = 7;
//	  Metadata metadata = 8;
//	}
//	message Dogsketch {
//	  int64 ts = 1;
//	  int64 cnt = 2;
//	  double min = 3; double max = 4; double avg = 5; double sum = 6;
//	  repeated sint32 k = 7;            // packed
//	  repeated uint32 n = 8;            // packed
//	}
const (
	fieldSketches       = 1
	fieldSketchMetadata = 2

	fieldSketchMetric = 1
	fieldSketchHost   = 2
	fieldSketchTags   = 4
	fieldDogsketches  = 7

	fieldSketchTime  = 1
	fieldSketchCount = 2
	fieldSketchMin   = 3
	fieldSketchMax   = 4
	fieldSketchAvg   = 5
	fieldSketchSum   = 6
	fieldSketchKeys  = 7
	fieldSketchNs    = 8
)

// maxWireBin is the most that one bin holds on the wire. The field would take
// more, but Datadog's agent keeps 16 bits and sends a fuller bin as several of
// one key, the remainder first; so its intake has never seen another form.
const maxWireBin = math.MaxUint16

// AppendSketches appends the protobuf SketchPayload of d to dst. The same
// distributions give the same bytes.
func AppendSketches(dst []byte, d []metric.Distribution) []byte {
	var scratch, inner []byte
	for i := range d {
		scratch, inner = appendDistribution(scratch[:0], inner, &d[i])
		dst = appendMessage(dst, fieldSketches, scratch)
	}
	return appendMessage(dst, fieldSketchMetadata, nil)
}

// appendDistribution appends d to b; inner is scratch space.
func appendDistribution(b, inner []byte, d *metric.Distribution) ([]byte, []byte) {
	b = appendString(b, fieldSketchMetric, d.Name)
	b = appendString(b, fieldSketchHost, d.Host)
	for _, tag := range d.Tags {
		b = protowire.AppendTag(b, fieldSketchTags, protowire.BytesType)
		b = protowire.AppendString(b, tag)
	}
	for i := range d.Points {
		inner = appendDogsketch(inner[:0], &d.Points[i])
		b = appendMessage(b, fieldDogsketches, inner)
	}
	return b, inner
}

func appendDogsketch(b []byte, p *metric.SketchPoint) []byte {
	s := &p.Sketch
	b = appendVarint(b, fieldSketchTime, uint64(p.Time))
	b = appendVarint(b, fieldSketchCount, uint64(s.Count))
	b = appendDouble(b, fieldSketchMin, s.Min)
	b = appendDouble(b, fieldSketchMax, s.Max)
	if s.Count != 0 {
		b = appendDouble(b, fieldSketchAvg, s.Avg())
	}
	b = appendDouble(b, fieldSketchSum, s.Sum)
	if len(s.Bins) == 0 {
		return b
	}
	keys, ns := 0, 0
	for bin := range wireBins(s.Bins) {
		keys += protowire.SizeVarint(protowire.EncodeZigZag(int64(bin.Key)))
		ns += protowire.SizeVarint(uint64(bin.N))
	}
	b = protowire.AppendTag(b, fieldSketchKeys, protowire.BytesType)
	b = protowire.AppendVarint(b, uint64(keys))
	for bin := range wireBins(s.Bins) {
		b = protowire.AppendVarint(b, protowire.EncodeZigZag(int64(bin.Key)))
	}
	b = protowire.AppendTag(b, fieldSketchNs, protowire.BytesType)
	b = protowire.AppendVarint(b, uint64(ns))
	for bin := range wireBins(s.Bins) {
		b = protowire.AppendVarint(b, uint64(bin.N))
	}
	return b
}

// wireBins yields bins as the wire has them: none above maxWireBin. It has the
// shape of an iter.Seq.
func wireBins(bins []metric.Bin) func(yield func(metric.Bin) bool) {
	return func(yield func(metric.Bin) bool) {
		for _, b := range bins {
			if rest := b.N % maxWireBin; rest != 0 && !yield(metric.Bin{Key: b.Key, N: rest}) {
				return
			}
			for range b.N / maxWireBin {
				if !yield(metric.Bin{Key: b.Key, N: maxWireBin}) {
					return
				}
			}
		}
	}
}

func appendVarint(b []byte, num protowire.Number, v uint64) []byte {
	if v == 0 {
		return b
	}
	b = protowire.AppendTag(b, num, protowire.VarintType)
	return protowire.AppendVarint(b, v)
}

func appendDouble(b []byte, num protowire.Number, v float64) []byte {
	bits := math.Float64bits(v)
	if bits == 0 {
		return b
	}
	b = protowire.AppendTag(b, num, protowire.Fixed64Type)
	return protowire.AppendFixed64(b, bits)
}

// DecodeSketches decodes a protobuf SketchPayload. Unknown fields are skipped,
// as proto3 asks. The distributions share no memory with body; tags are
// canonical sets, and bins are in order, one a key. A sketch's count is what its
// bins hold, whatever it says itself: senders that convert from other kinds of
// histograms round the two apart. Minimum, maximum and sum are taken as sent.
// More than MaxSeries distributions, or sketches in all, are ErrTooManySeries.
func DecodeSketches(body []byte) ([]metric.Distribution, error) {
	var out []metric.Distribution
	points := 0
	err := eachField(body, func(f field) error {
		if f.num != fieldSketches {
			return nil
		}
		if len(out) == MaxSeries {
			return ErrTooManySeries
		}
		d, err := decodeDistribution(f.bytes, &points)
		if err == nil && d.Name == "" {
			err = errNoMetric
		}
		if err != nil {
			return fmt.Errorf("sketches[%d]: %w", len(out), err)
		}
		out = append(out, d)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("decode protobuf SketchPayload: %w", err)
	}
	return out, nil
}

// decodeDistribution counts the sketches of all distributions in points.
func decodeDistribution(body []byte, points *int) (metric.Distribution, error) {
	var d metric.Distribution
	err := eachField(body, func(f field) error {
		switch f.num {
		case fieldSketchMetric:
			d.Name = string(f.bytes)
		case fieldSketchHost:
			d.Host = string(f.bytes)
		case fieldSketchTags:
			d.Tags = append(d.Tags, string(f.bytes))
		case fieldDogsketches:
			if *points++; *points > MaxSeries {
				return ErrTooManySeries
			}
			p, err := decodeDogsketch(f.bytes)
			if err != nil {
				return fmt.Errorf("dogsketches[%d]: %w", len(d.Points), err)
			}
			d.Points = append(d.Points, p)
		}
		return nil
	})
	d.Tags = metric.NewTags(d.Tags...)
	return d, err
}

func decodeDogsketch(body []byte) (metric.SketchPoint, error) {
	var p metric.SketchPoint
	var keys, ns []uint64
	err := eachField(body, func(f field) error {
		var err error
		switch f.num {
		case fieldSketchTime:
			p.Time = int64(f.varint)
		case fieldSketchMin:
			p.Sketch.Min = math.Float64frombits(f.fixed)
		case fieldSketchMax:
			p.Sketch.Max = math.Float64frombits(f.fixed)
		case fieldSketchSum:
			p.Sketch.Sum = math.Float64frombits(f.fixed)
		case fieldSketchKeys:
			keys, err = appendPacked(keys, f)
		case fieldSketchNs:
			ns, err = appendPacked(ns, f)
		}
		return err
	})
	if err != nil {
		return p, err
	}
	p.Sketch.Bins, err = binsOf(keys, ns)
	for _, b := range p.Sketch.Bins {
		p.Sketch.Count += int64(b.N)
	}
	return p, err
}

// appendPacked appends the varints of a repeated field, packed or one by one.
func appendPacked(dst []uint64, f field) ([]uint64, error) {
	if f.bytes == nil {
		return append(dst, f.varint), nil
	}
	for at := 0; at < len(f.bytes); {
		v, n := protowire.ConsumeVarint(f.bytes[at:])
		if n < 0 {
			return dst, fmt.Errorf("byte %d of field %d: %w", at, f.num, protowire.ParseError(n))
		}
		dst = append(dst, v)
		at += n
	}
	return dst, nil
}

// binsOf returns the bins of the wire's parallel lists, in order and one a key.
func binsOf(keys, ns []uint64) ([]metric.Bin, error) {
	if len(keys) != len(ns) {
		return nil, fmt.Errorf("%d bin keys and %d counts: expected as many", len(keys), len(ns))
	}
	bins := make([]metric.Bin, len(keys))
	for i, k := range keys {
		key := protowire.DecodeZigZag(k & math.MaxUint32)
		if key < -math.MaxInt16 || key > math.MaxInt16 {
			return nil, fmt.Errorf("bin key %d: expected -32767 to 32767", key)
		}
		if ns[i] > math.MaxUint32 {
			return nil, errors.New("bin count is more than 32 bits")
		}
		bins[i] = metric.Bin{Key: int16(key), N: uint32(ns[i])}
	}
	return metric.NormalizeBins(bins), nil
}
