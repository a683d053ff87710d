package payload

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"
	"time"

	"kelpie.dev/kelpie/metric"
)

// APIEvent is an event as GET /api/v1/events and the answer of POST
// /api/v1/events have it.
type APIEvent struct {
	ID           int64    `json:"id"`
	IDStr        string   `json:"id_str"` // for languages whose numbers are too short
	Title        string   `json:"title"`
	Text         string   `json:"text"`
	DateHappened int64    `json:"date_happened"`
	Priority     string   `json:"priority"`
	AlertType    string   `json:"alert_type"`
	Host         string   `json:"host,omitempty"`
	Source       string   `json:"source,omitempty"`
	SourceType   string   `json:"source_type_name,omitempty"`
	Aggregation  string   `json:"aggregation_key,omitempty"`
	Tags         []string `json:"tags"`
	URL          string   `json:"url"`
}

// NewAPIEvent returns e with its identifier.
func NewAPIEvent(id int64, e *metric.Event) APIEvent {
	return APIEvent{
		ID: id, IDStr: strconv.FormatInt(id, 10), Title: e.Title, Text: e.Text, DateHappened: e.Time, Priority: e.Priority,
		AlertType: e.AlertType, Host: e.Host, Source: e.SourceType, SourceType: e.SourceType, Aggregation: e.AggregationKey,
		Tags: append([]string{}, e.Tags...), URL: "/api/v1/events/" + strconv.FormatInt(id, 10),
	}
}

// DecodeEvent decodes the JSON body of POST /api/v1/events: one event, whose
// title and text are required. Unknown members are ignored, a fractional
// timestamp is rounded to the second, and tags become canonical sets.
func DecodeEvent(body []byte) (metric.Event, error) {
	var in *struct {
		Title          *string `json:"title"`
		Text           *string `json:"text"`
		DateHappened   number  `json:"date_happened"`
		Priority       string  `json:"priority"`
		AlertType      string  `json:"alert_type"`
		Host           string  `json:"host"`
		Device         string  `json:"device_name"`
		SourceType     string  `json:"source_type_name"`
		AggregationKey string  `json:"aggregation_key"`
		Tags           []*text `json:"tags"`
	}
	if err := json.Unmarshal(body, &in); err != nil {
		return metric.Event{}, fmt.Errorf("decode event: %w", err)
	}
	switch {
	case in == nil:
		return metric.Event{}, errors.New("decode event: expected an event object, got null")
	case in.Title == nil || *in.Title == "":
		return metric.Event{}, errors.New("decode event: title is missing")
	case in.Text == nil:
		return metric.Event{}, errors.New("decode event: text is missing")
	}
	at, err := seconds(in.DateHappened)
	if err != nil {
		return metric.Event{}, fmt.Errorf("decode event: date_happened: %w", err)
	}
	e := metric.Event{Title: *in.Title, Text: *in.Text, Time: at, Host: in.Host, AggregationKey: in.AggregationKey,
		Priority: in.Priority, SourceType: in.SourceType, AlertType: in.AlertType, Tags: tags(in.Tags)}
	if in.Device != "" {
		e.Tags = e.Tags.Union("device:" + in.Device)
	}
	return e, nil
}

// DecodeEventV2 decodes the JSON body of POST /api/v2/events. What an event of
// its category says beyond title and message is kept as text.
func DecodeEventV2(body []byte) (metric.Event, error) {
	var in struct {
		Data *struct {
			Type       string `json:"type"`
			Attributes *struct {
				Title          string          `json:"title"`
				Message        string          `json:"message"`
				Category       string          `json:"category"`
				Timestamp      string          `json:"timestamp"`
				Host           string          `json:"host"`
				IntegrationID  string          `json:"integration_id"`
				AggregationKey string          `json:"aggregation_key"`
				Tags           []*text         `json:"tags"`
				Attributes     json.RawMessage `json:"attributes"`
			} `json:"attributes"`
		} `json:"data"`
	}
	if err := json.Unmarshal(body, &in); err != nil {
		return metric.Event{}, fmt.Errorf("decode v2 event: %w", err)
	}
	switch {
	case in.Data == nil || in.Data.Attributes == nil:
		return metric.Event{}, errors.New("decode v2 event: data.attributes is missing")
	case in.Data.Attributes.Title == "":
		return metric.Event{}, errors.New("decode v2 event: data.attributes.title is missing")
	}
	a := in.Data.Attributes
	e := metric.Event{Title: a.Title, Text: a.Message, Host: a.Host, AggregationKey: a.AggregationKey, SourceType: a.IntegrationID, Tags: tags(a.Tags)}
	if a.Timestamp != "" {
		at, err := time.Parse(time.RFC3339Nano, a.Timestamp)
		if err != nil {
			return metric.Event{}, fmt.Errorf("decode v2 event: timestamp %.40q: expected ISO 8601 such as 2026-11-25T10:00:00Z", a.Timestamp)
		}
		e.Time = int64(math.Round(float64(at.UnixMilli()) / 1000))
	}
	var more struct {
		Status   string `json:"status"`   // of alerts
		Priority string `json:"priority"` // likewise, 1 to 5
	}
	if len(a.Attributes) > 0 && a.Attributes[0] == '{' {
		if err := json.Unmarshal(a.Attributes, &more); err != nil {
			return metric.Event{}, fmt.Errorf("decode v2 event: attributes: %w", err)
		}
		if e.Text == "" {
			e.Text = string(a.Attributes)
		}
	}
	switch more.Status {
	case "error":
		e.AlertType = "error"
	case "warn":
		e.AlertType = "warning"
	case "ok":
		e.AlertType = "success"
	}
	if more.Priority == "4" || more.Priority == "5" {
		e.Priority = "low"
	}
	if a.Category != "" {
		e.Tags = e.Tags.Union("category:" + a.Category)
	}
	return e, nil
}
