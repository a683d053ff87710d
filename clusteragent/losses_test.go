package clusteragent

import (
	"strings"
	"testing"
)

// TestLossesAreToldAtTheirEdges follows one metric: what is told, and when nothing is.
func TestLossesAreToldAtTheirEdges(t *testing.T) {
	l := losses{}
	good := Row{Metric: "rps", Query: "q", State: stateValid, Valid: true, Value: "12.5"}
	bad := Row{Metric: "rps", Query: "q", State: "Stale", Error: "Stale: newest point is old", Value: "12.5", Age: 130}
	aging, unused := good, Row{Metric: "rps", Query: "q", State: stateUnused}
	aging.State = stateAging
	for i, s := range []struct {
		rows []Row
		want string // the reason told; "" for none
		says string
	}{
		{[]Row{bad}, "", ""}, // it never had one
		{[]Row{good}, "", ""},
		{[]Row{aging}, "", ""}, // still served
		{[]Row{bad}, metricLost, "replicas are held: Stale: newest point is old (the last was 12.5, 2m10s old)"},
		{[]Row{bad}, "", ""}, // once
		{[]Row{good}, metricFound, "has a value again: 12.5"},
		{[]Row{unused}, "", ""}, // nobody reads it
		{[]Row{bad}, "", ""},    // a new use begins anew
		{[]Row{good}, "", ""},
		{nil, "", ""},        // it is gone
		{[]Row{bad}, "", ""}, // another of the same name
	} {
		turns := l.look(s.rows)
		got, text := "", ""
		for _, x := range turns {
			got, text = got+x.reason, x.text
		}
		if got != s.want || !strings.Contains(text, s.says) {
			t.Errorf("step %d: told %q (%s), want %q (%s)", i, got, text, s.want, s.says)
		}
	}
	if l.look(nil); len(l) != 0 {
		t.Errorf("%d metrics are remembered that are gone", len(l))
	}
}
