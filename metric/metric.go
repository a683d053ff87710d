// Package metric is the vocabulary of Kelpie: points, series, tags and metric
// types, in the words Datadog's documentation uses for them.
//
// It holds values and the rules that make them canonical. It knows nothing of
// wires (see metric/payload), of storage, or of time passing.
package metric

import "fmt"

// Type is how a series' values relate to time. It is a property of the metric
// name in Datadog's model: the last submission decides.
type Type uint8

// The types of a series. The numbers are those of Datadog's v2 intake.
const (
	Unspecified Type = 0 // behaves as Gauge
	Count       Type = 1 // how many in the interval that ends the bucket
	Rate        Type = 2 // a count divided by its interval: per second
	Gauge       Type = 3 // a level at an instant
)

// String returns Datadog's word for t: "count", "rate", "gauge", or "" when unspecified.
func (t Type) String() string {
	switch t {
	case Count:
		return "count"
	case Rate:
		return "rate"
	case Gauge:
		return "gauge"
	default:
		return ""
	}
}

// ParseType is the inverse of Type.String.
func ParseType(s string) (Type, error) {
	switch s {
	case "":
		return Unspecified, nil
	case "count":
		return Count, nil
	case "rate":
		return Rate, nil
	case "gauge":
		return Gauge, nil
	default:
		return Unspecified, fmt.Errorf("metric type %q: expected gauge, rate or count", s)
	}
}

// A Point is one value at one second.
type Point struct {
	Time  int64 // Unix seconds; for an aggregated bucket, the bucket's start
	Value float64
}

// A Series is the points of one context: a metric name, a host and a tag set.
type Series struct {
	Name string
	Host string // empty when the series belongs to no host
	// Device is the device that a check lifted out of the tags; usually empty.
	Device   string
	Tags     Tags
	Type     Type
	Interval int64  // seconds between submissions; 0 when the sender did not say
	Unit     string // Datadog unit name such as "byte"; usually empty
	Source   string // Datadog's source_type_name; usually empty
	Points   []Point
	// Fast tells of each of Points whether it stands for FastInterval and not for
	// Interval, where a store has points of both; nil means that none does.
	Fast []bool
}
