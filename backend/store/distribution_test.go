package store

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"kelpie.dev/kelpie/metric"
)

func dist(name, host string, tags []string, points ...metric.SketchPoint) metric.Distribution {
	return metric.Distribution{Name: name, Host: host, Tags: metric.NewTags(tags...), Points: points}
}

func sk(at int64, values ...float64) metric.SketchPoint {
	return metric.SketchPoint{Time: at, Sketch: built(values...)}
}

func writeSketches(t *testing.T, s *Store, ds ...metric.Distribution) {
	t.Helper()
	if err := s.AppendDistributions(t.Context(), ds); err != nil {
		t.Fatal(err)
	}
}

// readSketches returns the selected distributions by context, as read does.
func readSketches(t *testing.T, s *Store, name, scope string) map[string][]metric.SketchPoint {
	t.Helper()
	out := make(map[string][]metric.SketchPoint)
	for d, err := range s.Distributions(t.Context(), parseSelector(t, name, scope), t0-7200, t0+7200) {
		if err != nil {
			t.Fatal(err)
		}
		key := d.Host + "|" + d.Tags.String()
		if out[key] != nil {
			t.Errorf("context %s came twice", key)
		}
		out[key] = cloned(d.Points)
	}
	return out
}

// cloned copies points, whose memory the next distribution takes.
func cloned(points []metric.SketchPoint) []metric.SketchPoint {
	points = slices.Clone(points)
	for i := range points {
		points[i].Sketch.Bins = slices.Clone(points[i].Sketch.Bins)
	}
	return points
}

