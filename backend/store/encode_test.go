package store

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/prometheus/model/labels"
	"pgregory.net/rapid"

	"kelpie.dev/kelpie/metric"
	"kelpie.dev/kelpie/query"
)

func TestEncodeLabels(t *testing.T) {
	for _, tt := range []struct {
		name    string
		in      metric.Series
		want    map[string]string
		several []string
	}{
		{"plain", metric.Series{Name: "m", Host: "h", Tags: metric.NewTags("env:prod", "v:1.2:3")},
			map[string]string{"__name__": "m", "host": "h", "env": "prod", "v": "1.2:3"}, nil},
		{"several values", metric.Series{Name: "m", Tags: metric.NewTags("s:b", "s:a")},
			map[string]string{"__name__": "m", "s": "\x1fa\x1fb\x1f"}, []string{"s"}},
		{"bare", metric.Series{Name: "m", Tags: metric.NewTags("canary")},
			map[string]string{"__name__": "m", "canary": "\x1e"}, []string{"canary"}},
		{"bare and valued", metric.Series{Name: "m", Tags: metric.NewTags("x", "x:1")},
			map[string]string{"__name__": "m", "x": "\x1f\x1e\x1f1\x1f"}, []string{"x"}},
		{"empty value and empty key", metric.Series{Name: "m", Tags: metric.NewTags("k:", ":v")},
			map[string]string{"__name__": "m", "k": "\x1d", "__tag__": "v"}, nil},
		{"capital host", metric.Series{Name: "m", Host: "Web"},
			map[string]string{"__name__": "m", "host": "web", "__host__": "Web"}, nil},
		{"host beside a host tag", metric.Series{Name: "m", Host: "a", Tags: metric.NewTags("host:b")},
			map[string]string{"__name__": "m", "host": "\x1fa\x1fb\x1f", "__host__": "a"}, []string{"host"}},
		{"host tag alone", metric.Series{Name: "m", Tags: metric.NewTags("host:b")},
			map[string]string{"__name__": "m", "host": "b", "__host__": "\x1d"}, nil},
		{"reserved key", metric.Series{Name: "m", Tags: metric.NewTags("__name__:evil")},
			map[string]string{"__name__": "m", "__tag____name__": "evil"}, nil},
		{"device and UTF-8", metric.Series{Name: "m", Device: "sda", Tags: metric.NewTags("straße:ärger")},
			map[string]string{"__name__": "m", "device": "sda", "straße": "ärger"}, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l, several := encodeLabels(&tt.in, "")
			if d := cmp.Diff(tt.want, l.Map()); d != "" {
				t.Error(d)
			}
			if d := cmp.Diff(tt.several, several); d != "" {
				t.Error(d)
			}
			if d := cmp.Diff(tt.in, decodeLabels(l), equateEmpty); d != "" {
				t.Error("decoded:", d)
			}
		})
	}
}

var equateEmpty = cmp.Transformer("tags", func(t metric.Tags) []string { return append([]string{}, t...) })

// drawSeries draws a context with few distinct keys and values, so that the odd
// combinations come up.
func drawSeries(t *rapid.T) metric.Series {
	tag := rapid.SampledFrom([]string{"a:1", "a:2", "a:", "a", "b:1", "b:x:y", "b", ":z", "host:h1", "host:h2", "host", "device:d", "__name__:q", "__x", "ü:ß"})
	return metric.Series{
		Name:   "m",
		Host:   rapid.SampledFrom([]string{"", "h1", "H1", "h3"}).Draw(t, "host"),
		Device: rapid.SampledFrom([]string{"", "d", "sda"}).Draw(t, "device"),
		Tags:   metric.NewTags(rapid.SliceOfN(tag, 0, 6).Draw(t, "tags")...),
	}
}

func TestContextsSurviveTheRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in := drawSeries(t)
		l, _ := encodeLabels(&in, "")
		if name, dup := l.HasDuplicateLabelNames(); dup {
			t.Fatalf("label %q is there twice", name)
		}
		l.Range(func(label labels.Label) {
			if label.Name == "" || label.Value == "" {
				t.Fatalf("label %q=%q would be dropped by the TSDB", label.Name, label.Value)
			}
		})
		out := decodeLabels(l)
		if out.Host != in.Host || out.Device != in.Device {
			t.Fatalf("host %q device %q came back as %q %q", in.Host, in.Device, out.Host, out.Device)
		}
		// A tag that repeats the own host or device may be folded into it.
		if d := cmp.Diff(query.TagsOf(in), query.TagsOf(out), equateEmpty); d != "" {
			t.Fatal(d)
		}
	})
}

// TestMatchersLetThroughWhatScopesMatch holds the index look-up to the scope's
// own meaning: whatever a scope matches must pass its matchers.
func TestMatchersLetThroughWhatScopesMatch(t *testing.T) {
	scopes := []string{"*", "a:1", "!a:1", "a:*", "!a:*", "a:1,a:2", "b:x*", "!b:x*", "b:*y", "a IN (1,2)", "a NOT IN (1,2)", "a:1 OR b:1",
		"NOT (a:1 AND b:1)", "a", "!a", "host:h1", "!host:h1", "host:h*", "device:d", "a IN (1,*)", "a:1,!b:1", "ü:ß"}
	s := &Store{catalog: &catalog{several: make(map[string]bool)}}
	rapid.Check(t, func(t *rapid.T) {
		in := drawSeries(t)
		l, several := encodeLabels(&in, "")
		for _, key := range several {
			s.catalog.several[key] = true
		}
		text := rapid.SampledFrom(scopes).Draw(t, "scope")
		e, err := query.Parse("avg:m{" + text + "}")
		if err != nil {
			t.Fatal(err)
		}
		scope := e.(*query.Query).Scope
		ms, err := s.matchers(query.Selector{Metric: "m", Scope: scope})
		if err != nil {
			t.Fatal(err)
		}
		passed := true
		for _, m := range ms {
			passed = passed && m.Matches(l.Get(m.Name))
		}
		if scope.Match(query.TagsOf(in)) && !passed {
			t.Fatalf("{%s} matches %v, but not its matchers %v", text, query.TagsOf(in), ms)
		}
	})
}

func TestExactTermsAreIndexLookUps(t *testing.T) {
	s := &Store{catalog: &catalog{several: map[string]bool{"svc": true}}}
	for _, tt := range []struct {
		scope query.Scope
		want  string
	}{
		{&query.Tag{Key: "kube_deployment", Value: "web"}, `kube_deployment="web"`},
		{&query.Tag{Key: "svc", Value: "a"}, "svc=~\"a|.*\x1fa\x1f.*\""},
		{&query.Not{X: &query.Tag{Key: "env", Value: "dev"}}, `env!~"dev"`},
		{&query.In{Key: "env", Values: []string{"a", "b.c"}}, `env=~"a|b\\.c"`},
	} {
		ms, err := s.matchers(query.Selector{Metric: "m", Scope: tt.scope})
		if err != nil {
			t.Fatal(err)
		}
		want := labels.MatchEqual
		if ms[0].Type != want || ms[0].Value != "m" || len(ms) != 2 {
			t.Fatalf("matchers %v", ms)
		}
		got := ms[1].Name + ms[1].Type.String() + `"` + ms[1].Value + `"`
		if tt.want != got && tt.want != ms[1].String() {
			t.Errorf("%s becomes %s, want %s", tt.scope, got, tt.want)
		}
	}
}
