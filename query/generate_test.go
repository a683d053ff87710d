package query

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// arguments holds, for functions that take any, arguments that Check accepts.
var arguments = map[string][]string{
	"clamp_min": {"2"}, "clamp_max": {"-2.5"}, "cutoff_min": {"3"}, "cutoff_max": {"1e3"},
	"is_greater": {"0"}, "is_less": {"-1"}, "is_between": {"-5, 5"},
	"top":            {"1", "2, 'max'", "3, 'l2norm', 'asc'", `2, "area", "desc"`, "1, last, asc", "2, 'sum', 'desc'"},
	"timeshift":      {"-1", "-20", "-45", "0", "-3600"},
	"calendar_shift": {"'-1d', 'UTC'", "'-1mo', 'Europe/Berlin'", `"-1w", "America/New_York"`},
	"moving_rollup":  {"1", "30, 'sum'", "45, 'median'", "100, max", "20, 'min'", "60, 'count'", "20, 'avg'"},
	"rollup":         {"'avg', 60", "max, 30", "'p95', 20", "stddev, 300", "'count', 7", "sum, 1", "min, 10"},
	"anomalies":      {"'basic', 2", "'agile', 1.5", "'robust', 3"},
	"forecast":       {"'linear', 1", "'seasonal', 2"},
	"outliers":       {"'DBSCAN', 2", "'MAD', 3", "'MAD', 1, 0"},
	"avg":            {"{host}"}, "sum": {"{team,host}"}, "min": {"{team}"}, "max": {"{host}"},
	"count": {"{host}"}, "stddev": {"{team}"}, "p50": {"{host}"}, "p99.9": {"{team}"},
}

// names are those of all functions.
func names() []string {
	all := slices.Collect(maps.Keys(functions))
	for name := range arguments {
		if _, ok := functions[name]; !ok {
			all = append(all, name)
		}
	}
	slices.Sort(all)
	return all
}

// Every function is drawn, and its arguments are those that it takes.
func TestEveryFunctionIsGenerated(t *testing.T) {
	for _, name := range names() {
		options := arguments[name]
		if options == nil {
			options = []string{""}
		}
		for _, args := range options {
			text := callText(name, "avg:m{*} by {host,team}", args)
			e, err := Parse(text)
			if err != nil {
				t.Fatal(err)
			}
			if err := Check(e); err != nil {
				t.Errorf("%s: %v", text, err)
			}
		}
	}
	if len(names()) < 100 {
		t.Errorf("only %d functions", len(names()))
	}
}

func callText(name, x, args string) string {
	if args != "" {
		x += ", " + args
	}
	return name + "(" + x + ")"
}

// anyText draws an expression over the metric m that parses. Most pass Check.
func anyText(depth int) *rapid.Generator[string] {
	return rapid.Custom(func(t *rapid.T) string {
		form := 0
		if depth > 0 {
			form = rapid.IntRange(0, 9).Draw(t, "form")
		}
		inner := func() string { return anyText(depth-1).Draw(t, "inner") }
		switch {
		case form < 2:
			aggregator := rapid.SampledFrom([]string{"avg", "sum", "min", "max", "count"}).Draw(t, "aggregator")
			by := rapid.SampledFrom([]string{"", "", " by {host}", " by {team,host}"}).Draw(t, "by")
			mods := rapid.SampledFrom([]string{"", ".rollup(10)", ".rollup(max, 30)", ".rollup(7)", ".as_count()", ".as_rate().rollup(60)", ".fill(last, 60).rollup(20)"}).Draw(t, "modifiers")
			return aggregator + ":m{*}" + by + mods
		case form == 2:
			return "-" + inner()
		case form == 3:
			op := rapid.SampledFrom([]string{" + ", " - ", " * ", " / "}).Draw(t, "operator")
			return "(" + inner() + op + rapid.SampledFrom([]string{"2", inner()}).Draw(t, "right") + ")"
		default:
			name := rapid.SampledFrom(names()).Draw(t, "function")
			args := ""
			if options := arguments[name]; options != nil {
				args = rapid.SampledFrom(options).Draw(t, "arguments")
			}
			return callText(name, inner(), args)
		}
	})
}

// anyChecked draws an expression that Check accepts.
func anyChecked(depth int) *rapid.Generator[Expr] {
	return rapid.Custom(func(t *rapid.T) Expr {
		text := anyText(depth).Draw(t, "text")
		e, err := Parse(text)
		if err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		if err := Check(e); err != nil {
			if strings.Contains(err.Error(), "unknown") {
				t.Fatalf("%s: %v", text, err)
			}
			return parseFor(t, "avg:m{*}")
		}
		return e
	})
}

func parseFor(t interface{ Fatalf(string, ...any) }, text string) Expr {
	e, err := Parse(text)
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return e
}
