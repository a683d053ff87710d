package query

import (
	"errors"
	"strings"
	"testing"
)

func TestParseFormula(t *testing.T) {
	names := map[string]Expr{}
	for name, text := range map[string]string{"a": "avg:hits{*} by {host}", "query1": "sum:errors{env:prod} by {host}", "sum": "x{*} + 1", "other": "avg:m{*} by {pod}"} {
		e, err := Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		names[name] = e
	}
	for _, tt := range []struct {
		formula, want string
		at            int // of the error that want is the text of; -1 for none
	}{
		{"a", "avg:hits{*} by {host}", -1},
		{"query1 / a * 100", "sum:errors{env:prod} by {host} / avg:hits{*} by {host} * 100", -1},
		{"clamp_min(default_zero(query1), 2)", "clamp_min(default_zero(sum:errors{env:prod} by {host}), 2)", -1},
		{"2 * sum", "2 * (x{*} + 1)", -1},
		{"a + avg:hits{*}", "avg:hits{*} by {host} + avg:hits{*}", -1},
		{"a + b", `"b" is not the name of a query`, 4},
		{"a +", "expected a query, a function or a number", 3},
		{"a, query1", "expected one query, not several", 1},
		{"1 + a(2)", `unknown function "a"`, 4},
		{"  a + other", "operands are grouped by different keys", 6},
		{strings.Repeat("a+", MaxOperands) + "a", "operands", 2*MaxOperands + 1},
	} {
		e, err := ParseFormula(tt.formula, names)
		if err == nil {
			err = Check(e)
		}
		if tt.at < 0 {
			if err != nil || e.String() != tt.want {
				t.Errorf("%s: %v, %v; want %s", tt.formula, e, err, tt.want)
			}
			continue
		}
		var bad *Error
		if !errors.As(err, &bad) || !strings.Contains(bad.Message, tt.want) || bad.Offset != tt.at || bad.Query != tt.formula {
			t.Errorf("%s: %+v, want an error at %d with %q", tt.formula, err, tt.at, tt.want)
		}
	}
	if _, err := Parse("a"); err == nil {
		t.Error("a bare name is a query where there are no names")
	}
}

func FuzzParseFormula(f *testing.F) {
	a, err := Parse("avg:hits{*} by {host}")
	if err != nil {
		f.Fatal(err)
	}
	f.Add("100 * a / clamp_min(a, 1) - -a")
	f.Fuzz(func(t *testing.T, text string) {
		e, err := ParseFormula(text, map[string]Expr{"a": a})
		var bad *Error
		switch {
		case err != nil && (!errors.As(err, &bad) || bad.Query != text || bad.Offset > len(text)):
			t.Errorf("%q: %#v", text, err)
		case err == nil && (e.Pos().Start < 0 || e.Pos().End > len(text)):
			t.Errorf("%q: the formula is at %v", text, e.Pos())
		}
	})
}
