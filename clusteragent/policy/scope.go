package policy

import (
	"errors"
	"time"

	"kelpie.dev/kelpie/query"
)

// A Query is what is judged.
type Query struct {
	Text     string        // with its templates resolved: what they hold is judged too
	Window   time.Duration // that it is asked for
	Language string        // "" for Datadog's; the name of another, which cannot be judged
}

// Judge decides whether a namespace may ask q, and what it costs. The refusal
// does not show the query: what its templates hold may not be for who reads it.
func (p *Policy) Judge(namespace string, q Query) (cost int, no *Refusal) {
	r := p.rule(namespace)
	if len(r.Scope) == 0 && r.Cost == 0 {
		return 0, nil
	}
	if q.Language != "" {
		if r.OtherLanguages {
			return 1, nil
		}
		return 0, refuse(Forbidden, "what a query in %s reads cannot be judged, and the queries of namespace %q are bounded: "+
			"write it in Datadog's language, or have the policy's rule %q set otherLanguages", q.Language, namespace, r.Match)
	}
	e, err := query.Parse(q.Text)
	if err != nil {
		at := 0
		if qe, ok := errors.AsType[*query.Error](err); ok {
			at = qe.Offset
		}
		return 0, refuse(Forbidden, "the query cannot be read from byte %d on, and the queries of namespace %q are bounded (the policy's rule %q): "+
			"kelpie query shows what is wrong", at, namespace, r.Match)
	}
	for _, term := range r.Scope {
		tag, err := parseTerm(term, namespace)
		if err != nil {
			return 0, refuse(Forbidden, "the policy's rule %q requires %q, which is no tag for namespace %q", r.Match, term, namespace)
		}
		n := 0
		for leaf := range query.Queries(e) {
			if n++; !implies(leaf.Scope, tag) {
				return 0, refuse(Forbidden, "namespace %q may read only what bears %s (the policy's rule %q), and the scope of metric number %d in the query "+
					"reaches further: add %s to it, so that it holds in every branch", namespace, tag, r.Match, n, tag)
			}
		}
	}
	return Cost(e, q.Window), nil
}

// Plain decides whether a namespace's autoscalers may use plain metric names at
// all, and the query that one means.
func (p *Policy) Plain(namespace string, q Query) *Refusal {
	if r := p.rule(namespace); r.Metrics > 0 || r.Cost > 0 {
		return refuse(Forbidden, "namespace %q has a quota (the policy's rule %q), and a plain metric name has no object to count: "+
			"write a DatadogMetric and name it as datadogmetric@%s:<name>", namespace, r.Match, namespace)
	}
	_, no := p.Judge(namespace, q)
	return no
}

// Cost estimates what a query asks of its source: each metric that it reads
// costs 1 for each hour, begun, of the data that it needs.
func Cost(e query.Expr, window time.Duration) int {
	reads := 0
	for range query.Queries(e) {
		reads++
	}
	const hour = int64(time.Hour / time.Second)
	seconds := max(int64(window/time.Second), query.Lookback(e))
	return reads * int(max(1, (seconds+hour-1)/hour))
}

// implies reports whether all that s matches bears tag. It errs on the side of
// no: a scope that confines itself in a roundabout way is to be written plainly.
func implies(s query.Scope, tag *query.Tag) bool {
	switch s := s.(type) {
	case *query.Tag:
		return *s == *tag
	case *query.In:
		for _, v := range s.Values {
			if v != tag.Value { // a wildcard never equals: tag has none
				return false
			}
		}
		return s.Key == tag.Key && len(s.Values) > 0
	case *query.And:
		return anyOf(s.Terms, func(t query.Scope) bool { return implies(t, tag) })
	case *query.Or:
		return !anyOf(s.Terms, func(t query.Scope) bool { return !implies(t, tag) })
	case *query.Not:
		return excludedImplies(s.X, tag)
	default:
		return false
	}
}

// excludedImplies reports whether all that s does not match bears tag.
func excludedImplies(s query.Scope, tag *query.Tag) bool {
	switch s := s.(type) {
	case *query.Not:
		return implies(s.X, tag)
	case *query.Or:
		return anyOf(s.Terms, func(t query.Scope) bool { return excludedImplies(t, tag) })
	case *query.And:
		return !anyOf(s.Terms, func(t query.Scope) bool { return !excludedImplies(t, tag) })
	default:
		return false
	}
}

func anyOf(terms []query.Scope, f func(query.Scope) bool) bool {
	for _, t := range terms {
		if f(t) {
			return true
		}
	}
	return false
}
