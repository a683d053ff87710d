package query

// ParseFormula parses one expression in which a bare name stands for the
// expression of that name, as the formulas of Datadog's v2 queries have it:
// "errors / default_zero(hits)". Errors are *Error. What Check and Eval report of
// the formula is placed in its text, at the name where a named expression is
// to blame; what they report of a part of a named expression is placed in that
// one's own text, so names' values should have passed Check before.
func ParseFormula(text string, names map[string]Expr) (Expr, error) { return parseOne(text, names) }

// substitute returns the expression that a bare name at start stands for.
func (p *parser) substitute(start int, name string) (Expr, error) {
	e, ok := p.names[name]
	switch {
	case p.names == nil:
		return nil, p.expected(`"{"`)
	case !ok:
		return nil, p.errorAt(start, Syntax, "%q is not the name of a query", name)
	}
	for range Queries(e) {
		if err := p.operand(); err != nil {
			return nil, err
		}
	}
	return rebase(e, p.at(start)), nil
}

// rebase returns e with another origin. Its parts keep theirs.
func rebase(e Expr, at node) Expr {
	switch e := e.(type) {
	case *Query:
		c := *e
		c.node = at
		return &c
	case *Number:
		return &Number{node: at, Value: e.Value}
	case *Unary:
		return &Unary{node: at, X: e.X}
	case *Binary:
		return &Binary{node: at, Op: e.Op, Left: e.Left, Right: e.Right}
	case *Call:
		c := *e
		c.node = at
		return &c
	}
	return e
}
