package dialect

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	collector "go.opentelemetry.io/proto/slim/otlp/collector/metrics/v1"
	common "go.opentelemetry.io/proto/slim/otlp/common/v1"

	"kelpie.dev/kelpie/metric"
)

const t0 = int64(1_700_000_000)

// render writes what a batch says, a context a line. Times count from t0.
func render(b *Batch) string {
	var out strings.Builder
	who := func(name, host string, tags metric.Tags) {
		fmt.Fprintf(&out, "%s{%s}", name, tags)
		if host != "" {
			fmt.Fprintf(&out, "@%s", host)
		}
	}
	for _, s := range b.Series {
		who(s.Name, s.Host, s.Tags)
		fmt.Fprintf(&out, " %s", s.Type)
		if s.Interval > 0 {
			fmt.Fprintf(&out, "/%ds", s.Interval)
		}
		for _, p := range s.Points {
			fmt.Fprintf(&out, " %v@%ds", p.Value, p.Time-t0)
		}
		if s.Unit != "" {
			fmt.Fprintf(&out, " %s", s.Unit)
		}
		out.WriteByte('\n')
	}
	for _, d := range b.Distributions {
		who(d.Name, d.Host, d.Tags)
		for _, p := range d.Points {
			s := p.Sketch
			fmt.Fprintf(&out, " distribution@%ds count=%d sum=%.4g min=%.3g p50=%.3g p90=%.3g max=%.3g", p.Time-t0, s.Count, s.Sum, s.Min, s.Quantile(.5), s.Quantile(.9), s.Max)
		}
		out.WriteByte('\n')
	}
	if b.Refused+b.First+b.Again+b.Stale > 0 {
		fmt.Fprintf(&out, "refused=%d first=%d again=%d stale=%d of %d\n", b.Refused, b.First, b.Again, b.Stale, b.Points)
	}
	for _, line := range b.Lines {
		fmt.Fprintln(&out, line)
	}
	return out.String()
}

// TestOTLP runs the scripts of testdata/otlp. In a body, a time such as 10s is
// that many seconds after t0. "cells=N" bounds the state, "undo" takes the batch
// back, "at=N" is the time of arrival. Both forms of OTLP must say the same.
func TestOTLP(t *testing.T) {
	datadriven.Walk(t, "testdata/otlp", func(t *testing.T, path string) {
		began := time.Unix(t0, 0)
		fromJSON, fromProto := New(Options{Began: began}), New(Options{Began: began})
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			now := time.Unix(t0+1000, 0)
			if d.HasArg("at") {
				var sec int64
				d.ScanArgs(t, "at", &sec)
				now = time.Unix(t0+sec, 0)
			}
			if d.HasArg("cells") {
				var cells int
				d.ScanArgs(t, "cells", &cells)
				fromJSON, fromProto = New(Options{Began: began, MaxCells: cells}), New(Options{Began: began, MaxCells: cells})
			}
			body := times(d.Input)
			b, err := fromJSON.OTLP([]byte(body), true, now)
			if err != nil {
				return "error " + strings.ReplaceAll(err.Error(), "\u00a0", " ") + "\n" // protojson's spaces are not stable
			}
			var req collector.ExportMetricsServiceRequest
			if err := protojson.Unmarshal([]byte(body), &req); err != nil {
				t.Fatal(err)
			}
			wire, err := proto.Marshal(&req)
			if err != nil {
				t.Fatal(err)
			}
			p, err := fromProto.OTLP(wire, false, now)
			if err != nil {
				t.Fatalf("protobuf: %v", err)
			}
			if render(b) != render(p) {
				t.Errorf("%s: JSON says\n%sprotobuf says\n%s", d.Pos, render(b), render(p))
			}
			out := render(b)
			if d.HasArg("undo") {
				b.Undo()
				p.Undo()
			}
			return out
		})
	})
}

// times replaces "10s" by nanoseconds since the epoch.
func times(body string) string {
	for i := range 200 {
		body = strings.ReplaceAll(body, fmt.Sprintf(`"%ds"`, i), fmt.Sprintf(`"%d"`, (t0+int64(i))*1e9))
	}
	return body
}

