package metric

import (
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// MaxTagLength is the longest tag Datadog's backend keeps, in characters.
const MaxTagLength = 200

// MaxNameLength is the longest metric name Datadog's backend keeps, in bytes.
const MaxNameLength = 200

// Tags is a set of tags, each "key:value" or a bare "value". A key may occur
// several times with different values. Canonical tags are sorted by byte order
// and hold no duplicate and no empty tag.
type Tags []string

// NewTags returns the canonical set of the given tags. It does not modify or
// keep its argument. It does not normalize the tags' text; see NormalizeTag.
func NewTags(tags ...string) Tags {
	return Tags(slices.Clone(tags)).canonical()
}

// OwnTags is NewTags of tags that it may keep and change.
func OwnTags(tags []string) Tags { return Tags(tags).canonical() }

// canonical sorts t in place and drops duplicates and empty tags.
func (t Tags) canonical() Tags {
	slices.Sort(t)
	t = slices.Compact(t)
	if len(t) > 0 && t[0] == "" {
		t = t[1:]
	}
	return t
}

// Union returns the canonical set of t's and more's tags. Neither is modified.
func (t Tags) Union(more ...string) Tags {
	out := make(Tags, 0, len(t)+len(more))
	return append(append(out, t...), more...).canonical()
}

// Has reports whether t holds exactly this tag.
func (t Tags) Has(tag string) bool { return slices.Contains(t, tag) }

// Values returns the values that t gives to key, in t's order. A bare tag has
// no value and belongs to no key.
func (t Tags) Values(key string) []string {
	var out []string
	for _, tag := range t {
		if k, v, ok := strings.Cut(tag, ":"); ok && k == key {
			out = append(out, v)
		}
	}
	return out
}

// String joins the tags with commas.
func (t Tags) String() string { return strings.Join(t, ",") }

// NormalizeName returns name as Datadog's backend stores it: ASCII letters,
// digits, '_' and '.', starting with a letter; any other byte becomes '_',
// runs of '_' collapse, '_' beside '.' disappears, and case is kept. ok is
// false when no letter is left or the result is longer than MaxNameLength.
// Rule: reference metrics-pipeline A2.9.
func NormalizeName(name string) (normalized string, ok bool) {
	if canonicalName(name) {
		return name, len(name) <= MaxNameLength
	}
	b := make([]byte, 0, len(name))
	for i := 0; i < len(name); i++ {
		c := name[i]
		switch {
		case isLetter(c):
		case len(b) == 0:
			continue
		case c >= '0' && c <= '9':
		case c == '.':
			if b[len(b)-1] == '_' {
				b = b[:len(b)-1]
			}
		default:
			c = '_'
			if last := b[len(b)-1]; last == '_' || last == '.' {
				continue
			}
		}
		b = append(b, c)
	}
	for len(b) > 0 && b[len(b)-1] == '_' {
		b = b[:len(b)-1]
	}
	return string(b), len(b) > 0 && len(b) <= MaxNameLength
}

// canonicalName reports whether NormalizeName would return name unchanged,
// without allocating: the common case on every path.
func canonicalName(name string) bool {
	if name == "" || !isLetter(name[0]) {
		return false
	}
	for i := 1; i < len(name); i++ {
		c := name[i]
		switch {
		case isLetter(c), c >= '0' && c <= '9':
		case c == '.':
			if name[i-1] == '_' {
				return false
			}
		case c == '_':
			if p := name[i-1]; p == '_' || p == '.' {
				return false
			}
		default:
			return false
		}
	}
	return name[len(name)-1] != '_'
}

func isLetter(c byte) bool { return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' }

// NormalizeTag returns tag as Datadog's backend stores it: lower case; letters,
// digits and "_-:./" kept, anything else '_', runs of '_' collapsed; starting
// with a letter or ':'; no trailing '_'; at most MaxTagLength characters. The
// result is empty when nothing is left. Rule: reference metrics-pipeline A2.9.
func NormalizeTag(tag string) string {
	if canonicalTag(tag) {
		return tag
	}
	var b strings.Builder
	n := 0
	underscore := false // an '_' is owed before the next kept rune
runes:
	for _, r := range tag {
		if n == MaxTagLength {
			break runes
		}
		r = unicode.ToLower(r)
		kept := unicode.IsLetter(r) || unicode.IsDigit(r) || strings.ContainsRune("-:./", r)
		switch {
		case n == 0 && !unicode.IsLetter(r) && r != ':':
			continue
		case r == utf8.RuneError || !kept:
			underscore = true
			continue
		}
		if underscore {
			if n+1 == MaxTagLength {
				break runes // an '_' may not come last
			}
			b.WriteByte('_')
			n++
			underscore = false
		}
		b.WriteRune(r)
		n++
	}
	return b.String()
}

// canonicalTag reports, without allocating, whether an ASCII tag is stored as
// it is.
func canonicalTag(tag string) bool {
	if tag == "" {
		return true
	}
	if c := tag[0]; (c < 'a' || c > 'z') && c != ':' || len(tag) > MaxTagLength {
		return false
	}
	for i := 1; i < len(tag); i++ {
		c := tag[i]
		switch {
		case c >= 'a' && c <= 'z', c >= '0' && c <= '9', c == '-', c == ':', c == '.', c == '/':
		case c == '_' && tag[i-1] != '_':
		default:
			return false
		}
	}
	return tag[len(tag)-1] != '_'
}
