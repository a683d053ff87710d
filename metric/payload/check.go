package payload

import (
	"bytes"
	"encoding/json"
	"fmt"

	"kelpie.dev/kelpie/metric"
)

// check is an element of the array that POST /api/v1/check_run takes.
type check struct {
	Check     string   `json:"check"`
	HostName  string   `json:"host_name"`
	Timestamp int64    `json:"timestamp"`
	Status    uint8    `json:"status"`
	Message   string   `json:"message"`
	Tags      []string `json:"tags"` // null when there are none, as Datadog's agent writes it
}

// AppendCheck appends the JSON of one service check to dst, a body of POST
// /api/v1/check_run that it begins when first is true. EndChecks ends the body.
func AppendCheck(dst []byte, c *metric.ServiceCheck, first bool) []byte {
	return appendJSON(append(dst, arrayNext(first)), check{
		Check: c.Name, HostName: c.Host, Timestamp: c.Time, Status: uint8(c.Status), Message: c.Message, Tags: c.Tags,
	})
}

// EndChecks ends a body of at least one AppendCheck.
func EndChecks(dst []byte) []byte { return append(dst, ']') }

func arrayNext(first bool) byte {
	if first {
		return '['
	}
	return ','
}

// appendJSON appends v, which holds nothing that JSON cannot tell.
func appendJSON(dst []byte, v any) []byte {
	text, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("JSON of %T: %v", v, err)) // strings and whole numbers only: cannot be
	}
	return append(dst, text...)
}

// DecodeChecks decodes the JSON body of POST /api/v1/check_run: one service
// check or an array of them. Unknown members are ignored, a fractional
// timestamp is rounded to the second, and tags become canonical sets. More than
// MaxSeries checks, a check without a name and a status above 3 are errors.
func DecodeChecks(body []byte) ([]metric.ServiceCheck, error) {
	var in bounded[checkIn]
	body = bytes.TrimSpace(body)
	if len(body) > 0 && body[0] == '{' {
		in = make(bounded[checkIn], 1)
		if err := json.Unmarshal(body, &in[0]); err != nil {
			return nil, fmt.Errorf("decode service checks: %w", err)
		}
	} else if err := json.Unmarshal(body, &in); err != nil {
		return nil, fmt.Errorf("decode service checks: %w", err)
	}
	out := make([]metric.ServiceCheck, len(in))
	for i, c := range in {
		switch {
		case c.Check == "":
			return nil, fmt.Errorf("decode service checks: checks[%d]: check is missing", i)
		case c.Status > uint8(metric.CheckUnknown):
			return nil, fmt.Errorf("decode service checks: checks[%d] %q: status %d: expected 0 to 3", i, c.Check, c.Status)
		}
		at, err := seconds(c.Timestamp)
		if err != nil {
			return nil, fmt.Errorf("decode service checks: checks[%d] %q: %w", i, c.Check, err)
		}
		out[i] = metric.ServiceCheck{Name: c.Check, Host: c.HostName, Time: at,
			Status: metric.CheckStatus(c.Status), Message: c.Message, Tags: tags(c.Tags)}
	}
	return out, nil
}

type checkIn struct {
	Check     string  `json:"check"`
	HostName  string  `json:"host_name"`
	Timestamp number  `json:"timestamp"`
	Status    uint8   `json:"status"`
	Message   string  `json:"message"`
	Tags      []*text `json:"tags"`
}

// seconds rounds a timestamp as point does.
func seconds(ts number) (int64, error) {
	p, err := point(&ts, new(number))
	return p.Time, err
}

// bounded is an array of at most MaxSeries elements: a body of empty ones takes
// many times its size in memory.
type bounded[T any] []T

func (b *bounded[T]) UnmarshalJSON(body []byte) error {
	d := json.NewDecoder(bytes.NewReader(body))
	open, err := d.Token()
	if err != nil || open == nil {
		return err
	}
	if open != json.Delim('[') {
		return fmt.Errorf("expected array, got %s", kind(open))
	}
	for d.More() {
		if len(*b) == MaxSeries {
			return fmt.Errorf("more than %d elements in one array: send them in several", MaxSeries)
		}
		var v T
		if err := d.Decode(&v); err != nil {
			return fmt.Errorf("element %d: %w", len(*b), err)
		}
		*b = append(*b, v)
	}
	return nil
}
