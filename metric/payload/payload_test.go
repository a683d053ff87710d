package payload

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"kelpie.dev/kelpie/metric"
)

// vector is reference metrics-pipeline C.1: computed from Datadog's schema, not
// from this code.
const vector = "0a260a090a04686f7374120168" + "12016d" + "1a03613a62" + "220f09000000000000f83f1080e2cfaa06" + "2803"

func TestV2Vector(t *testing.T) {
	want := []metric.Series{{Name: "m", Host: "h", Tags: metric.Tags{"a:b"}, Type: metric.Gauge,
		Points: []metric.Point{{Time: 1700000000, Value: 1.5}}}}
	body, err := hex.DecodeString(vector)
	if err != nil {
		t.Fatal(err)
	}
	got, err := DecodeV2(body)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("decoded (-want +got)\n%s", d)
	}
	if enc := hex.EncodeToString(AppendV2(nil, want)); enc != vector {
		t.Errorf("encoded %s\nwant    %s", enc, vector)
	}
}

func seriesGen() *rapid.Generator[metric.Series] {
	return rapid.Custom(func(t *rapid.T) metric.Series {
		return metric.Series{
			Name:     rapid.StringN(1, 20, 40).Draw(t, "name"),
			Host:     rapid.String().Draw(t, "host"),
			Device:   rapid.String().Draw(t, "device"),
			Tags:     metric.NewTags(rapid.SliceOf(rapid.String()).Draw(t, "tags")...),
			Type:     metric.Type(rapid.IntRange(0, 3).Draw(t, "type")),
			Interval: rapid.Int64Range(0, 1e6).Draw(t, "interval"),
			Unit:     rapid.String().Draw(t, "unit"),
			Source:   rapid.String().Draw(t, "source"),
			Points: rapid.SliceOf(rapid.Custom(func(t *rapid.T) metric.Point {
				return metric.Point{Time: rapid.Int64().Draw(t, "t"), Value: rapid.Float64().Draw(t, "v")}
			})).Draw(t, "points"),
		}
	})
}

func TestV2RoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in := rapid.SliceOf(seriesGen()).Draw(t, "series")
		body := AppendV2(nil, in)
		got, err := DecodeV2(body)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(in, got, cmpopts.EquateEmpty()); d != "" {
			t.Fatalf("(-want +got)\n%s", d)
		}
	})
}

func TestJSON(t *testing.T) {
	want := []metric.Series{{Name: "m", Host: "h", Device: "d", Tags: metric.Tags{"a:b", "c"}, Type: metric.Rate,
		Interval: 10, Unit: "byte", Source: "s", Points: []metric.Point{{Time: 1618221135, Value: 1.5}, {Time: 1618221136, Value: 2}}}}
	for name, c := range map[string]struct {
		decode func([]byte) ([]metric.Series, error)
		body   string
	}{
		"v1": {DecodeV1JSON, `{"series":[{"metric":"m","type":"rate","interval":10,"host":"h","device":"d","unit":"byte","source_type_name":"s",
			"tags":["c",null,"a:b","c"],"points":[[1618221135.000000,1.5],["1618221135.6","2"]],"unknown":{}}]}`},
		"v2": {DecodeV2JSON, `{"series":[{"metric":"m","type":2,"interval":10,"unit":"byte","source_type_name":"s","tags":["c","a:b"],
			"resources":[{"type":"host","name":"h"},{"type":"device","name":"d"},{"type":"x","name":"y"}],
			"points":[{"timestamp":1618221135,"value":1.5},{"timestamp":1618221136,"value":2}],"metadata":{"origin":{}}}]}`},
	} {
		got, err := c.decode([]byte(c.body))
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("%s (-want +got)\n%s", name, d)
		}
	}
}

