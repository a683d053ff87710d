package metric

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"
)

// Vectors of reference metrics-pipeline C.1.
func TestBinKey(t *testing.T) {
	for _, c := range []struct {
		v    float64
		want int16
	}{
		{0.5, 1293}, {1, 1338}, {1.5, 1364}, {2, 1383}, {5, 1442}, {10, 1487}, {42, 1579},
		{100, 1635}, {1000, 1784}, {1e6, 2229}, {1e9, 2675}, {-1, -1338}, {1e-9, 1},
		{0, 0}, {math.Copysign(0, -1), 0}, {9.9e-10, 0}, {-9.9e-10, 0}, {SketchMinValue, 1},
		{math.MaxFloat64, SketchMaxKey}, {-math.MaxFloat64, -SketchMaxKey}, {math.Inf(1), SketchMaxKey},
	} {
		if got := BinKey(c.v); got != c.want {
			t.Errorf("BinKey(%v) = %d, want %d", c.v, got, c.want)
		}
	}
	for _, c := range []struct {
		key  int16
		want float64
	}{
		{1338, 1}, {1487, 10.0757}, {-1487, -10.0757}, {0, 0}, {1, SketchMinValue},
		{math.MaxInt16, math.Inf(1)}, {math.MinInt16, math.Inf(-1)},
	} {
		if got := (Bin{Key: c.key}).Value(); math.Abs(got-c.want) > 1e-5*math.Abs(c.want) {
			t.Errorf("value of bin %d = %v, want %v", c.key, got, c.want)
		}
	}
	for key := -SketchMaxKey; key <= SketchMaxKey; key++ {
		b := Bin{Key: int16(key)}
		if got := BinKey(b.Value()); got != b.Key {
			t.Fatalf("the value %v of bin %d has key %d", b.Value(), b.Key, got)
		}
	}
}

func sketchOf(values ...float64) Sketch {
	var b SketchBuilder
	for _, v := range values {
		b.Add(v, 1)
	}
	return b.Sketch()
}

func TestBuilder(t *testing.T) {
	type sample struct{ v, rate float64 }
	for name, c := range map[string]struct {
		in   []sample
		want Sketch
	}{
		"empty":                {nil, Sketch{}},
		"two":                  {[]sample{{2, 1}, {1, 1}}, Sketch{Count: 2, Min: 1, Max: 2, Sum: 3, Bins: []Bin{{1338, 1}, {1383, 1}}}},
		"signs":                {[]sample{{1, 1}, {-1, 1}, {0, 1}, {-2, 1}}, Sketch{Count: 4, Min: -2, Max: 1, Sum: -2, Bins: []Bin{{-1383, 1}, {-1338, 1}, {0, 1}, {1338, 1}}}},
		"rate":                 {[]sample{{2, .1}, {4, .5}}, Sketch{Count: 12, Min: 2, Max: 4, Sum: 28, Bins: []Bin{{1383, 10}, {1427, 2}}}},
		"fractions carry over": {[]sample{{1, .3}, {1, .3}, {1, .3}}, Sketch{Count: 10, Min: 1, Max: 1, Sum: 10, Bins: []Bin{{1338, 10}}}},
		"rates out of range":   {[]sample{{1, 0}, {1, -1}, {1, 7}, {1, math.NaN()}}, Sketch{Count: 4, Min: 1, Max: 1, Sum: 4, Bins: []Bin{{1338, 4}}}},
		"not finite":           {[]sample{{math.NaN(), 1}, {math.Inf(1), 1}, {math.Inf(-1), .5}}, Sketch{}},
		"a bin is full": {[]sample{{1, 1e-300}, {1, 1e-300}, {2, 1}}, Sketch{Count: math.MaxUint32 + 1, Min: 1, Max: 2, Sum: math.MaxUint32 + 2,
			Bins: []Bin{{1338, math.MaxUint32}, {1383, 1}}}},
	} {
		var b SketchBuilder
		for range 2 { // the second time with the memory of the first
			b.Reset()
			b.owed = 0
			for _, s := range c.in {
				b.Add(s.v, s.rate)
			}
			if d := cmp.Diff(c.want, b.Sketch(), cmpopts.EquateEmpty()); d != "" {
				t.Errorf("%s (-want +got)\n%s", name, d)
			}
			if b.Count() != c.want.Count {
				t.Errorf("%s: count %d, want %d", name, b.Count(), c.want.Count)
			}
		}
	}
}

