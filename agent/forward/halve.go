package forward

import (
	"encoding/json"
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"

	"kelpie.dev/kelpie/metric"
	"kelpie.dev/kelpie/metric/payload"
)

// halve makes two payloads of one that an intake calls too large, or none when
// it holds a single item.
func halve(f file, body []byte) ([]*payloadItem, error) {
	raw, err := decompress(body, f.encoding, routes[f.kind].maxRaw)
	if err != nil {
		return nil, err
	}
	l, err := items(f.kind, raw)
	if err != nil || l.n < 2 {
		return nil, err
	}
	e, err := newEncoder(compressionOf(f.encoding))
	if err != nil {
		return nil, err
	}
	var out []*payloadItem
	emit := func(p *payloadItem) { out = append(out, p) }
	a, b := l, l
	a.n = l.n / 2
	b.n = l.n - a.n
	b.points = func(i int) int { return l.points(i + a.n) }
	b.item = func(dst []byte, i int, first bool) []byte { return l.item(dst, i+a.n, first) }
	for _, half := range []list{a, b} {
		if _, _, err := e.encode(half, emit); err != nil {
			return nil, err
		}
	}
	if len(out) != 2 { // they are smaller than what they were made of, so that they fit
		return nil, fmt.Errorf("two halves became %d payloads", len(out))
	}
	return out, nil
}

// items reads the items of a body that encode wrote.
func items(k kind, raw []byte) (list, error) {
	switch k {
	case kindChecks:
		var checks []json.RawMessage
		if err := json.Unmarshal(raw, &checks); err != nil {
			return list{}, fmt.Errorf("read the service checks of a payload: %w", err)
		}
		return list{kind: k, bounds: &routes[k], n: len(checks), points: one, end: payload.EndChecks(nil), item: func(dst []byte, i int, first bool) []byte {
			if first {
				return append(append(dst, '['), checks[i]...)
			}
			return append(append(dst, ','), checks[i]...)
		}}, nil
	case kindEvents:
		events, host, err := payload.DecodeEvents(raw)
		if err != nil {
			return list{}, fmt.Errorf("read the events of a payload: %w", err)
		}
		return list{kind: k, bounds: &routes[k], n: len(events), points: one, end: payload.EndEvents(nil, host), item: func(dst []byte, i int, first bool) []byte {
			var previous *metric.Event
			if !first {
				previous = &events[i-1]
			}
			return payload.AppendEvent(dst, &events[i], previous)
		}}, nil
	default:
		return messages(k, raw)
	}
}

// Of both protobuf payloads field 1 holds the items. Of an item these hold its
// points.
const (
	fieldItems         = 1
	fieldSeriesPoints  = 4
	fieldSketchesDogsk = 7
)

func messages(k kind, raw []byte) (list, error) {
	pointsField := protowire.Number(fieldSeriesPoints)
	if k == kindSketches {
		pointsField = fieldSketchesDogsk
	}
	var whole [][]byte // with tag and length
	var points []int
	var end []byte
	err := eachField(raw, func(num protowire.Number, all, value []byte) error {
		if num != fieldItems {
			end = append(end, all...)
			return nil
		}
		n := 0
		err := eachField(value, func(num protowire.Number, _, _ []byte) error {
			if num == pointsField {
				n++
			}
			return nil
		})
		whole, points = append(whole, all), append(points, n)
		return err
	})
	return list{
		kind: k, bounds: &routes[k], n: len(whole), end: end, points: func(i int) int { return points[i] },
		item: func(dst []byte, i int, _ bool) []byte { return append(dst, whole[i]...) },
	}, err
}

// eachField visits the fields of a protobuf message. value is nil but for those
// that are lists of bytes.
func eachField(b []byte, visit func(num protowire.Number, all, value []byte) error) error {
	for len(b) > 0 {
		num, typ, n := protowire.ConsumeField(b)
		if n < 0 {
			return fmt.Errorf("read the items of a payload: %w", protowire.ParseError(n))
		}
		var value []byte
		if typ == protowire.BytesType {
			_, _, tag := protowire.ConsumeTag(b)
			value, _ = protowire.ConsumeBytes(b[tag:])
		}
		if err := visit(num, b[:n], value); err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}
