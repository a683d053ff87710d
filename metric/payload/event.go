package payload

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	"kelpie.dev/kelpie/metric"
)

// apiSource is what Datadog's agent calls the source of an event that names
// none.
const apiSource = "api"

// event is an element of the arrays under "events" in POST /intake/.
type event struct {
	Title          string   `json:"msg_title"`
	Text           string   `json:"msg_text"`
	Timestamp      int64    `json:"timestamp"`
	Priority       string   `json:"priority"`
	Host           string   `json:"host"`
	Tags           []string `json:"tags,omitempty"`
	AlertType      string   `json:"alert_type,omitempty"`
	AggregationKey string   `json:"aggregation_key,omitempty"`
	SourceType     string   `json:"source_type_name,omitempty"`
}

// AppendEvent appends the JSON of e to dst, a body of POST /intake/. previous is
// the event before it in that body, or nil when e begins it. In a body, events
// of one source type must follow each other: GroupEvents puts them so.
// EndEvents ends the body.
func AppendEvent(dst []byte, e, previous *metric.Event) []byte {
	switch {
	case previous == nil:
		dst = appendSource(append(dst, `{"apiKey":"","events":{`...), e)
	case eventSource(previous) != eventSource(e):
		dst = appendSource(append(dst, `],`...), e)
	default:
		dst = append(dst, ',')
	}
	return appendJSON(dst, event{
		Title: e.Title, Text: e.Text, Timestamp: e.Time, Priority: e.Priority, Host: e.Host, Tags: e.Tags,
		AlertType: e.AlertType, AggregationKey: e.AggregationKey, SourceType: e.SourceType,
	})
}

func appendSource(dst []byte, e *metric.Event) []byte {
	return append(appendJSON(dst, eventSource(e)), `:[`...)
}

func eventSource(e *metric.Event) string {
	if e.SourceType == "" {
		return apiSource
	}
	return e.SourceType
}

// EndEvents ends a body of at least one AppendEvent. host is the sender's name.
func EndEvents(dst []byte, host string) []byte {
	return append(appendJSON(append(dst, `]},"internalHostname":`...), host), '}')
}

// GroupEvents returns the events by source type, in which the order of the given
// ones is kept. It does not modify its argument.
func GroupEvents(events []metric.Event) []metric.Event {
	bySource := map[string][]metric.Event{}
	for i := range events {
		source := eventSource(&events[i])
		bySource[source] = append(bySource[source], events[i])
	}
	out := make([]metric.Event, 0, len(events))
	for _, source := range slices.Sorted(maps.Keys(bySource)) {
		out = append(out, bySource[source]...)
	}
	return out
}

// DecodeEvents decodes the events of the JSON body of POST /intake/ and the name
// of the host that sends them. They are ordered as GroupEvents orders them; a
// body without events has none. Unknown members are ignored, a fractional
// timestamp is rounded to the second, and tags become canonical sets. More than
// MaxSeries events, or source types, are an error.
func DecodeEvents(body []byte) (events []metric.Event, host string, err error) {
	var in struct {
		Events eventsBySource `json:"events"`
		Host   string         `json:"internalHostname"`
	}
	if err := json.Unmarshal(body, &in); err != nil {
		return nil, "", fmt.Errorf("decode events: %w", err)
	}
	for _, source := range slices.Sorted(maps.Keys(in.Events)) {
		for i, e := range in.Events[source] {
			at, err := seconds(e.Timestamp)
			if err != nil {
				return nil, "", fmt.Errorf("decode events: events[%q][%d]: %w", source, i, err)
			}
			m := metric.Event{Title: e.Title, Text: e.Text, Time: at, Host: e.Host, AggregationKey: e.AggregationKey,
				Priority: e.Priority, SourceType: e.SourceType, AlertType: e.AlertType, Tags: tags(e.Tags)}
			if m.SourceType == "" && source != apiSource {
				m.SourceType = source
			}
			events = append(events, m)
		}
	}
	return events, in.Host, nil
}

type eventIn struct {
	Title          string  `json:"msg_title"`
	Text           string  `json:"msg_text"`
	Timestamp      number  `json:"timestamp"`
	Priority       string  `json:"priority"`
	Host           string  `json:"host"`
	Tags           []*text `json:"tags"`
	AlertType      string  `json:"alert_type"`
	AggregationKey string  `json:"aggregation_key"`
	SourceType     string  `json:"source_type_name"`
}

// eventsBySource is the object of arrays under "events".
type eventsBySource map[string]bounded[eventIn]

func (m *eventsBySource) UnmarshalJSON(body []byte) error {
	d := json.NewDecoder(bytes.NewReader(body))
	open, err := d.Token()
	if err != nil || open == nil {
		return err
	}
	if open != json.Delim('{') {
		return fmt.Errorf("events: expected object, got %s", kind(open))
	}
	*m = make(eventsBySource)
	total := 0
	for d.More() {
		key, err := d.Token()
		if err != nil {
			return err
		}
		source, _ := key.(string)
		var list bounded[eventIn]
		if err := d.Decode(&list); err != nil {
			return fmt.Errorf("events[%.60q]: %w", source, err)
		}
		(*m)[source] = append((*m)[source], list...)
		if total += 1 + len(list); total > MaxSeries {
			return fmt.Errorf("more than %d events in one body: send them in several", MaxSeries)
		}
	}
	return nil
}
