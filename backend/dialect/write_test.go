package dialect

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	writev2 "github.com/prometheus/client_golang/exp/api/remote/genproto/v2"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"kelpie.dev/kelpie/metric"
)

// A message of the wire, by hand: version 1 has no types outside of the TSDB.
type message []byte

func (m message) str(num protowire.Number, s string) message {
	return protowire.AppendString(protowire.AppendTag(m, num, protowire.BytesType), s)
}
func (m message) sub(num protowire.Number, s message) message { return m.str(num, string(s)) }
func (m message) num(num protowire.Number, v uint64) message {
	return protowire.AppendVarint(protowire.AppendTag(m, num, protowire.VarintType), v)
}
func (m message) zig(num protowire.Number, v int64) message {
	return m.num(num, protowire.EncodeZigZag(v))
}
func (m message) float(num protowire.Number, v float64) message {
	return protowire.AppendFixed64(protowire.AppendTag(m, num, protowire.Fixed64Type), math.Float64bits(v))
}
func (m message) packed(num protowire.Number, vs ...int64) message {
	var p message
	for _, v := range vs {
		p = protowire.AppendVarint(p, protowire.EncodeZigZag(v))
	}
	return m.sub(num, p)
}

// series is a series of version 1: labels as name, value, … and then samples of
// value at milliseconds after t0.
func series(labels []string, samples ...float64) message {
	var m message
	for i := 0; i < len(labels); i += 2 {
		m = m.sub(1, message(nil).str(1, labels[i]).str(2, labels[i+1]))
	}
	for i := 0; i < len(samples); i += 2 {
		m = m.sub(2, message(nil).float(1, samples[i]).num(2, uint64(t0*1000+int64(samples[i+1]))))
	}
	return m
}

func request(all ...message) []byte {
	var m message
	for _, s := range all {
		m = m.sub(1, s)
	}
	return m.sub(3, message(nil).num(1, 1).str(2, "m")) // metadata
}

func TestRemoteWriteV1(t *testing.T) {
	stale := math.Float64frombits(staleMarker)
	long := strings.Repeat("x", 3000)
	many := []string{"__name__", "m"}
	for i := range maxLabels {
		many = append(many, fmt.Sprint("l", i), "v")
	}
	b, err := New(Options{}).RemoteWrite(request(
		series([]string{"__name__", "up", "job", "a", "empty", "", "host", "Web", "device", "sda"}, 1, 0, 2, 999, 3, 15000, stale, 30000, math.NaN(), 45000, math.Inf(1), 60000),
		series([]string{"__name__", "a:b", "x:y", "z", "host", "web"}, 1, -1),
		series([]string{"__name__", "nothing"}),
		series([]string{"job", "a"}, 1, 0),
		series([]string{"__name__", long}, 1, 0),
		series([]string{"__name__", "m", "l", long}, 1, 0),
		series([]string{"__name__", "m", "", "x"}, 1, 0),
		series([]string{"__name__", "m\xff"}, 1, 0, stale, 15000),
		series([]string{"__name__", "m", "l", "\xff"}, 1, 0),
		series(many, 1, 0),
	), false, time.Unix(t0, 0))
	if err != nil {
		t.Fatal(err)
	}
	const want = `up{host:Web,job:a} gauge 1@0s 2@0s 3@15s
a:b{x_y:z}@web gauge 1@-1s
m{l:_} gauge 1@0s
refused=8 first=0 again=0 stale=2 of 15
metric "up": a value is not a finite number
metric "": it has no name
`
	got := render(b)
	if !strings.HasPrefix(got, want) {
		t.Errorf("got\n%swant\n%s", got, want)
	}
	for _, line := range []string{"its name has more than 512 bytes", `its label "l" has more than 2048 bytes`, "a label has no name", "its name is not UTF-8 text", "it has more than 500 labels"} {
		if !strings.Contains(got, line) {
			t.Errorf("no line says that %s:\n%s", line, got)
		}
	}
	if b.Series[0].Device != "sda" || b.Samples != 5 || fmt.Sprint(b.Raw) != "map[host:true l:true]" {
		t.Errorf("device %q, %d samples, raw %v", b.Series[0].Device, b.Samples, b.Raw)
	}
}

// native returns a native histogram of n values in (2, 2.18] and as many in
// (-1, -0.91], of schema 3.
func nativeOf(n, ms int64) message {
	return message(nil).num(1, uint64(2*n+1)).float(3, float64(n)).zig(4, 3).float(5, 1e-9).num(6, 1).
		sub(8, message(nil).zig(1, 0).num(2, 1)).packed(9, n).
		sub(11, message(nil).zig(1, 9).num(2, 1)).packed(12, n).
		num(15, uint64(t0*1000+ms))
}

