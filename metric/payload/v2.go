// Package payload holds the codecs of Datadog's metric wires, both ways: the
// v2 series intake in protobuf and JSON, the v1 series intake in JSON, and the
// answer of the v1 query API.
//
// It turns bytes into metric.Series and back, and checks their shape. It does
// no HTTP, no compression, and no normalization of names and tags: those belong
// to whoever receives them.
package payload

import (
	"fmt"
	"math"

	"google.golang.org/protobuf/encoding/protowire"

	"kelpie.dev/kelpie/metric"
)

// Field numbers of MetricPayload (agent-payload, metrics/agent_payload.proto):
//
//	message MetricPayload { repeated MetricSeries series = 1; }
//	message MetricSeries {
//	  repeated Resource resources = 1;  // {string type = 1; string name = 2;}
//	  string metric = 2;
//	  repeated string tags = 3;
//	  repeated MetricPoint points = 4;  // {double value = 1; int64 timestamp = 2;}
//	  MetricType type = 5;              // 0 unspecified, 1 count, 2 rate, 3 gauge
//	  string unit = 6;
//	  string source_type_name = 7;
//	  int64 interval = 8;
//	  Metadata metadata = 9;
//	}
const (
	fieldSeries = 1

	fieldResources = 1
	fieldMetric    = 2
	fieldTags      = 3
	fieldPoints    = 4
	fieldType      = 5
	fieldUnit      = 6
	fieldSource    = 7
	fieldInterval  = 8

	fieldResourceType = 1
	fieldResourceName = 2

	fieldPointValue = 1
	fieldPointTime  = 2
)

// AppendV2 appends the protobuf MetricPayload of series to dst. The same series
// give the same bytes.
func AppendV2(dst []byte, series []metric.Series) []byte {
	scratch := make([]byte, 0, 512) // on the stack: most series fit
	for i := range series {
		scratch = appendSeries(scratch[:0], &series[i])
		dst = appendMessage(dst, fieldSeries, scratch)
	}
	return dst
}

func sizeMessage(num protowire.Number, n int) int {
	return protowire.SizeTag(num) + protowire.SizeBytes(n)
}

func sizeString(num protowire.Number, s string) int {
	if s == "" {
		return 0
	}
	return sizeMessage(num, len(s))
}

func sizePoint(p metric.Point) int {
	n := 0
	if math.Float64bits(p.Value) != 0 {
		n += protowire.SizeTag(fieldPointValue) + protowire.SizeFixed64()
	}
	if p.Time != 0 {
		n += protowire.SizeTag(fieldPointTime) + protowire.SizeVarint(uint64(p.Time))
	}
	return n
}

func appendSeries(b []byte, s *metric.Series) []byte {
	b = appendResource(b, "host", s.Host)
	b = appendResource(b, "device", s.Device)
	b = appendString(b, fieldMetric, s.Name)
	for _, tag := range s.Tags {
		b = protowire.AppendTag(b, fieldTags, protowire.BytesType)
		b = protowire.AppendString(b, tag)
	}
	for _, p := range s.Points {
		b = protowire.AppendTag(b, fieldPoints, protowire.BytesType)
		b = protowire.AppendVarint(b, uint64(sizePoint(p)))
		if bits := math.Float64bits(p.Value); bits != 0 {
			b = protowire.AppendTag(b, fieldPointValue, protowire.Fixed64Type)
			b = protowire.AppendFixed64(b, bits)
		}
		if p.Time != 0 {
			b = protowire.AppendTag(b, fieldPointTime, protowire.VarintType)
			b = protowire.AppendVarint(b, uint64(p.Time))
		}
	}
	if s.Type != metric.Unspecified {
		b = protowire.AppendTag(b, fieldType, protowire.VarintType)
		b = protowire.AppendVarint(b, uint64(s.Type))
	}
	b = appendString(b, fieldUnit, s.Unit)
	b = appendString(b, fieldSource, s.Source)
	if s.Interval != 0 {
		b = protowire.AppendTag(b, fieldInterval, protowire.VarintType)
		b = protowire.AppendVarint(b, uint64(s.Interval))
	}
	return b
}

func appendResource(b []byte, kind, name string) []byte {
	if name == "" {
		return b
	}
	b = protowire.AppendTag(b, fieldResources, protowire.BytesType)
	b = protowire.AppendVarint(b, uint64(sizeString(fieldResourceType, kind)+sizeString(fieldResourceName, name)))
	b = appendString(b, fieldResourceType, kind)
	return appendString(b, fieldResourceName, name)
}

