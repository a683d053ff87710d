package store

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/prometheus/prometheus/model/histogram"
	"pgregory.net/rapid"

	"kelpie.dev/kelpie/metric"
)

func built(values ...float64) metric.Sketch {
	var b metric.SketchBuilder
	for _, v := range values {
		b.Add(v, 1)
	}
	return b.Sketch()
}

// TestHistogramIsLossless: every key has a bucket of its own and comes back.
func TestHistogramIsLossless(t *testing.T) {
	last := int32(math.MinInt32)
	for key := int16(1); key <= metric.SketchMaxKey; key++ {
		at := bucketOf(key)
		if at <= last || keyOf(at) != key {
			t.Fatalf("key %d has bucket %d, which has key %d; the bucket before is %d", key, at, keyOf(at), last)
		}
		last = at
	}
	rapid.Check(t, func(t *rapid.T) {
		values := rapid.SliceOf(rapid.OneOf(rapid.Float64Range(-1e15, 1e15), rapid.Float64Range(-1e-8, 1e-8), rapid.Just(0.))).Draw(t, "values")
		in := built(values...)
		h := histogramOf(&in)
		if err := h.Validate(); err != nil {
			t.Fatal(err)
		}
		got := metric.Sketch{Bins: make([]metric.Bin, 3)}
		sketchOf(&got, h)
		if d := cmp.Diff(in, got, cmpopts.EquateEmpty(), cmpopts.IgnoreFields(metric.Sketch{}, "Min", "Max")); d != "" {
			t.Fatalf("(-written +read)\n%s", d)
		}
	})
}

// TestBucketsForOthers measures what a reader that knows only native histograms
// is off by: values against the bounds of the bucket they are in.
func TestBucketsForOthers(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	worst := 0.0
	for range 100_000 {
		v := math.Exp(r.NormFloat64() * 3)
		s := built(v)
		h := histogramOf(&s)
		it := h.PositiveBucketIterator()
		if !it.Next() {
			t.Fatal("no bucket")
		}
		b := it.At()
		worst = max(worst, math.Abs(b.Lower-v)/v, math.Abs(b.Upper-v)/v)
	}
	t.Logf("a bucket's farther bound is at most %.4f of a value from it", worst)
	if worst > 0.0195 {
		t.Errorf("a value is %v of itself from the bounds of its bucket", worst)
	}
}

// A histogram that no sketch gives must not make a batch fail.
func TestInvalidHistogramIsAReason(t *testing.T) {
	h := &histogram.Histogram{Schema: sketchSchema, Count: 7}
	if got := refusedBy(h.Validate()); got != ReasonInvalid {
		t.Errorf("reason %q of %v, want %q", got, h.Validate(), ReasonInvalid)
	}
}
