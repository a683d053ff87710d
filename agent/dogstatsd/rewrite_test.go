package dogstatsd

import (
	"strings"
	"testing"
)

func TestRewrite(t *testing.T) {
	profiles := func(text string) []MapperProfile {
		p, err := ParseMapperProfiles(text)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	jobs := profiles(`[
		{"name":"jobs","prefix":"jobs.","mappings":[
			{"match":"jobs.*.done.*","name":"jobs.done","tags":{"job":"$1","queue":"$2"}},
			{"match":"jobs\\.(\\w+)_(\\d+)","match_type":"regex","name":"jobs.$2_of","tags":{"kind":"$1"}}]},
		{"name":"all","prefix":"*","mappings":[{"match":"*.up","name":"up","tags":{"what":"$1"}}]}]`)
	exempt := []string{"datadog.agent", "jvm"}
	for _, tt := range []struct {
		about string
		o     RewriteOptions
		line  string
		want  string // name and tags; "" when it is dropped
	}{
		{"nothing asked for", RewriteOptions{}, "a:1|c|#x:y", "a x:y"},
		{"a namespace", RewriteOptions{Namespace: "team"}, "a:1|c", "team.a"},
		{"a namespace that ends in a dot", RewriteOptions{Namespace: "team."}, "a:1|c", "team.a"},
		{"an exempt name", RewriteOptions{Namespace: "team", Exempt: exempt}, "jvm.heap:1|g", "jvm.heap"},
		{"exempt is a prefix without a dot", RewriteOptions{Namespace: "team", Exempt: exempt}, "jvmx:1|g", "jvmx"},
		{"wildcards become tags", RewriteOptions{Profiles: jobs}, "jobs.mail.done.fast:1|c|#x:y", "jobs.done x:y job:mail queue:fast"},
		{"a wildcard stops at a dot", RewriteOptions{Profiles: jobs}, "jobs.a.b.done.c:1|c", "jobs.a.b.done.c"},
		{"groups of a regular expression", RewriteOptions{Profiles: jobs}, "jobs.mail_7:1|c", "jobs.7_of kind:mail"},
		{"only the first profile that is for a name", RewriteOptions{Profiles: jobs}, "jobs.up:1|c", "jobs.up"},
		{"a profile for all names", RewriteOptions{Profiles: jobs}, "web.up:1|c", "up what:web"},
		{"mapped, then into the namespace", RewriteOptions{Profiles: jobs, Namespace: "n"}, "web.up:1|c", "n.up what:web"},
		{"blocked by its final name", RewriteOptions{Namespace: "n", Blocked: []string{"n.a"}}, "a:1|c", ""},
		{"blocked means the whole name", RewriteOptions{Blocked: []string{"a"}}, "ab:1|c", "ab"},
		{"blocked by prefix", RewriteOptions{Blocked: []string{"a"}, BlockedPrefixes: true}, "ab:1|c", ""},
	} {
		t.Run(tt.about, func(t *testing.T) {
			r, err := NewRewriter(tt.o)
			if err != nil {
				t.Fatal(err)
			}
			m, err := new(Parser).Metric([]byte(tt.line))
			if err != nil {
				t.Fatal(err)
			}
			got := ""
			if r.Rewrite(m) {
				got = string(m.Name)
				for _, tag := range m.Tags {
					got += " " + string(tag)
				}
			}
			if got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestBadMapperProfiles(t *testing.T) {
	for _, tt := range []struct{ text, want string }{
		{`{}`, "JSON list"},
		{`[{"name":"p","mappings":[]}]`, `"p"`},
		{`[{"name":"p","prefix":"a","mappings":[{"match":"a.*"}]}]`, "no name"},
		{`[{"name":"p","prefix":"a","mappings":[{"match":"a b","name":"x"}]}]`, "wildcard match holds"},
		{`[{"name":"p","prefix":"a","mappings":[{"match":"a.**","name":"x"}]}]`, "wildcard match holds"},
		{`[{"name":"p","prefix":"a","mappings":[{"match":"(","match_type":"regex","name":"x"}]}]`, "mapping 1"},
		{`[{"name":"p","prefix":"a","mappings":[{"match":"a","match_type":"glob","name":"x"}]}]`, "glob"},
	} {
		p, err := ParseMapperProfiles(tt.text)
		if err == nil {
			_, err = NewRewriter(RewriteOptions{Profiles: p})
		}
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: error %v, want one with %q", tt.text, err, tt.want)
		}
	}
}
