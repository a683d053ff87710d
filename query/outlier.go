package query

import (
	"context"
	"math"
	"slices"
)

// outlierPercent is the share of a series' points that must be far off for MAD,
// unless the call says otherwise.
const outlierPercent = 20

// outliers returns all groups and marks those that behave unlike the others: see
// Result.Outlier. At each time the median of the groups is what is usual.
//   - MAD: a point is far off when it is more than tolerance times the median
//     absolute deviation, of all groups and times, from the median of its time;
//     an outlier is a group of which more than a percentage of points is.
//   - DBSCAN: two groups are near when their distance (the root of the squares
//     of what they differ by, at the times of both) is at most tolerance times
//     the median of the groups' distances from the median series. Groups that
//     are near, or near to those that are, form a cluster. When one has more
//     than half of the groups in it, the others are outliers; else none is.
func outliers(ctx context.Context, ev *evaluator, in input) (term, error) {
	if in.at.instants != nil {
		return term{}, in.noInstant()
	}
	t, err := ev.term(ctx, in.X, in.at)
	if err != nil || len(t.series) == 0 {
		return t, err
	}
	a := in.across(t)
	n := len(t.series)
	work := n * len(a.times)
	if in.word(0, "") == "DBSCAN" {
		work *= n
	}
	if err := ev.spend(in.Call, work); err != nil {
		return term{}, err
	}
	rows := make([][]float64, n)
	for i := range t.series {
		rows[i] = slices.Clone(a.values(&t.series[i]))
	}
	var far []bool
	if in.word(0, "") == "DBSCAN" {
		far = farClusters(rows, in.number(1))
	} else {
		percent := float64(outlierPercent)
		if len(in.Args) > 2 {
			percent = in.number(2)
		}
		far = farPoints(rows, in.number(1), percent)
	}
	i := -1
	return t.each(func(s *series) {
		i++
		s.outlier = far[i]
		in.label(s)
	}), nil
}

// medians is the median of rows at each time, null where none has a value.
func medians(rows [][]float64) []float64 {
	out := make([]float64, len(rows[0]))
	var column []float64
	for b := range out {
		column = column[:0]
		for _, row := range rows {
			if !math.IsNaN(row[b]) {
				column = append(column, row[b])
			}
		}
		out[b] = summary("median", column)
	}
	return out
}

func farPoints(rows [][]float64, tolerance, percent float64) []bool {
	usual := medians(rows)
	var distances []float64
	for _, row := range rows {
		for b, v := range row {
			if !math.IsNaN(v) {
				distances = append(distances, math.Abs(v-usual[b]))
			}
		}
	}
	bound := tolerance * madScale * summary("median", distances)
	far := make([]bool, len(rows))
	for i, row := range rows {
		points, off := 0, 0
		for b, v := range row {
			if !math.IsNaN(v) {
				points++
				if math.Abs(v-usual[b]) > bound {
					off++
				}
			}
		}
		far[i] = float64(off)*100 > percent*float64(points)
	}
	return far
}

func farClusters(rows [][]float64, tolerance float64) []bool {
	usual := medians(rows)
	distances := make([]float64, len(rows))
	for i, row := range rows {
		distances[i] = distance(row, usual)
	}
	near := tolerance * summary("median", distances)
	cluster := make([]int, len(rows)) // 0 when in none yet
	sizes := []int{0}
	for i := range rows {
		if cluster[i] != 0 {
			continue
		}
		id := len(sizes)
		sizes = append(sizes, 0)
		cluster[i] = id
		for reached := []int{i}; len(reached) > 0; {
			j := reached[0]
			reached = reached[1:]
			sizes[id]++
			for k := range rows {
				if cluster[k] == 0 && distance(rows[j], rows[k]) <= near {
					cluster[k] = id
					reached = append(reached, k)
				}
			}
		}
	}
	far := make([]bool, len(rows))
	for i := range rows {
		if largest := slices.Max(sizes); 2*largest > len(rows) {
			far[i] = sizes[cluster[i]] < largest
		}
	}
	return far
}

// distance is the root of the squares of what a and b differ by, at the times of both.
func distance(a, b []float64) float64 {
	squares := 0.0
	for i := range a {
		if d := a[i] - b[i]; !math.IsNaN(d) {
			squares += d * d
		}
	}
	return math.Sqrt(squares)
}
