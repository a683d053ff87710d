package query

import (
	"strconv"
	"strings"
)

// A Span is a half-open range of byte offsets in the parsed text.
type Span struct{ Start, End int }

// An Expr is a node of a parsed query: *Query, *Number, *Unary, *Binary or
// *Call. The set is closed. Nodes are immutable after parsing and safe for
// concurrent use. String prints an expression that parses to an equal one.
type Expr interface {
	String() string
	Pos() Span
	text() string // the text that was parsed, for errors
}

// node is what every parsed node knows about its origin.
type node struct {
	src  string
	span Span
}

// Pos returns where the node stands in the text given to Parse or ParseBatch.
func (n node) Pos() Span    { return n.span }
func (n node) text() string { return n.src }

// An Aggregator is the space aggregator before a metric name.
type Aggregator struct {
	Name  string  // "avg", "sum", "min", "max", "count", "stddev", "p95", …; "" when omitted, which means avg
	Cmp   string  // of count(v: v>=10): the comparison, else ""
	Bound float64 // of count(v: v>=10): the number
}

func (a Aggregator) String() string {
	if a.Cmp == "" {
		return a.Name
	}
	return "count(v: v" + a.Cmp + formatNumber(a.Bound) + ")"
}

// percentile returns the quantile, from 0 to 1, that a percentile such as p95
// asks for. ok is false for any other aggregator.
func (a Aggregator) percentile() (q float64, ok bool) {
	digits, ok := strings.CutPrefix(a.Name, "p")
	if !ok {
		return 0, false
	}
	q, err := strconv.ParseFloat(digits, 64)
	return q / 100, err == nil
}

// needsDistribution reports whether a reads what only a distribution has.
func (a Aggregator) needsDistribution() bool {
	_, ok := a.percentile()
	return ok || a.Cmp != "" || a.Name == "stddev"
}

// A Query is a leaf: one metric, selected, rolled up and aggregated.
type Query struct {
	node
	Aggregator Aggregator
	Metric     string // as written; case matters
	Scope      Scope
	By         []string   // lower-cased group keys in the order written, without duplicates
	Modifiers  []Modifier // in the order written
}

// A Modifier is one ".name(args)" after a query.
type Modifier struct {
	Name string
	Args []Arg
	Pos  Span
}

// A Number is a scalar.
type Number struct {
	node
	Value float64
}

// Unary is -X.
type Unary struct {
	node
	X Expr
}

// Binary is Left Op Right; Op is one of + - * /.
type Binary struct {
	node
	Op          byte
	Left, Right Expr
}

// A Call is a function applied to an expression.
type Call struct {
	node
	Func string
	X    Expr
	Args []Arg // the arguments after X
}

// ArgKind tells the forms of an argument apart.
type ArgKind uint8

// The forms of an argument.
const (
	NumberArg ArgKind = iota // Number
	StringArg                // Text, quoted in the query
	WordArg                  // Text, bare
	KeysArg                  // Keys, in braces
)

// An Arg is an argument of a function or modifier.
type Arg struct {
	Kind   ArgKind
	Number float64
	Text   string
	Keys   []string
	Pos    Span
}

func (a Arg) String() string {
	switch a.Kind {
	case NumberArg:
		return formatNumber(a.Number)
	case StringArg:
		if strings.Contains(a.Text, "'") {
			return `"` + a.Text + `"`
		}
		return "'" + a.Text + "'"
	case KeysArg:
		return "{" + strings.Join(a.Keys, ",") + "}"
	default:
		return a.Text
	}
}

func (m Modifier) String() string { return "." + m.Name + "(" + joinArgs(m.Args) + ")" }

func (q *Query) String() string {
	by := ""
	if len(q.By) > 0 {
		by = " by {" + strings.Join(q.By, ",") + "}"
	}
	return q.head() + "{" + q.Scope.String() + "}" + by + q.tail()
}

// head is the query up to its scope.
func (q *Query) head() string {
	if q.Aggregator.Name == "" {
		return q.Metric
	}
	return q.Aggregator.String() + ":" + q.Metric
}

// tail is the query's modifiers.
func (q *Query) tail() string {
	var b strings.Builder
	for _, m := range q.Modifiers {
		b.WriteString(m.String())
	}
	return b.String()
}

func (n *Number) String() string { return formatNumber(n.Value) }

func (u *Unary) String() string { return "-" + operand(u.X, 3) }

func (b *Binary) String() string {
	p := precedence(b)
	return operand(b.Left, p) + " " + string(b.Op) + " " + operand(b.Right, p+1)
}

func (c *Call) String() string {
	s := c.Func + "(" + c.X.String()
	if len(c.Args) > 0 {
		s += ", " + joinArgs(c.Args)
	}
	return s + ")"
}

// operand prints e, in parentheses when it binds less tightly than least.
func operand(e Expr, least int) string {
	if precedence(e) < least {
		return "(" + e.String() + ")"
	}
	return e.String()
}

func precedence(e Expr) int {
	b, ok := e.(*Binary)
	switch {
	case !ok:
		return 3
	case b.Op == '*' || b.Op == '/':
		return 2
	default:
		return 1
	}
}

func joinArgs(args []Arg) string {
	parts := make([]string, len(args))
	for i, a := range args {
		parts[i] = a.String()
	}
	return strings.Join(parts, ", ")
}

func formatNumber(v float64) string { return strconv.FormatFloat(v, 'g', -1, 64) }

// Queries calls yield for every leaf of e from left to right until yield
// returns false. It has the shape of an iter.Seq once e is bound.
func Queries(e Expr) func(yield func(*Query) bool) {
	return func(yield func(*Query) bool) { visit(e, yield) }
}

func visit(e Expr, yield func(*Query) bool) bool {
	switch e := e.(type) {
	case *Query:
		return yield(e)
	case *Unary:
		return visit(e.X, yield)
	case *Binary:
		return visit(e.Left, yield) && visit(e.Right, yield)
	case *Call:
		return visit(e.X, yield)
	}
	return true
}
