package payload

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"
	"unicode/utf8"
)

// MetricMetadata is what the API knows of a metric: the body of GET and PUT
// /api/v1/metrics/{name}. What is not known is null.
type MetricMetadata struct {
	Description    *string `json:"description"`
	ShortName      *string `json:"short_name"`
	Integration    *string `json:"integration"`
	StatsdInterval *int64  `json:"statsd_interval"` // seconds
	PerUnit        *string `json:"per_unit"`
	Type           *string `json:"type"` // "gauge", "count", "rate" or "distribution"
	Unit           *string `json:"unit"`
}

// EditMetadata returns m with the members of body in place of its own. A member
// that body lacks stays; null or "" takes it back. The integration cannot be
// edited and is ignored. Errors name the member.
func EditMetadata(m MetricMetadata, body []byte) (MetricMetadata, error) {
	own, err := json.Marshal(m)
	if err != nil {
		return m, err
	}
	edited := MetricMetadata{}
	// Null makes a pointer nil and a missing member leaves it: just what an edit means.
	if err := errors.Join(json.Unmarshal(own, &edited), json.Unmarshal(body, &edited)); err != nil {
		return m, jsonError(err)
	}
	edited.Integration = m.Integration
	for _, text := range []struct {
		name  string
		value **string
		limit int
	}{
		{"description", &edited.Description, 4000},
		{"short_name", &edited.ShortName, 200},
		{"unit", &edited.Unit, 100},
		{"per_unit", &edited.PerUnit, 100},
		{"type", &edited.Type, 20},
	} {
		switch v := *text.value; {
		case v == nil:
		case *v == "":
			*text.value = nil
		case utf8.RuneCountInString(*v) > text.limit:
			return m, fmt.Errorf("%s is longer than %d characters", text.name, text.limit)
		}
	}
	if t := edited.Type; t != nil && !slices.Contains([]string{"gauge", "count", "rate", "distribution"}, *t) {
		return m, fmt.Errorf("type is %q, expected gauge, count, rate or distribution", *t)
	}
	switch i := edited.StatsdInterval; {
	case i == nil:
	case *i == 0:
		edited.StatsdInterval = nil
	case *i < 0 || *i > 86400:
		return m, errors.New("statsd_interval must be from 1 to 86400 seconds, or 0 for none")
	}
	return edited, nil
}

// A TagConfiguration says by which tags a metric should be queryable.
type TagConfiguration struct {
	Tags               []string      `json:"tags"`
	MetricType         string        `json:"metric_type"`
	IncludePercentiles *bool         `json:"include_percentiles,omitempty"` // of distributions
	ExcludeTagsMode    bool          `json:"exclude_tags_mode"`
	Aggregations       []Aggregation `json:"aggregations,omitempty"`
	CreatedAt          time.Time     `json:"created_at"`
	ModifiedAt         time.Time     `json:"modified_at"`
}

// An Aggregation is a pair of time and space aggregation.
type Aggregation struct {
	Space string `json:"space"`
	Time  string `json:"time"`
}

// TagConfigurationEdit is the body of POST and PATCH /api/v2/metrics/{name}/tags.
// What is nil was not given.
type TagConfigurationEdit struct {
	Tags               []string      `json:"tags"`
	MetricType         *string       `json:"metric_type"` // of POST
	IncludePercentiles *bool         `json:"include_percentiles"`
	ExcludeTagsMode    *bool         `json:"exclude_tags_mode"`
	Aggregations       []Aggregation `json:"aggregations"`
}

// DecodeTagConfiguration reads an edit of the metric's configuration. Errors name
// the member.
func DecodeTagConfiguration(body []byte, metric string) (TagConfigurationEdit, error) {
	var doc struct {
		Data struct {
			Type       string               `json:"type"`
			ID         string               `json:"id"`
			Attributes TagConfigurationEdit `json:"attributes"`
		} `json:"data"`
	}
	if err := json.Unmarshal(body, &doc); err != nil {
		return TagConfigurationEdit{}, jsonError(err)
	}
	e := doc.Data.Attributes
	switch {
	case doc.Data.Type != "manage_tags":
		return e, fmt.Errorf(`data.type is %q, expected "manage_tags"`, clip(doc.Data.Type))
	case doc.Data.ID != metric:
		return e, fmt.Errorf("data.id is %q, expected the name in the path, %q", clip(doc.Data.ID), clip(metric))
	case len(e.Tags) > 1000:
		return e, errors.New("data.attributes.tags holds more than 1000 keys")
	case len(e.Aggregations) > 100:
		return e, errors.New("data.attributes.aggregations holds more than 100 pairs")
	}
	for i, tag := range e.Tags {
		if tag == "" || utf8.RuneCountInString(tag) > 200 {
			return e, fmt.Errorf("data.attributes.tags[%d] must be a tag key of at most 200 characters", i)
		}
	}
	for i, a := range e.Aggregations {
		if !slices.Contains([]string{"avg", "sum", "min", "max", "count"}, a.Space) || !slices.Contains([]string{"avg", "sum", "min", "max", "count"}, a.Time) {
			return e, fmt.Errorf("data.attributes.aggregations[%d] must have space and time of avg, sum, min, max, count", i)
		}
	}
	return e, nil
}