func TestQuantile(t *testing.T) {
	tens := sketchOf(10, 10, 10, 10)
	mixed := sketchOf(-5, 0, 1, 1, 7)
	for _, c := range []struct {
		s       Sketch
		q, want float64
	}{
		{tens, 0, 10}, {tens, .5, 10}, {tens, 1, 10}, // the bin's own value is 10.0757
		{mixed, -1, -5}, {mixed, 0, -5}, {mixed, .25, 0}, {mixed, .5, 1}, {mixed, .75, 1}, {mixed, 1, 7}, {mixed, 2, 7},
		{Sketch{}, .5, math.NaN()}, {mixed, math.NaN(), math.NaN()},
	} {
		if got := c.s.Quantile(c.q); got != c.want && !(math.IsNaN(got) && math.IsNaN(c.want)) {
			t.Errorf("Quantile(%v) of %v = %v, want %v", c.q, c.s, got, c.want)
		}
	}
	if got := mixed.Avg(); got != .8 {
		t.Errorf("average %v, want 0.8", got)
	}
	if got := new(Sketch).Avg(); !math.IsNaN(got) {
		t.Errorf("average of nothing is %v", got)
	}
}

// Every quantile of random data is within SketchAccuracy of the value that has
// its rank.
func TestQuantileError(t *testing.T) {
	draws := map[string]func(*rand.Rand) float64{
		"latencies": func(r *rand.Rand) float64 { return math.Exp(r.NormFloat64()*1.5 + 3) },
		"uniform":   func(r *rand.Rand) float64 { return r.Float64() * 1000 },
		"signed":    func(r *rand.Rand) float64 { return r.NormFloat64() * 1e6 },
		"integers":  func(r *rand.Rand) float64 { return float64(r.IntN(20)) },
		"decades":   func(r *rand.Rand) float64 { return math.Pow(10, r.Float64()*18-9) },
	}
	for name, draw := range draws {
		r := rand.New(rand.NewPCG(1, 2))
		worst := 0.0
		for n := range 200 {
			var b SketchBuilder
			values := make([]float64, 1+n*n/4)
			for i := range values {
				values[i] = draw(r)
				b.Add(values[i], 1)
			}
			slices.Sort(values)
			s := b.Sketch()
			for q := 0.0; q <= 1; q += 1.0 / 64 {
				want := values[int(math.RoundToEven(q*float64(len(values)-1)))]
				if got := s.Quantile(q); got != want {
					worst = max(worst, math.Abs(got-want)/math.Abs(want))
				}
			}
		}
		t.Logf("%s: worst relative error %.5f, bound %.5f", name, worst, SketchAccuracy)
		if worst > SketchAccuracy {
			t.Errorf("%s: a quantile is off by %v of its value, more than %v", name, worst, SketchAccuracy)
		}
	}
}

var anySketch = rapid.Custom(func(t *rapid.T) Sketch {
	var b SketchBuilder
	for _, v := range rapid.SliceOf(rapid.Float64Range(-1e12, 1e12)).Draw(t, "values") {
		b.Add(math.Round(v), rapid.SampledFrom([]float64{1, .5, .25, 1e-9}).Draw(t, "rate"))
	}
	return b.Sketch()
})

func clone(s Sketch) Sketch {
	s.Bins = slices.Clone(s.Bins)
	return s
}

