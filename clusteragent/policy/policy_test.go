package policy

import (
	"encoding/json"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"kelpie.dev/kelpie/query"
)

func parse(t *testing.T, text string) *Policy {
	t.Helper()
	p, err := Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestParseNamesTheOffendingEntry(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"", ""},
		{"mode: open", ""},
		{`{"mode":"namespaced","namespaces":[{"match":"team-*","scope":["kube_namespace:%%namespace%%"],"metrics":5,"cost":10}]}`, ""},
		{"mode: shut", `policy.mode is "shut"`},
		{"mood: open", `unknown field "mood"`},
		{"namespaces: [{match: a}]", "policy.namespaces has no effect in mode open"},
		{"{mode: namespaced, namespaces: [{match: a}, {match: ''}]}", "policy.namespaces[1].match"},
		{"{mode: namespaced, namespaces: [{match: 'a[b]'}]}", "policy.namespaces[0].match"},
		{"{mode: namespaced, namespaces: [{match: a, scope: ['team:web', 'team:*']}]}", "policy.namespaces[0].scope[1]"},
		{"{mode: namespaced, namespaces: [{match: a, scope: ['a:b OR c:d']}]}", "policy.namespaces[0].scope[0]"},
		{"{mode: namespaced, namespaces: [{match: a, scope: ['a:b} by {x']}]}", "policy.namespaces[0].scope[0]"},
		{"{mode: namespaced, namespaces: [{match: a, scope: ['*']}]}", "policy.namespaces[0].scope[0]"},
		{"{mode: namespaced, namespaces: [{match: a, metrics: -1}]}", "policy.namespaces[0]: metrics"},
		{strings.Repeat(" ", maxText+1), "at most"},
	} {
		_, err := Parse(c.text)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("Parse(%.80q) = %v, want %q in it", c.text, err, c.want)
		}
	}
}

func TestRefers(t *testing.T) {
	apart := parse(t, "mode: namespaced")
	for _, c := range []struct {
		name          string
		p             *Policy
		from, allowed string
		want          bool
	}{
		{"nil", nil, "b", "", true},
		{"open", parse(t, ""), "b", "", true},
		{"own", apart, "a", "", true},
		{"another's", apart, "b", "", false},
		{"lent", apart, "b", "c, b", true},
		{"lent to all", apart, "b", "*", true},
		{"lent to another", apart, "b", "bb,c", false},
		{"a pattern lends nothing", apart, "b", "b*", false},
	} {
		no := c.p.Refers(c.from, "a", "rps", c.allowed)
		if (no == nil) != c.want {
			t.Errorf("%s: %v, want allowed %v", c.name, no, c.want)
		}
		if no != nil && (no.Reason != Forbidden || !strings.Contains(no.Message, "datadogmetric@a:rps") || !strings.Contains(no.Message, AllowedNamespaces)) {
			t.Errorf("%s: %+v does not say what to do", c.name, no)
		}
	}
}

// The required tag must hold for whatever is read, not merely stand somewhere.
func TestJudgeScopes(t *testing.T) {
	p := parse(t, "{mode: namespaced, namespaces: [{match: 'team-*', scope: ['kube_namespace:%%namespace%%']}, {match: '*', scope: ['team:x', 'env:prod']}, {match: team-a}]}")
	for _, c := range []struct {
		namespace, query string
		want             bool
	}{
		{"team-a", "avg:m{kube_namespace:team-a}", true},
		{"team-a", "avg:m{KUBE_NAMESPACE:Team-A}", true}, // tags are lower-cased
		{"team-a", "avg:m{*}", false},
		{"team-a", "avg:m{kube_namespace:team-b}", false},
		{"team-a", "avg:m{kube_namespace:team-*}", false},
		{"team-a", "avg:m{kube_namespace:team-ab}", false},
		{"team-a", "avg:m{env:prod,kube_namespace:team-a} by {pod}.rollup(60)", true},
		{"team-a", "avg:m{!kube_namespace:team-a}", false},
		{"team-a", "avg:m{kube_namespace:team-a OR env:prod}", false},
		{"team-a", "avg:m{(kube_namespace:team-a AND env:prod) OR (env:dev AND kube_namespace:team-a)}", true},
		{"team-a", "avg:m{kube_namespace:team-a AND (env:prod OR kube_namespace:team-b)}", true},
		{"team-a", "avg:m{kube_namespace IN (team-a)}", true},
		{"team-a", "avg:m{kube_namespace IN (team-a,team-b)}", false},
		{"team-a", "avg:m{kube_namespace IN (team-*)}", false},
		{"team-a", "avg:m{kube_namespace NOT IN (team-a)}", false},
		{"team-a", "avg:m{NOT (NOT kube_namespace:team-a)}", true},
		{"team-a", "avg:m{NOT (NOT kube_namespace:team-a OR env:prod)}", true},
		{"team-a", "avg:m{NOT (NOT kube_namespace:team-a AND env:prod)}", false},
		{"team-a", "avg:m{kube_namespace:team-a} / avg:n{*}", false},
		{"team-a", "avg:m{kube_namespace:team-a} / default_zero(avg:n{kube_namespace:team-a})", true},
		{"team-a", "-top(avg:n{*} by {x}, 1)", false},
		{"team-a", "avg:m{kube_namespace:team-a},avg:n{*}", false},
		{"team-a", "avg:m{kube_namespace:team-a", false},
		{"other", "avg:m{team:x}", false}, // both tags of its rule
		{"other", "avg:m{team:x,env:prod}", true},
	} {
		_, no := p.Judge(c.namespace, Query{Text: c.query})
		if (no == nil) != c.want {
			t.Errorf("%s may ask %s: %v, want allowed %v", c.namespace, c.query, no, c.want)
		}
	}
	if _, no := parse(t, "").Judge("team-a", Query{Text: "avg:m{*}"}); no != nil {
		t.Errorf("the open policy refuses: %v", no)
	}
}

