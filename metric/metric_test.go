package metric

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func TestTags(t *testing.T) {
	in := []string{"b:2", "a:1", "", "b:2", "bare", "a:0:x"}
	tags := NewTags(in...)
	if d := cmp.Diff(Tags{"a:0:x", "a:1", "b:2", "bare"}, tags); d != "" {
		t.Errorf("(-want +got)\n%s", d)
	}
	if in[0] != "b:2" {
		t.Error("NewTags modified its argument")
	}
	if d := cmp.Diff([]string{"0:x", "1"}, tags.Values("a")); d != "" {
		t.Errorf("Values (-want +got)\n%s", d)
	}
	if got := tags.Values("bare"); got != nil {
		t.Errorf("a bare tag has no values, got %q", got)
	}
	if d := cmp.Diff(Tags{"a:0:x", "a:1", "b:2", "bare", "c"}, tags.Union("c", "a:1")); d != "" {
		t.Errorf("Union (-want +got)\n%s", d)
	}
	if !tags.Has("bare") || tags.Has("a") {
		t.Error("Has must match whole tags only")
	}
	if NewTags() == nil && len(NewTags("")) != 0 {
		t.Error("an empty tag is no tag")
	}
}

func TestNormalizeName(t *testing.T) {
	for _, c := range []struct {
		in, want string
		ok       bool
	}{
		{"flask.request.rate", "flask.request.rate", true},
		{"Case.Kept", "Case.Kept", true},
		{"1.abc", "abc", true},
		{"_a", "a", true},
		{"a b", "a_b", true},
		{"a  __b", "a_b", true},
		{"a_.b", "a.b", true},
		{"a._b", "a.b", true},
		{"a_", "a", true},
		{"é", "", false},
		{"123", "", false},
		{"", "", false},
		{"aé", "a", true},
		{strings.Repeat("a", 200), strings.Repeat("a", 200), true},
		{strings.Repeat("a", 201), strings.Repeat("a", 201), false},
	} {
		got, ok := NormalizeName(c.in)
		if got != c.want || ok != c.ok {
			t.Errorf("NormalizeName(%q) = %q, %v; want %q, %v", c.in, got, ok, c.want, c.ok)
		}
	}
}

func TestNormalizeTag(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{"kube_namespace:test", "kube_namespace:test"},
		{"Env:Prod", "env:prod"},
		{"a b", "a_b"},
		{"a  b__c", "a_b_c"},
		{"a_", "a"},
		{"9lives", "lives"},
		{":x", ":x"},
		{"k:ÄÖ", "k:äö"},
		{"url:http://x/y?z=1", "url:http://x/y_z_1"},
		{"!!!", ""},
		{"", ""},
		{strings.Repeat("a", 250), strings.Repeat("a", 200)},
		{strings.Repeat("a", 199) + "_b", strings.Repeat("a", 199)},
	} {
		if got := NormalizeTag(c.in); got != c.want {
			t.Errorf("NormalizeTag(%q) = %q, want %q", c.in, got, c.want)
		}
	}
}

func TestNormalizeIsIdempotent(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := rapid.String().Draw(t, "s")
		if name, ok := NormalizeName(s); ok {
			if again, ok := NormalizeName(name); again != name || !ok {
				t.Fatalf("name %q became %q, then %q", s, name, again)
			}
		}
		tag := NormalizeTag(s)
		if again := NormalizeTag(tag); again != tag {
			t.Fatalf("tag %q became %q, then %q", s, tag, again)
		}
	})
}

func TestTypeText(t *testing.T) {
	for _, typ := range []Type{Unspecified, Count, Rate, Gauge} {
		got, err := ParseType(typ.String())
		if err != nil || got != typ {
			t.Errorf("ParseType(%q) = %v, %v", typ.String(), got, err)
		}
	}
	if _, err := ParseType("meter"); err == nil {
		t.Error("an unknown type must be refused")
	}
}

func TestNormalizeDoesNotAllocateWhenCanonical(t *testing.T) {
	if n := testing.AllocsPerRun(100, func() {
		NormalizeName("flask.request.rate")
		NormalizeTag("kube_namespace:test")
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