func TestRemoteWriteHistograms(t *testing.T) {
	tr := New(Options{})
	var got strings.Builder
	send := func(h ...message) {
		t.Helper()
		s := series([]string{"__name__", "h", "device", "sda"})
		for _, h := range h {
			s = s.sub(4, h)
		}
		b, err := tr.RemoteWrite(request(s), false, time.Unix(t0, 0))
		if err != nil {
			t.Fatal(err)
		}
		got.WriteString(render(b))
	}
	send(nativeOf(5, 0))
	send(nativeOf(9, 15_000))
	send(nativeOf(9, 15_000))
	send(nativeOf(2, 30_000))            // a reset
	send(nativeOf(1, 45_000).num(14, 3)) // a gauge stands for itself
	send(message(nil).float(3, math.Float64frombits(staleMarker)).num(15, uint64(t0*1000+60_000)))
	// Counts as they are, in floats; and bounds of its own.
	send(message(nil).float(2, 4).float(3, 8).zig(4, 0).sub(11, message(nil).zig(1, 1).num(2, 2)).float(13, 1).float(13, 3).num(14, 3).num(15, uint64(t0*1000+75_000)))
	send(message(nil).num(1, 4).float(3, 8).zig(4, customSchema).sub(11, message(nil).zig(1, 0).num(2, 1)).sub(11, message(nil).zig(1, 1).num(2, 1)).packed(12, 1, 2).float(16, 1).float(16, 10).num(14, 3).num(15, uint64(t0*1000+90_000)))
	const want = `refused=0 first=1 again=0 stale=0 of 1
h{device:sda} distribution@15s count=8 sum=4 min=-0.985 p50=2.01 p90=2.1 max=2.17
refused=0 first=0 again=1 stale=0 of 1
h{device:sda} distribution@30s count=5 sum=2 min=-0.985 p50=0 p90=2.14 max=2.14
h{device:sda} distribution@45s count=3 sum=1 min=-0.955 p50=0 p90=2.1 max=2.1
refused=0 first=0 again=0 stale=1 of 1
h{device:sda} distribution@75s count=4 sum=8 min=1.5 p50=3.01 p90=3.68 max=3.68
h{device:sda} distribution@90s count=4 sum=8 min=0.498 p50=10.1 p90=10.1 max=10.1
`
	if got.String() != want {
		t.Errorf("got\n%swant\n%s", got.String(), want)
	}
}

func TestRemoteWriteHistogramsThatContradictThemselves(t *testing.T) {
	gauge := func(m message) message { return m.num(14, 3) }
	for want, h := range map[string]message{
		"fewer counts than its spans":  gauge(message(nil).num(1, 1).sub(11, message(nil).num(2, 5)).packed(12, 1)),
		"more counts than its spans":   gauge(message(nil).num(1, 1).sub(11, message(nil).num(2, 1)).packed(12, 1, 1)),
		"its spans overlap":            gauge(message(nil).num(1, 1).sub(11, message(nil).num(2, 1)).sub(11, message(nil).zig(1, -3).num(2, 1)).packed(12, 1, 1)),
		"more than 4096 buckets":       gauge(message(nil).num(1, 1).sub(11, message(nil).num(2, 1<<31))),
		"time is out of range":         gauge(message(nil).num(1, 1).num(15, 1<<63)),
		"scale is not between":         gauge(message(nil).num(1, 1).zig(4, 40)),
		"count is not a finite number": gauge(message(nil).num(1, 1).sub(11, message(nil).num(2, 1)).packed(12, -1)),
		"a bucket beyond its bounds":   gauge(message(nil).num(1, 1).zig(4, customSchema).sub(11, message(nil).zig(1, 7).num(2, 1)).packed(12, 1)),
		"do not tell where":            gauge(message(nil).num(1, 1).zig(4, 3)),
	} {
		b, err := New(Options{}).RemoteWrite(request(series([]string{"__name__", "h"}).sub(4, h)), false, time.Unix(t0, 0))
		if err != nil || b.Refused != 1 || !strings.Contains(b.Lines[0], want) {
			t.Errorf("%s: %v %+v", want, err, b)
		}
	}
}

