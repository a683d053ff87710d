package payload

import (
	"encoding/hex"
	"errors"
	"math"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"kelpie.dev/kelpie/metric"
)

// sketchVector is reference metrics-pipeline C.1: computed from Datadog's
// schema, not from this code.
const sketchVector = "0a43" + "0a0164" + "120168" + "2203613a62" + "3a36" + "0880e2cfaa06" + "1002" + "19000000000000f03f" + "210000000000000040" +
	"29000000000000f83f" + "310000000000000840" + "3a04f414ce15" + "42020101" + "1200"

func buildSketch(values ...float64) metric.Sketch {
	var b metric.SketchBuilder
	for _, v := range values {
		b.Add(v, 1)
	}
	return b.Sketch()
}

func TestSketchVector(t *testing.T) {
	want := []metric.Distribution{{Name: "d", Host: "h", Tags: metric.Tags{"a:b"},
		Points: []metric.SketchPoint{{Time: 1700000000, Sketch: buildSketch(1, 2)}}}}
	body, err := hex.DecodeString(sketchVector)
	if err != nil {
		t.Fatal(err)
	}
	got, err := DecodeSketches(body)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("decoded (-want +got)\n%s", d)
	}
	if enc := hex.EncodeToString(AppendSketches(nil, want)); enc != sketchVector {
		t.Errorf("encoded %s\nwant    %s", enc, sketchVector)
	}
	if enc := hex.EncodeToString(AppendSketches(nil, nil)); enc != "1200" {
		t.Errorf("no sketches are %s, want the metadata alone", enc)
	}
}

func distributionGen() *rapid.Generator[metric.Distribution] {
	return rapid.Custom(func(t *rapid.T) metric.Distribution {
		return metric.Distribution{
			Name: rapid.StringN(1, 20, 40).Draw(t, "name"),
			Host: rapid.String().Draw(t, "host"),
			Tags: metric.NewTags(rapid.SliceOf(rapid.String()).Draw(t, "tags")...),
			Points: rapid.SliceOf(rapid.Custom(func(t *rapid.T) metric.SketchPoint {
				var b metric.SketchBuilder
				for _, v := range rapid.SliceOf(rapid.Float64()).Draw(t, "values") {
					b.Add(v, rapid.SampledFrom([]float64{1, .1, 1e-7}).Draw(t, "rate"))
				}
				return metric.SketchPoint{Time: rapid.Int64().Draw(t, "t"), Sketch: b.Sketch()}
			})).Draw(t, "points"),
		}
	})
}

func TestSketchRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in := rapid.SliceOf(distributionGen()).Draw(t, "distributions")
		got, err := DecodeSketches(AppendSketches(nil, in))
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(in, got, cmpopts.EquateEmpty(), cmpopts.EquateNaNs()); d != "" {
			t.Fatalf("(-want +got)\n%s", d)
		}
	})
}

// A bin above 16 bits goes out as Datadog's agent sends it: the remainder, then
// full ones.
func TestWireBins(t *testing.T) {
	for _, c := range []struct {
		n    uint32
		want []uint32
	}{
		{0, nil}, {1, []uint32{1}}, {65535, []uint32{65535}}, {65536, []uint32{1, 65535}}, {3 * 65535, []uint32{65535, 65535, 65535}},
		{200000, []uint32{3395, 65535, 65535, 65535}},
	} {
		var got []uint32
		for b := range wireBins([]metric.Bin{{Key: 7, N: c.n}}) {
			got = append(got, b.N)
		}
		if d := cmp.Diff(c.want, got); d != "" {
			t.Errorf("%d (-want +got)\n%s", c.n, d)
		}
	}
}

func TestDecodeSketchTakesWhatOthersSend(t *testing.T) {
	// Keys out of order, twice, not packed; counts that its bins do not hold.
	body := "0a26" + "0a0164" + "3a21" + "0801" + "1063" + "21000000000000f03f" + "31000000000000f03f" + "3802" + "3a0201" + "02" + "42030101" + "05"
	raw, err := hex.DecodeString(body)
	if err != nil {
		t.Fatal(err)
	}
	got, err := DecodeSketches(raw)
	if err != nil {
		t.Fatal(err)
	}
	want := []metric.Distribution{{Name: "d", Points: []metric.SketchPoint{{Time: 1, Sketch: metric.Sketch{
		Count: 7, Max: 1, Sum: 1, Bins: []metric.Bin{{Key: -1, N: 1}, {Key: 1, N: 6}}}}}}}
	if d := cmp.Diff(want, got, cmpopts.EquateEmpty()); d != "" {
		t.Errorf("(-want +got)\n%s", d)
	}
}

