package dogstatsd

import (
	"bytes"
	"errors"
	"math"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"kelpie.dev/kelpie/agent/aggregate"
)

// parsed is a Metric in words, for tables.
type parsed struct {
	Name, Type            string
	Values                []float64
	Member                string
	Rate                  float64
	Tags                  []string
	Host                  string
	HasHost               bool
	Time                  int64
	Pod, Container        string
	External, Cardinality string
}

func words(m *Metric) parsed {
	p := parsed{
		Name: string(m.Name), Type: m.Type.String(), Member: string(m.Member), Rate: m.Rate,
		Host: string(m.Host), HasHost: m.HasHost, Time: m.Time, Pod: string(m.PodUID),
		Container: string(m.ContainerID), External: string(m.External), Cardinality: string(m.Cardinality),
	}
	if m.Type != aggregate.Set {
		p.Values = append(p.Values, m.Values...)
	}
	for _, tag := range m.Tags {
		p.Tags = append(p.Tags, string(tag))
	}
	return p
}

func TestMetric(t *testing.T) {
	for _, tt := range []struct {
		about, line string
		want        parsed
	}{
		{"counter", "a.b:1|c", parsed{Name: "a.b", Type: "c", Values: []float64{1}}},
		{"gauge", "a:-2.5|g", parsed{Name: "a", Type: "g", Values: []float64{-2.5}}},
		{"plus sign is absolute", "a:+5|g", parsed{Name: "a", Type: "g", Values: []float64{5}}},
		{"timer", "a:320|ms", parsed{Name: "a", Type: "ms", Values: []float64{320}}},
		{"histogram, hex float", "a:0x1p-2|h", parsed{Name: "a", Type: "h", Values: []float64{0.25}}},
		{"distribution, exponent", "a:1e3|d", parsed{Name: "a", Type: "d", Values: []float64{1000}}},
		{"set keeps colons", "users:a:b|s", parsed{Name: "users", Type: "s", Member: "a:b"}},
		{"packed, empty elements skipped", "a:1::2:|c", parsed{Name: "a", Type: "c", Values: []float64{1, 2}}},
		{"rate", "a:1|c|@0.25", parsed{Name: "a", Type: "c", Values: []float64{1}, Rate: 0.25}},
		{"rate 0 is none", "a:1|c|@0", parsed{Name: "a", Type: "c", Values: []float64{1}}},
		{"rate above 1 is none", "a:1|c|@2", parsed{Name: "a", Type: "c", Values: []float64{1}}},
		{"rate NaN is none", "a:1|c|@NaN", parsed{Name: "a", Type: "c", Values: []float64{1}}},
		{"tags untouched", "a:1|c|#k:v, B:c:d,,bare,k:v", parsed{Name: "a", Type: "c", Values: []float64{1}, Tags: []string{"k:v", " B:c:d", "", "bare", "k:v"}}},
		{"no tags", "a:1|c|#", parsed{Name: "a", Type: "c", Values: []float64{1}}},
		{"fields in any order", "a:1|c|#x|@0.5", parsed{Name: "a", Type: "c", Values: []float64{1}, Rate: 0.5, Tags: []string{"x"}}},
		{"last of its kind wins", "a:1|c|#x|#y|@0.5|@0.1", parsed{Name: "a", Type: "c", Values: []float64{1}, Rate: 0.1, Tags: []string{"y"}}},
		{"unknown field skipped", "a:1|c|zz:1||x", parsed{Name: "a", Type: "c", Values: []float64{1}}},
		{"timestamp", "a:1|g|T1656581400", parsed{Name: "a", Type: "g", Values: []float64{1}, Time: 1656581400}},
		{"origin", "a:1|c|c:ci-abc|e:it-false,cn-x,pu-u|card:high", parsed{
			Name: "a", Type: "c", Values: []float64{1}, Container: "ci-abc", External: "it-false,cn-x,pu-u", Cardinality: "high"}},
		{"entity tag", "a:1|c|#dd.internal.entity_id:u1,x", parsed{Name: "a", Type: "c", Values: []float64{1}, Pod: "u1", Tags: []string{"x"}}},
		{"entity none", "a:1|c|#dd.internal.entity_id:none", parsed{Name: "a", Type: "c", Values: []float64{1}}},
		{"card tag", "a:1|c|#dd.internal.card:high,dd.internal.jmx_check_name:x", parsed{Name: "a", Type: "c", Values: []float64{1}, Cardinality: "high"}},
		{"card field before tag", "a:1|c|card:low|#dd.internal.card:high", parsed{Name: "a", Type: "c", Values: []float64{1}, Cardinality: "low"}},
		{"host tag", "a:1|c|#host:h,hostname:x", parsed{Name: "a", Type: "c", Values: []float64{1}, Host: "h", HasHost: true, Tags: []string{"hostname:x"}}},
		{"empty host tag", "a:1|c|#host:", parsed{Name: "a", Type: "c", Values: []float64{1}, HasHost: true}},
		{"any bytes in a name", "a b\xff/ü:1|c", parsed{Name: "a b\xff/ü", Type: "c", Values: []float64{1}}},
	} {
		p := Parser{ClientOrigin: true}
		m, err := p.Metric([]byte(tt.line))
		if err != nil {
			t.Errorf("%s: %q: %v", tt.about, tt.line, err)
			continue
		}
		if tt.want.Rate == 0 {
			tt.want.Rate = 1
		}
		if diff := cmp.Diff(tt.want, words(m), cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("%s: %q (-want +got):\n%s", tt.about, tt.line, diff)
		}
	}
}

