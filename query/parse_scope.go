package query

import "strings"

// scope parses what stands between the braces of a query. A scope is written
// either with symbols ("," and "!") or with words (AND, OR, NOT), never both.
// IN belongs to both, since it is unambiguous in either.
func (p *parser) scope() (Scope, error) {
	sp := &scopeParser{parser: p}
	first, err := sp.or()
	if err != nil {
		return nil, err
	}
	terms := []Scope{first}
	for p.peek() == ',' {
		if err := sp.symbol(","); err != nil {
			return nil, err
		}
		p.pos++
		t, err := sp.or()
		if err != nil {
			return nil, err
		}
		terms = append(terms, t)
	}
	return conjunction(terms), nil
}

// scopeParser remembers which of the two notations a scope uses.
type scopeParser struct {
	*parser
	usesSymbol string // "," or "!", once met
	usesWord   string // AND, OR or NOT, once met
}

// symbol notes that a symbol stands here; word, that an operator word was read.
func (p *scopeParser) symbol(s string) error {
	p.usesSymbol = s
	return p.unmixed()
}

func (p *scopeParser) word(w string) error {
	p.usesWord = w
	return p.unmixed()
}

func (p *scopeParser) unmixed() error {
	switch {
	case p.usesSymbol == "" || p.usesWord == "":
		return nil
	case p.usesWord == "NOT":
		return p.errorAt(p.pos, Syntax, "'NOT' cannot be mixed with '%s'", p.usesSymbol)
	default:
		return p.errorAt(p.pos, Syntax, "'AND' and 'OR' cannot be mixed with '%s'", p.usesSymbol)
	}
}

// list parses operands joined by the word op.
func (p *scopeParser) list(op string, next func() (Scope, error)) ([]Scope, error) {
	var terms []Scope
	for {
		t, err := next()
		if err != nil {
			return nil, err
		}
		terms = append(terms, t)
		p.space()
		start := p.pos
		if !p.keyword(op) {
			return terms, nil
		}
		end := p.pos
		p.pos = start // a mixture is reported where the operator stands
		if err := p.word(op); err != nil {
			return nil, err
		}
		p.pos = end
	}
}

func (p *scopeParser) or() (Scope, error) {
	terms, err := p.list("OR", p.and)
	if err != nil {
		return nil, err
	}
	return disjunction(terms), nil
}

// disjunction is the Or of terms, flat.
func disjunction(terms []Scope) Scope {
	var flat []Scope
	for _, t := range terms {
		if o, ok := t.(*Or); ok {
			flat = append(flat, o.Terms...)
			continue
		}
		flat = append(flat, t)
	}
	if len(flat) == 1 {
		return flat[0]
	}
	return &Or{Terms: flat}
}

func (p *scopeParser) and() (Scope, error) {
	terms, err := p.list("AND", p.not)
	if err != nil {
		return nil, err
	}
	return conjunction(terms), nil
}

// conjunction is the And of terms, flat and without the terms that always hold.
func conjunction(terms []Scope) Scope {
	var flat []Scope
	for _, t := range terms {
		switch t := t.(type) {
		case All:
		case *And:
			flat = append(flat, t.Terms...)
		default:
			flat = append(flat, t)
		}
	}
	switch len(flat) {
	case 0:
		return All{}
	case 1:
		return flat[0]
	default:
		return &And{Terms: flat}
	}
}

func (p *scopeParser) not() (Scope, error) {
	if err := p.enter(); err != nil {
		return nil, err
	}
	defer func() { p.depth-- }()
	start := p.pos
	switch {
	case p.peek() == '!':
		if err := p.symbol("!"); err != nil {
			return nil, err
		}
		p.pos++
		x, err := p.tag()
		if err != nil {
			return nil, err
		}
		return negation(x), nil
	case p.keyword("NOT"):
		end := p.pos
		p.pos = start
		if err := p.word("NOT"); err != nil {
			return nil, err
		}
		p.pos = end
		x, err := p.not()
		if err != nil {
			return nil, err
		}
		return negation(x), nil
	case p.accept('('):
		x, err := p.or()
		if err != nil {
			return nil, err
		}
		return x, p.expect(')')
	default:
		return p.tag()
	}
}

// negation is Not x, where two negations are none.
func negation(x Scope) Scope {
	if n, ok := x.(*Not); ok {
		return n.X
	}
	return &Not{X: x}
}

// tag parses "*", key:value, a bare tag, or key [NOT] IN (values).
func (p *scopeParser) tag() (Scope, error) {
	p.space()
	start := p.pos
	text, err := p.tagText()
	if err != nil {
		return nil, err
	}
	key, value, hasColon := strings.Cut(text, ":")
	switch {
	case text == "":
		return nil, p.expected(`a tag or "*"`)
	case text[0] == '$':
		return nil, p.templateVariable(start, text)
	case text == "*":
		return All{}, nil
	case !hasColon:
		return p.bare(text)
	case key == "":
		return nil, p.errorAt(start, Syntax, "expected a tag key before \":\"")
	case value == "":
		if value, err = p.tagText(); err != nil {
			return nil, err
		}
		if value == "" {
			return nil, p.expected("a tag value")
		}
	}
	if value[0] == '$' {
		return nil, p.templateVariable(start+strings.IndexByte(p.src[start:], '$'), value)
	}
	return &Tag{Key: key, Value: value}, nil
}

func (p *scopeParser) templateVariable(offset int, name string) error {
	return p.errorAt(offset, Syntax, "template variable %q works in dashboards only", name)
}

// bare parses what may follow text, a word without a colon.
func (p *scopeParser) bare(text string) (Scope, error) {
	start := p.pos
	not := p.keyword("NOT")
	if !p.keyword("IN") {
		p.pos = start
		return &Bare{Value: text}, nil
	}
	values, err := p.values()
	if err != nil {
		return nil, err
	}
	in := &In{Key: text, Values: values}
	if not {
		return negation(in), nil
	}
	return in, nil
}

// values parses "(" value *("," value) ")".
func (p *scopeParser) values() ([]string, error) {
	if err := p.expect('('); err != nil {
		return nil, err
	}
	var values []string
	for {
		v, err := p.tagText()
		if err != nil {
			return nil, err
		}
		if v == "" {
			return nil, p.expected("a tag value")
		}
		values = append(values, v)
		if p.accept(',') {
			continue
		}
		return values, p.expect(')')
	}
}
