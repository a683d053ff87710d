package query

import (
	"slices"
	"strings"

	"kelpie.dev/kelpie/metric"
)

// display prints e as results name it: arithmetic in parentheses throughout, and
// each query as leaf prints it.
func display(e Expr, leaf func(*Query) string) string {
	switch e := e.(type) {
	case *Query:
		return leaf(e)
	case *Unary:
		return "-" + display(e.X, leaf)
	case *Binary:
		return "(" + display(e.Left, leaf) + " " + string(e.Op) + " " + display(e.Right, leaf) + ")"
	case *Call:
		s := e.Func + "(" + display(e.X, leaf)
		if len(e.Args) > 0 {
			s += ", " + joinArgs(e.Args)
		}
		return s + ")"
	default:
		return e.String()
	}
}

// narrowed prints q for the group with the given tags instead of by its keys;
// those that a function has aggregated over since stay.
func (q *Query) narrowed(tags metric.Tags) string {
	by := ""
	for _, key := range q.By {
		if len(tags.Values(key)) == 0 {
			by += "," + key
		}
	}
	if by != "" {
		by = " by {" + by[1:] + "}"
	}
	return q.head() + "{" + q.terms(tags).expression() + "}" + by + q.tail()
}

// scopeOf is the scope of the group of e with the given tags.
func scopeOf(e Expr, tags metric.Tags) string {
	var all terms
	for q := range Queries(e) {
		all = all.union(q.terms(tags))
	}
	return all.join(",")
}

// terms are the conditions of a scope, sorted and without duplicates; empty
// means all contexts.
type terms struct {
	text    []string
	complex bool // a term is an OR or a NOT of several, so commas do not join them
}

// terms returns q's conditions in the group with the given tags; they mean
// nothing to a query without by.
func (q *Query) terms(tags metric.Tags) terms {
	t := terms{}
	if len(q.By) > 0 {
		t.text = slices.Clone(tags)
	}
	parts := []Scope{q.Scope}
	if and, ok := q.Scope.(*And); ok {
		parts = and.Terms
	}
	for _, p := range parts {
		if _, all := p.(All); !all {
			t.complex = t.complex || !plain(p)
		}
	}
	for _, p := range parts {
		switch _, all := p.(All); {
		case all:
		case t.complex:
			t.text = append(t.text, functional(p))
		default:
			t.text = append(t.text, p.String())
		}
	}
	slices.Sort(t.text)
	t.text = slices.Compact(t.text)
	return t
}

// expression prints t as the scope of a query.
func (t terms) expression() string {
	if t.complex {
		return t.join(" AND ")
	}
	return t.join(",")
}

func (t terms) join(by string) string {
	switch {
	case len(t.text) == 0:
		return "*"
	case len(t.text) == 1 && t.text[0][0] == '(': // an OR by itself
		return t.text[0][1 : len(t.text[0])-1]
	default:
		return strings.Join(t.text, by)
	}
}

func (t terms) union(o terms) terms {
	text := slices.Concat(t.text, o.text)
	slices.Sort(text)
	return terms{text: slices.Compact(text), complex: t.complex || o.complex}
}

// lacksKey reports whether a group is one of contexts without one of its keys.
func lacksKey(tags metric.Tags) bool {
	return slices.ContainsFunc(tags, func(tag string) bool { return strings.HasSuffix(tag, ":"+absentKey) })
}
