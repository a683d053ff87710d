// Package dogstatsd takes DogStatsD datagrams from sockets and reads their
// lines.
//
// It owns the wire protocol, versions 1.0 to 1.6, and the sockets. It does not
// know what becomes of a sample (see aggregate) or which pod sent it (see
// origin): it only reports what the sender and the kernel said about that.
package dogstatsd

import (
	"bytes"
	"math"
	"strconv"

	"kelpie.dev/kelpie/agent/aggregate"
)

// A ParseError is the reason why a line was refused. It is a metric label and
// an error.
type ParseError string

// The reasons of a ParseError.
const (
	ErrNoType       ParseError = "no_type"       // no '|' that separates value and type
	ErrNoName       ParseError = "no_name"       // nothing before the first ':'
	ErrNoValue      ParseError = "no_value"      // nothing between name and type
	ErrBadValue     ParseError = "bad_value"     // not a number
	ErrNotFinite    ParseError = "not_finite"    // NaN or infinite
	ErrBadType      ParseError = "bad_type"      // none of c, g, ms, h, d, s
	ErrBadRate      ParseError = "bad_rate"      // sample rate is not a number
	ErrBadTimestamp ParseError = "bad_timestamp" // not a positive whole number of seconds
)

// ParseErrors lists every reason.
var ParseErrors = [...]ParseError{
	ErrNoType, ErrNoName, ErrNoValue, ErrBadValue, ErrNotFinite, ErrBadType, ErrBadRate, ErrBadTimestamp,
}

func (e ParseError) Error() string {
	switch e {
	case ErrNoType:
		return "no '|' between value and type; a line is name:value|type"
	case ErrNoName:
		return "no metric name before ':'; a line is name:value|type"
	case ErrNoValue:
		return "no value between ':' and '|'"
	case ErrBadValue:
		return "value is not a number"
	case ErrNotFinite:
		return "value is NaN or infinite"
	case ErrBadType:
		return "type is none of c, g, ms, h, d, s"
	case ErrBadRate:
		return "sample rate after '@' is not a usable number"
	case ErrBadTimestamp:
		return "timestamp after 'T' is not a positive whole number of seconds"
	default:
		return string(e)
	}
}

// A Kind is what a line carries.
type Kind uint8

// The kinds of lines.
const (
	MetricLine Kind = iota
	EventLine
	ServiceCheckLine
)

// KindOf returns the kind of line by its first bytes.
func KindOf(line []byte) Kind {
	switch {
	case len(line) == 0 || line[0] != '_':
		return MetricLine
	case bytes.HasPrefix(line, []byte("_e{")):
		return EventLine
	case bytes.HasPrefix(line, []byte("_sc")):
		return ServiceCheckLine
	default:
		return MetricLine
	}
}

// NextLine splits the first line off data. The line feed, and a carriage
// return before it, belong to neither.
func NextLine(data []byte) (line, rest []byte) {
	line = data
	if i := bytes.IndexByte(data, '\n'); i >= 0 {
		line, rest = data[:i], data[i+1:]
	}
	if n := len(line); n > 0 && line[n-1] == '\r' {
		line = line[:n-1]
	}
	return line, rest
}

// CutMetric cuts a metric line around its values: a line with the same name
// and rest differs from it in nothing else. ok is false when the line has not
// got the form of one.
func CutMetric(line []byte) (name, values, rest []byte, ok bool) {
	colon := bytes.IndexByte(line, ':')
	if colon <= 0 {
		return nil, nil, nil, false
	}
	// Values are short: a loop beats a call.
	for i := colon + 1; i < len(line); i++ {
		if line[i] == '|' {
			return line[:colon], line[colon+1 : i], line[i+1:], i > colon+1
		}
	}
	return nil, nil, nil, false
}

// A Metric is a parsed metric line: a sample, and what the sender said about
// its origin. All of it are views into the line and into the Parser's memory,
// valid until the Parser's next call.
type Metric struct {
	aggregate.Sample
	PodUID      []byte // dd.internal.entity_id; nil when absent or "none"
	ContainerID []byte // c:, as sent: ci-<id>, in-<inode>, cid-<id>, <id> or a comma list
	External    []byte // e:, as sent: it-<bool>,cn-<container>,pu-<pod uid>
	Cardinality []byte // card:, else dd.internal.card
	// Container is the content of c:, else of e:, also where these are not to be
	// read: it tells senders apart.
	Container []byte
}

// A Parser reads metric lines. Its zero value is ready and ignores what a
// client says about its origin.
type Parser struct {
	// ClientOrigin turns on the fields c:, e: and card:.
	ClientOrigin bool

	m      Metric
	values []float64
	tags   [][]byte
}

// Metric reads one metric line. The error is always a ParseError. It does not
// allocate once its memory has grown to the largest line.
func (p *Parser) Metric(line []byte) (*Metric, error) {
	bar := bytes.IndexByte(line, '|')
	if bar < 0 {
		return nil, ErrNoType
	}
	head, rest := line[:bar], line[bar+1:]
	colon := bytes.IndexByte(head, ':')
	switch {
	case colon == 0 || len(head) == 0:
		return nil, ErrNoName
	case colon < 0 || colon == len(head)-1:
		return nil, ErrNoValue
	}
	kind, rest := nextField(rest)
	t := typeOf(kind)
	if t == 0 {
		return nil, ErrBadType
	}
	p.m = Metric{Sample: aggregate.Sample{Name: head[:colon], Type: t, Rate: 1}}
	if t == aggregate.Set {
		p.m.Member = head[colon+1:]
	} else if err := p.readValues(head[colon+1:]); err != nil {
		return nil, err
	}
	for rest != nil {
		var field []byte
		field, rest = nextField(rest)
		if err := p.field(field); err != nil {
			return nil, err
		}
	}
	return &p.m, nil
}