func TestStreamsAreForgotten(t *testing.T) {
	tr := New(Options{Began: time.Unix(t0, 0)})
	send := func(sec int64, v int) *Batch {
		t.Helper()
		body := fmt.Sprintf(`{"resourceMetrics":[{"scopeMetrics":[{"metrics":[{"name":"m","sum":{"aggregationTemporality":2,"isMonotonic":true,"dataPoints":[{"timeUnixNano":"%d","startTimeUnixNano":"5","asInt":"%d"}]}}]}]}]}`, (t0+sec)*1e9, v)
		b, err := tr.OTLP([]byte(body), true, time.Unix(t0+sec, 0))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	if b := send(1, 5); b.First != 1 || tr.Streams() != 1 || tr.cells != 1 {
		t.Errorf("first: %+v, %d streams, %d cells", b, tr.Streams(), tr.cells)
	}
	if b := send(3000, 7); len(b.Series) != 1 || b.Series[0].Points[0].Value != 2 || b.Series[0].Interval != 2999 {
		t.Errorf("after 50 minutes: %+v", b)
	}
	if b := send(3000+3601, 9); b.First != 1 || tr.Streams() != 1 || tr.cells != 1 {
		t.Errorf("after an hour and more: %+v, %d streams", b, tr.Streams())
	}
	b := send(3000+3700, 10)
	b.Undo()
	b.Undo() // once is enough
	if b := send(3000+3700, 10); len(b.Series) != 1 || b.Series[0].Points[0].Value != 1 || tr.cells != 1 {
		t.Errorf("again after undo: %+v", b)
	}
}

// What is added up is what was observed, whatever the split into points.
func TestHistogramDifferencesAddUp(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	total := histogram{exponential: true, scale: 6}
	var was *histogram
	counted := map[int16]float64{}
	scale := int32(6)
	for step := range 200 {
		if step%60 == 59 {
			scale-- // an SDK merges buckets when they become too many
			s := total.positive.coarser(1)
			total.positive, total.scale = s, scale
		}
		for range r.IntN(20) {
			v := math.Exp(r.NormFloat64())
			i := int32(math.Ceil(math.Log2(v)*math.Exp2(float64(scale)))) - 1
			grow(&total.positive, i)
			total.positive.counts[i-total.positive.offset]++
			total.count++
			total.sum += v
			total.hasSum = true
		}
		now := total
		now.positive.counts = slices.Clone(total.positive.counts)
		d := &now
		if was != nil {
			if d = now.minus(was); d == nil {
				t.Fatalf("step %d: a reset where there is none", step)
			}
		}
		was = &now
		for _, b := range d.sketch().Bins {
			counted[b.Key] += float64(b.N)
		}
	}
	n := 0.0
	for _, c := range counted {
		n += c
	}
	if n != total.count || n < 1000 {
		t.Errorf("counted %v of %v", n, total.count)
	}
}

// grow makes room for the bucket i.
func grow(s *span, i int32) {
	if len(s.counts) == 0 {
		s.offset, s.counts = i, make([]float64, 1)
	}
	for i < s.offset {
		s.offset--
		s.counts = append([]float64{0}, s.counts...)
	}
	for i >= s.offset+int32(len(s.counts)) {
		s.counts = append(s.counts, 0)
	}
}

// A quantile of an exponential histogram is within its buckets' width.
func TestExponentialQuantiles(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for scale := int32(-1); scale <= 8; scale++ {
		h := histogram{exponential: true, scale: scale, min: math.NaN(), max: math.NaN()}
		var values []float64
		for range 2000 {
			v := math.Exp(r.NormFloat64() * 2)
			values = append(values, v)
			i := int32(math.Ceil(math.Log2(v)*math.Exp2(float64(scale)))) - 1
			grow(&h.positive, i)
			h.positive.counts[i-h.positive.offset]++
			h.count++
		}
		slices.Sort(values)
		s := h.sketch()
		allowed := math.Exp2(math.Exp2(-float64(scale))) * (1 + metric.SketchAccuracy)
		for _, q := range []float64{.01, .1, .5, .9, .99} {
			want, got := values[int(math.RoundToEven(q*1999))], s.Quantile(q)
			if ratio := max(got/want, want/got); ratio > allowed {
				t.Errorf("scale %d: p%v is %v, want %v: off by %v, more than %v", scale, q*100, got, want, ratio, allowed)
			}
		}
		if s.Count != 2000 {
			t.Errorf("scale %d: %d values", scale, s.Count)
		}
	}
}

func TestBodiesAreBounded(t *testing.T) {
	point := func(n int) []byte { // n empty points of a gauge
		return nested(bytes.Repeat([]byte{0x0a, 0}, n), 5, 2, 2, 1)
	}
	deep := []byte{0x0a, 1, 'x'}
	for range 40 {
		deep = nested(deep, 1, 5) // an AnyValue in an ArrayValue
	}
	wide := `{"count":"4096","bucketCounts":["1"` + strings.Repeat(`,"1"`, maxBuckets-1) + `],"explicitBounds":[0` + strings.Repeat(",0", maxBuckets-2) + `]}`
	histogram := func(points string) string {
		return `{"resourceMetrics":[{"scopeMetrics":[{"metrics":[{"name":"m","histogram":{"aggregationTemporality":1,"dataPoints":[` + points + `]}}]}]}]}`
	}
	many := `{"count":"8192","bucketCounts":["0","4096","4096","0"],"explicitBounds":[-1e100,0,1e100]}`
	for name, tt := range map[string]struct {
		body   []byte
		isJSON bool
		want   string
	}{
		"messages":     {point(maxMessages), false, "too many values"},
		"points":       {point(maxPoints + 1), false, "too many values"},
		"depth":        {nested(deep, 2, 1, 1, 1), false, "more than 32 deep"},
		"JSON objects": {[]byte(`{"resourceMetrics":[` + strings.Repeat(`{},`, maxMessages) + `{}]}`), true, "too many values"},
		"JSON depth":   {[]byte(strings.Repeat(`{"resourceMetrics":[`, 100)), true, "recursion depth"},
		"no JSON":      {nil, true, "empty body"},
		"no protobuf":  {[]byte(`{"resourceMetrics":[]}`), false, "decode OTLP protobuf"},
		"cut protobuf": {point(3)[:9], false, "decode OTLP protobuf"},
		"bins":         {[]byte(histogram(many + strings.Repeat(","+many, maxBins/120))), true, "too many values"},
	} {
		_, err := New(Options{}).OTLP(tt.body, tt.isJSON, time.Unix(t0, 0))
		if err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(tt.want, "too many") && !errors.Is(err, ErrTooMuch) {
			t.Errorf("%s: %v, want %s", name, err, tt.want)
		}
	}
	b, err := New(Options{}).OTLP([]byte(histogram(wide)), true, time.Unix(t0, 0))
	if err != nil || b.Refused != 0 || len(b.Distributions) != 1 {
		t.Errorf("a histogram with as many buckets as may be: %v %+v", err, b)
	}
	b, err = New(Options{}).OTLP([]byte(histogram(strings.Replace(wide, `"1"`, `"1","1"`, 1))), true, time.Unix(t0, 0))
	if err != nil || b.Refused != 1 || !strings.Contains(b.Lines[0], "more than 4096 buckets") {
		t.Errorf("a histogram with one more: %v %+v", err, b)
	}
}

// nested puts body into messages of the given fields, the innermost first.
func nested(body []byte, fields ...byte) []byte {
	for _, f := range fields {
		head := []byte{f<<3 | 2}
		for n := len(body); ; n >>= 7 {
			if n < 0x80 {
				head = append(head, byte(n))
				break
			}
			head = append(head, byte(n)|0x80)
		}
		body = append(head, body...)
	}
	return body
}

func TestText(t *testing.T) {
	str := func(s string) *common.AnyValue {
		return &common.AnyValue{Value: &common.AnyValue_StringValue{StringValue: s}}
	}
	for want, v := range map[string]*common.AnyValue{
		"a": str("a"), "true": {Value: &common.AnyValue_BoolValue{BoolValue: true}}, "-3": {Value: &common.AnyValue_IntValue{IntValue: -3}},
		"0.5": {Value: &common.AnyValue_DoubleValue{DoubleValue: .5}}, "AQI=": {Value: &common.AnyValue_BytesValue{BytesValue: []byte{1, 2}}}, "": nil,
	} {
		if got := text(v); got != want {
			t.Errorf("%v is %q, want %q", v, got, want)
		}
	}
	list := text(&common.AnyValue{Value: &common.AnyValue_ArrayValue{ArrayValue: &common.ArrayValue{Values: []*common.AnyValue{str("a")}}}})
	if !strings.Contains(list, `"a"`) {
		t.Errorf("a list is %q", list)
	}
}

// FuzzOTLP: whatever comes, the points that are not taken are counted, and what
// is made of the others can be stored.
func FuzzOTLP(f *testing.F) {
	point := `{"timeUnixNano":"1700000000000000000","startTimeUnixNano":"1699999990000000000","attributes":[{"key":"a","value":{"stringValue":"b"}}],`
	for _, m := range []string{
		`"gauge":{"dataPoints":[` + point + `"asInt":"4"}]}`,
		`"sum":{"aggregationTemporality":2,"isMonotonic":true,"dataPoints":[` + point + `"asDouble":4}]}`,
		`"histogram":{"aggregationTemporality":2,"dataPoints":[` + point + `"count":"3","sum":4,"bucketCounts":["1","2"],"explicitBounds":[1]}]}`,
		`"exponentialHistogram":{"aggregationTemporality":1,"dataPoints":[` + point + `"count":"3","scale":2,"zeroCount":"1","positive":{"offset":-1,"bucketCounts":["2"]}}]}`,
		`"summary":{"dataPoints":[` + point + `"count":"3","sum":4,"quantileValues":[{"quantile":0.5,"value":1}]}]}`,
	} {
		body := `{"resourceMetrics":[{"resource":{"attributes":[{"key":"host.name","value":{"stringValue":"h"}}]},"scopeMetrics":[{"metrics":[{"name":"m","unit":"s",` + m + `}]}]}]}`
		f.Add([]byte(body), true)
		var req collector.ExportMetricsServiceRequest
		if err := protojson.Unmarshal([]byte(body), &req); err != nil {
			f.Fatal(err)
		}
		wire, err := proto.Marshal(&req)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(wire, false)
	}
	f.Fuzz(func(t *testing.T, body []byte, isJSON bool) {
		tr := New(Options{Began: time.Unix(t0-1000, 0), MaxCells: 1000})
		for range 2 {
			b, err := tr.OTLP(body, isJSON, time.Unix(t0, 0))
			if err != nil {
				continue
			}
			check(t, b)
			if tr.cells > 1000+maxBuckets || tr.cells < 0 {
				t.Errorf("%d cells", tr.cells)
			}
		}
	})
}

// check holds a batch to what a store expects.
func check(t *testing.T, b *Batch) {
	t.Helper()
	for _, s := range b.Series {
		for _, p := range s.Points {
			if !finite(p.Value) {
				t.Errorf("%s is %v", s.Name, p.Value)
			}
			if s.Type == metric.Count && s.Interval < 0 {
				t.Errorf("an interval of %d", s.Interval)
			}
		}
	}
	for _, d := range b.Distributions {
		for _, p := range d.Points {
			s := p.Sketch
			if s.Count <= 0 || len(s.Bins) == 0 || len(s.Bins) > metric.SketchMaxBins || s.Min > s.Max || math.IsNaN(s.Min) || math.IsNaN(s.Max) {
				t.Errorf("a sketch of %d values, %d bins, from %v to %v", s.Count, len(s.Bins), s.Min, s.Max)
			}
		}
	}
	if len(b.Lines) > maxToldLines || b.Refused > b.Points+len(b.Lines) {
		t.Errorf("refused %d of %d with %d lines", b.Refused, b.Points, len(b.Lines))
	}
}