func TestDecodeErrorsNameTheOffendingPart(t *testing.T) {
	for _, c := range []struct {
		decode     func([]byte) ([]metric.Series, error)
		body, want string
	}{
		{DecodeV1JSON, ``, "empty body"},
		{DecodeV1JSON, `{"series":[`, "unexpected EOF"},
		{DecodeV1JSON, `{"series":[]} {}`, "byte 15: data after"},
		{DecodeV1JSON, `{"series":7}`, `member "series": expected slice, got number`},
		{DecodeV1JSON, `{"series":[{"points":[]}]}`, "series[0]: metric is missing"},
		{DecodeV1JSON, `{"series":[{"metric":"m","type":"meter"}]}`, `series[0] "m": metric type "meter"`},
		{DecodeV1JSON, `{"series":[{"metric":"m","points":[[1]]}]}`, `series[0] "m": points[0]: expected [timestamp, value]`},
		{DecodeV1JSON, `{"series":[{"metric":"m","points":[[1,null]]}]}`, `points[0]: expected [timestamp, value]`},
		{DecodeV1JSON, `{"series":[{"metric":"m","points":[[-1,2]]}]}`, `timestamp -1 is out of range`},
		{DecodeV1JSON, `{"series":[{"metric":"m","points":[[1,"x"]]}]}`, `"x" is not a number`},
		{DecodeV2JSON, `{"series":[{"metric":"m","type":9}]}`, `type 9: expected 0 to 3`},
		{DecodeV2JSON, `{"series":[{"metric":"m","points":[{"value":1}]}]}`, `points[0]: timestamp and value are required`},
		{DecodeV2JSON, `{"series":[{}]}`, "series[0]: metric is missing"},
		{DecodeV2JSON, `[]`, "expected object, got array"},
		{DecodeV2JSON, `{"series":[{"metric":"m"},{"metric":x}]}`, "byte 37: invalid character 'x'"},
		{DecodeV2JSON, `{"series":[{"metric":"m"},{"metric":7}]}`, `series[1]: byte 37, member "metric": expected string, got number`},
		{DecodeV2JSON, `{"series":[{"metric":"m"}`, "unexpected EOF"},
		{DecodeV2JSON, `{"meta":[1,`, "unexpected EOF"},
		{DecodeV2, "\x0a\x00", "series[0]: metric is missing"},
		{DecodeV2, "\x0a\xff", "byte 1, field 1"},
		{DecodeV2, "\x0a\x02\x28\x07", "series[0]: type 7"},
		{DecodeV2, "\x0a\x04\x22\x02\x09\x00", "series[0]: points[0]: byte 1, field 1"},
	} {
		if _, err := c.decode([]byte(c.body)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q: error %v, want %q in it", c.body, err, c.want)
		}
	}
}

// TestDecodeBoundsSeries sends the smallest series there are: what they become
// in memory is far more than the body's size.
func TestDecodeBoundsSeries(t *testing.T) {
	for name, c := range map[string]struct {
		decode        func([]byte) ([]metric.Series, error)
		head, one, to string
	}{
		"v2":      {DecodeV2, "", "\x0a\x03\x12\x01m", ""},
		"v2 JSON": {DecodeV2JSON, `{"series":[{"metric":"m"}`, `,{"metric":"m"}`, `]}`},
		"v1 JSON": {DecodeV1JSON, `{"series":[{"metric":"m"}`, `,{"metric":"m"}`, `]}`},
	} {
		n := MaxSeries - strings.Count(c.head, "metric")
		got, err := c.decode([]byte(c.head + strings.Repeat(c.one, n) + c.to))
		if err != nil || len(got) != MaxSeries {
			t.Errorf("%s: %d series and %v of a body with %d", name, len(got), err, MaxSeries)
		}
		_, err = c.decode([]byte(c.head + strings.Repeat(c.one, n+1) + c.to))
		if !errors.Is(err, ErrTooManySeries) {
			t.Errorf("%s: %v of a body with one series more, want ErrTooManySeries", name, err)
		}
	}
}

func TestQueryResponseHasNoNullList(t *testing.T) {
	body, err := json.Marshal(NewQueryResponse("avg:m{*}", 1, 2))
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(body), "null") || !strings.Contains(string(body), `"from_date":1000`) {
		t.Errorf("unexpected body %s", body)
	}
}

func FuzzDecode(f *testing.F) {
	body, _ := hex.DecodeString(vector)
	f.Add(body)
	f.Add([]byte(`{"series":[{"metric":"m","points":[[1,2]],"tags":["a"]}]}`))
	f.Add([]byte(`{"series":[{"metric":"m","points":[{"timestamp":1,"value":2}]}]}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		for _, decode := range []func([]byte) ([]metric.Series, error){DecodeV2, DecodeV2JSON, DecodeV1JSON} {
			series, err := decode(body)
			if err != nil {
				continue
			}
			if _, err := DecodeV2(AppendV2(nil, series)); err != nil {
				t.Fatalf("accepted series do not survive the wire: %v", err)
			}
		}
	})
}

func BenchmarkV2(b *testing.B) {
	series := make([]metric.Series, 1000)
	for i := range series {
		series[i] = metric.Series{Name: "app.request.rate", Host: "node-1", Type: metric.Rate, Interval: 10,
			Tags:   metric.Tags{"env:prod", "kube_deployment:web", "kube_namespace:shop", "service:web", "version:1"},
			Points: []metric.Point{{Time: 1700000000, Value: 3}}}
	}
	body := AppendV2(nil, series)
	b.Run("encode", func(b *testing.B) {
		b.ReportAllocs()
		b.SetBytes(int64(len(body)))
		buf := make([]byte, 0, len(body))
		for b.Loop() {
			buf = AppendV2(buf[:0], series)
		}
	})
	b.Run("decode", func(b *testing.B) {
		b.ReportAllocs()
		b.SetBytes(int64(len(body)))
		for b.Loop() {
			if _, err := DecodeV2(body); err != nil {
				b.Fatal(err)
			}
		}
	})
}
