package source

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"
)

// pair is [Unix seconds, "value"], as Prometheus' API writes a sample.
type pair struct {
	at    float64
	value float64
}

func (p *pair) UnmarshalJSON(b []byte) error {
	var parts []json.RawMessage
	if err := json.Unmarshal(b, &parts); err != nil {
		return err
	}
	var text string
	if len(parts) != 2 || json.Unmarshal(parts[0], &p.at) != nil || json.Unmarshal(parts[1], &text) != nil {
		return errors.New("a sample is not [time, \"value\"]")
	}
	v, err := strconv.ParseFloat(text, 64)
	if err != nil {
		return fmt.Errorf("the value of a sample: %w", err)
	}
	p.value = v
	return nil
}

func (p pair) sample() sample { return sample{at: time.UnixMilli(int64(p.at * 1000)), value: p.value} }

// one returns the only sample of an answer, or why it has none.
func (a promAnswer) one() (sample, *Error, error) {
	switch a.Data.Type {
	case "scalar":
		var p pair
		if err := json.Unmarshal(a.Data.Result, &p); err != nil {
			return sample{}, nil, fmt.Errorf("decode answer: %w", err)
		}
		return p.sample(), nil, nil
	case "vector":
		return vector(a.Data.Result)
	default:
		return sample{}, &Error{Reason: QueryRejected, Message: fmt.Sprintf("the query returns a %.20s and an autoscaler needs one number: "+
			"put a range into a function, such as rate(…[5m])", a.Data.Type)}, nil
	}
}

func vector(raw json.RawMessage) (sample, *Error, error) {
	var list []struct {
		Value     *pair           `json:"value"`
		Histogram json.RawMessage `json:"histogram"`
	}
	if err := json.Unmarshal(raw, &list); err != nil {
		return sample{}, nil, fmt.Errorf("decode answer: %w", err)
	}
	switch {
	case len(list) == 0:
		return sample{}, &Error{Reason: NoData, Message: "the query returns no series now: check the metric name and the matchers, " +
			"and that the server scrapes the application; or give a default, as with … or vector(0)"}, nil
	case len(list) > 1:
		return sample{}, &Error{Reason: MultipleSeries, Message: fmt.Sprintf("the query returns %d series and an autoscaler needs one: "+
			"aggregate, as with sum(…), or narrow the matchers", len(list))}, nil
	case list[0].Value == nil && len(list[0].Histogram) > 0:
		return sample{}, &Error{Reason: QueryRejected, Message: "the query returns a histogram and an autoscaler needs one number: " +
			"take histogram_quantile(…), histogram_avg(…) or histogram_count(…)"}, nil
	case list[0].Value == nil:
		return sample{}, nil, errors.New("decode answer: a series without value")
	}
	return list[0].Value.sample(), nil, nil
}