func TestMergeLaws(t *testing.T) {
	same := cmp.Options{cmpopts.EquateEmpty(), cmpopts.EquateApprox(1e-9, 1e-3)}
	rapid.Check(t, func(t *rapid.T) {
		a, b, c := anySketch.Draw(t, "a"), anySketch.Draw(t, "b"), anySketch.Draw(t, "c")
		kept := clone(b)
		ab, ba := clone(a), clone(b)
		ab.Merge(&b)
		ba.Merge(&a)
		if d := cmp.Diff(ab, ba, same); d != "" {
			t.Fatalf("a+b is not b+a\n%s", d)
		}
		left, bc, right := clone(ab), clone(b), clone(a)
		left.Merge(&c)
		bc.Merge(&c)
		right.Merge(&bc)
		if d := cmp.Diff(left, right, same); d != "" {
			t.Fatalf("(a+b)+c is not a+(b+c)\n%s", d)
		}
		if d := cmp.Diff(kept, b, cmpopts.EquateEmpty()); d != "" {
			t.Fatalf("Merge changed its argument\n%s", d)
		}
	})
}

// A merge of parts is the sketch of the whole.
func TestMergeIsWhole(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		values := rapid.SliceOf(rapid.Custom(func(t *rapid.T) float64 {
			return float64(rapid.IntRange(-1000, 1000).Draw(t, "v"))
		})).Draw(t, "values")
		cut := rapid.IntRange(0, len(values)).Draw(t, "cut")
		got, more := sketchOf(values[:cut]...), sketchOf(values[cut:]...)
		got.Merge(&more)
		if d := cmp.Diff(sketchOf(values...), got, cmpopts.EquateEmpty()); d != "" {
			t.Fatalf("(-whole +merged)\n%s", d)
		}
	})
}

func TestCollapse(t *testing.T) {
	var b SketchBuilder
	for key := range 5000 {
		b.Add(Bin{Key: int16(key + 1)}.Value(), 1)
	}
	s := b.Sketch()
	if len(s.Bins) != SketchMaxBins || s.Count != 5000 {
		t.Fatalf("%d bins of %d values", len(s.Bins), s.Count)
	}
	if want := (Bin{Key: 5000 - SketchMaxBins + 1, N: 5000 - SketchMaxBins + 1}); s.Bins[0] != want {
		t.Errorf("lowest bin %v, want %v", s.Bins[0], want)
	}
	half, other := sketchOf(), sketchOf()
	for key := range 5000 {
		one := sketchOf(Bin{Key: int16(key + 1)}.Value())
		if key%2 == 0 {
			half.Merge(&one)
		} else {
			other.Merge(&one)
		}
	}
	half.Merge(&other)
	if d := cmp.Diff(s.Bins, half.Bins); d != "" {
		t.Errorf("merged in another order (-want +got)\n%s", d)
	}
}

func TestBuilderDoesNotAllocate(t *testing.T) {
	var b SketchBuilder
	values := latencies(1000)
	fill := func() {
		b.Reset()
		for i, v := range values {
			b.Add(v, 1-float64(i%2)/2)
		}
	}
	fill()
	if n := testing.AllocsPerRun(100, fill); n != 0 {
		t.Errorf("%v allocations in a bucket of %d values", n, len(values))
	}
}

// latencies are log-normal values over some two decades.
func latencies(n int) []float64 {
	r := rand.New(rand.NewPCG(3, 4))
	values := make([]float64, n)
	for i := range values {
		values[i] = math.Exp(r.NormFloat64() + 3)
	}
	return values
}

func BenchmarkSketch(b *testing.B) {
	values := latencies(1 << 16)
	b.Run("add", func(b *testing.B) {
		b.ReportAllocs()
		var sb SketchBuilder
		for i := 0; b.Loop(); i++ {
			sb.Add(values[i%len(values)], 1)
		}
	})
	b.Run("add sampled", func(b *testing.B) {
		b.ReportAllocs()
		var sb SketchBuilder
		for i := 0; b.Loop(); i++ {
			sb.Add(values[i%len(values)], .1)
		}
	})
	var sb SketchBuilder
	for _, v := range values[:1000] {
		sb.Add(v, 1)
	}
	s := sb.Sketch()
	b.Run("finish", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			sb.Sketch()
		}
	})
	b.Run("merge", func(b *testing.B) {
		b.ReportAllocs()
		into := s
		into.Bins = slices.Clone(s.Bins)
		for b.Loop() {
			into.Merge(&s)
		}
		b.ReportMetric(float64(len(s.Bins)), "bins")
	})
	b.Run("p95", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			s.Quantile(.95)
		}
	})
}
