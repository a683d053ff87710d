package query

import (
	"fmt"
	"slices"
	"strings"
)

// A param says what an argument may be: it returns what is wrong with it, or "".
type param func(a Arg) string

func aNumber(a Arg) string {
	if a.Kind != NumberArg {
		return "expected a number"
	}
	return ""
}

var (
	oneNumber  = []param{aNumber}
	twoNumbers = []param{aNumber, aNumber}
)

// whole is a whole number from low to high.
func whole(low, high int64, of string) param {
	return func(a Arg) string {
		if v := a.Number; a.Kind != NumberArg || v < float64(low) || v > float64(high) || v != float64(int64(v)) {
			return fmt.Sprintf("expected a whole number%s from %d to %d", of, low, high)
		}
		return ""
	}
}

// oneOf is one of words, quoted or bare.
func oneOf(words ...string) param {
	return func(a Arg) string {
		if a.Kind != StringArg && a.Kind != WordArg || !slices.Contains(words, a.Text) {
			return "expected '" + strings.Join(words, "', '") + "'"
		}
		return ""
	}
}

// checkCall refuses calls of what there is not, and arguments that are none.
func checkCall(c *Call) error {
	if err := check(c.X); err != nil {
		return err
	}
	f, ok := functionOf(c)
	if !ok {
		return refuse(c, c.span, "unknown function %q", c.Func)
	}
	if f.each == nil && !reads(c.X) {
		return refuse(c, c.X.Pos(), "function %q needs a query", c.Func)
	}
	if len(c.Args) > len(f.params) {
		return refuse(c, c.Args[len(f.params)].Pos, "function %q takes no such argument", c.Func)
	}
	for i, a := range c.Args {
		if wrong := f.params[i](a); wrong != "" {
			return refuse(c, a.Pos, "%s", wrong)
		}
	}
	if missing := len(f.params) - f.optional - len(c.Args); missing > 0 {
		return refuse(c, c.span, "function %q needs %d more argument(s)", c.Func, missing)
	}
	if len(c.Args) == 1 && c.Args[0].Kind == KeysArg {
		return checkLayer(c)
	}
	return nil
}

// reads reports whether there is a query in e.
func reads(e Expr) bool {
	for range Queries(e) {
		return true
	}
	return false
}
