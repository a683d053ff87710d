package figure

import (
	"errors"
	"strings"
	"testing"
)

func TestReportNamesWhatIsMissing(t *testing.T) {
	var r Report
	var out strings.Builder
	if err := r.Finish(&out); err == nil {
		t.Error("a report without figures was taken for one")
	}
	r.Compare("rate", "x/s", HigherIsBetter, 30, Value{"slow", 5}, Value{"fast", 10})
	r.Limit("delay", "ms", 50, 100)
	out.Reset()
	if err := r.Finish(&out); err != nil {
		t.Error(err)
	}
	for _, want := range []string{
		`{"figure":"rate","unit":"x/s","kelpie":30,"peer":"fast","peer_value":10,"ratio":3}`,
		`{"figure":"delay","unit":"ms","kelpie":50,"peer":"limit","peer_value":100,"ratio":2}`,
	} {
		if !strings.Contains(out.String(), want+"\n") {
			t.Errorf("no line %s in\n%s", want, out.String())
		}
	}
	r.Failed("memory", errors.New("no such file"))
	out.Reset()
	if err := r.Finish(&out); err == nil || !strings.Contains(err.Error(), "memory") || !strings.Contains(out.String(), "no such file") {
		t.Errorf("error %v and %q, want both to tell of the failure", err, out.String())
	}
}