func TestDecodeSketchErrorsNameTheOffendingPart(t *testing.T) {
	for _, c := range []struct{ body, want string }{
		{"\x0a\x00", "sketches[0]: metric is missing"},
		{"\x0a\xff", "byte 1, field 1"},
		{"\x0a\x06\x3a\x04\x3a\x02\x01\x02", "sketches[0]: dogsketches[0]: 2 bin keys and 0 counts"},
		{"\x0a\x05\x3a\x03\x3a\x01\xff", "dogsketches[0]: byte 0 of field 7"},
		{"\x0a\x0a\x3a\x08\x3a\x03\x80\x80\x04\x42\x01\x01", "bin key 32768: expected -32767 to 32767"},
		{"\x0a\x0c\x3a\x0a\x3a\x01\x02\x42\x05\xff\xff\xff\xff\x7f", "bin count is more than 32 bits"},
	} {
		if _, err := DecodeSketches([]byte(c.body)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%x: error %v, want %q in it", c.body, err, c.want)
		}
	}
}

// TestDecodeBoundsDistributions sends the smallest there are.
func TestDecodeBoundsDistributions(t *testing.T) {
	sketches := "\x0a\x03\x0a\x01m"
	if got, err := DecodeSketches([]byte(strings.Repeat(sketches, MaxSeries))); err != nil || len(got) != MaxSeries {
		t.Errorf("%d distributions and %v", len(got), err)
	}
	points := strings.Repeat("\x0a\x07\x0a\x01m\x3a\x00\x3a\x00", MaxSeries/2)
	if _, err := DecodeSketches([]byte(points)); err != nil {
		t.Error(err)
	}
	jsonOf := func(n int) string {
		return `{"series":[{"metric":"m","points":[[1,[1]]` + strings.Repeat(`,[2,[1]],[3,[1]]`, 1) + `]}` + strings.Repeat(`,{"metric":"m","points":[[1,[1]]]}`, n-3) + `]}`
	}
	if _, err := DecodeDistributionPoints([]byte(jsonOf(MaxSeries))); err != nil {
		t.Error(err)
	}
	for name, err := range map[string]error{
		"distributions": second(DecodeSketches([]byte(strings.Repeat(sketches, MaxSeries+1)))),
		"sketches":      second(DecodeSketches([]byte(points + "\x0a\x05\x0a\x01m\x3a\x00"))),
		"JSON":          second(DecodeDistributionPoints([]byte(jsonOf(MaxSeries + 1)))),
	} {
		if !errors.Is(err, ErrTooManySeries) {
			t.Errorf("%s: %v, want ErrTooManySeries", name, err)
		}
	}
}

func second(_ []metric.Distribution, err error) error { return err }

func FuzzDecodeSketches(f *testing.F) {
	body, _ := hex.DecodeString(sketchVector)
	f.Add(body)
	f.Add([]byte(`{"series":[{"metric":"m","points":[[1,[2,3]]],"tags":["a"],"type":"distribution"}]}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		for _, decode := range []func([]byte) ([]metric.Distribution, error){DecodeSketches, DecodeDistributionPoints} {
			in, err := decode(body)
			if err != nil {
				continue
			}
			again, err := DecodeSketches(AppendSketches(nil, in))
			if err != nil {
				t.Fatalf("accepted distributions do not survive the wire: %v", err)
			}
			if d := cmp.Diff(in, again, cmpopts.EquateEmpty(), cmpopts.EquateNaNs()); d != "" {
				t.Fatalf("changed on the wire (-sent +received)\n%s", d)
			}
			for _, p := range allPoints(in) {
				checkSketch(t, &p.Sketch)
			}
		}
	})
}

func allPoints(ds []metric.Distribution) []metric.SketchPoint {
	var out []metric.SketchPoint
	for _, d := range ds {
		out = append(out, d.Points...)
	}
	return out
}

// checkSketch holds s to what its type promises.
func checkSketch(t *testing.T, s *metric.Sketch) {
	var n int64
	last := math.MinInt
	for _, b := range s.Bins {
		if b.N == 0 || int(b.Key) <= last {
			t.Fatalf("bins %v", s.Bins)
		}
		n, last = n+int64(b.N), int(b.Key)
	}
	if n != s.Count || len(s.Bins) > metric.SketchMaxBins {
		t.Fatalf("count %d, bins hold %d in %d", s.Count, n, len(s.Bins))
	}
	s.Quantile(.95)
}

func BenchmarkSketches(b *testing.B) {
	ds := make([]metric.Distribution, 100)
	for i := range ds {
		values := make([]float64, 1000)
		for j := range values {
			values[j] = math.Exp(math.Sin(float64(i+j))) * 100
		}
		ds[i] = metric.Distribution{Name: "app.request.duration", Host: "node-1",
			Tags:   metric.Tags{"env:prod", "kube_deployment:web", "kube_namespace:shop", "service:web", "version:1"},
			Points: []metric.SketchPoint{{Time: 1700000000, Sketch: buildSketch(values...)}}}
	}
	body := AppendSketches(nil, ds)
	b.Run("encode", func(b *testing.B) {
		b.ReportAllocs()
		b.SetBytes(int64(len(body)))
		buf := make([]byte, 0, len(body))
		for b.Loop() {
			buf = AppendSketches(buf[:0], ds)
		}
	})
	b.Run("decode", func(b *testing.B) {
		b.ReportAllocs()
		b.SetBytes(int64(len(body)))
		for b.Loop() {
			if _, err := DecodeSketches(body); err != nil {
				b.Fatal(err)
			}
		}
	})
}