func TestRemoteWriteV2(t *testing.T) {
	body, err := proto.Marshal(&writev2.Request{
		Symbols: []string{"", "__name__", "up", "job", "API", "seconds"},
		Timeseries: []*writev2.TimeSeries{
			{LabelsRefs: []uint32{1, 2, 3, 4}, Samples: []*writev2.Sample{{Value: 1, Timestamp: t0 * 1000}}, Metadata: &writev2.Metadata{UnitRef: 5}},
			{LabelsRefs: []uint32{1, 2, 3, 4}, Samples: []*writev2.Sample{{Value: 2, Timestamp: t0*1000 + 15_000}}, Exemplars: []*writev2.Exemplar{{Value: 9}}},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	b, err := New(Options{}).RemoteWrite(body, true, time.Unix(t0, 0))
	if err != nil {
		t.Fatal(err)
	}
	if got, want := render(b), "up{job:API} gauge 1@0s second\nup{job:API} gauge 2@15s\n"; got != want || !b.Raw["job"] {
		t.Errorf("got\n%s", got)
	}
}

func TestRemoteWriteBodiesAreBounded(t *testing.T) {
	v2 := func(symbols, refs int) []byte {
		var m, r message
		for range symbols {
			m = m.str(4, "")
		}
		for range refs {
			r = append(r, 0)
		}
		return m.sub(5, message(nil).sub(1, r))
	}
	points := series([]string{"__name__", "m"})
	for range maxPoints + 1 {
		points = points.str(2, "")
	}
	for name, tt := range map[string]struct {
		body []byte
		v2   bool
		want string
	}{
		"cut":              {request(series([]string{"__name__", "m"}, 1, 0))[:9], false, "decode remote write: byte"},
		"JSON":             {[]byte(`{"timeseries":[]}`), false, "decode remote write"},
		"cut series":       {message(nil).str(1, "\x0a\xff"), false, "timeseries[0]: byte 1"},
		"cut sample":       {message(nil).sub(1, message(nil).str(2, "\x09\x00")), false, "timeseries[0]: samples[0]: byte 1"},
		"cut histogram":    {request(series([]string{"__name__", "m"}).sub(4, message("\x09\x00"))), false, "timeseries[0]: histogram: byte 1"},
		"points":           {request(points), false, "too many values"},
		"labels":           {request(series(nil, 1, 0), message(strings.Repeat("\x0a\x00", maxAllLabels+1))), false, "too many values"},
		"symbols":          {v2(maxMessages+1, 0), true, "too many values"},
		"references":       {v2(1, 4*maxAllLabels+2), true, "too many values"},
		"no such symbol":   {message(nil).str(4, "").sub(5, message(nil).str(1, "\x00\x01")), true, "timeseries[0]: it refers to a symbol that is not there"},
		"half a label":     {message(nil).str(4, "").sub(5, message(nil).str(1, "\x00")), true, "refers to a symbol"},
		"the first symbol": {message(nil).str(4, "x"), true, "first symbol is not empty"},
	} {
		_, err := New(Options{}).RemoteWrite(tt.body, tt.v2, time.Unix(t0, 0))
		if err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(tt.want, "too many") && !errors.Is(err, ErrTooMuch) {
			t.Errorf("%s: %v, want %s", name, err, tt.want)
		}
	}
}

// FuzzRemoteWrite: as FuzzOTLP.
func FuzzRemoteWrite(f *testing.F) {
	f.Add(request(series([]string{"__name__", "up", "job", "A b"}, 1, 0, 2, 15000), series([]string{"__name__", "h"}).sub(4, nativeOf(3, 0)).sub(4, nativeOf(4, 15000))), false)
	body, err := proto.Marshal(&writev2.Request{Symbols: []string{"", "__name__", "up"}, Timeseries: []*writev2.TimeSeries{{LabelsRefs: []uint32{1, 2}, Samples: []*writev2.Sample{{Value: 1, Timestamp: t0 * 1000}}}}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(body, true)
	f.Fuzz(func(t *testing.T, body []byte, v2 bool) {
		tr := New(Options{MaxCells: 1000})
		for range 2 {
			b, err := tr.RemoteWrite(body, v2, time.Unix(t0, 0))
			if err != nil {
				continue
			}
			check(t, b)
			for _, s := range b.Series {
				if s.Name == "" || len(s.Tags) > maxLabels || strings.Join(metric.NewTags(s.Tags...), ",") != s.Tags.String() {
					t.Errorf("a series %q with %d tags", s.Name, len(s.Tags))
				}
				for _, tag := range s.Tags {
					if key, _, _ := strings.Cut(tag, ":"); metric.NormalizeTag(tag) != tag && !b.Raw[key] {
						t.Errorf("%q is stored as it is, and %q is not noted", tag, key)
					}
				}
			}
		}
	})
}
