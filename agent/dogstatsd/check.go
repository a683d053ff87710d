package dogstatsd

import (
	"bytes"

	"kelpie.dev/kelpie/metric"
)

// A CheckError is the reason why a service check's line was refused. It is a
// metric label and an error.
type CheckError string

// The reasons of a CheckError.
const (
	ErrCheckHeader CheckError = "bad_check_header" // not _sc|<name>|<status>
	ErrCheckNoName CheckError = "no_check_name"
	ErrCheckStatus CheckError = "bad_check_status" // none of 0, 1, 2, 3
)

// CheckErrors lists every reason.
var CheckErrors = [...]CheckError{ErrCheckHeader, ErrCheckNoName, ErrCheckStatus}

func (e CheckError) Error() string {
	switch e {
	case ErrCheckHeader:
		return "service check does not start with _sc|<name>|<status>"
	case ErrCheckNoName:
		return "service check has an empty name"
	case ErrCheckStatus:
		return "status of the service check is none of 0 (OK), 1 (WARNING), 2 (CRITICAL), 3 (UNKNOWN)"
	default:
		return string(e)
	}
}

// A ServiceCheck is a parsed service check line. The claims are views into the
// line.
type ServiceCheck struct {
	metric.ServiceCheck
	Claims
	// Ignored says that an optional field could not be read and was left out.
	Ignored bool
}

// ServiceCheck reads one service check line, which KindOf has recognized. The
// error is always a CheckError.
func (p *Parser) ServiceCheck(line []byte) (ServiceCheck, error) {
	rest, ok := bytes.CutPrefix(line, []byte("_sc|"))
	if !ok {
		return ServiceCheck{}, ErrCheckHeader
	}
	name, rest, ok := bytes.Cut(rest, []byte{'|'})
	if !ok {
		return ServiceCheck{}, ErrCheckHeader
	}
	status, rest, more := bytes.Cut(rest, []byte{'|'})
	switch {
	case len(name) == 0:
		return ServiceCheck{}, ErrCheckNoName
	case len(status) != 1 || status[0] < '0' || status[0] > '3':
		return ServiceCheck{}, ErrCheckStatus
	}
	c := ServiceCheck{ServiceCheck: metric.ServiceCheck{Name: string(name), Status: metric.CheckStatus(status[0] - '0')}}
	var tags []byte
	for more {
		var field []byte
		if message, ok := bytes.CutPrefix(rest, []byte("m:")); ok {
			field, rest, more = cutMessage(message)
			c.Message = newlines(field)
			continue
		}
		field, rest, more = bytes.Cut(rest, []byte{'|'})
		if list, ok := bytes.CutPrefix(field, []byte{'#'}); ok {
			tags = list
		} else if !p.claim(&c.Claims, field) && !c.field(field) {
			c.Ignored = true
		}
	}
	c.Tags = eventTags(&c.Claims, tags, &c.Host)
	return c, nil
}

// field reads one optional field, as Event.field does.
func (c *ServiceCheck) field(f []byte) bool {
	if value, ok := bytes.CutPrefix(f, []byte("d:")); ok {
		sec, ok := eventTime(value)
		if ok {
			c.Time = sec
		}
		return ok
	}
	if value, ok := bytes.CutPrefix(f, []byte("h:")); ok {
		c.Host, c.HasHost = string(value), len(value) > 0
	}
	return true
}

// originFields start the fields of a sender's claims.
var originFields = [...][]byte{[]byte("c:"), []byte("e:"), []byte("card:")}

// cutMessage splits b, which follows m:, into the message and the fields after
// it, if there are more. The message is documented to be the last, but every
// client writes the origin after it, and Ruby's the tags. So a '|' is part of
// the message unless nothing but such fields follow it. Upstream ends the
// message at its first '|' and loses the rest.
func cutMessage(b []byte) (message, rest []byte, more bool) {
	message = b
	for {
		i := bytes.LastIndexByte(message, '|')
		if i < 0 || !followsMessage(message[i+1:]) {
			break
		}
		message = message[:i]
	}
	if len(message) == len(b) {
		return b, nil, false
	}
	return message, b[len(message)+1:], true
}

// followsMessage reports whether field can be one that follows a message. Tags
// may hold spaces, claims do not.
func followsMessage(field []byte) bool {
	if len(field) > 0 && field[0] == '#' {
		return true
	}
	for _, prefix := range originFields {
		if bytes.HasPrefix(field, prefix) {
			return bytes.IndexByte(field, ' ') < 0
		}
	}
	return false
}