func appendMessage(b []byte, num protowire.Number, body []byte) []byte {
	b = protowire.AppendTag(b, num, protowire.BytesType)
	return protowire.AppendBytes(b, body)
}

// appendString follows proto3: the empty string is not written.
func appendString(b []byte, num protowire.Number, s string) []byte {
	if s == "" {
		return b
	}
	b = protowire.AppendTag(b, num, protowire.BytesType)
	return protowire.AppendString(b, s)
}

// DecodeV2 decodes a protobuf MetricPayload. Unknown fields are skipped, as
// proto3 asks. The series share no memory with body. Tags are canonical sets;
// nothing else is changed. More than MaxSeries series are ErrTooManySeries.
func DecodeV2(body []byte) ([]metric.Series, error) {
	var out []metric.Series
	err := eachField(body, func(f field) error {
		if f.num != fieldSeries {
			return nil
		}
		if len(out) == MaxSeries {
			return ErrTooManySeries
		}
		s, err := decodeSeries(f.bytes)
		if err == nil && s.Name == "" {
			err = errNoMetric
		}
		if err != nil {
			return fmt.Errorf("series[%d]: %w", len(out), err)
		}
		out = append(out, s)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("decode protobuf MetricPayload: %w", err)
	}
	return out, nil
}

func decodeSeries(body []byte) (metric.Series, error) {
	var s metric.Series
	err := eachField(body, func(f field) error {
		switch f.num {
		case fieldResources:
			return decodeResource(f.bytes, &s)
		case fieldMetric:
			s.Name = string(f.bytes)
		case fieldTags:
			s.Tags = append(s.Tags, string(f.bytes))
		case fieldPoints:
			p, err := decodePoint(f.bytes)
			if err != nil {
				return fmt.Errorf("points[%d]: %w", len(s.Points), err)
			}
			s.Points = append(s.Points, p)
		case fieldType:
			if f.varint > uint64(metric.Gauge) {
				return fmt.Errorf("type %d: expected 0 to 3", f.varint)
			}
			s.Type = metric.Type(f.varint)
		case fieldUnit:
			s.Unit = string(f.bytes)
		case fieldSource:
			s.Source = string(f.bytes)
		case fieldInterval:
			s.Interval = int64(f.varint)
		}
		return nil
	})
	s.Tags = metric.NewTags(s.Tags...)
	return s, err
}

func decodeResource(body []byte, s *metric.Series) error {
	var kind, name string
	err := eachField(body, func(f field) error {
		switch f.num {
		case fieldResourceType:
			kind = string(f.bytes)
		case fieldResourceName:
			name = string(f.bytes)
		}
		return nil
	})
	setResource(s, kind, name)
	return err
}

// setResource keeps the two resources that Datadog lifts to fields. Others, such
// as dd.internal.resource ones, are not part of a context.
func setResource(s *metric.Series, kind, name string) {
	switch kind {
	case "host":
		s.Host = name
	case "device":
		s.Device = name
	}
}

func decodePoint(body []byte) (metric.Point, error) {
	var p metric.Point
	err := eachField(body, func(f field) error {
		switch f.num {
		case fieldPointValue:
			p.Value = math.Float64frombits(f.fixed)
		case fieldPointTime:
			p.Time = int64(f.varint)
		}
		return nil
	})
	return p, err
}

// field is one decoded protobuf field. The value of its wire type is set and the
// others are zero, so a field sent with a wrong wire type reads as empty.
type field struct {
	num    protowire.Number
	bytes  []byte // aliases the body
	varint uint64
	fixed  uint64
}

// eachField walks the fields of one message. A field of a wire type that the
// walker does not use (fixed32, groups) is skipped.
func eachField(body []byte, visit func(field) error) error {
	for at := 0; at < len(body); {
		num, typ, n := protowire.ConsumeTag(body[at:])
		if n < 0 {
			return fmt.Errorf("byte %d: %w", at, protowire.ParseError(n))
		}
		at += n
		f := field{num: num}
		switch typ {
		case protowire.VarintType:
			f.varint, n = protowire.ConsumeVarint(body[at:])
		case protowire.Fixed64Type:
			f.fixed, n = protowire.ConsumeFixed64(body[at:])
		case protowire.BytesType:
			f.bytes, n = protowire.ConsumeBytes(body[at:])
		default:
			n = protowire.ConsumeFieldValue(num, typ, body[at:])
			f.num = 0 // no field has this number
		}
		if n < 0 {
			return fmt.Errorf("byte %d, field %d: %w", at, num, protowire.ParseError(n))
		}
		at += n
		if err := visit(f); err != nil {
			return err
		}
	}
	return nil
}
