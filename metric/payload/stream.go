package payload

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"kelpie.dev/kelpie/metric"
)

// MaxSeries is how many series one body may hold. A series of a few bytes takes
// a hundred times that in memory, so a limit on the body alone bounds nothing.
// Datadog's agents send at most 10 000 points in a payload.
const MaxSeries = 100_000

// ErrTooManySeries reports a body with more than MaxSeries series.
var ErrTooManySeries = fmt.Errorf("more than %d series in one body: send them in several", MaxSeries)

var errNoMetric = errors.New("metric is missing")

// decodeSeriesList decodes a JSON object whose member "series" is an array of T,
// one element at a time, so that no more than the series' own form is held of
// all of them.
func decodeSeriesList[T any](body []byte, convert func(*T) (metric.Series, error)) ([]metric.Series, error) {
	d := list[T]{body: body, dec: json.NewDecoder(bytes.NewReader(body)), convert: convert}
	if err := d.object(); err != nil {
		return nil, whereSyntax(body, err)
	}
	if _, err := d.dec.Token(); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("byte %d: data after the JSON value", d.dec.InputOffset())
	}
	return d.out, nil
}

// whereSyntax says at which byte of the body its syntax is wrong: a decoder that
// reads token by token counts otherwise.
func whereSyntax(body []byte, err error) error {
	var syntax *json.SyntaxError
	if errors.As(err, &syntax) && errors.As(json.Unmarshal(body, new(json.RawMessage)), &syntax) {
		return fmt.Errorf("byte %d: %w", syntax.Offset, syntax)
	}
	return err
}

type list[T any] struct {
	body    []byte
	dec     *json.Decoder
	convert func(*T) (metric.Series, error)
	out     []metric.Series
}

// object reads the body's one value. A null is an object without members.
func (d *list[T]) object() error {
	open, err := d.dec.Token()
	switch {
	case errors.Is(err, io.EOF):
		return errors.New("empty body")
	case err != nil:
		return explain(0, err)
	case open == nil:
		return nil
	case open != json.Delim('{'):
		return fmt.Errorf("byte %d: expected object, got %s", d.dec.InputOffset(), kind(open))
	}
	for d.dec.More() {
		key, err := d.dec.Token()
		if err != nil {
			return explain(0, err)
		}
		if name, _ := key.(string); strings.EqualFold(name, "series") {
			err = d.array()
		} else {
			err = d.value(new(json.RawMessage))
		}
		if err != nil {
			return err
		}
	}
	return d.end()
}

// array reads the member "series". A null is an empty one.
func (d *list[T]) array() error {
	open, err := d.dec.Token()
	switch {
	case err != nil:
		return explain(0, err)
	case open == nil:
		return nil
	case open != json.Delim('['):
		return fmt.Errorf("byte %d, member \"series\": expected slice, got %s", d.dec.InputOffset(), kind(open))
	}
	for d.dec.More() {
		if len(d.out) == MaxSeries {
			return ErrTooManySeries
		}
		if err := d.element(); err != nil {
			return err
		}
	}
	return d.end()
}

func (d *list[T]) element() error {
	var in T
	if err := d.value(&in); err != nil {
		return fmt.Errorf("series[%d]: %w", len(d.out), err)
	}
	s, err := d.convert(&in)
	switch {
	case s.Name == "":
		return fmt.Errorf("series[%d]: %w", len(d.out), errNoMetric)
	case err != nil:
		return fmt.Errorf("series[%d] %q: %w", len(d.out), s.Name, err)
	}
	d.out = append(d.out, s)
	return nil
}

// end reads what closes the object or array that has no more members.
func (d *list[T]) end() error {
	_, err := d.dec.Token()
	return explain(0, err)
}

func (d *list[T]) value(into any) error {
	start := d.dec.InputOffset()
	for start < int64(len(d.body)) && strings.IndexByte(" \t\r\n,:", d.body[start]) >= 0 {
		start++
	}
	return explain(start, d.dec.Decode(into))
}

// explain says where a value that begins at byte start went wrong.
func explain(start int64, err error) error {
	var typ *json.UnmarshalTypeError
	switch {
	case errors.Is(err, io.EOF):
		return io.ErrUnexpectedEOF
	case errors.As(err, &typ):
		return fmt.Errorf("byte %d, member %q: expected %s, got %s", start+typ.Offset, typ.Field, typ.Type.Kind(), typ.Value)
	}
	return err
}

func kind(t json.Token) string {
	switch t := t.(type) {
	case json.Delim:
		if t == '[' {
			return "array"
		}
		return "object"
	case string:
		return "string"
	case bool:
		return "bool"
	default:
		return "number"
	}
}