func TestMetricErrors(t *testing.T) {
	for line, want := range map[string]ParseError{
		"":              ErrNoType,
		"a":             ErrNoType,
		"a:1":           ErrNoType,
		":1|c":          ErrNoName,
		"|c":            ErrNoName,
		"a|c":           ErrNoValue,
		"a:|c":          ErrNoValue,
		"a::|c":         ErrNoValue,
		"a:x|c":         ErrBadValue,
		"a:1:x|c":       ErrBadValue,
		"a:1 |c":        ErrBadValue,
		"a:NaN|g":       ErrNotFinite,
		"a:-Inf|g":      ErrNotFinite,
		"a:1e999|g":     ErrNotFinite,
		"a:1|":          ErrBadType,
		"a:1|C":         ErrBadType,
		"a:1|msx":       ErrBadType,
		"a:1|c|@":       ErrBadRate,
		"a:1|c|@x":      ErrBadRate,
		"a:1|c|@1e-320": ErrBadRate,
		"a:1|c|T":       ErrBadTimestamp,
		"a:1|c|T0":      ErrBadTimestamp,
		"a:1|c|T-1":     ErrBadTimestamp,
		"a:1|c|T1.5":    ErrBadTimestamp,
		"a|b:1|c":       ErrNoValue,
	} {
		var p Parser
		_, err := p.Metric([]byte(line))
		if !errors.Is(err, want) {
			t.Errorf("%q: error %v, want %s", line, err, string(want))
		}
		if err != nil && err.Error() == string(want) {
			t.Errorf("%s has no explanation", want)
		}
	}
}

func TestClientOriginOffIgnoresFields(t *testing.T) {
	var p Parser
	m, err := p.Metric([]byte("a:1|c|c:abc|e:pu-x|card:high|#x"))
	if err != nil {
		t.Fatal(err)
	}
	want := parsed{Name: "a", Type: "c", Values: []float64{1}, Rate: 1, Tags: []string{"x"}}
	if diff := cmp.Diff(want, words(m)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestLinesAndKinds(t *testing.T) {
	data := []byte("a:1|c\r\n\n_e{1,1}:x|y\n_sc|n|0\n_x:1|c")
	var got []string
	for rest := data; len(rest) > 0; {
		var line []byte
		line, rest = NextLine(rest)
		got = append(got, strconv.Itoa(int(KindOf(line)))+" "+string(line))
	}
	want := []string{"0 a:1|c", "0 ", "1 _e{1,1}:x|y", "2 _sc|n|0", "0 _x:1|c"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestParseFloatAgreesWithStrconv(t *testing.T) {
	for _, s := range []string{
		"0", "-0", "1", "1.", ".5", "-1.25", "+3", "123456789012345", "1234567890.12345", "0.000000000000001",
		"0.1", "0.3", "1e10", "1.7976931348623157e308", "5e-324", "9007199254740993", "999999999999999.9", "00000000000000001",
	} {
		got, ok := parseFloat([]byte(s))
		want, err := strconv.ParseFloat(s, 64)
		if !ok || err != nil || math.Float64bits(got) != math.Float64bits(want) {
			t.Errorf("parseFloat(%q) = %v, %v; strconv: %v, %v", s, got, ok, want, err)
		}
	}
	for _, s := range []string{"", "+", "-", ".", "1.2.3", "--1", "1e", "0x"} {
		if v, ok := parseFloat([]byte(s)); ok {
			t.Errorf("parseFloat(%q) = %v, want none", s, v)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{
		"a:1|c", "a:1:2:3|ms|@0.5|#x:y,z|c:ci-abc|e:it-false,cn-a,pu-b|card:low|T12", "users:a:b|s|#host:",
		"a:NaN|g", "_e{5,4}:title|text", "_sc|x|0", "\n\r\n|", "a:0x1p-2|h|@", "a:1|c|#dd.internal.entity_id:none,dd.internal.card:x",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		original := bytes.Clone(data)
		p := Parser{ClientOrigin: true}
		for rest := data; len(rest) > 0; {
			before := len(rest)
			var line []byte
			line, rest = NextLine(rest)
			if len(rest) >= before || bytes.IndexByte(line, '\n') >= 0 {
				t.Fatalf("NextLine does not advance or keeps a line feed: %q", line)
			}
			m, err := p.Metric(line)
			var pe ParseError
			switch {
			case err != nil && !errors.As(err, &pe):
				t.Fatalf("%q: error %v is no ParseError", line, err)
			case err != nil:
				continue
			case len(m.Name) == 0 || !(m.Rate > 0 && m.Rate <= 1) || m.Time < 0 || strings.Contains(string(m.Name), ":"):
				t.Fatalf("%q: accepted as %+v", line, words(m))
			case m.Type == aggregate.Set && len(m.Member) == 0 || m.Type != aggregate.Set && len(m.Values) == 0:
				t.Fatalf("%q: accepted without a value", line)
			}
			for _, v := range m.Values {
				if math.IsNaN(v) || math.IsInf(v, 0) {
					t.Fatalf("%q: accepted value %v", line, v)
				}
			}
		}
		if !bytes.Equal(original, data) {
			t.Fatal("the datagram was modified")
		}
	})
}

func TestParseDoesNotAllocate(t *testing.T) {
	p := Parser{ClientOrigin: true}
	line := []byte("checkout.latency:12.5:3:1e3|ms|@0.5|#env:prod,service:checkout,route:/cart|c:ci-0123456789|card:low|T1700000000")
	if n := testing.AllocsPerRun(100, func() {
		if _, err := p.Metric(line); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations a line, want 0", n)
	}
}

func BenchmarkParse(b *testing.B) {
	line := []byte("flask.request.rate:1|c|#kube_namespace:test,kube_deployment:test-metric-app,env:prod,service:web,version:1")
	var p Parser
	b.SetBytes(int64(len(line)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := p.Metric(line); err != nil {
			b.Fatal(err)
		}
	}
}
