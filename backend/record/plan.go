package record

import (
	"slices"
	"strings"

	"kelpie.dev/kelpie/metric"
	"kelpie.dev/kelpie/query"
)

// maxNarrowed is how many hosts the index is asked for at once. More than that
// bear what is asked: nearly all series do, and there is little to narrow.
const maxNarrowed = 1000

// A plan says how a scope over joined tags is read from a source that knows
// series' own.
type plan struct {
	hosts *tagged
	raw   *rawKeys // nil when there are none
	// scopes have no series in common, and together select all series of the
	// scope, and perhaps more.
	scopes []query.Scope
	exact  bool // the one scope is "*"
}

// plan returns how to read scope; nil says that it can be read as it is.
func (j *Joined) plan(scope query.Scope) *plan {
	p := &plan{hosts: j.book.hosts.view()}
	if j.book.raw.any() {
		p.raw = &j.book.raw
	}
	if len(p.hosts.tags) == 0 && p.raw == nil {
		return nil
	}
	if _, p.exact = scope.(query.All); p.exact {
		p.scopes = []query.Scope{scope}
		return p
	}
	p.scopes = p.split(scope)
	return p
}

// split returns scopes as plan.scopes has them. The index cannot say "bears the
// tag or is of one of these hosts", but each of the two: a term that hosts bear
// parts the scope in two, for at most two terms of it.
func (p *plan) split(scope query.Scope) []query.Scope {
	terms := []query.Scope{scope}
	if and, ok := scope.(*query.And); ok {
		terms = and.Terms
	}
	parts := [][]query.Scope{nil}
	parted := 0
	for _, t := range terms {
		hosts, leaf := p.bearing(t)
		if !leaf || len(hosts) == 0 || len(hosts) > maxNarrowed || parted == 2 || p.isRaw(t) {
			w := p.widen(t)
			for i := range parts {
				parts[i] = append(parts[i], w)
			}
			continue
		}
		parted++
		both := make([][]query.Scope, 0, 2*len(parts))
		of := &query.In{Key: "host", Values: hosts}
		for _, part := range parts {
			both = append(both, append(slices.Clone(part), t), append(slices.Clone(part), of, &query.Not{X: t}))
		}
		parts = both
	}
	out := make([]query.Scope, len(parts))
	for i, part := range parts {
		out[i] = and(part)
	}
	return out
}

func and(terms []query.Scope) query.Scope {
	terms = slices.DeleteFunc(terms, func(t query.Scope) bool { return t == query.Scope(query.All{}) })
	switch len(terms) {
	case 0:
		return query.All{}
	case 1:
		return terms[0]
	}
	return &query.And{Terms: terms}
}

// widen returns a scope over own tags that every series has that has s over
// joined ones.
func (p *plan) widen(s query.Scope) query.Scope {
	switch s := s.(type) {
	case *query.And:
		return and(p.widenAll(s.Terms))
	case *query.Or:
		terms := p.widenAll(s.Terms)
		if slices.Contains(terms, query.Scope(query.All{})) {
			return query.All{}
		}
		return &query.Or{Terms: terms}
	case *query.Not:
		// What bears a tag of its own bears it for sure; but a value in another
		// form is not the one that is asked for.
		if _, leaf := p.bearing(s.X); leaf && !p.isRaw(s.X) {
			return s
		}
		return query.All{}
	}
	hosts, leaf := p.bearing(s)
	switch {
	case !leaf:
		return query.All{}
	case p.isRaw(s):
		return p.widenRaw(s, hosts)
	case len(hosts) == 0:
		return s
	case len(hosts) > maxNarrowed:
		return query.All{}
	}
	return &query.Or{Terms: []query.Scope{s, &query.In{Key: "host", Values: hosts}}}
}

func (p *plan) widenAll(terms []query.Scope) []query.Scope {
	out := make([]query.Scope, len(terms))
	for i, t := range terms {
		out[i] = p.widen(t)
	}
	return out
}

// widenRaw asks for any value of a key whose values are in another form.
func (p *plan) widenRaw(s query.Scope, hosts []string) query.Scope {
	key, _ := keyOf(s)
	if _, same := p.raw.named(key); !same || len(hosts) > 0 {
		return query.All{}
	}
	return &query.Tag{Key: key, Value: "*"}
}

// isRaw reports whether own tags that the leaf s asks for may be in another form.
func (p *plan) isRaw(s query.Scope) bool {
	key, ok := keyOf(s)
	if p.raw == nil || !ok {
		return false
	}
	raw, _ := p.raw.named(key)
	return raw
}

// keyOf returns the key that a leaf asks for.
func keyOf(s query.Scope) (key string, ok bool) {
	switch s := s.(type) {
	case *query.Tag:
		return s.Key, true
	case *query.In:
		return s.Key, true
	}
	return "", false
}

// bearing returns the hosts with tags of their own that s matches, and whether s
// is one that asks for a tag.
func (p *plan) bearing(s query.Scope) (hosts []string, leaf bool) {
	var exact []string // the tags that s asks for, if it has no "*"
	switch s := s.(type) {
	case *query.Tag:
		exact = []string{s.Key + ":" + s.Value}
	case *query.In:
		for _, v := range s.Values {
			exact = append(exact, s.Key+":"+v)
		}
	case *query.Bare:
		exact = []string{s.Value}
	default:
		return nil, false
	}
	if !slices.ContainsFunc(exact, func(tag string) bool { return strings.Contains(tag, "*") }) {
		for _, tag := range exact {
			hosts = append(hosts, p.hosts.hosts[tag]...)
		}
		slices.Sort(hosts)
		return slices.Compact(hosts), true
	}
	for tag, of := range p.hosts.hosts {
		if s.Match(metric.Tags{tag}) {
			hosts = append(hosts, of...)
		}
	}
	slices.Sort(hosts)
	return slices.Compact(hosts), true
}

// tags returns a series' tags in Datadog's form, with those of its host.
func (p *plan) tags(host string, own metric.Tags) metric.Tags {
	if p.raw != nil {
		own = p.normalized(own)
	}
	more := p.hosts.of(host)
	if len(more) == 0 {
		return own
	}
	return merge(own, more)
}

// normalized returns tags with those of raw keys normalized.
func (p *plan) normalized(tags metric.Tags) metric.Tags {
	var out []string
	for i, tag := range tags {
		n := metric.NormalizeTag(tag)
		if n == tag {
			continue
		}
		if out == nil {
			out = slices.Clone([]string(tags))
		}
		out[i] = n
	}
	if out == nil {
		return tags
	}
	return metric.NewTags(out...)
}

// merge returns the union of two canonical sets.
func merge(a, b metric.Tags) metric.Tags {
	out := make(metric.Tags, 0, len(a)+len(b))
	for len(a) > 0 && len(b) > 0 {
		switch c := strings.Compare(a[0], b[0]); {
		case c < 0:
			out, a = append(out, a[0]), a[1:]
		case c > 0:
			out, b = append(out, b[0]), b[1:]
		default:
			out, a, b = append(out, a[0]), a[1:], b[1:]
		}
	}
	return append(append(out, a...), b...)
}