// nextField cuts b at its first '|'. rest is nil after the last field.
func nextField(b []byte) (field, rest []byte) {
	if i := bytes.IndexByte(b, '|'); i >= 0 {
		return b[:i], b[i+1:]
	}
	return b, nil
}

func typeOf(b []byte) aggregate.Type {
	if len(b) == 1 {
		switch b[0] {
		case 'c':
			return aggregate.Counter
		case 'g':
			return aggregate.Gauge
		case 'h':
			return aggregate.Histogram
		case 'd':
			return aggregate.Distribution
		case 's':
			return aggregate.Set
		}
	}
	if len(b) == 2 && b[0] == 'm' && b[1] == 's' {
		return aggregate.Timer
	}
	return 0
}

// readValues reads packed values, skipping empty ones.
func (p *Parser) readValues(b []byte) (err error) {
	p.values, err = AppendValues(p.values[:0], b)
	p.m.Values = p.values
	return err
}

// AppendValues appends to dst the packed values of a metric line of any type
// but set. The error is always a ParseError.
func AppendValues(dst []float64, b []byte) ([]float64, error) {
	if v, ok := parseDecimal(b); ok { // one short decimal, which nearly all are
		return append(dst, v), nil
	}
	before := len(dst)
	for len(b) > 0 {
		text := b
		if i := bytes.IndexByte(b, ':'); i >= 0 {
			text, b = b[:i], b[i+1:]
		} else {
			b = nil
		}
		if len(text) == 0 {
			continue
		}
		v, ok := parseFloat(text)
		if !ok {
			return dst, ErrBadValue
		}
		if math.IsNaN(v) || math.IsInf(v, 0) {
			return dst, ErrNotFinite
		}
		dst = append(dst, v)
	}
	if len(dst) == before {
		return dst, ErrNoValue
	}
	return dst, nil
}

// field reads one optional field; the last of its kind wins, unknown ones are
// skipped.
func (p *Parser) field(f []byte) error {
	if len(f) == 0 {
		return nil
	}
	switch f[0] {
	case '@':
		return p.rate(f[1:])
	case '#':
		p.readTags(f[1:])
	case 'T':
		sec, err := strconv.ParseInt(string(f[1:]), 10, 64)
		if err != nil || sec <= 0 {
			return ErrBadTimestamp
		}
		p.m.Time = sec
	case 'c':
		if value, ok := bytes.CutPrefix(f, []byte("card:")); ok && p.ClientOrigin {
			p.m.Cardinality = value
		} else if value, ok := bytes.CutPrefix(f, []byte("c:")); ok {
			p.m.Container = value
			if p.ClientOrigin {
				p.m.ContainerID = value
			}
		}
	case 'e':
		if value, ok := bytes.CutPrefix(f, []byte("e:")); ok {
			if p.m.Container == nil {
				p.m.Container = value
			}
			if p.ClientOrigin {
				p.m.External = value
			}
		}
	}
	return nil
}

// rate reads a sample rate. One outside (0,1] means that nothing was sampled:
// upstream divides by it, and so turns "@0" into an infinite count.
func (p *Parser) rate(b []byte) error {
	r, ok := parseFloat(b)
	if !ok {
		return ErrBadRate
	}
	if !(r > 0 && r <= 1) {
		r = 1
	}
	if math.IsInf(1/r, 0) {
		return ErrBadRate
	}
	p.m.Rate = r
	return nil
}

// readTags splits the tags and takes out those that speak to the agent.
func (p *Parser) readTags(b []byte) {
	p.tags = p.tags[:0]
	p.m.PodUID, p.m.Host, p.m.HasHost = nil, nil, false
	for len(b) > 0 {
		tag := b
		if i := bytes.IndexByte(b, ','); i >= 0 {
			tag, b = b[:i], b[i+1:]
		} else {
			b = nil
		}
		if len(tag) > 0 && (tag[0] == 'h' || tag[0] == 'd') && p.magic(tag) {
			continue
		}
		p.tags = append(p.tags, tag)
	}
	p.m.Tags = p.tags
}

// magic interprets a tag that is meant for the agent and reports whether it
// was one.
func (p *Parser) magic(tag []byte) bool {
	if host, ok := bytes.CutPrefix(tag, []byte("host:")); ok {
		p.m.Host, p.m.HasHost = host, true
		return true
	}
	name, ok := bytes.CutPrefix(tag, []byte("dd.internal."))
	if !ok {
		return false
	}
	if uid, ok := bytes.CutPrefix(name, []byte("entity_id:")); ok {
		p.m.PodUID = uid
		if string(uid) == "none" {
			p.m.PodUID = nil
		}
	} else if level, ok := bytes.CutPrefix(name, []byte("card:")); ok && p.m.Cardinality == nil {
		p.m.Cardinality = level
	}
	return true
}
