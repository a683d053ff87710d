// Package nearest finds the names that a misspelt one was most likely meant to
// be. It knows spelling only, not what the names stand for.
package nearest

import (
	"cmp"
	"slices"
	"strings"
)

// To returns at most n of the candidates that are close to name, the closest
// first: those that differ in few characters, and those of which one contains
// the other.
func To(name string, candidates []string, n int) []string {
	type scored struct {
		name string
		cost int
	}
	var near []scored
	wanted := strings.ToLower(name)
	for _, c := range candidates {
		have := strings.ToLower(c)
		cost := distance(wanted, have)
		contained := len(wanted) > 2 && strings.Contains(have, wanted) || len(have) > 2 && strings.Contains(wanted, have)
		if contained {
			cost = min(cost, 2)
		}
		if cost <= max(2, len(wanted)/3) {
			near = append(near, scored{c, cost})
		}
	}
	slices.SortFunc(near, func(a, b scored) int {
		return cmp.Or(cmp.Compare(a.cost, b.cost), strings.Compare(a.name, b.name))
	})
	names := make([]string, 0, min(n, len(near)))
	for _, s := range near[:min(n, len(near))] {
		names = append(names, s.name)
	}
	return names
}

// distance is the number of bytes to insert, delete or replace to make b of a.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			above := row[j+1]
			cost := diagonal
			if a[i] != b[j] {
				cost = 1 + min(diagonal, above, row[j])
			}
			diagonal, row[j+1] = above, cost
		}
	}
	return row[len(b)]
}
