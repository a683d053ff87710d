package query

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// A Kind says which stage refused a query.
type Kind uint8

// The kinds of an Error.
const (
	Syntax      Kind = iota // the text is not in the grammar
	Unsupported             // the text is in the grammar, but cannot be evaluated: the message says why
	Limit                   // the text or its evaluation exceeds a limit of this package
)

// An Error is a query that cannot be parsed or evaluated, with the place in its
// text that is to blame.
type Error struct {
	Kind    Kind
	Query   string // the whole text given to Parse or ParseBatch
	Offset  int    // byte offset into Query; len(Query) when the end came too early
	Message string
}

func (e *Error) Error() string { return fmt.Sprintf("error at %d: %s", e.Offset, e.Message) }

// Column is the 1-based position of the error in characters.
func (e *Error) Column() int {
	return utf8.RuneCountInString(e.Query[:min(e.Offset, len(e.Query))]) + 1
}

// Caret renders the query and, on a second line, a caret under the error.
func (e *Error) Caret() string {
	oneLine := strings.Map(func(r rune) rune {
		if r == '\n' || r == '\r' || r == '\t' {
			return ' '
		}
		return r
	}, e.Query)
	return oneLine + "\n" + strings.Repeat(" ", e.Column()-1) + "^"
}
