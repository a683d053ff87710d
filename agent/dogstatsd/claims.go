package dogstatsd

import (
	"bytes"

	"kelpie.dev/kelpie/metric"
)

// Claims are what the sender of an event or a service check says about its
// origin and its host: views into the line. A Metric has the same fields.
type Claims struct {
	PodUID      []byte // dd.internal.entity_id; nil when absent or "none"
	ContainerID []byte // c:
	External    []byte // e:
	Cardinality []byte // card:, else dd.internal.card
	// HasHost says that a host was named; an empty one means that there is none.
	HasHost bool
}

// claim reads one of the fields c:, e: and card: and reports whether f is one.
// Their content is taken only with ClientOrigin.
func (p *Parser) claim(c *Claims, f []byte) bool {
	for _, field := range [...]struct {
		prefix string
		to     *[]byte
	}{{"c:", &c.ContainerID}, {"e:", &c.External}, {"card:", &c.Cardinality}} {
		if value, ok := bytes.CutPrefix(f, []byte(field.prefix)); ok {
			if p.ClientOrigin {
				*field.to = value
			}
			return true
		}
	}
	return false
}

// eventTags reads the tags of an event or a service check, which b lists. Those
// that speak to the agent become claims and the host, unless a field has named
// that.
func eventTags(c *Claims, b []byte, host *string) metric.Tags {
	var tags []string
	var level []byte
	named := c.HasHost
	for len(b) > 0 {
		tag, rest, _ := bytes.Cut(b, []byte{','})
		b = rest
		if value, ok := bytes.CutPrefix(tag, []byte("host:")); ok {
			if !named {
				*host, c.HasHost = string(value), true
			}
			continue
		}
		internal, ok := bytes.CutPrefix(tag, []byte("dd.internal."))
		if !ok {
			tags = append(tags, string(tag))
			continue
		}
		if uid, ok := bytes.CutPrefix(internal, []byte("entity_id:")); ok {
			c.PodUID = uid
			if string(uid) == "none" {
				c.PodUID = nil
			}
		} else if value, ok := bytes.CutPrefix(internal, []byte("card:")); ok {
			level = value
		}
	}
	if c.Cardinality == nil {
		c.Cardinality = level
	}
	return metric.NewTags(tags...)
}

// newlines returns b with each backslash and n made the line feed they stand
// for.
func newlines(b []byte) string {
	return string(bytes.ReplaceAll(b, []byte(`\n`), []byte{'\n'}))
}

// eventTime reads the field d: in Unix seconds, where 0 means when the line is
// sent.
func eventTime(b []byte) (int64, bool) {
	var sec int64
	if len(b) == 0 || len(b) > 18 { // 18 digits fit
		return 0, false
	}
	for _, c := range b {
		if c < '0' || c > '9' {
			return 0, false
		}
		sec = sec*10 + int64(c-'0')
	}
	return sec, true
}