// What implies finds must be so: nothing that a scope lets pass lacks the tag.
func TestImpliesIsSound(t *testing.T) {
	tag := &query.Tag{Key: "k", Value: "a"}
	atoms := []query.Scope{query.All{}, tag, &query.Tag{Key: "k", Value: "b"}, &query.Tag{Key: "k", Value: "*"}, &query.Bare{Value: "k"},
		&query.In{Key: "k", Values: []string{"a"}}, &query.In{Key: "k", Values: []string{"a", "b"}}}
	grow := func(in []query.Scope) []query.Scope {
		out := in
		for _, x := range in {
			out = append(out, &query.Not{X: x})
			for _, y := range in {
				out = append(out, &query.And{Terms: []query.Scope{x, y}}, &query.Or{Terms: []query.Scope{x, y}})
			}
		}
		return out
	}
	found := 0
	for _, s := range grow(grow(atoms)) {
		if !implies(s, tag) {
			continue
		}
		found++
		for _, tags := range [][]string{nil, {"k:b"}, {"k"}, {"k", "k:b"}, {"k:c"}} {
			if s.Match(tags) {
				t.Fatalf("%s is taken to imply %s, and matches %v", s, tag, tags)
			}
		}
	}
	if found < 100 {
		t.Errorf("only %d scopes imply the tag: is it tested?", found)
	}
}

func TestOtherLanguagesAndPlainNames(t *testing.T) {
	p := parse(t, `{mode: namespaced, namespaces: [
		{match: scoped, scope: ['team:x']}, {match: lent, scope: ['team:x'], otherLanguages: true}, {match: counted, metrics: 3}]}`)
	for _, c := range []struct {
		namespace string
		want      bool
	}{{"scoped", false}, {"lent", true}, {"free", true}} {
		if _, no := p.Judge(c.namespace, Query{Text: "sum(up)", Language: "promql"}); (no == nil) != c.want {
			t.Errorf("%s: PromQL %v, want allowed %v", c.namespace, no, c.want)
		}
	}
	for _, c := range []struct {
		namespace, query string
		want             bool
	}{
		{"scoped", "avg:m{*}.rollup(30)", false}, {"scoped", "avg:m{team:x}.rollup(30)", true},
		{"counted", "avg:m{team:x}.rollup(30)", false}, {"free", "avg:m{*}.rollup(30)", true},
	} {
		if no := p.Plain(c.namespace, Query{Text: c.query}); (no == nil) != c.want {
			t.Errorf("%s: plain %s %v, want allowed %v", c.namespace, c.query, no, c.want)
		}
	}
}

// A template's value may be a secret to who reads the refusal.
func TestRefusalsDoNotShowTheQuery(t *testing.T) {
	p := parse(t, "{mode: namespaced, namespaces: [{match: '*', scope: ['team:x']}]}")
	for _, text := range []string{"avg:m{key:hunter2}", "avg:hunter2{*}", "avg:m{key:hunter2", "hunter2"} {
		if _, no := p.Judge("a", Query{Text: text}); no == nil || strings.Contains(no.Message, "hunter2") {
			t.Errorf("%s: %v", text, no)
		}
	}
}

