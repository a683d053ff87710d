package clusteragent

import (
	"slices"
	"strings"
	"testing"
)

func TestTheWorstComesFirst(t *testing.T) {
	rows := []Row{
		{Metric: "unused", State: stateUnused},
		{Metric: "b", State: stateValid, Age: 5},
		{Metric: "a", State: stateValid, Age: 5},
		{Metric: "late", State: stateValid, Age: 90},
		{Metric: "aging", State: stateAging},
		{Metric: "stands", State: stateStandsIn},
		{Metric: "none", State: "NoData"},
		{Metric: "stale", State: "Stale", Age: 600},
	}
	slices.SortFunc(rows, worseFirst)
	var got []string
	for i := range rows {
		got = append(got, rows[i].Metric)
	}
	if want := "stale none stands aging late a b unused"; strings.Join(got, " ") != want {
		t.Errorf("order %q, want %q", strings.Join(got, " "), want)
	}
}

// An application that is idle for days, as its annotation says it may be, is no
// reason to wake anybody.
func TestAgesThatCount(t *testing.T) {
	for state, want := range map[string]bool{stateValid: true, stateAging: true, "NoData": true, "Stale": true, stateUnused: false, stateStandsIn: false} {
		if r := (Row{State: state, Age: 3 * 24 * 3600}); r.counts() != want {
			t.Errorf("the age of a metric that is %s counts: %v, want %v", state, r.counts(), want)
		}
	}
}
