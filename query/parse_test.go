package query

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"kelpie.dev/kelpie/metric"
)

// sameMeaning compares expressions without their places in the text.
var sameMeaning = []cmp.Option{
	cmpopts.IgnoreUnexported(Query{}, Number{}, Unary{}, Binary{}, Call{}),
	cmpopts.IgnoreFields(Modifier{}, "Pos"),
	cmpopts.IgnoreFields(Arg{}, "Pos"),
}

func TestPrint(t *testing.T) {
	f := func(text, want string) {
		t.Helper()
		e, err := Parse(text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			return
		}
		if got := e.String(); got != want {
			t.Errorf("%s\n got %s\nwant %s", text, got, want)
		}
	}
	f("avg:m{*}", "avg:m{*}")
	f(" m { * } ", "m{*}")
	f("avg:nginx.net.request_per_s{kube_container_name:nginx}.rollup(30)", "avg:nginx.net.request_per_s{kube_container_name:nginx}.rollup(30)")
	f("sum:M.x{Env: PROD , !b}by{ Host,host , pod}.as_count( ).rollup( avg,60 )", "sum:M.x{env:prod,!b} by {host,pod}.as_count().rollup(avg, 60)")
	f("avg:m{a:1 AND b:2}", "avg:m{a:1,b:2}")
	f("avg:m{not a:1 or b:2 and (c:3 or d:4)}", "avg:m{NOT a:1 OR (b:2 AND (c:3 OR d:4))}")
	f("avg:m{a not in (x,y*)}", "avg:m{a NOT IN (x,y*)}")
	f("avg:m{NOT a IN (x) AND NOT (b OR c)}", "avg:m{a NOT IN (x) AND NOT (b OR c)}")
	f("avg:m{NOT NOT a:1}", "avg:m{a:1}")
	f("avg:m{*,a:1}", "avg:m{a:1}")
	f("avg:m{image:reg.io/a/b:1.2}", "avg:m{image:reg.io/a/b:1.2}")
	f("a{*}+b{*}*c{*}", "a{*} + b{*} * c{*}")
	f("(a{*}+b{*})*c{*}", "(a{*} + b{*}) * c{*}")
	f("a{*}-(b{*}-c{*})-d{*}", "a{*} - (b{*} - c{*}) - d{*}")
	f("-(a{*}+1)*--2.50", "-(a{*} + 1) * --2.5")
	f("1e3*.5*a{*}", "1000 * 0.5 * a{*}")
	f("p99.9:d{*}", "p99.9:d{*}")
	f("count(v : v>= -10):d{*}", "count(v: v>=-10):d{*}")
	f(`top(a{*} by {x}, 10, "mean", 'it"s')`, `top(a{*} by {x}, 10, 'mean', 'it"s')`)
	f(`f(g(a{*}), -3600, word, {A, b}, "it's")`, `f(g(a{*}), -3600, word, {a,b}, "it's")`)
}

