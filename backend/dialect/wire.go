package dialect

import (
	"errors"
	"fmt"
	"math"

	"google.golang.org/protobuf/encoding/protowire"
)

// field is one decoded protobuf field; the value of its wire type is set.
type field struct {
	num    protowire.Number
	typ    protowire.Type
	bytes  []byte // aliases the body
	varint uint64
	fixed  uint64
}

// eachField walks the fields of one message.
func eachField(body []byte, visit func(field) error) error {
	for at := 0; at < len(body); {
		num, typ, n := protowire.ConsumeTag(body[at:])
		if n < 0 {
			return fmt.Errorf("byte %d: %w", at, protowire.ParseError(n))
		}
		at += n
		f := field{num: num, typ: typ}
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

// errList bounds the numbers of one list.
var errList = errors.New("a list has too many numbers")

// each visits the numbers of a repeated field, packed or not.
func (f field) each(packed func([]byte) (uint64, int), visit func(uint64)) error {
	switch f.typ {
	case protowire.VarintType:
		visit(f.varint)
	case protowire.Fixed64Type:
		visit(f.fixed)
	}
	for b := f.bytes; len(b) > 0; {
		v, n := packed(b)
		if n < 0 {
			return protowire.ParseError(n)
		}
		visit(v)
		b = b[n:]
	}
	return nil
}

func (f field) appendUint32s(out []uint32) ([]uint32, error) {
	if len(out)+len(f.bytes) > 2*maxAllLabels {
		return nil, ErrTooMuch
	}
	err := f.each(protowire.ConsumeVarint, func(v uint64) { out = append(out, uint32(min(v, math.MaxUint32))) })
	return out, err
}

// maxList is more than a histogram that is taken has of anything.
const maxList = 2 * maxBuckets

func (f field) appendZigZags(out []int64) ([]int64, error) {
	err := f.each(protowire.ConsumeVarint, func(v uint64) {
		if len(out) <= maxList {
			out = append(out, protowire.DecodeZigZag(v))
		}
	})
	if len(out) > maxList {
		err = errList
	}
	return out, err
}

func (f field) appendDoubles(out []float64) ([]float64, error) {
	err := f.each(protowire.ConsumeFixed64, func(v uint64) {
		if len(out) <= maxList {
			out = append(out, math.Float64frombits(v))
		}
	})
	if len(out) > maxList {
		err = errList
	}
	return out, err
}
