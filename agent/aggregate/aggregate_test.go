package aggregate_test

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"

	"kelpie.dev/kelpie/agent/aggregate"
	"kelpie.dev/kelpie/agent/dogstatsd"
	"kelpie.dev/kelpie/metric"
)

// TestScripts runs the scripts under testdata. Their commands are
//
//	new [contexts=N] [bytes=N] [expiry=SECONDS] [fast=CONTEXTS] [bucket-timestamps] [base=(TAG,…)] [aggregates=(…)] [percentiles=(…)]
//	add at=SECONDS [origin=NAME] [sender=NAME] [times=N]  then DogStatsD lines, in
//	                    which, as in the sender, % is the number of the
//	                    repetition; prints what is dropped
//	flush now=SECONDS [quiet]  prints the series, or how many there are
//	fast at=SECONDS of=(METRIC,…)  makes metrics leave every second
//	second now=SECONDS  prints the series of the seconds that have ended
//	last now=SECONDS    the same, of the one that is open, too
//	fast-stats          prints whose contexts leave every second
//	due now=SECONDS     prints when the next flush is due
//	stats
//	held                prints how much is held, by how many
//	origins             prints who holds contexts, and who was refused some
//
// Series without host=… belong to the host "node".
func TestScripts(t *testing.T) {
	datadriven.Walk(t, "testdata", func(t *testing.T, path string) {
		s := &script{}
		datadriven.RunTest(t, path, s.command)
	})
}

type script struct {
	a      *aggregate.Aggregator
	base   *aggregate.TagSet
	parser dogstatsd.Parser
}

func (s *script) command(t *testing.T, d *datadriven.TestData) string {
	switch d.Cmd {
	case "new":
		return s.create(t, d)
	case "add":
		return s.add(t, d)
	case "flush":
		f := s.a.Flush(at(t, d, "now"))
		if d.HasArg("quiet") {
			return fmt.Sprintf("%d series, %d distributions\n", len(f.Series), len(f.Distributions))
		}
		return describe(f)
	case "fast":
		var names []string
		for _, arg := range d.CmdArgs {
			if arg.Key == "of" {
				names = arg.Vals
			}
		}
		s.a.SetFast(names, at(t, d, "at").Unix())
		return ""
	case "second":
		return describe(aggregate.Flush{Series: s.a.FlushFast(at(t, d, "now"))})
	case "last":
		return describe(aggregate.Flush{Series: s.a.FlushLast(at(t, d, "now"))})
	case "fast-stats":
		return fmt.Sprintf("%+v\n", s.a.Fast())
	case "due":
		return fmt.Sprintln(s.a.Due(at(t, d, "now")).Unix())
	case "stats":
		return fmt.Sprintf("%+v\n", s.a.Stats())
	case "held":
		n, bytes := 0, 0
		for _, o := range s.a.Origins(1_000_000) {
			n, bytes = n+o.Contexts, bytes+o.Bytes
		}
		return fmt.Sprintf("%d contexts of %d origins, %d bytes\n", n, len(s.a.Origins(1_000_000)), bytes)
	case "origins":
		return fmt.Sprintf("held %+v\nrefused %+v\n", s.a.Origins(10), s.a.Refused())
	default:
		d.Fatalf(t, "unknown command %q", d.Cmd)
		return ""
	}
}

func (s *script) create(t *testing.T, d *datadriven.TestData) string {
	o := aggregate.Options{Host: "node"}
	d.MaybeScanArgs(t, "contexts", &o.MaxContexts)
	d.MaybeScanArgs(t, "bytes", &o.MaxContextBytes)
	d.MaybeScanArgs(t, "expiry", &o.CounterExpiry)
	o.BucketTimestamps = d.HasArg("bucket-timestamps")
	d.MaybeScanArgs(t, "fast", &o.FastContexts)
	s.base = nil
	for _, arg := range d.CmdArgs {
		switch arg.Key {
		case "base":
			s.base = aggregate.NewTagSet(metric.NewTags(arg.Vals...))
		case "aggregates":
			o.Aggregates = arg.Vals
		case "percentiles":
			for i := range arg.Vals {
				var p float64
				arg.Scan(t, i, &p)
				o.Percentiles = append(o.Percentiles, p)
			}
		}
	}
	var err error
	if s.a, err = aggregate.New(o); err != nil {
		return "error: " + err.Error() + "\n"
	}
	return ""
}

func (s *script) add(t *testing.T, d *datadriven.TestData) string {
	var origin, sender string
	times := 1
	d.MaybeScanArgs(t, "origin", &origin)
	d.MaybeScanArgs(t, "sender", &sender)
	d.MaybeScanArgs(t, "times", &times)
	dropped := map[string]int{}
	for i := range times {
		for line := range strings.Lines(d.Input) {
			line = strings.TrimSuffix(strings.ReplaceAll(line, "%", strconv.Itoa(i)), "\n")
			m, err := s.parser.Metric([]byte(line))
			if err != nil {
				d.Fatalf(t, "%q: %v", line, err)
			}
			m.Base, m.Origin, m.Sender = s.base, origin, []byte(strings.ReplaceAll(sender, "%", strconv.Itoa(i)))
			if err := s.a.Add(&m.Sample, at(t, d, "at")); err != nil {
				dropped[err.Error()]++
			}
		}
	}
	var out strings.Builder
	for _, reason := range slices.Sorted(maps.Keys(dropped)) {
		fmt.Fprintf(&out, "%d dropped: %s\n", dropped[reason], reason)
	}
	return out.String()
}

