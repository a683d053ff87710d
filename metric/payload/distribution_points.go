package payload

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"

	"kelpie.dev/kelpie/metric"
)

// distributionPoints is an element of "series" in POST /api/v1/distribution_points.
type distributionPoints struct {
	Metric string     `json:"metric"`
	Type   string     `json:"type"`
	Host   string     `json:"host"`
	Device string     `json:"device"`
	Tags   []*text    `json:"tags"`
	Points []valuesAt `json:"points"`
}

// valuesAt is [timestamp, [value, …]]. The values become a sketch as they are
// read, so that a long list costs no memory of its own.
type valuesAt struct{ metric.SketchPoint }

// DecodeDistributionPoints decodes the JSON body of POST
// /api/v1/distribution_points. Unknown members are ignored, and a fractional
// timestamp is rounded to the second. Points of one element with the same second
// are one sketch. More than MaxSeries distributions, or sketches in all, are
// ErrTooManySeries.
func DecodeDistributionPoints(body []byte) ([]metric.Distribution, error) {
	var out []metric.Distribution
	points := 0
	_, err := decodeSeriesList(body, func(in *distributionPoints) (metric.Series, error) {
		d, err := in.distribution()
		if points += len(d.Points); points > MaxSeries {
			return metric.Series{Name: d.Name}, ErrTooManySeries
		}
		out = append(out, d)
		return metric.Series{Name: d.Name}, err
	})
	if err != nil {
		return nil, fmt.Errorf("decode JSON distribution points: %w", err)
	}
	return out, nil
}

func (in *distributionPoints) distribution() (metric.Distribution, error) {
	d := metric.Distribution{Name: in.Metric, Host: in.Host, Tags: tags(in.Tags)}
	if in.Type != "" && in.Type != "distribution" {
		return d, fmt.Errorf("type %.40q: expected distribution", in.Type)
	}
	if in.Device != "" {
		d.Tags = d.Tags.Union("device:" + in.Device)
	}
	at := make(map[int64]int, len(in.Points))
	for _, p := range in.Points {
		i, seen := at[p.Time]
		if !seen {
			at[p.Time] = len(d.Points)
			d.Points = append(d.Points, p.SketchPoint)
			continue
		}
		d.Points[i].Sketch.Merge(&p.Sketch)
	}
	return d, nil
}

// UnmarshalJSON reads a point. b is valid JSON.
func (p *valuesAt) UnmarshalJSON(b []byte) error {
	var parts []json.RawMessage
	if json.Unmarshal(b, &parts) != nil || len(parts) != 2 {
		return errors.New("expected [timestamp, [value, …]]")
	}
	var ts number
	if err := json.Unmarshal(parts[0], &ts); err != nil {
		return fmt.Errorf("timestamp %w", err)
	}
	at, err := point(&ts, new(number))
	if err != nil {
		return err
	}
	p.Time = at.Time
	p.Sketch, err = sketchOf(parts[1])
	return err
}

// sketchOf reads a JSON list of numbers, each of which may be quoted.
func sketchOf(list []byte) (metric.Sketch, error) {
	list = bytes.TrimSpace(list)
	inner, isList := bytes.CutPrefix(list, []byte("["))
	inner, closed := bytes.CutSuffix(inner, []byte("]"))
	if !isList || !closed {
		return metric.Sketch{}, fmt.Errorf("%.40q is not a list of values", list)
	}
	var b metric.SketchBuilder
	for v := range bytes.SplitSeq(inner, []byte(",")) {
		v = bytes.TrimSpace(v)
		if len(v) == 0 {
			continue // of an empty list: the body is valid JSON
		}
		var n number
		if bytes.Equal(v, []byte("null")) || n.UnmarshalJSON(v) != nil {
			return metric.Sketch{}, fmt.Errorf("value %.40q is not a number", v)
		}
		b.Add(float64(n), 1)
	}
	return b.Sketch(), nil
}