func TestPositions(t *testing.T) {
	const text = "1 + (abs( avg:m{*}.rollup(30) ) - b{*})"
	e, err := Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	sum := e.(*Binary)
	difference := sum.Right.(*Binary)
	call := difference.Left.(*Call)
	leaf := call.X.(*Query)
	f := func(e Expr, want string) {
		t.Helper()
		if got := text[e.Pos().Start:e.Pos().End]; got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	f(sum.Left, "1")
	f(call, "abs( avg:m{*}.rollup(30) )")
	f(leaf, "avg:m{*}.rollup(30)")
	f(difference, "abs( avg:m{*}.rollup(30) ) - b{*}")
	if at := leaf.Modifiers[0].Pos; text[at.Start:at.End] != "rollup(30)" {
		t.Errorf("modifier at %v", at)
	}
}

func TestScopeNodes(t *testing.T) {
	e, err := Parse("m{a:1, !b:x*, c IN (u,v), d}")
	if err != nil {
		t.Fatal(err)
	}
	want := &And{Terms: []Scope{
		&Tag{"a", "1"}, &Not{&Tag{"b", "x*"}}, &In{"c", []string{"u", "v"}}, &Bare{"d"},
	}}
	if diff := cmp.Diff(Scope(want), e.(*Query).Scope); diff != "" {
		t.Error(diff)
	}
	if !(&Tag{"a", "1"}).Exact() || (&Tag{"b", "x*"}).Exact() {
		t.Error("Exact does not tell a wildcard")
	}
}

func TestBatch(t *testing.T) {
	batch, err := ParseBatch("a{x:1,y:2} by {p,q},top(b{*}, 1, 'x,y'),c{z IN (1,2)}")
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range batch {
		got = append(got, e.String())
	}
	want := []string{"a{x:1,y:2} by {p,q}", "top(b{*}, 1, 'x,y')", "c{z IN (1,2)}"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	_, err = Parse("(a{*}) , b{*}")
	var e *Error
	if !errors.As(err, &e) || e.Offset != 7 {
		t.Errorf("two queries where one is expected: %v", err)
	}
}

func TestError(t *testing.T) {
	_, err := Parse("avg:m{größe:1}\n+ x{")
	var e *Error
	if !errors.As(err, &e) {
		t.Fatal(err)
	}
	if got, want := e.Error(), `error at 21: expected a tag or "*"`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if e.Column() != 20 || e.Kind != Syntax {
		t.Errorf("column %d, kind %d", e.Column(), e.Kind)
	}
	if got, want := e.Caret(), "avg:m{größe:1} + x{\n                   ^"; got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestLimits(t *testing.T) {
	f := func(text, want string) {
		t.Helper()
		_, err := Parse(text)
		var e *Error
		if !errors.As(err, &e) || e.Kind != Limit || !strings.Contains(e.Message, want) {
			t.Errorf("%.20s…: got %v, want %q", text, err, want)
		}
	}
	f(strings.Repeat(" ", MaxLength)+"a{*}", "longer than 16384 bytes")
	f(strings.Repeat("(", MaxLength), "more than 64 levels")
	f(strings.Repeat("-", MaxLength), "more than 64 levels")
	f(strings.Repeat("f(", MaxLength/2), "more than 64 levels")
	f("a{"+strings.Repeat("NOT ", 1000)+"x}", "more than 64 levels")
	f("a{"+strings.Repeat("(", 1000), "more than 64 levels")
	f("a{*}"+strings.Repeat("+1", MaxOperands), "more than 256 operands")
}

func TestBadText(t *testing.T) {
	for _, text := range []string{"", ",", "a{*},", "a{*", "a{\xff}", "1e400*a{*}", "f(a{*}, )", "f(a{*}, 'x)", "count(v: v)", "a{:x}", "a{x:}", "a{*}..rollup(1)", "\x00", "a{*}\x00"} {
		_, err := ParseBatch(text)
		var e *Error
		if !errors.As(err, &e) {
			t.Errorf("%q: got %v", text, err)
		}
	}
}

// FuzzGlob holds glob to the plain recursive definition of "*".
func FuzzGlob(f *testing.F) {
	f.Add("a*c", "abc")
	f.Add("*x*y*", "axbyc")
	f.Add("**", "")
	f.Fuzz(func(t *testing.T, pattern, s string) {
		if len(pattern) > 12 || len(s) > 12 {
			return
		}
		if got, want := glob(pattern, s), globPlain(pattern, s); got != want {
			t.Errorf("glob(%q, %q) = %v", pattern, s, got)
		}
	})
}

func globPlain(pattern, s string) bool {
	switch {
	case pattern == "":
		return s == ""
	case pattern[0] == '*':
		return globPlain(pattern[1:], s) || s != "" && globPlain(pattern, s[1:])
	default:
		return s != "" && s[0] == pattern[0] && globPlain(pattern[1:], s[1:])
	}
}

func TestTagsOf(t *testing.T) {
	f := func(s metric.Series, want ...string) {
		t.Helper()
		if diff := cmp.Diff(metric.NewTags(want...), TagsOf(s)); diff != "" {
			t.Error(diff)
		}
	}
	f(metric.Series{Tags: metric.NewTags("a:1")}, "a:1")
	f(metric.Series{Tags: metric.NewTags("z:1", "a:1"), Host: "Node-1"}, "a:1", "host:node-1", "z:1")
	f(metric.Series{Tags: metric.NewTags("a:1"), Device: "SDA"}, "a:1", "device:sda")
	f(metric.Series{Host: "h", Device: "d"}, "device:d", "host:h")
}

func TestScopeMatch(t *testing.T) {
	tags := metric.NewTags("env:prod", "team:x", "team:y", "canary", "url:http://a/b")
	f := func(scope string, want bool) {
		t.Helper()
		e, err := Parse("m{" + scope + "}")
		if err != nil {
			t.Fatal(err)
		}
		if got := e.(*Query).Scope.Match(tags); got != want {
			t.Errorf("{%s}: %v", scope, got)
		}
	}
	f("*", true)
	f("env:prod", true)
	f("en:v:prod", false)
	f("env:pro", false)
	f("env:p*d", true)
	f("env:*", true)
	f("envi:*", false)
	f("team:x,team:y", true)
	f("team:x,team:z", false)
	f("!team:x", false)
	f("!team:z", true)
	f("!zone:a", true)
	f("canary", true)
	f("can*", true)
	f("prod", false)
	f("url:http://a/*", true)
	f("team in (z, y)", true)
	f("team NOT IN (z)", true)
	f("zone NOT IN (z)", true)
	f("NOT (env:prod AND team:z)", true)
	f("env:dev OR team:x AND canary", true)
	f("(env:dev OR team:x) AND zone:a", false)
	f("NOT *", false)
}
