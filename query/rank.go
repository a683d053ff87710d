package query

import (
	"cmp"
	"fmt"
	"math"
	"slices"
)

// The ways to rank a series by one number; sum is known to top alone.
var rankings = []string{"max", "mean", "min", "sum", "last", "l2norm", "area"}

// rankFunctions are top and its short names, which keep some of the groups.
// Groups of equal rank come in the order of their tags; those without any value
// come last. At an instant the value there is what is ranked.
func rankFunctions() map[string]function {
	all := map[string]function{
		"top": {
			params: []param{whole(1, MaxGroups, " of groups"), oneOf(rankings...), oneOf("asc", "desc")}, optional: 2,
			counts: true, unit: true,
			group: func(t term, in input) term {
				return ranking{int(in.number(0)), in.word(1, "mean"), in.word(2, "desc") == "asc"}.of(t, in)
			},
		},
	}
	short := func(name string, r ranking) {
		all[name] = function{counts: true, unit: true, group: r.of}
	}
	for _, n := range [...]int{5, 10, 15, 20} {
		short(fmt.Sprintf("top%d", n), ranking{n, "mean", false})
		short(fmt.Sprintf("bottom%d", n), ranking{n, "mean", true})
		for _, by := range rankings {
			if by != "sum" {
				short(fmt.Sprintf("top%d_%s", n, by), ranking{n, by, false})
				short(fmt.Sprintf("bottom%d_%s", n, by), ranking{n, by, true})
			}
		}
	}
	return all
}

// A ranking keeps n groups.
type ranking struct {
	n         int
	by        string
	ascending bool
}

func (r ranking) of(t term, in input) term {
	if in.at.instants != nil {
		return r.atInstants(t, in)
	}
	keys := make([]float64, len(t.series))
	for i := range t.series {
		keys[i] = r.key(t.series[i].points, t.series[i].interval)
	}
	kept := make([]series, 0, min(r.n, len(t.series)))
	for i, keep := range r.keep(keys) {
		if keep {
			kept = append(kept, t.series[i])
		}
	}
	t.series = kept
	return t.each(in.label)
}

// atInstants ranks the groups at each instant anew.
func (r ranking) atInstants(t term, in input) term {
	points := make([][]Point, len(t.series)) // not kept yet
	kept := make([][]Point, len(t.series))
	for i := range t.series {
		points[i] = t.series[i].points
	}
	var keys []float64
	var who []int
	for _, now := range in.at.instants {
		keys, who = keys[:0], who[:0]
		for i := range points {
			if len(points[i]) > 0 && points[i][0].Time == now {
				keys = append(keys, r.key(points[i][:1], 1))
				who = append(who, i)
			}
		}
		for k, keep := range r.keep(keys) {
			i := who[k]
			if keep {
				kept[i] = append(kept[i], points[i][0])
			}
			points[i] = points[i][1:]
		}
	}
	i := -1
	return t.each(func(s *series) {
		i++
		s.points = kept[i]
		in.label(s)
	}).withPoints()
}

// keep says which of the ranked are among the first n.
func (r ranking) keep(keys []float64) []bool {
	order := make([]int, len(keys))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int {
		x, y := keys[a], keys[b]
		switch {
		case math.IsNaN(x) || math.IsNaN(y):
			return -cmp.Compare(x, y) // NaN compares as the least
		case r.ascending:
			return cmp.Compare(x, y)
		default:
			return cmp.Compare(y, x)
		}
	})
	keep := make([]bool, len(keys))
	for _, i := range order[:min(r.n, len(order))] {
		keep[i] = true
	}
	return keep
}

// key is the number that points are ranked by, null without values. An area is
// signed; l2norm is the root of the sum of squares.
func (r ranking) key(points []Point, interval int64) float64 {
	acc, squares, last := accumulator{}, 0.0, null
	for _, p := range points {
		if !p.Null() {
			acc.add(p.Value)
			squares += p.Value * p.Value
			last = p.Value
		}
	}
	switch r.by {
	case "last":
		return last
	case "area":
		return acc.value("sum") * float64(interval)
	case "l2norm":
		if acc.n == 0 {
			return null
		}
		return math.Sqrt(squares)
	default:
		return acc.value(r.by)
	}
}
