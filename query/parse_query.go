package query

import (
	"slices"
	"strconv"
	"strings"
)

// aggregatorNamed returns the aggregator called name.
func aggregatorNamed(name string) (Aggregator, bool) {
	switch name {
	case "avg", "sum", "min", "max", "count", "stddev":
		return Aggregator{Name: name}, true
	}
	digits, isPercentile := strings.CutPrefix(name, "p")
	if !isPercentile || digits == "" || !isDigit(digits[0]) {
		return Aggregator{}, false
	}
	v, err := strconv.ParseFloat(digits, 64)
	return Aggregator{Name: name}, err == nil && v >= 0 && v <= 100
}

// threshold parses "(v: v" cmp num ")", the rest of the aggregator that counts
// the values of a distribution. ok is false, and nothing consumed, when the
// parenthesis opens something else.
func (p *parser) threshold() (a Aggregator, ok bool, err error) {
	start := p.pos
	if !p.accept('(') || p.name() != "v" || !p.accept(':') {
		p.pos = start
		return a, false, nil
	}
	if p.name() != "v" {
		return a, false, p.expected(`"v"`)
	}
	p.space()
	for _, cmp := range []string{">=", "<=", "==", "!=", ">", "<"} {
		if strings.HasPrefix(p.src[p.pos:], cmp) {
			a = Aggregator{Name: "count", Cmp: cmp}
			p.pos += len(cmp)
			break
		}
	}
	if a.Cmp == "" {
		return a, false, p.expected("a comparison")
	}
	negative := p.accept('-')
	v, isNumber, err := p.number()
	switch {
	case err != nil:
		return a, false, err
	case !isNumber:
		return a, false, p.expected("a number")
	case negative:
		v = -v
	}
	a.Bound = v
	return a, true, p.expect(')')
}

// query parses the ":" after an aggregator and the rest of the query.
func (p *parser) query(start int, a Aggregator) (Expr, error) {
	if err := p.expect(':'); err != nil {
		return nil, err
	}
	return p.queryBody(start, a)
}

// queryBody parses metric "{" scope "}" [by] modifiers.
func (p *parser) queryBody(start int, a Aggregator) (Expr, error) {
	if err := p.operand(); err != nil {
		return nil, err
	}
	q := &Query{Aggregator: a, Metric: p.name()}
	if q.Metric == "" {
		return nil, p.expected("a metric name")
	}
	if err := p.expect('{'); err != nil {
		return nil, err
	}
	var err error
	if q.Scope, err = p.scope(); err != nil {
		return nil, err
	}
	if p.peek() != '}' {
		return nil, p.expected(`"}"`)
	}
	p.pos++
	end := p.pos
	if p.keywordBy() {
		if q.By, err = p.keys(); err != nil {
			return nil, err
		}
		end = p.pos
	}
	for p.accept('.') {
		m, err := p.modifier()
		if err != nil {
			return nil, err
		}
		q.Modifiers = append(q.Modifiers, m)
		end = p.pos
	}
	p.pos = end
	q.node = p.at(start)
	if _, err := q.options(); err != nil {
		return nil, err
	}
	return q, nil
}

// keywordBy consumes "by" before a "{".
func (p *parser) keywordBy() bool { return p.keyword("BY") }

func (p *parser) modifier() (Modifier, error) {
	p.space()
	start := p.pos
	m := Modifier{Name: p.name()}
	if !slices.Contains(modifierNames, m.Name) {
		return m, p.errorAt(start, Syntax, "unknown modifier %q: expected %s", m.Name, strings.Join(modifierNames, ", "))
	}
	if err := p.expect('('); err != nil {
		return m, err
	}
	for p.peek() != ')' {
		if len(m.Args) > 0 {
			if !p.accept(',') {
				return m, p.expected(`"," or ")"`)
			}
		}
		a, err := p.arg()
		if err != nil {
			return m, err
		}
		m.Args = append(m.Args, a)
	}
	p.pos++
	m.Pos = Span{start, p.pos}
	return m, nil
}
