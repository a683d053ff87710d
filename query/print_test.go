package query

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// What is printed parses to the same expression, for every expression.
func TestPrintParses(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		e := anyExpr(4).Draw(t, "expression")
		text := e.String()
		parsed, err := Parse(text)
		if err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		if again := parsed.String(); again != text {
			t.Fatalf("printed %s, parsed and printed %s", text, again)
		}
		if diff := cmp.Diff(e, parsed, sameMeaning...); diff != "" {
			t.Fatalf("%s (-printed +parsed):\n%s", text, diff)
		}
	})
}

func anyExpr(depth int) *rapid.Generator[Expr] {
	leaves := []*rapid.Generator[Expr]{
		rapid.Custom(func(t *rapid.T) Expr {
			return &Number{Value: rapid.Float64Range(0, 1e18).Draw(t, "number")}
		}),
		rapid.Custom(anyQuery),
	}
	if depth == 0 {
		return rapid.OneOf(leaves...)
	}
	inner := rapid.Deferred(func() *rapid.Generator[Expr] { return anyExpr(depth - 1) })
	return rapid.OneOf(append(leaves,
		rapid.Custom(func(t *rapid.T) Expr { return &Unary{X: inner.Draw(t, "x")} }),
		rapid.Custom(func(t *rapid.T) Expr {
			return &Binary{
				Op:    rapid.SampledFrom([]byte("+-*/")).Draw(t, "op"),
				Left:  inner.Draw(t, "left"),
				Right: inner.Draw(t, "right"),
			}
		}),
		rapid.Custom(func(t *rapid.T) Expr {
			return &Call{
				Func: rapid.StringMatching(`[a-bd-z][a-z0-9_]{0,8}`).Draw(t, "function"),
				X:    inner.Draw(t, "x"),
				Args: optional(rapid.SliceOfN(rapid.Custom(anyArg), 0, 3)).Draw(t, "args"),
			}
		}),
		rapid.Custom(func(t *rapid.T) Expr {
			c := &Call{Func: rapid.SampledFrom(names()).Draw(t, "known function"), X: inner.Draw(t, "x")}
			if options := arguments[c.Func]; options != nil {
				args := rapid.SampledFrom(options).Draw(t, "known args")
				c.Args = parseFor(t, callText(c.Func, "m{*}", args)).(*Call).Args
			}
			return c
		}),
	)...)
}

// optional turns an empty slice into nil, as the parser leaves it.
func optional[T any](g *rapid.Generator[[]T]) *rapid.Generator[[]T] {
	return rapid.Map(g, func(s []T) []T {
		if len(s) == 0 {
			return nil
		}
		return s
	})
}

func anyArg(t *rapid.T) Arg {
	switch rapid.IntRange(0, 3).Draw(t, "kind") {
	case 0:
		return Arg{Kind: NumberArg, Number: rapid.Float64Range(-1e9, 1e9).Draw(t, "number")}
	case 1:
		return Arg{Kind: StringArg, Text: rapid.StringMatching(`[a-z "]*|[a-z ']*`).Draw(t, "string")}
	case 2:
		return Arg{Kind: WordArg, Text: rapid.StringMatching(`[a-z][a-zA-Z0-9_.]*`).Draw(t, "word")}
	default:
		return Arg{Kind: KeysArg, Keys: rapid.SliceOfNDistinct(anyWord, 1, 3, rapid.ID[string]).Draw(t, "keys")}
	}
}

func anyQuery(t *rapid.T) Expr {
	q := &Query{
		Aggregator: rapid.SampledFrom([]Aggregator{
			{}, {Name: "avg"}, {Name: "count"}, {Name: "p95"}, {Name: "p99.9"}, {Name: "stddev"}, {Name: "count", Cmp: ">=", Bound: -2.5},
		}).Draw(t, "aggregator"),
		Metric: rapid.StringMatching(`[a-zA-Z][a-zA-Z0-9_.]*`).Draw(t, "metric"),
		Scope:  anyScope(3).Draw(t, "scope"),
		By:     optional(rapid.SliceOfNDistinct(anyWord, 0, 3, rapid.ID[string])).Draw(t, "by"),
	}
	q.Modifiers = optional(rapid.SliceOfN(rapid.SampledFrom([]Modifier{
		{Name: "as_count"}, {Name: "as_rate"}, {Name: "weighted"},
		{Name: "rollup", Args: []Arg{{Kind: WordArg, Text: "sum"}}},
		{Name: "rollup", Args: []Arg{{Kind: NumberArg, Number: 60}}},
		{Name: "rollup", Args: []Arg{{Kind: WordArg, Text: "max"}, {Kind: NumberArg, Number: 3600}}},
		{Name: "fill", Args: []Arg{{Kind: WordArg, Text: "zero"}}},
		{Name: "fill", Args: []Arg{{Kind: WordArg, Text: "last"}, {Kind: NumberArg, Number: 30}}},
	}), 0, 3)).Draw(t, "modifiers")
	return q
}

var (
	anyWord  = rapid.StringMatching(`[b-hj-mp-zäß][b-z0-9_./-]{0,6}`)
	anyValue = rapid.StringMatching(`[a-z0-9_./:*-]{1,8}`)
)

func anyScope(depth int) *rapid.Generator[Scope] {
	tag := rapid.Custom(func(t *rapid.T) Scope {
		switch rapid.IntRange(0, 2).Draw(t, "form") {
		case 0:
			return &Tag{Key: anyWord.Draw(t, "key"), Value: anyValue.Draw(t, "value")}
		case 1:
			return &Bare{Value: anyWord.Draw(t, "tag")}
		default:
			return &In{Key: anyWord.Draw(t, "key"), Values: rapid.SliceOfN(anyValue, 1, 3).Draw(t, "values")}
		}
	})
	if depth == 0 {
		return tag
	}
	inner := anyScope(depth - 1)
	// Of nested scopes, the shapes that the parser flattens are flattened.
	return rapid.OneOf(tag, rapid.Just[Scope](All{}),
		rapid.Custom(func(t *rapid.T) Scope { return negation(inner.Draw(t, "x")) }),
		rapid.Custom(func(t *rapid.T) Scope { return conjunction(rapid.SliceOfN(inner, 2, 3).Draw(t, "and")) }),
		rapid.Custom(func(t *rapid.T) Scope { return disjunction(rapid.SliceOfN(inner, 2, 3).Draw(t, "or")) }),
	)
}
