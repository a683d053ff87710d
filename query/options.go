package query

import "strings"

const (
	defaultFill = 300         // seconds past a real sample that a gap is filled
	maxFill     = 600         // the longest that .fill may ask for
	maxRollup   = 366 * 86400 // seconds
)

// The grammar's modifiers, in the order in which errors name them.
var modifierNames = []string{"as_count", "as_rate", "rollup", "fill", "weighted"}

// options is what a query's modifiers say. Modifiers come in any order; of
// several of one kind the last counts.
type options struct {
	counting counting
	method   string // time aggregation; "" when not given
	seconds  int64  // bucket width; 0 when not given
	fill     string // "linear", "last", "zero", "null"; "" when not given
	limit    int64  // of fill, seconds
	weighted bool
}

// counting says how a count or rate is to be read.
type counting uint8

const (
	raw     counting = iota // as stored
	asCount                 // how many in each bucket
	asRate                  // how many in each bucket, per second
)

// options interprets q's modifiers.
func (q *Query) options() (options, error) {
	o := options{limit: defaultFill}
	for _, m := range q.Modifiers {
		var err error
		switch m.Name {
		case "as_count":
			o.counting = asCount
			err = q.atMost(m, 0)
		case "as_rate":
			o.counting = asRate
			err = q.atMost(m, 0)
		case "weighted":
			o.weighted = true
			err = q.atMost(m, 0)
		case "rollup":
			err = q.rollup(m, &o)
		case "fill":
			err = q.fill(m, &o)
		}
		if err != nil {
			return o, err
		}
	}
	return o, nil
}

// rollup interprets .rollup(method), .rollup(seconds) and .rollup(method, seconds).
func (q *Query) rollup(m Modifier, o *options) error {
	args := m.Args
	o.method, o.seconds = "", 0
	if len(args) == 0 {
		return q.wrong(m.Pos, "rollup needs a method, a number of seconds, or both")
	}
	if args[0].Kind == WordArg || args[0].Kind == StringArg {
		switch args[0].Text {
		case "avg", "sum", "min", "max", "count":
			o.method = args[0].Text
		default:
			return q.wrong(args[0].Pos, "unknown rollup method: expected avg, sum, min, max or count")
		}
		args = args[1:]
	}
	if len(args) == 0 {
		return nil
	}
	v := args[0].Number
	if args[0].Kind != NumberArg || v < 1 || v > maxRollup || v != float64(int64(v)) {
		return q.wrong(args[0].Pos, "expected a whole number of seconds from 1 to 31622400")
	}
	o.seconds = int64(v)
	return q.atMost(m, len(m.Args)-len(args)+1)
}

// fill interprets .fill(mode) and .fill(mode, limit).
func (q *Query) fill(m Modifier, o *options) error {
	o.limit = defaultFill
	if len(m.Args) == 0 || !strings.Contains(" linear last zero null ", " "+m.Args[0].Text+" ") || m.Args[0].Text == "" {
		return q.wrong(m.Pos, "fill needs a mode: linear, last, zero or null")
	}
	o.fill = m.Args[0].Text
	if len(m.Args) == 1 {
		return nil
	}
	v := m.Args[1].Number
	if m.Args[1].Kind != NumberArg || v < 0 || v > maxFill || v != float64(int64(v)) {
		return q.wrong(m.Args[1].Pos, "expected a whole number of seconds from 0 to 600")
	}
	o.limit = int64(v)
	return q.atMost(m, 2)
}

func (q *Query) atMost(m Modifier, n int) error {
	if len(m.Args) > n {
		return q.wrong(m.Args[n].Pos, m.Name+" takes no such argument")
	}
	return nil
}

func (q *Query) wrong(at Span, message string) error {
	return &Error{Kind: Syntax, Query: q.src, Offset: at.Start, Message: message}
}
