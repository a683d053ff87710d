package payload

import (
	"encoding/json"
	"fmt"
	"math"

	"kelpie.dev/kelpie/metric"
)

// v2Series is an element of "series" in POST /api/v2/series.
type v2Series struct {
	Metric    string  `json:"metric"`
	Type      int     `json:"type"`
	Interval  int64   `json:"interval"`
	Unit      string  `json:"unit"`
	Source    string  `json:"source_type_name"`
	Tags      []*text `json:"tags"`
	Resources []struct {
		Type string `json:"type"`
		Name string `json:"name"`
	} `json:"resources"`
	Points []struct {
		Timestamp *number `json:"timestamp"`
		Value     *number `json:"value"`
	} `json:"points"`
}

// DecodeV2JSON decodes the JSON body of POST /api/v2/series. Unknown members
// are ignored. A fractional timestamp is rounded to the second. More than
// MaxSeries series are ErrTooManySeries.
func DecodeV2JSON(body []byte) ([]metric.Series, error) {
	out, err := decodeSeriesList(body, (*v2Series).series)
	if err != nil {
		return nil, fmt.Errorf("decode JSON v2 series: %w", err)
	}
	return out, nil
}

func (s *v2Series) series() (metric.Series, error) {
	if s.Type < 0 || s.Type > int(metric.Gauge) {
		return metric.Series{Name: s.Metric}, fmt.Errorf("type %d: expected 0 to 3", s.Type)
	}
	m := metric.Series{Name: s.Metric, Type: metric.Type(s.Type), Interval: s.Interval,
		Unit: s.Unit, Source: s.Source, Tags: tags(s.Tags)}
	for _, r := range s.Resources {
		setResource(&m, r.Type, r.Name)
	}
	m.Points = make([]metric.Point, 0, len(s.Points))
	for j, p := range s.Points {
		if p.Timestamp == nil || p.Value == nil {
			return m, fmt.Errorf("points[%d]: timestamp and value are required", j)
		}
		pt, err := point(p.Timestamp, p.Value)
		if err != nil {
			return m, fmt.Errorf("points[%d]: %w", j, err)
		}
		m.Points = append(m.Points, pt)
	}
	return m, nil
}

// v1Series is an element of "series" in POST /api/v1/series.
type v1Series struct {
	Metric   string      `json:"metric"`
	Type     string      `json:"type"`
	Interval *int64      `json:"interval"`
	Unit     string      `json:"unit"`
	Source   string      `json:"source_type_name"`
	Host     string      `json:"host"`
	Device   string      `json:"device"`
	Tags     []*text     `json:"tags"`
	Points   [][]*number `json:"points"`
}

// DecodeV1JSON decodes the JSON body of POST /api/v1/series. Unknown members
// are ignored. A fractional timestamp is rounded to the second. More than
// MaxSeries series are ErrTooManySeries.
func DecodeV1JSON(body []byte) ([]metric.Series, error) {
	out, err := decodeSeriesList(body, (*v1Series).series)
	if err != nil {
		return nil, fmt.Errorf("decode JSON v1 series: %w", err)
	}
	return out, nil
}

func (s *v1Series) series() (metric.Series, error) {
	m := metric.Series{Name: s.Metric, Unit: s.Unit, Source: s.Source,
		Host: s.Host, Device: s.Device, Tags: tags(s.Tags)}
	var err error
	if m.Type, err = metric.ParseType(s.Type); err != nil {
		return m, err
	}
	if s.Interval != nil {
		m.Interval = *s.Interval
	}
	m.Points = make([]metric.Point, 0, len(s.Points))
	for j, p := range s.Points {
		if len(p) != 2 || p[0] == nil || p[1] == nil {
			return m, fmt.Errorf("points[%d]: expected [timestamp, value]", j)
		}
		pt, err := point(p[0], p[1])
		if err != nil {
			return m, fmt.Errorf("points[%d]: %w", j, err)
		}
		m.Points = append(m.Points, pt)
	}
	return m, nil
}

// maxTime keeps a timestamp inside what a store can hold in milliseconds.
const maxTime = 1 << 43

func point(ts, v *number) (metric.Point, error) {
	if t := float64(*ts); t < 0 || t > maxTime {
		return metric.Point{}, fmt.Errorf("timestamp %v is out of range: expected Unix seconds", t)
	}
	return metric.Point{Time: int64(math.Round(float64(*ts))), Value: float64(*v)}, nil
}

// number accepts a JSON number, or a string that holds one, as Datadog's v1
// intake does for clients that quote theirs.
type number float64

func (n *number) UnmarshalJSON(b []byte) error {
	if len(b) > 1 && b[0] == '"' {
		b = b[1 : len(b)-1]
	}
	var f float64
	if err := json.Unmarshal(b, &f); err != nil {
		return fmt.Errorf("%.40q is not a number", b)
	}
	*n = number(f)
	return nil
}

// text is a string; a null in a list of tags is no tag.
type text string

func tags(in []*text) metric.Tags {
	out := make([]string, 0, len(in))
	for _, t := range in {
		if t != nil {
			out = append(out, string(*t))
		}
	}
	return metric.NewTags(out...)
}