func at(t *testing.T, d *datadriven.TestData, key string) time.Time {
	var sec int64
	d.ScanArgs(t, key, &sec)
	return time.Unix(sec, 0)
}

func describe(f aggregate.Flush) string {
	var out strings.Builder
	for i, s := range slices.Concat(f.Series, f.Doubled, f.Fast) {
		switch {
		case i >= len(f.Series)+len(f.Doubled):
			out.WriteString("fast: ")
		case i >= len(f.Series):
			out.WriteString("doubled: ")
		}
		fmt.Fprintf(&out, "%s{%s} %s/%ds", s.Name, s.Tags, s.Type, s.Interval)
		if s.Host != "node" {
			fmt.Fprintf(&out, " host=%q", s.Host)
		}
		if s.Device != "" {
			fmt.Fprintf(&out, " device=%s", s.Device)
		}
		if s.Unit != "" {
			fmt.Fprintf(&out, " %s", s.Unit)
		}
		for _, p := range s.Points {
			fmt.Fprintf(&out, " %d:%v", p.Time, p.Value)
		}
		out.WriteByte('\n')
	}
	for _, d := range f.Distributions {
		fmt.Fprintf(&out, "%s{%s} distribution", d.Name, d.Tags)
		for _, p := range d.Points {
			fmt.Fprintf(&out, " %d:count=%d,sum=%v,min=%v,max=%v,bins=%v", p.Time, p.Sketch.Count, p.Sketch.Sum, p.Sketch.Min, p.Sketch.Max, p.Sketch.Bins)
		}
		out.WriteByte('\n')
	}
	return out.String()
}

func TestInvalidBytesDoNotReachTheWire(t *testing.T) {
	a, err := aggregate.New(aggregate.Options{})
	if err != nil {
		t.Fatal(err)
	}
	s := aggregate.Sample{Name: []byte("a\xff"), Type: aggregate.Gauge, Values: []float64{1}, Tags: [][]byte{[]byte("k:\xc3")}, Host: []byte("\x80"), HasHost: true}
	if err := a.Add(&s, time.Unix(1, 0)); err != nil {
		t.Fatal(err)
	}
	got := a.Flush(time.Unix(10, 0)).Series[0]
	if got.Name != "a" || got.Tags[0] != "k:" || got.Host != "\uFFFD" {
		t.Errorf("got name %+q, tags %+q, host %+q", got.Name, got.Tags, got.Host)
	}
}

func TestHistogramBeyondItsBound(t *testing.T) {
	a, err := aggregate.New(aggregate.Options{})
	if err != nil {
		t.Fatal(err)
	}
	const n = 1_000_000
	values := make([]float64, n)
	for i := range values {
		values[i] = float64((i * 7919) % n) // a permutation of 0…n-1
	}
	s := aggregate.Sample{Name: []byte("h"), Type: aggregate.Histogram, Values: values}
	if err := a.Add(&s, time.Unix(1, 0)); err != nil {
		t.Fatal(err)
	}
	for _, series := range a.Flush(time.Unix(10, 0)).Series {
		got := series.Points[0].Value
		want, tolerance := map[string]float64{
			"h.max": n - 1, "h.count": n / 10, "h.avg": (n - 1) / 2.0, "h.median": n / 2, "h.95percentile": n * 0.95,
		}[series.Name], 0.0
		if series.Name == "h.median" || series.Name == "h.95percentile" {
			tolerance = n * 0.001
		}
		if math.Abs(got-want) > tolerance {
			t.Errorf("%s = %v, want %v ± %v", series.Name, got, want, tolerance)
		}
	}
}

func TestLimits(t *testing.T) {
	a, err := aggregate.New(aggregate.Options{})
	if err != nil {
		t.Fatal(err)
	}
	now := time.Unix(1, 0)
	stamped := aggregate.Sample{Name: []byte("g"), Type: aggregate.Gauge, Values: []float64{1}, Time: 5}
	for i := range aggregate.MaxTimestamped {
		if err := a.Add(&stamped, now); err != nil {
			t.Fatalf("timestamped sample %d: %v", i, err)
		}
	}
	if err := a.Add(&stamped, now); !errors.Is(err, aggregate.DropTimestampLimit) {
		t.Errorf("one too many timestamped samples: %v", err)
	}
	if !a.Due(now).Equal(now) {
		t.Errorf("a flush is due at %v, want now", a.Due(now))
	}
	if got := len(a.Flush(now).Series); got != aggregate.MaxTimestamped {
		t.Errorf("%d series, want %d", got, aggregate.MaxTimestamped)
	}
	set := aggregate.Sample{Name: []byte("s"), Type: aggregate.Set}
	for i := range aggregate.MaxSetMembers {
		set.Member = fmt.Appendf(set.Member[:0], "member-%d", i)
		if err := a.Add(&set, now); err != nil {
			t.Fatalf("member %d: %v", i, err)
		}
	}
	set.Member = []byte("one more")
	if err := a.Add(&set, now); !errors.Is(err, aggregate.DropSetLimit) {
		t.Errorf("one member too many: %v", err)
	}
}

