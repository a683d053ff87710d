package env

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func lookup(vars map[string]string) func(string) (string, bool) {
	return func(name string) (string, bool) { v, ok := vars[name]; return v, ok }
}

func TestReader(t *testing.T) {
	r := New(lookup(map[string]string{
		"S": " a b ", "EMPTY": "", "BLANK": " ", "B": "True", "I": "42",
		"SEC": "30", "F": "2.5", "DUR": "1m30s", "L": "a:1, b:2\tc", "J": `["x y","z"]`,
	}))
	check := func(got, want any) {
		t.Helper()
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("(-want +got)\n%s", d)
		}
	}
	check(r.String("d", "S"), "a b")
	check(r.String("d", "EMPTY"), "d")
	check(r.String("d", "BLANK", "EMPTY", "S"), "a b")
	check(r.StringOrEmpty("d", "EMPTY"), "")
	check(r.StringOrEmpty("d", "S"), "a b")
	check(r.StringOrEmpty("d", "UNSET"), "d")
	check(r.Int(7, "EMPTY", "I"), 42)
	check(r.String("d", "UNSET", "S"), "a b")
	check(r.String("d", "UNSET"), "d")
	check(r.Bool(false, "B"), true)
	check(r.Bool(true, "EMPTY"), true)
	check(r.Int(7, "I"), 42)
	check(r.Int(7, "UNSET"), 7)
	check(r.Float(1, "F"), 2.5)
	check(r.Float(1, "UNSET"), 1.0)
	check(r.Seconds(time.Minute, "SEC"), 30*time.Second)
	check(r.Seconds(time.Minute, "DUR"), 90*time.Second)
	check(r.List("L"), []string{"a:1", "b:2", "c"})
	check(r.List("J"), []string{"x y", "z"})
	check(r.List("UNSET"), []string(nil))
	if err := r.Err(); err != nil {
		t.Errorf("unexpected error: %v", err)
	}
}

func TestReaderCollectsEveryBadValueWithoutEchoingIt(t *testing.T) {
	r := New(lookup(map[string]string{"B": "hunter2", "I": "hunter2", "S": "-5", "J": "[hunter2", "F": "NaN"}))
	if got := r.Bool(true, "B"); !got {
		t.Error("a bad value must yield the default")
	}
	r.Int(1, "I")
	if got := r.Float(3, "F"); got != 3 {
		t.Error("a bad number must yield the default")
	}
	r.Seconds(0, "S")
	r.List("J")
	err := r.Err()
	if err == nil {
		t.Fatal("no error")
	}
	for _, name := range []string{"variable B:", "variable I:", "variable S:", "variable J:", "variable F:"} {
		if !strings.Contains(err.Error(), name) {
			t.Errorf("error does not name %q: %v", name, err)
		}
	}
	if strings.Contains(err.Error(), "hunter2") {
		t.Errorf("error echoes the value: %v", err)
	}
}
