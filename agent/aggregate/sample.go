package aggregate

import (
	"fmt"

	"kelpie.dev/kelpie/metric"
)

// A Type is what a sample asks of its bucket.
type Type uint8

// The sample types of DogStatsD.
const (
	Counter      Type = iota + 1 // c: added up, divided by the interval
	Gauge                        // g: the last value stands
	Histogram                    // h: aggregates and percentiles
	Timer                        // ms: a histogram whose unit is the millisecond
	Distribution                 // d: see the package comment
	Set                          // s: how many different members
)

// Types lists every sample type, in declaration order.
var Types = [...]Type{Counter, Gauge, Histogram, Timer, Distribution, Set}

// String returns DogStatsD's letter for t.
func (t Type) String() string {
	switch t {
	case Counter:
		return "c"
	case Gauge:
		return "g"
	case Histogram:
		return "h"
	case Timer:
		return "ms"
	case Distribution:
		return "d"
	case Set:
		return "s"
	default:
		return "unknown"
	}
}

// A Sample is one line from a sender: one or several values of one context.
// Its byte slices are views into the sender's datagram: Add reads them and
// keeps none of them.
type Sample struct {
	Name   []byte
	Type   Type
	Values []float64 // every type but Set; each counts as a sample of its own; finite
	Member []byte    // Set only
	Rate   float64   // share of events that the sender kept, in (0,1]; 0 means 1
	Tags   [][]byte  // as sent: any order, duplicates and empty tags allowed
	Base   *TagSet   // tags that the agent adds; nil means none
	Origin string    // namespace/pod of the sender, "" when it is not known: who shares the limits
	Sender []byte    // what else tells senders of no known Origin apart; may be empty

	// Host overrides Options.Host when HasHost is set; it may be empty, which
	// means that the series belongs to no host.
	Host    []byte
	HasHost bool

	// Time, in Unix seconds, marks a sample that the sender has aggregated
	// itself; it then becomes a point of its own. 0 means "when it arrives".
	Time int64
}

// A Drop says why a sample was not taken in. It is a metric label and an error.
type Drop string

// The reasons of a Drop.
const (
	DropContextLimit   Drop = "context_limit"    // the sample's origin has its share of Options.MaxContexts or MaxContextBytes
	DropTypeConflict   Drop = "type_conflict"    // the bucket already holds another type
	DropTimestampType  Drop = "timestamp_type"   // only gauges and counters may carry a timestamp
	DropTimestampLimit Drop = "timestamp_limit"  // too many timestamped samples since the last flush
	DropSetLimit       Drop = "set_member_limit" // the bucket's set is full
	DropNotFinite      Drop = "not_finite"       // a value, or its sum, is NaN or infinite
	DropName           Drop = "bad_name"         // no letter is in the name, or too much
)

// Drops lists every reason.
var Drops = [...]Drop{
	DropContextLimit, DropTypeConflict, DropTimestampType, DropTimestampLimit, DropSetLimit, DropNotFinite, DropName,
}

func (d Drop) Error() string {
	switch d {
	case DropContextLimit:
		return "the sender has its share of the contexts (metric names with their tags) that this agent keeps; send fewer different and shorter tag values, or raise DD_DOGSTATSD_CONTEXT_LIMITER_LIMIT or KELPIE_DOGSTATSD_CONTEXT_BYTES"
	case DropTypeConflict:
		return "the metric came with another type in the same 10 s; send a metric by one type only"
	case DropTimestampType:
		return "only gauges and counters may carry a timestamp"
	case DropTimestampLimit:
		return "too many samples with timestamps within two seconds"
	case DropSetLimit:
		return "too many different members in one set"
	case DropNotFinite:
		return "the value is not finite"
	case DropName:
		return fmt.Sprintf("the metric's name holds no letter, or more than %d characters", metric.MaxNameLength)
	default:
		return string(d)
	}
}
