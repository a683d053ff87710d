package query

import (
	"fmt"
	"slices"
	"strings"
)

// Check reports the first part of e that is in the grammar but that Eval does
// not implement, or that cannot have a value, as an *Error.
func Check(e Expr) error {
	if err := check(e); err != nil {
		return err
	}
	if reads(e) {
		return nil
	}
	return refuse(e, e.Pos(), "query reads no metric")
}

func check(e Expr) error {
	switch e := e.(type) {
	case *Query:
		return checkQuery(e)
	case *Unary:
		return check(e.X)
	case *Call:
		return checkCall(e)
	case *Binary:
		if err := check(e.Left); err != nil {
			return err
		}
		if err := check(e.Right); err != nil {
			return err
		}
		return checkGroups(e)
	}
	return nil
}

func checkQuery(q *Query) error {
	o, err := q.options()
	if err == nil && o.weighted && q.Aggregator.Name != "sum" {
		for _, m := range q.Modifiers {
			if m.Name == "weighted" {
				return refuse(q, m.Pos, "modifier \"weighted\" needs the aggregator sum")
			}
		}
	}
	return err
}

// checkGroups refuses operands that could never have a group in common.
func checkGroups(b *Binary) error {
	left, right := slices.Clone(resultKeys(b.Left)), slices.Clone(resultKeys(b.Right))
	if len(left) == 0 || len(right) == 0 {
		return nil
	}
	slices.Sort(left)
	slices.Sort(right)
	if slices.Equal(left, right) {
		return nil
	}
	return refuse(b, b.Right.Pos(), "operands are grouped by different keys, {%s} and {%s}, so no groups pair up",
		strings.Join(left, ","), strings.Join(right, ","))
}

func refuse(e Expr, at Span, format string, args ...any) error {
	return &Error{Kind: Unsupported, Query: e.text(), Offset: at.Start, Message: fmt.Sprintf(format, args...)}
}

// GroupBy returns the keys of the by clauses of e, in order of appearance and
// without duplicates; never nil.
func GroupBy(e Expr) []string {
	keys := []string{}
	for q := range Queries(e) {
		for _, k := range q.By {
			if !slices.Contains(keys, k) {
				keys = append(keys, k)
			}
		}
	}
	return keys
}