func TestDistributionsSurviveAReopening(t *testing.T) {
	dir, clock := t.TempDir(), &fixed{t0 + 60}
	o := Options{Dir: dir, Now: clock.now, MinFree: -1}
	s := open(t, o)
	in := []metric.Distribution{
		dist("d", "Node-1", []string{"env:prod", "a:1", "a:2", "bare", "empty:"}, sk(t0, 1, 2, 3), sk(t0+10, -4, 0, 1e9)),
		dist("d", "", nil, sk(t0, 42)),
		dist("d", "h", []string{"env:dev"}, sk(t0+20, 7), sk(t0, 8)), // not in order
	}
	writeSketches(t, s, in...)
	write(t, s, one("d", "h", []string{"env:dev"}, metric.Point{Time: t0, Value: 5}))
	want := map[string][]metric.SketchPoint{
		"Node-1|a:1,a:2,bare,empty:,env:prod": {sk(t0, 1, 2, 3), sk(t0+10, -4, 0, 1e9)},
		"|":                                   {sk(t0, 42)},
		"h|env:dev":                           {sk(t0, 8), sk(t0+20, 7)},
	}
	for _, state := range []string{"open", "reopened"} {
		if d := cmp.Diff(want, readSketches(t, s, "d", "*")); d != "" {
			t.Errorf("%s: (-want +got)\n%s", state, d)
		}
		if got := readSketches(t, s, "d", "a:2,host:node-1"); len(got) != 1 {
			t.Errorf("%s: %d contexts of a tag with several values", state, len(got))
		}
		// The name's series stays a context of its own.
		if d := cmp.Diff(map[string][]metric.Point{"h|env:dev": {{Time: t0, Value: 5}}}, read(t, s, "d", "*")); d != "" {
			t.Errorf("%s: the series (-want +got)\n%s", state, d)
		}
		tags, err := s.Tags(t.Context(), "d", clock.now().Add(-tagsAge))
		if d := cmp.Diff(metric.NewTags("env:prod", "a:1", "a:2", "bare", "empty:", "host:node-1", "env:dev", "host:h"), tags); d != "" || err != nil {
			t.Errorf("%s: tags (-want +got, %v)\n%s", state, err, d)
		}
		if _, isDistribution, ok := s.Describe("d"); !ok || !isDistribution {
			t.Errorf("%s: the name is not known as a distribution", state)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		s = open(t, o)
	}
}

const tagsAge = 3600e9

// TestDistributionsSurviveACompaction reads sketches of ever other bins, some out
// of order, from blocks and from what is not yet in one.
func TestDistributionsSurviveACompaction(t *testing.T) {
	clock := &fixed{t0}
	s := open(t, Options{Now: clock.now, MinFree: -1})
	r := rand.New(rand.NewPCG(5, 6))
	want := make(map[int64]metric.Sketch)
	for i := range 5 * 360 { // five hours
		clock.sec = t0 + int64(i)*10
		at := clock.sec
		if i%7 == 0 && i > 100 {
			at -= 605 // late, between others
		}
		var b metric.SketchBuilder
		for range r.IntN(30) + 1 {
			b.Add(math.Exp(r.NormFloat64()*3)-0.5, 1)
		}
		want[at] = b.Sketch()
		writeSketches(t, s, dist("m", "h", nil, metric.SketchPoint{Time: at, Sketch: want[at]}))
	}
	if err := s.db.Compact(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := s.db.CompactOOOHead(t.Context()); err != nil {
		t.Fatal(err)
	}
	if len(s.db.Blocks()) == 0 {
		t.Fatal("there is no block: the test did not test anything")
	}
	got := make(map[int64]metric.Sketch)
	for d, err := range s.Distributions(t.Context(), parseSelector(t, "m", "*"), t0-3600, t0+5*3600) {
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range cloned(d.Points) {
			got[p.Time] = p.Sketch
		}
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("%d sketches of %d (-want +got)\n%.2000s", len(got), len(want), d)
	}
}

// A name that had series becomes a distribution too, for the catalog's file also.
func TestSeriesBecomesADistribution(t *testing.T) {
	clock := &fixed{t0}
	s := open(t, Options{Now: clock.now, MinFree: -1})
	write(t, s, one("m", "h", nil, metric.Point{Time: t0, Value: 5}))
	if _, isDistribution, _ := s.Describe("m"); isDistribution {
		t.Error("a series is no distribution")
	}
	writeSketches(t, s, dist("m", "h", nil, sk(t0, 1)))
	after := open(t, Options{Dir: crashed(t, s), Now: clock.now, MinFree: -1})
	if got := readSketches(t, after, "m", "*"); len(got) != 1 {
		t.Errorf("after a crash there are %d distributions", len(got))
	}
	if got := read(t, after, "m", "*"); len(got) != 1 {
		t.Errorf("after a crash there are %d series", len(got))
	}
}

func TestLastSketchOfASecondWins(t *testing.T) {
	clock := &fixed{t0}
	s := open(t, Options{Now: clock.now, MinFree: -1})
	at := func(sec int64, v float64) metric.Distribution { return dist("m", "h", nil, sk(sec, v, v+1)) }
	writeSketches(t, s, at(t0, 1), at(t0, 2)) // twice in a batch
	writeSketches(t, s, at(t0+10, 4), at(t0+20, 5))
	clock.sec += 30
	writeSketches(t, s, at(t0, 6)) // out of order
	want := map[string][]metric.SketchPoint{"h|": {sk(t0, 6, 7), sk(t0+10, 4, 5), sk(t0+20, 5, 6)}}
	if d := cmp.Diff(want, readSketches(t, s, "m", "*")); d != "" {
		t.Errorf("(-want +got)\n%s", d)
	}
}

func TestRefusedSketchesAreCounted(t *testing.T) {
	clock := &fixed{t0}
	s := open(t, Options{Now: clock.now, MinFree: -1})
	nan, inf := sk(t0, 1), sk(t0, 1)
	inf.Sketch.Bins = []metric.Bin{{Key: 32767, N: 1}}
	swapped := sk(t0, 1, 2)
	swapped.Sketch.Min, swapped.Sketch.Max = 2, 1
	nan.Sketch.Sum = math.NaN()
	writeSketches(t, s, dist("m", "h", nil, sk(t0+601, 1), sk(t0-3601, 1), sk(t0), nan, inf, swapped, sk(t0-10, 3)))
	accepted, refused := s.Counts()
	want := map[string]uint64{ReasonFuture: 1, ReasonPast: 1, ReasonEmpty: 1, ReasonNotFinite: 2, ReasonInvalid: 1}
	if d := cmp.Diff(want, refused); d != "" || accepted != 1 {
		t.Errorf("accepted %d; refused (-want +got)\n%s", accepted, d)
	}
	if d := cmp.Diff(map[string][]metric.SketchPoint{"h|": {sk(t0-10, 3)}}, readSketches(t, s, "m", "*")); d != "" {
		t.Errorf("(-want +got)\n%s", d)
	}
}

// A distribution needs room for its three series, so that none comes in part.
func TestDistributionsKeepToTheLimits(t *testing.T) {
	clock := &fixed{t0}
	s := open(t, Options{Now: clock.now, MinFree: -1, MaxMetricSeries: 7, MaxSeries: 11, MaxMetricNames: 2})
	for i := range 4 {
		writeSketches(t, s, dist("a", fmt.Sprint("h", i), nil, sk(t0, 1)))
	}
	for i := range 4 {
		writeSketches(t, s, dist("b", fmt.Sprint("h", i), nil, sk(t0, 1)))
	}
	writeSketches(t, s, dist("c", "", nil, sk(t0, 1)))
	if a, b, n := len(readSketches(t, s, "a", "*")), len(readSketches(t, s, "b", "*")), s.liveSeries(); a != 2 || b != 1 || n != 9 {
		t.Errorf("%d and %d distributions in %d series, want 2 and 1 in 9", a, b, n)
	}
	_, refused := s.Counts()
	if d := cmp.Diff(map[string]uint64{ReasonCardinality: 2, ReasonTotal: 3, ReasonNames: 1}, refused); d != "" {
		t.Errorf("refused (-want +got)\n%s", d)
	}
}

func TestDistributionsLimitWhatOneQueryReads(t *testing.T) {
	clock := &fixed{t0}
	s := open(t, Options{Now: clock.now, MinFree: -1, MaxSelectSeries: 2, MaxSelectPoints: 3})
	for i := range 3 {
		writeSketches(t, s, dist("series", fmt.Sprint(i), nil, sk(t0, 1)))
	}
	writeSketches(t, s, dist("points", "", nil, sk(t0-10, 1), sk(t0-20, 1), sk(t0-30, 1), sk(t0, 1)))
	for what, n := range map[string]int{"series": 2, "points": 0} {
		var err error
		got := 0
		for _, err = range s.Distributions(t.Context(), parseSelector(t, what, "*"), t0-60, t0) {
			if err == nil {
				got++
			}
		}
		var limit *LimitError
		if !errors.As(err, &limit) || limit.What != what || got != n {
			t.Errorf("%s: %d contexts and error %v", what, got, err)
		}
	}
}

// Without its minimum and maximum, as a crash in the middle of a write leaves
// it, a sketch has those of its bins.
func TestSketchWithoutExtremes(t *testing.T) {
	clock := &fixed{t0}
	s := open(t, Options{Now: clock.now, MinFree: -1})
	in := dist("m", "h", nil, sk(t0, 10, 20))
	writeSketches(t, s, in, dist("m", "i", nil, sk(t0, 10)))
	app := s.db.AppenderV2(t.Context())
	b := &batch{s: s, now: t0, app: app}
	it := &item{Series: &metric.Series{Name: "m", Host: "g"}, isDistribution: true}
	st := &contextState{}
	if reason, err := b.put(&st.ref, it, partBins, sample{ms: t0 * 1000, histogram: histogramOf(&in.Points[0].Sketch)}); reason != "" || err != nil {
		t.Fatal(reason, err)
	}
	if err := app.Commit(); err != nil {
		t.Fatal(err)
	}
	got := readSketches(t, s, "m", "*")
	if d := cmp.Diff([]metric.SketchPoint{sk(t0, 10, 20)}, got["h|"]); d != "" {
		t.Errorf("a whole one (-want +got)\n%s", d)
	}
	if d := cmp.Diff([]metric.SketchPoint{sk(t0, 10, 20)}, got["g|"], cmpopts.EquateApprox(metric.SketchAccuracy, 0)); d != "" || len(got) != 3 {
		t.Errorf("one without extremes, of %d (-want +got)\n%s", len(got), d)
	}
}

// BenchmarkDistributions writes and reads 1000 contexts whose sketches have some
// 150 bins, as a busy service's latencies do.
func BenchmarkDistributions(b *testing.B) {
	clock := &fixed{t0}
	s, err := Open(Options{Dir: b.TempDir(), Now: clock.now, MinFree: -1})
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	r := rand.New(rand.NewPCG(1, 2))
	sketches := make([]metric.Sketch, 1999) // so many that the log's compression finds none again
	for i := range sketches {
		var sb metric.SketchBuilder
		for range 1000 {
			sb.Add(math.Exp(r.NormFloat64()*0.5+3), 1)
		}
		sketches[i] = sb.Sketch()
	}
	n := 0
	next := func(b *testing.B) {
		clock.sec += 10
		batch := make([]metric.Distribution, 1000)
		for i := range batch {
			n++
			batch[i] = dist("bench.latency", fmt.Sprint("node-", i%50), []string{"env:prod", fmt.Sprint("pod_name:web-", i)},
				metric.SketchPoint{Time: clock.sec, Sketch: sketches[n*7%len(sketches)]})
		}
		if err := s.AppendDistributions(b.Context(), batch); err != nil {
			b.Fatal(err)
		}
	}
	for range 30 {
		next(b)
	}
	stats := s.Stats()
	b.Run("append", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			next(b)
		}
		b.ReportMetric(float64(1000*b.N)/b.Elapsed().Seconds(), "sketches/s")
		b.ReportMetric(float64(stats.WALBytes)/30_000, "WAL-B/sketch")
		b.ReportMetric(float64(len(sketches[0].Bins)), "bins")
	})
	sel := parseSelector(b, "bench.latency", "*")
	b.Run("read", func(b *testing.B) {
		b.ReportAllocs()
		read := 0
		for b.Loop() {
			read = 0
			for d, err := range s.Distributions(b.Context(), sel, t0, t0+300) {
				if err != nil {
					b.Fatal(err)
				}
				read += len(d.Points)
			}
		}
		b.ReportMetric(float64(read*b.N)/b.Elapsed().Seconds(), "sketches/s")
	})
}
