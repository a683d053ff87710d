package store

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/DataDog/sketches-go/ddsketch"

	"kelpie.dev/kelpie/metric"
)

// TestErrorBesideDDSketch writes values as agents do, in sketches of several hosts
// and times, reads them back, merges them, and holds their quantiles to the exact
// ones and to those of a DDSketch of all values, of the accuracy that Datadog
// documents for its distributions (1 %) and of ours.
func TestErrorBesideDDSketch(t *testing.T) {
	const documented = 0.01
	for _, tt := range []struct {
		name string
		draw func(*rand.Rand) float64
	}{
		{"latencies", func(r *rand.Rand) float64 { return math.Exp(r.NormFloat64()*1.5 + 3) }},
		{"two modes", func(r *rand.Rand) float64 { return 5 + r.ExpFloat64() + float64(r.IntN(10)/9)*2000 }},
		{"uniform", func(r *rand.Rand) float64 { return r.Float64() * 1000 }},
		{"signed", func(r *rand.Rand) float64 { return r.NormFloat64() * 1e6 }},
		{"integers", func(r *rand.Rand) float64 { return float64(r.IntN(20)) }},
		{"decades", func(r *rand.Rand) float64 { return math.Pow(10, r.Float64()*18-9) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			clock := &fixed{t0}
			s := open(t, Options{Now: clock.now, MinFree: -1})
			theirs, alike := ddsketchOf(t, documented), ddsketchOf(t, metric.SketchAccuracy)
			r := rand.New(rand.NewPCG(3, 4))
			var values []float64
			for i := range 50 {
				var b metric.SketchBuilder
				for range 400 {
					v := tt.draw(r)
					b.Add(v, 1)
					values = append(values, v)
					for _, d := range []*ddsketch.DDSketch{theirs, alike} {
						if err := d.Add(v); err != nil {
							t.Fatal(err)
						}
					}
				}
				writeSketches(t, s, dist("m", fmt.Sprint("h", i%5), nil, metric.SketchPoint{Time: t0 - int64(i)*10, Sketch: b.Sketch()}))
			}
			slices.Sort(values)
			var ours metric.Sketch
			for _, points := range readSketches(t, s, "m", "*") {
				for i := range points {
					ours.Merge(&points[i].Sketch)
				}
			}
			if ours.Count != int64(len(values)) || ours.Min != values[0] || ours.Max != values[len(values)-1] {
				t.Errorf("count, minimum and maximum are %d %v %v: they must be exact", ours.Count, ours.Min, ours.Max)
			}
			worst := map[string]float64{}
			for _, q := range []float64{0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.999} {
				worst["kelpie"] = max(worst["kelpie"], offRank(values, q, ours.Quantile(q)))
				worst["ddsketch 1%"] = max(worst["ddsketch 1%"], offRank(values, q, at(t, theirs, q)))
				worst["ddsketch 1/128"] = max(worst["ddsketch 1/128"], offRank(values, q, at(t, alike, q)))
			}
			t.Logf("worst relative error of 9 quantiles of %d values: %.5f; DDSketch of 1%%: %.5f, of 1/128: %.5f",
				len(values), worst["kelpie"], worst["ddsketch 1%"], worst["ddsketch 1/128"])
			if worst["kelpie"] > metric.SketchAccuracy || worst["kelpie"] > documented {
				t.Errorf("off by %v, more than %v", worst["kelpie"], metric.SketchAccuracy)
			}
			if worst["ddsketch 1%"] > documented*1.0001 || worst["ddsketch 1/128"] > metric.SketchAccuracy*1.0001 {
				t.Errorf("DDSketch is off by more than it promises: the measure is wrong: %v", worst)
			}
		})
	}
}

func ddsketchOf(t *testing.T, accuracy float64) *ddsketch.DDSketch {
	t.Helper()
	d, err := ddsketch.NewDefaultDDSketch(accuracy)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func at(t *testing.T, d *ddsketch.DDSketch, q float64) float64 {
	t.Helper()
	v, err := d.GetValueAtQuantile(q)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// offRank is how far got is, relatively, from the values of the ranks next to
// q*(n-1): a rank is rounded by Kelpie and cut by DDSketch.
func offRank(sorted []float64, q, got float64) float64 {
	rank := q * float64(len(sorted)-1)
	off := math.Inf(1)
	for _, want := range []float64{sorted[int(math.Floor(rank))], sorted[int(math.Ceil(rank))]} {
		if got == want {
			return 0
		}
		off = min(off, math.Abs(got-want)/math.Abs(want))
	}
	return off
}
