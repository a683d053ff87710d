package source

import (
	"errors"
	"fmt"
)

// Shape checks only that a query is one query: balanced brackets, closed quotes
// and no comma outside them. A comma would make two queries of it, and every
// answer after it in the batch would belong to somebody else's autoscaler. It
// is the check for a source whose full language is not ours to judge. Places are
// counted in bytes from 0, as package query does.
func Shape(query string) error {
	if query == "" {
		return errors.New("the query is empty")
	}
	closing := map[byte]byte{'(': ')', '[': ']', '{': '}'}
	type opened struct {
		c  byte
		at int
	}
	var stack []opened
	var quote byte
	quoteAt := 0
	for i := 0; i < len(query); i++ {
		c := query[i]
		switch {
		case quote != 0:
			if c == quote {
				quote = 0
			}
		case c == '"' || c == '\'':
			quote, quoteAt = c, i
		case c == '(' || c == '[' || c == '{':
			stack = append(stack, opened{c, i})
		case c == ')' || c == ']' || c == '}':
			if len(stack) == 0 || closing[stack[len(stack)-1].c] != c {
				return fmt.Errorf("error at %d: unexpected %q", i, c)
			}
			stack = stack[:len(stack)-1]
		case c == ',' && len(stack) == 0:
			return fmt.Errorf("error at %d: a comma outside of brackets would make two queries of it", i)
		}
	}
	if quote != 0 {
		return fmt.Errorf("error at %d: quote %q is never closed", quoteAt, quote)
	}
	if len(stack) > 0 {
		last := stack[len(stack)-1]
		return fmt.Errorf("error at %d: %q is never closed", last.at, last.c)
	}
	return nil
}