func TestTop(t *testing.T) {
	a, err := aggregate.New(aggregate.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for name, n := range map[string]int{"a": 3, "b": 9, "c": 1, "d": 5, "own.x": 20, "own.y": 10} {
		for range n {
			if err := a.Add(&aggregate.Sample{Name: []byte(name), Type: aggregate.Counter, Values: []float64{1}}, time.Unix(1, 0)); err != nil {
				t.Fatal(err)
			}
		}
	}
	got := ""
	top, left := a.Top(3, "own.")
	for _, c := range top {
		got += fmt.Sprintf("%s=%d ", c.Name, c.Samples)
	}
	if want := "b=9 d=5 a=3 "; got != want {
		t.Errorf("top contexts %q, want %q", got, want)
	}
	if want := (aggregate.Total{Contexts: 2, Samples: 30}); left != want {
		t.Errorf("left out %+v, want %+v", left, want)
	}
	if top, left = a.Top(1, ""); len(top) != 1 || top[0].Name != "own.x" || left.Contexts != 0 {
		t.Errorf("of all: %v, left out %+v", top, left)
	}
}

// load is a datagram of every tenth-thousandth context, as a client packs it.
func load(contexts int) [][]byte {
	var out [][]byte
	var packet []byte
	for i := range contexts {
		packet = fmt.Appendf(packet, "flask.request.rate:1|c|#route:r%d,kube_namespace:test,env:prod,service:web,version:1\n", i)
		if len(packet) > 1300 || i == contexts-1 {
			out, packet = append(out, packet), nil
		}
	}
	return out
}

func addAll(tb testing.TB, a *aggregate.Aggregator, p *dogstatsd.Parser, packet []byte, now time.Time) int {
	n := 0
	for rest := packet; len(rest) > 0; n++ {
		var line []byte
		line, rest = dogstatsd.NextLine(rest)
		m, err := p.Metric(line)
		if err != nil {
			tb.Fatal(err)
		}
		if err := a.Add(&m.Sample, now); err != nil {
			tb.Fatal(err)
		}
	}
	return n
}

func TestAddDoesNotAllocate(t *testing.T) {
	a, err := aggregate.New(aggregate.Options{})
	if err != nil {
		t.Fatal(err)
	}
	packets, p, now := load(10), &dogstatsd.Parser{}, time.Unix(1, 0)
	if n := testing.AllocsPerRun(100, func() { addAll(t, a, p, packets[0], now) }); n != 0 {
		t.Errorf("%v allocations a datagram at steady state, want 0", n)
	}
}

func BenchmarkParseAndAggregate(b *testing.B) {
	for _, contexts := range []int{100, 10_000, 100_000} {
		b.Run(fmt.Sprintf("contexts=%d", contexts), func(b *testing.B) {
			a, err := aggregate.New(aggregate.Options{})
			if err != nil {
				b.Fatal(err)
			}
			packets, p, now := load(contexts), &dogstatsd.Parser{}, time.Unix(1, 0)
			for _, packet := range packets {
				addAll(b, a, p, packet, now)
			}
			b.ReportAllocs()
			samples := 0
			for i := 0; b.Loop(); i++ {
				samples += addAll(b, a, p, packets[i%len(packets)], now)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(samples), "ns/sample")
		})
	}
}

func BenchmarkFlush(b *testing.B) {
	for _, kind := range []aggregate.Type{aggregate.Counter, aggregate.Histogram} {
		b.Run("type="+kind.String(), func(b *testing.B) { benchmarkFlush(b, kind) })
	}
}

// benchmarkFlush closes the buckets of 100 000 contexts: counters of one sample,
// histograms of ten.
func benchmarkFlush(b *testing.B, kind aggregate.Type) {
	a, err := aggregate.New(aggregate.Options{})
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	series := map[aggregate.Type]int{aggregate.Counter: 1, aggregate.Histogram: 5}[kind]
	for i := int64(0); b.Loop(); i++ {
		b.StopTimer()
		for c := range 100_000 {
			s := aggregate.Sample{Name: []byte("name" + strconv.Itoa(c)), Type: kind, Values: []float64{1}}
			if kind != aggregate.Counter {
				s.Values = []float64{3, 1, 4, 1, 5, 9, 2, 6, 5, 3}
			}
			if err := a.Add(&s, time.Unix(i*10, 0)); err != nil {
				b.Fatal(err)
			}
		}
		b.StartTimer()
		if got := len(a.Flush(time.Unix(i*10+10, 0)).Series); got != series*100_000 {
			b.Fatalf("%d series", got)
		}
	}
}
