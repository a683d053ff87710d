package query

import (
	"slices"
	"strings"
)

// Parse parses one expression. Errors are *Error.
func Parse(text string) (Expr, error) { return parseOne(text, nil) }

func parseOne(text string, names map[string]Expr) (Expr, error) {
	batch, err := parseBatch(text, names)
	if err != nil {
		return nil, err
	}
	if len(batch) > 1 {
		comma := strings.IndexByte(text[batch[0].Pos().End:], ',') + batch[0].Pos().End
		return nil, &Error{Query: text, Offset: comma, Message: "expected one query, not several separated by commas"}
	}
	return batch[0], nil
}

// ParseBatch parses expressions separated by top-level commas. One that does
// not parse fails the batch. Errors are *Error.
func ParseBatch(text string) ([]Expr, error) { return parseBatch(text, nil) }

func parseBatch(text string, names map[string]Expr) ([]Expr, error) {
	p := &parser{scanner: scanner{src: text}, names: names}
	if len(text) > MaxLength {
		return nil, p.errorAt(MaxLength, Limit, "query is longer than %d bytes", MaxLength)
	}
	var batch []Expr
	for {
		e, err := p.expr()
		if err != nil {
			return nil, err
		}
		batch = append(batch, e)
		if p.accept(',') {
			continue
		}
		if p.space(); p.pos < len(text) {
			return nil, p.expected("an operator, \",\" or the end")
		}
		return batch, nil
	}
}

// parser is a recursive-descent parser; each method parses the rule of its name
// in the grammar of the package comment.
type parser struct {
	scanner
	names    map[string]Expr // of a formula; nil where a bare name is an error
	depth    int
	operands int
}

// enter guards a level of recursion; the caller decrements p.depth on leaving.
func (p *parser) enter() error {
	p.depth++
	if p.depth > MaxDepth {
		return p.errorAt(p.pos, Limit, "query is nested more than %d levels deep", MaxDepth)
	}
	return nil
}

func (p *parser) operand() error {
	p.operands++
	if p.operands > MaxOperands {
		return p.errorAt(p.pos, Limit, "query has more than %d operands", MaxOperands)
	}
	return nil
}

// at returns the origin of a node that starts at start and ends here.
func (p *parser) at(start int) node { return node{src: p.src, span: Span{start, p.pos}} }

func (p *parser) expr() (Expr, error) { return p.binary("+-", p.term) }
func (p *parser) term() (Expr, error) { return p.binary("*/", p.factor) }

// binary parses operands joined by any of ops, associating to the left.
func (p *parser) binary(ops string, next func() (Expr, error)) (Expr, error) {
	p.space()
	start := p.pos
	left, err := next()
	if err != nil {
		return nil, err
	}
	for {
		op := p.peek()
		if op == 0 || strings.IndexByte(ops, op) < 0 {
			return left, nil
		}
		p.pos++
		right, err := next()
		if err != nil {
			return nil, err
		}
		left = &Binary{node: node{p.src, Span{start, right.Pos().End}}, Op: op, Left: left, Right: right}
	}
}

func (p *parser) factor() (Expr, error) {
	if err := p.enter(); err != nil {
		return nil, err
	}
	defer func() { p.depth-- }()
	c := p.peek()
	start := p.pos
	switch {
	case c == '(':
		p.pos++
		e, err := p.expr()
		if err != nil {
			return nil, err
		}
		return e, p.expect(')')
	case c == '-':
		p.pos++
		x, err := p.factor()
		if err != nil {
			return nil, err
		}
		return &Unary{node: p.at(start), X: x}, nil
	case isDigit(c) || c == '.':
		v, ok, err := p.number()
		if err != nil {
			return nil, err
		}
		if !ok {
			return nil, p.expected("a number")
		}
		return &Number{node: p.at(start), Value: v}, p.operand()
	default:
		return p.named(start)
	}
}

// named parses what starts with a name: a query or a function call.
func (p *parser) named(start int) (Expr, error) {
	name := p.name()
	if name == "" {
		return nil, p.expected("a query, a function or a number")
	}
	switch p.peek() {
	case ':':
		aggregator, ok := aggregatorNamed(name)
		if !ok {
			return nil, p.errorAt(start, Syntax, "unknown aggregator %q: expected avg, sum, min, max, count, stddev or a percentile such as p95", name)
		}
		return p.query(start, aggregator)
	case '{':
		p.pos = start
		return p.queryBody(start, Aggregator{})
	case '(':
		if name == "count" {
			if aggregator, ok, err := p.threshold(); err != nil {
				return nil, err
			} else if ok {
				return p.query(start, aggregator)
			}
		}
		return p.call(start, name)
	default:
		return p.substitute(start, name)
	}
}

func (p *parser) call(start int, name string) (Expr, error) {
	if err := p.expect('('); err != nil {
		return nil, err
	}
	x, err := p.expr()
	if err != nil {
		return nil, err
	}
	c := &Call{Func: name, X: x}
	for p.accept(',') {
		a, err := p.arg()
		if err != nil {
			return nil, err
		}
		c.Args = append(c.Args, a)
	}
	if err := p.expect(')'); err != nil {
		return nil, err
	}
	c.node = p.at(start)
	return c, nil
}

// arg parses an argument of a function or modifier.
func (p *parser) arg() (Arg, error) {
	c := p.peek()
	start := p.pos
	a := Arg{}
	var err error
	switch {
	case c == '\'' || c == '"':
		a.Kind = StringArg
		a.Text, err = p.quoted()
	case c == '{':
		a.Kind = KeysArg
		a.Keys, err = p.keys()
	case c == '-' || c == '.' || isDigit(c):
		var ok bool
		negative := p.accept('-')
		a.Number, ok, err = p.number()
		if err == nil && !ok {
			err = p.expected("a number")
		}
		if negative {
			a.Number = -a.Number
		}
	default:
		a.Kind = WordArg
		if a.Text = p.name(); a.Text == "" {
			err = p.expected("an argument")
		}
	}
	a.Pos = Span{start, p.pos}
	return a, err
}

// keys parses "{" key *("," key) "}".
func (p *parser) keys() ([]string, error) {
	if err := p.expect('{'); err != nil {
		return nil, err
	}
	var keys []string
	for {
		key, err := p.tagText()
		if err != nil {
			return nil, err
		}
		if key == "" {
			return nil, p.expected("a tag key")
		}
		if !slices.Contains(keys, key) {
			keys = append(keys, key)
		}
		if p.accept(',') {
			continue
		}
		if p.peek() != '}' {
			return nil, p.expected(`"," or "}"`)
		}
		p.pos++
		return keys, nil
	}
}
