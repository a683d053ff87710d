package dogstatsd

import (
	"bytes"
	"unicode/utf16"
	"unicode/utf8"

	"kelpie.dev/kelpie/metric"
)

// An EventError is the reason why an event's line was refused. It is a metric
// label and an error.
type EventError string

// The reasons of an EventError.
const (
	ErrEventHeader  EventError = "bad_event_header"  // not _e{<number>,<number>}:
	ErrEventLengths EventError = "bad_event_lengths" // they do not fit the line
	ErrEventNoTitle EventError = "no_event_title"
)

// EventErrors lists every reason.
var EventErrors = [...]EventError{ErrEventHeader, ErrEventLengths, ErrEventNoTitle}

func (e EventError) Error() string {
	switch e {
	case ErrEventHeader:
		return "event does not start with _e{<bytes of title>,<bytes of text>}:"
	case ErrEventLengths:
		return "lengths in the event's header do not fit title and text; they count bytes of UTF-8, not characters"
	case ErrEventNoTitle:
		return "event has an empty title"
	default:
		return string(e)
	}
}

// An Event is a parsed event line. The claims are views into the line.
type Event struct {
	metric.Event
	Claims
	// Ignored says that an optional field could not be read and was left out.
	Ignored bool
}

// Event reads one event line, which KindOf has recognized. The error is always
// an EventError.
func (p *Parser) Event(line []byte) (Event, error) {
	title, text, rest, err := cutEvent(line)
	if err != nil {
		return Event{}, err
	}
	e := Event{Event: metric.Event{Title: newlines(title), Text: newlines(text), Priority: "normal", AlertType: "info"}}
	// Upstream cuts the text at its length, whatever follows, and so do we.
	if len(rest) > 0 && rest[0] != '|' {
		e.Ignored = true
	}
	var tags []byte
	_, rest, more := bytes.Cut(rest, []byte{'|'})
	for more {
		var field []byte
		field, rest, more = bytes.Cut(rest, []byte{'|'})
		if list, ok := bytes.CutPrefix(field, []byte{'#'}); ok {
			tags = list
		} else if !p.claim(&e.Claims, field) && !e.field(field) {
			e.Ignored = true
		}
	}
	e.Tags = eventTags(&e.Claims, tags, &e.Host)
	return e, nil
}

// field reads one optional field; the last of its kind wins, unknown ones are
// skipped. It reports false when the field cannot be used.
func (e *Event) field(f []byte) bool {
	if len(f) < 2 || f[1] != ':' {
		return true
	}
	switch value := f[2:]; f[0] {
	case 'd':
		sec, ok := eventTime(value)
		if ok {
			e.Time = sec
		}
		return ok
	case 'h':
		e.Host, e.HasHost = string(value), len(value) > 0
	case 'k':
		e.AggregationKey = string(value)
	case 's':
		e.SourceType = string(value)
	case 'p':
		return oneOf(&e.Priority, string(value), "normal", "low")
	case 't':
		return oneOf(&e.AlertType, string(value), "info", "success", "warning", "error")
	}
	return true
}

func oneOf(to *string, value string, allowed ...string) bool {
	for _, a := range allowed {
		if value == a {
			*to = a
			return true
		}
	}
	return false
}

// cutEvent cuts title and text, which may hold any byte, off an event line by
// the lengths in its header.
func cutEvent(line []byte) (title, text, rest []byte, err error) {
	rest, ok := bytes.CutPrefix(line, []byte("_e{"))
	if !ok {
		return nil, nil, nil, ErrEventHeader
	}
	header, rest, ok := bytes.Cut(rest, []byte("}:"))
	if !ok {
		return nil, nil, nil, ErrEventHeader
	}
	first, second, ok := bytes.Cut(header, []byte{','})
	nTitle, ok1 := eventLength(first)
	nText, ok2 := eventLength(second)
	switch {
	case !ok || !ok1 || !ok2:
		return nil, nil, nil, ErrEventHeader
	case nTitle == 0:
		return nil, nil, nil, ErrEventNoTitle
	}
	return cutTexts(rest, nTitle, nText)
}

// cutTexts cuts a title of n bytes and a text of m off b. Some clients count
// UTF-16's units as JavaScript does (hot-shots is one), so that is tried when
// bytes do not fit; then, as upstream does, a text that has no end there.
func cutTexts(b []byte, n, m int) (title, text, rest []byte, err error) {
	i, j := n, n+1+m
	fits := j <= len(b) && b[i] == '|'
	if fits && atEnd(b, j) {
		return b[:i], b[i+1 : j], b[j:], nil
	}
	if i := unitsLength(b, n); i >= 0 && i < len(b) && b[i] == '|' {
		if size := unitsLength(b[i+1:], m); size >= 0 && atEnd(b, i+1+size) {
			return b[:i], b[i+1:][:size], b[i+1+size:], nil
		}
	}
	if !fits {
		return nil, nil, nil, ErrEventLengths
	}
	return b[:i], b[i+1 : j], b[j:], nil
}

// atEnd reports whether a field can end before b[i].
func atEnd(b []byte, i int) bool { return i == len(b) || b[i] == '|' }

// unitsLength returns how many bytes the first n UTF-16 units of b have, or -1
// when b has not that many.
func unitsLength(b []byte, n int) int {
	size := 0
	for n > 0 && size < len(b) {
		r, w := utf8.DecodeRune(b[size:])
		size += w
		n -= utf16.RuneLen(r)
	}
	if n != 0 {
		return -1
	}
	return size
}

// eventLength reads a length; one that no line can have is still one.
func eventLength(b []byte) (int, bool) {
	n := 0
	for _, c := range b {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = min(n*10+int(c-'0'), 1<<30)
	}
	return n, len(b) > 0
}
