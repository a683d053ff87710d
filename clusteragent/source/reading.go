// Package source holds the newest value of every query in use.
//
// It owns asking the query API for them: which queries share a request, when a
// request is repeated, which point of an answer counts, and whose fault a
// failure is, so that one bad query never harms its neighbours. It does not
// know who uses a query or why, what Kubernetes is, or how a value is served.
package source

import (
	"fmt"
	"time"
)

// Reason is why there is no value to give, in one CamelCase word fit for a
// Kubernetes condition.
type Reason string

// The reasons. Those before Unauthorized are the query's own; the others are
// the source's, and a value that is still fresh survives them.
const (
	SyntaxError    Reason = "SyntaxError"    // the query does not parse
	QueryTooLong   Reason = "QueryTooLong"   // the query does not fit into a request
	QueryRejected  Reason = "QueryRejected"  // the source refused this query
	NoData         Reason = "NoData"         // no series, or no point in any
	MultipleSeries Reason = "MultipleSeries" // the query groups; an autoscaler needs one value
	NotANumber     Reason = "NotANumber"     // NaN or an infinity
	Stale          Reason = "Stale"          // the newest point is too old

	Unauthorized      Reason = "Unauthorized"      // the source refused the keys
	RateLimited       Reason = "RateLimited"       // the source asks for fewer requests
	SourceUnavailable Reason = "SourceUnavailable" // no usable answer
	Pending           Reason = "Pending"           // not asked yet
)

// Reasons are all that a Reading's error may have.
var Reasons = []Reason{
	SyntaxError, QueryTooLong, QueryRejected, NoData, MultipleSeries, NotANumber, Stale, Unauthorized, RateLimited, SourceUnavailable,
}

// Own reports whether the reason lies in the query or its data, so that
// yesterday's value must not stand in for today's.
func (r Reason) Own() bool {
	switch r {
	case Unauthorized, RateLimited, SourceUnavailable, Pending:
		return false
	default:
		return true
	}
}

// An Error says why there is no value, to a person who can mend it.
type Error struct {
	Reason  Reason
	Message string    // the same words as long as the cause is the same
	RetryAt time.Time // zero when the next poll retries anyway

	// Of a point that is too old; zero otherwise.
	Point       time.Time
	Age, MaxAge time.Duration
}

// Error returns the message with the figures of this moment: the age, and after
// backoff, when the next attempt is due.
func (e *Error) Error() string {
	text := e.Message
	if !e.Point.IsZero() {
		text = fmt.Sprintf("newest point (%s) is %s old, older than its max age %s: %s", e.Point.UTC().Format(time.RFC3339), e.Age, e.MaxAge, text)
	}
	if !e.RetryAt.IsZero() {
		text += "; will retry at " + e.RetryAt.UTC().Format(time.RFC3339)
	}
	return text
}

// A Reading is what is known of one query. The zero Reading means that the
// query has not been asked yet.
type Reading struct {
	Value     float64
	At        time.Time     // the data point's own time; zero before the first
	Length    time.Duration // of the bucket that begins at At; 0 when the value is that of an instant
	Late      Lateness      // of polled points
	Fetched   time.Time     // when the source last gave a point; zero before the first
	Attempted time.Time     // when the source was last asked; zero before the first
	Err       *Error        // what the last attempt met; nil after a success
}

// Limits say how old a value may be. A point must be at most MaxAge old when it
// is read from the source, and may age by Grace until the next read.
type Limits struct {
	MaxAge time.Duration
	Grace  time.Duration
}

// Current returns the value if it may be acted on now: the last attempt did not
// fault the query, and the point is within its limits. Otherwise it says why
// not, and the value is not to be used.
func (r Reading) Current(now time.Time, l Limits) (float64, *Error) {
	if r.Err != nil && r.Err.Reason.Own() {
		return 0, r.Err
	}
	if r.At.IsZero() {
		if r.Err != nil {
			return 0, r.Err
		}
		return 0, &Error{Reason: Pending, Message: "not asked yet: the first poll follows within a second of the first use"}
	}
	// By the wall clock or, should that have been set back since the read, by the
	// monotonic one: the older counts.
	age := r.age(now)
	if age <= r.longest(l) {
		return r.Value, nil
	}
	old := &Error{Reason: Stale, Message: "data comes late or has stopped; check that the application still sends it, or raise maxAge"}
	if text := r.Late.advice(age); text != "" {
		old.Message = text
	}
	if r.Err != nil {
		// The layer at fault is the source, however old the value has become.
		old.Reason, old.Message, old.RetryAt = r.Err.Reason, r.Err.Message, r.Err.RetryAt
	}
	old.Point, old.Age, old.MaxAge = r.At, age.Truncate(time.Second), l.MaxAge
	return 0, old
}

// age is at least the time since the read: a source whose clock is ahead of ours
// must not give a value that outlives it.
func (r Reading) age(now time.Time) time.Duration {
	return max(now.Sub(r.At), max(r.Fetched.Sub(r.At), 0)+now.Sub(r.Fetched))
}

// longest is how old the point may become.
func (r Reading) longest(l Limits) time.Duration {
	if r.Fetched.Sub(r.At) <= l.MaxAge {
		return l.MaxAge + l.Grace
	}
	return l.MaxAge
}

// Left is how long the value may be acted on from now, unless the source is asked
// before.
func (r Reading) Left(now time.Time, l Limits) time.Duration { return r.longest(l) - r.age(now) }
