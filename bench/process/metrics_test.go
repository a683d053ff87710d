package process

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestReadSamples(t *testing.T) {
	var got []Sample
	err := ReadSamples(strings.NewReader(`# HELP a what
a 1
a{type="c"} 2.5
b{x="a b",y="}"} 1e+06
`), func(s Sample) { got = append(got, s) })
	want := []Sample{{"a", "", 1}, {"a", `type="c"`, 2.5}, {"b", `x="a b",y="}"`, 1e6}}
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("%v\n%s", err, diff)
	}
	if err := ReadSamples(strings.NewReader("<html>"), func(Sample) {}); err == nil {
		t.Error("a page was taken for metrics")
	}
}