func TestCost(t *testing.T) {
	for _, c := range []struct {
		query  string
		window time.Duration
		want   int
	}{
		{"avg:m{*}", 5 * time.Minute, 1},
		{"avg:m{*} / avg:n{*}", 5 * time.Minute, 2},
		{"avg:m{*} + avg:n{*}", 90 * time.Minute, 4},
		{"avg:m{*}", 24 * time.Hour, 24},
	} {
		e, err := query.Parse(c.query)
		if err != nil {
			t.Fatal(err)
		}
		if got := Cost(e, c.window); got != c.want {
			t.Errorf("Cost(%s, %s) = %d, want %d", c.query, c.window, got, c.want)
		}
	}
	e, err := query.Parse("week_before(avg:m{*})")
	if err != nil {
		t.Fatal(err)
	}
	if got := Cost(e, 5*time.Minute); got < 7*24 {
		t.Errorf("a query that looks back a week costs %d", got)
	}
}

func TestQuota(t *testing.T) {
	p := parse(t, "{mode: namespaced, namespaces: [{match: few, metrics: 2}, {match: dear, cost: 10}]}")
	at := func(s int) time.Time { return time.Unix(int64(s), 0) }
	q := NewQuota(p)
	set := func(ns, name string, created, cost int, wantRefused bool, wantChanged ...string) {
		t.Helper()
		no, changed := q.Set(ns, name, at(created), cost)
		if (no != nil) != wantRefused || no != nil && no.Reason != QuotaExceeded {
			t.Errorf("%s/%s: %v, want refused %v", ns, name, no, wantRefused)
		}
		if d := cmp.Diff(wantChanged, changed); d != "" && len(wantChanged)+len(changed) > 0 {
			t.Errorf("%s/%s: changed (-want +got)\n%s", ns, name, d)
		}
	}
	set("free", "a", 1, 1000, false)
	set("few", "c", 3, 1, false)
	set("few", "b", 2, 1, false)
	set("few", "a", 1, 1, false, "c") // told late, and older: c gives way
	set("few", "c", 3, 1, true)
	set("few", "c", 3, 1, true)
	if d := cmp.Diff([]string{"c"}, q.Delete("few", "a")); d != "" {
		t.Errorf("a deletion lets the next in (-want +got)\n%s", d)
	}
	set("few", "c", 3, 1, false)
	set("dear", "a", 1, 6, false)
	set("dear", "b", 2, 6, true)
	set("dear", "c", 3, 4, false)           // the dear one does not shut it out
	set("dear", "a", 1, 1, false, "b", "c") // an edit makes room for b, and none for c
	set("dear", "c", 3, 3, false)
	if got := q.Delete("dear", "unknown"); got != nil {
		t.Errorf("deleting what is not there changes %v", got)
	}
}

// The example is a policy, and means what its comments say.
func TestExample(t *testing.T) {
	raw, err := os.ReadFile("../../examples/policy/values.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var values struct {
		ClusterAgent struct {
			Policy json.RawMessage `json:"policy"`
		} `json:"clusterAgent"`
	}
	if err := yaml.Unmarshal(raw, &values); err != nil {
		t.Fatal(err)
	}
	p := parse(t, string(values.ClusterAgent.Policy))
	for _, c := range []struct {
		namespace, query string
		want             bool
	}{
		{"team-web", "avg:rps{kube_namespace:team-web}", true},
		{"team-web", "avg:rps{kube_namespace:team-shop}", false},
		{"team-web", "avg:rps{*}", false},
		{"shared-metrics", "max:queue.lag{env:prod,queue:orders}", true},
		{"shared-metrics", "max:queue.lag{env:test}", false},
		{"platform", "avg:rps{*}", true},
		{"someone", "avg:rps{kube_namespace:someone}", true},
		{"someone", "avg:rps{env:prod}", false},
	} {
		if _, no := p.Judge(c.namespace, Query{Text: c.query, Window: 5 * time.Minute}); (no == nil) != c.want {
			t.Errorf("%s from %s: refused with %v, want it to pass: %v", c.query, c.namespace, no, c.want)
		}
	}
	raw, err = os.ReadFile("../../examples/policy/lent.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var lent metav1.PartialObjectMetadata
	if err := yaml.Unmarshal(raw, &lent); err != nil {
		t.Fatal(err)
	}
	for from, want := range map[string]bool{"team-web": true, "team-shop": true, "team-data": false} {
		if no := p.Refers(from, lent.Namespace, lent.Name, lent.Annotations[AllowedNamespaces]); (no == nil) != want {
			t.Errorf("%s names the lent metric: %v, want it to pass: %v", from, no, want)
		}
	}
	if r := p.rule("team-web"); r.Metrics != 50 || r.Cost != 200 {
		t.Errorf("the quota of a team is %+v", r)
	}
}
