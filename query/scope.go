package query

import (
	"strings"

	"kelpie.dev/kelpie/metric"
)

// A Scope is the tag filter of a query: All, *Tag, *Bare, *In, *Not, *And or
// *Or. The set is closed, and its text is lower-cased as stored tags are.
//
// Match reports whether a context with the given tags is in the scope. The host
// is a tag like any other: give Match the result of TagsOf.
type Scope interface {
	Match(tags metric.Tags) bool
	String() string
	scope()
}

// All is "*": every context.
type All struct{}

// Tag is "key:value". Value may hold "*" wildcards; see Exact.
type Tag struct{ Key, Value string }

// Bare is a tag without a value; it may hold "*" wildcards.
type Bare struct{ Value string }

// In is "key IN (values)": the key bears at least one of the values, which may
// hold "*" wildcards.
type In struct {
	Key    string
	Values []string
}

// Not matches what X does not, contexts without X's key among them.
type Not struct{ X Scope }

// And matches what all terms match. It has at least two terms.
type And struct{ Terms []Scope }

// Or matches what any term matches. It has at least two terms.
type Or struct{ Terms []Scope }

func (All) scope()   {}
func (*Tag) scope()  {}
func (*Bare) scope() {}
func (*In) scope()   {}
func (*Not) scope()  {}
func (*And) scope()  {}
func (*Or) scope()   {}

// TagsOf returns the tags by which a series is matched and grouped: its own,
// and its host and device as tags. The result may share memory with s.
func TagsOf(s metric.Series) metric.Tags {
	switch {
	case s.Host != "" && s.Device != "":
		return s.Tags.Union("host:"+strings.ToLower(s.Host), "device:"+strings.ToLower(s.Device))
	case s.Host != "":
		return s.Tags.Union("host:" + strings.ToLower(s.Host))
	case s.Device != "":
		return s.Tags.Union("device:" + strings.ToLower(s.Device))
	default:
		return s.Tags
	}
}

// Exact reports whether t matches exactly one tag, "key:value".
func (t *Tag) Exact() bool { return !strings.Contains(t.Value, "*") }

// Match implements Scope.
func (All) Match(metric.Tags) bool { return true }

// Match implements Scope.
func (t *Tag) Match(tags metric.Tags) bool { return matchKey(tags, t.Key, t.Value) }

// Match implements Scope.
func (b *Bare) Match(tags metric.Tags) bool {
	for _, tag := range tags {
		if !strings.Contains(tag, ":") && glob(b.Value, tag) {
			return true
		}
	}
	return false
}

// Match implements Scope.
func (i *In) Match(tags metric.Tags) bool {
	for _, v := range i.Values {
		if matchKey(tags, i.Key, v) {
			return true
		}
	}
	return false
}

// Match implements Scope.
func (n *Not) Match(tags metric.Tags) bool { return !n.X.Match(tags) }

// Match implements Scope.
func (a *And) Match(tags metric.Tags) bool {
	for _, t := range a.Terms {
		if !t.Match(tags) {
			return false
		}
	}
	return true
}

// Match implements Scope.
func (o *Or) Match(tags metric.Tags) bool {
	for _, t := range o.Terms {
		if t.Match(tags) {
			return true
		}
	}
	return false
}

// matchKey reports whether some tag gives key a value that pattern matches.
func matchKey(tags metric.Tags, key, pattern string) bool {
	for _, tag := range tags {
		if len(tag) > len(key) && tag[len(key)] == ':' && tag[:len(key)] == key && glob(pattern, tag[len(key)+1:]) {
			return true
		}
	}
	return false
}

// glob reports whether pattern, in which "*" stands for any text, matches the
// whole of s, in time proportional to the product of their lengths.
func glob(pattern, s string) bool {
	p, i := 0, 0
	star, mark := -1, 0 // the last "*" and where its match ends so far
	for i < len(s) {
		switch {
		case p < len(pattern) && pattern[p] == '*':
			star, mark = p, i
			p++
		case p < len(pattern) && pattern[p] == s[i]:
			p++
			i++
		case star >= 0:
			mark++
			p, i = star+1, mark
		default:
			return false
		}
	}
	return strings.Trim(pattern[p:], "*") == ""
}

func (All) String() string     { return "*" }
func (t *Tag) String() string  { return t.Key + ":" + t.Value }
func (b *Bare) String() string { return b.Value }
func (i *In) String() string   { return i.Key + " IN (" + strings.Join(i.Values, ",") + ")" }

func (n *Not) String() string {
	if in, ok := n.X.(*In); ok {
		return in.Key + " NOT IN (" + strings.Join(in.Values, ",") + ")"
	}
	if plain(n) {
		return "!" + n.X.String()
	}
	return n.functional()
}

func (a *And) String() string {
	parts := make([]string, len(a.Terms))
	for i, t := range a.Terms {
		if !plain(t) {
			return joinScopes(a.Terms, " AND ")
		}
		parts[i] = t.String()
	}
	return strings.Join(parts, ",")
}

func (o *Or) String() string { return joinScopes(o.Terms, " OR ") }

// functional prints n in the words of AND, OR and NOT, with which "!" does not mix.
func (n *Not) functional() string {
	if in, ok := n.X.(*In); ok {
		return (&Not{X: in}).String()
	}
	return "NOT " + functional(n.X)
}

func functional(s Scope) string {
	switch s := s.(type) {
	case *And:
		return "(" + joinScopes(s.Terms, " AND ") + ")"
	case *Or:
		return "(" + joinScopes(s.Terms, " OR ") + ")"
	case *Not:
		return s.functional()
	default:
		return s.String()
	}
}

func joinScopes(terms []Scope, by string) string {
	parts := make([]string, len(terms))
	for i, t := range terms {
		parts[i] = functional(t)
	}
	return strings.Join(parts, by)
}

// plain reports whether s can stand as an item of a comma-separated scope.
func plain(s Scope) bool {
	switch s := s.(type) {
	case All, *Tag, *Bare, *In:
		return true
	case *Not:
		switch s.X.(type) {
		case *Tag, *Bare, *In:
			return true
		}
	}
	return false
}
