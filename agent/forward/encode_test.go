package forward

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"kelpie.dev/kelpie/metric"
	"kelpie.dev/kelpie/metric/payload"
)

// TestEncodeBounds holds for each compression and any mixture of items, those
// that do not compress among them, that payloads keep every bound, that what
// goes in comes out in order, and that only what cannot fit alone is dropped.
func TestEncodeBounds(t *testing.T) {
	for _, name := range Compressions {
		t.Run(name, func(t *testing.T) {
			e, err := newEncoder(name)
			if err != nil {
				t.Fatal(err)
			}
			rapid.Check(t, func(t *rapid.T) {
				r := routes[kindSeries]
				r.maxBody, r.maxRaw = rapid.IntRange(300, 150_000).Draw(t, "body"), rapid.IntRange(300, 600_000).Draw(t, "raw")
				r.maxPoints = rapid.IntRange(1, 300).Draw(t, "points")
				noise := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0))
				var series []metric.Series
				for i := range rapid.IntRange(0, 60).Draw(t, "series") {
					s := batch(int64(i)).Series[0]
					s.Points = slices.Repeat(s.Points, 1+noise.IntN(3))
					tag := strings.Repeat("a", noise.IntN(1<<noise.IntN(17)))
					if noise.IntN(2) == 0 {
						tag = random(noise, len(tag))
					}
					s.Tags = metric.Tags{"t:" + tag}
					series = append(series, s)
				}
				checkEncode(t, e, &r, series)
			})
		})
	}
}

// TestEncodeAtTheBound holds that an item that fits alone to the byte is not lost
// because another follows it.
func TestEncodeAtTheBound(t *testing.T) {
	big, small := batch(0).Series[0], batch(1).Series[0]
	big.Tags = metric.Tags{random(rand.New(rand.NewPCG(1, 2)), 5000)}
	for _, name := range Compressions {
		e, err := newEncoder(name)
		if err != nil {
			t.Fatal(err)
		}
		encode := func(limit int, series ...metric.Series) (sizes []int, dropped int) {
			bounds := routes[kindSeries]
			bounds.maxBody = limit
			b := Batch{Series: series}
			l := seriesList(everyone, b.Series)
			l.bounds = &bounds
			_, dropped, err := e.encode(l, func(p *payloadItem) { sizes = append(sizes, len(p.body)) })
			if err != nil {
				t.Fatal(err)
			}
			return sizes, dropped
		}
		alone, _ := encode(MaxCompressed, big)
		if sizes, dropped := encode(alone[0], big, small); len(sizes) != 2 || sizes[0] != alone[0] || dropped != 0 {
			t.Errorf("%s: payloads of %v bytes, %d dropped, want the first of %d and none", name, sizes, dropped, alone[0])
		}
		if sizes, dropped := encode(alone[0]-1, big, small); len(sizes) != 1 || dropped != 1 {
			t.Errorf("%s, a byte less: payloads of %v bytes, %d dropped, want the first alone to go", name, sizes, dropped)
		}
	}
}

// random is text that does not compress.
func random(noise *rand.Rand, n int) string {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(noise.Uint32())
	}
	return string(b)
}

func checkEncode(t *rapid.T, e *encoder, r *route, series []metric.Series) {
	var out []metric.Series
	b := Batch{Series: series}
	l := seriesList(everyone, b.Series)
	l.bounds = r
	tooLarge, items, err := e.encode(l, func(p *payloadItem) {
		raw, err := decompress(p.body, p.encoding, MaxUncompressed)
		if err != nil || len(p.body) > r.maxBody || len(raw) > r.maxRaw || p.points > r.maxPoints {
			t.Fatalf("%d bytes, %d before compression, %d points, %v; bounds %+v", len(p.body), len(raw), p.points, err, *r)
		}
		got, err := payload.DecodeV2(raw)
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		for _, s := range got {
			n += len(s.Points)
		}
		if n != p.points {
			t.Fatalf("%d points are called %d", n, p.points)
		}
		out = append(out, got...)
	})
	if err != nil {
		t.Fatal(err)
	}
	var want []metric.Series
	dropped, droppedPoints := 0, 0
	for i, s := range b.Series {
		alone := l.item(nil, i, true)
		e.out.Reset()
		e.w.Reset(&e.out)
		if _, err := e.w.Write(alone); err != nil {
			t.Fatal(err)
		}
		if err := e.w.Close(); err != nil {
			t.Fatal(err)
		}
		if len(alone) > r.maxRaw || len(s.Points) > r.maxPoints || e.out.Len() > r.maxBody {
			dropped++
			droppedPoints += len(s.Points)
			continue
		}
		want = append(want, s)
	}
	if diff := cmp.Diff(want, out); diff != "" || items != dropped || tooLarge != droppedPoints {
		t.Fatalf("%d items of %d points dropped, want %d of %d (-want +got):\n%.500s", items, tooLarge, dropped, droppedPoints, diff)
	}
}

// TestTooLarge holds that what an intake calls too large is sent in halves until
// it fits, in order, with and without a spool; and that what is too large alone
// is dropped alone.
func TestTooLarge(t *testing.T) {
	for _, compression := range Compressions {
		for _, dir := range []string{"", t.TempDir()} {
			t.Run(fmt.Sprint(compression, dir != ""), func(t *testing.T) {
				in := newIntake(t, nil)
				in.judge = func(w http.ResponseWriter, r *http.Request, body []byte) bool {
					got, err := decode(r, body)
					tooLarge := err == nil && (len(got.body.Series) > 3 || len(got.body.Distributions) > 1 || len(got.body.Checks) > 1 || len(got.body.Events) > 1)
					for _, s := range got.body.Series {
						tooLarge = tooLarge || s.Points[0].Time == 57
					}
					if tooLarge {
						w.WriteHeader(http.StatusRequestEntityTooLarge)
					}
					return tooLarge
				}
				o := options(in.URL)
				o.SpoolDir, o.Compression = dir, compression
				f := mustNew(t, o)
				c, end := run(t, f)
				b := everyKind()
				b.Series = nil
				for i := range int64(100) {
					b.Series = append(b.Series, batch(i).Series...)
				}
				b.Checks = append(b.Checks, metric.ServiceCheck{Name: "b"}, metric.ServiceCheck{Name: "c"})
				b.Events = append(b.Events, metric.Event{Title: "b", SourceType: "s"}, metric.Event{Title: "c"})
				c <- b
				want := slices.Delete(sequence(100), 57, 58)
				settled := func(points uint64) func() bool { // an empty queue may be one that is not filled yet
					return func() bool { s := f.Status()[0]; return s.DeliveredPts+s.DroppedPts == points }
				}
				eventually(t, "all arrives", settled(100+2+3+3))
				c <- batch(100)
				eventually(t, "the last arrives", settled(109))
				end()
				if diff := cmp.Diff(append(want, 100), in.got()); diff != "" {
					t.Errorf("(-want +got):\n%s", diff)
				}
				var others []string
				for _, r := range in.requests() {
					for _, d := range r.body.Distributions {
						others = append(others, d.Name)
					}
				}
				if diff := cmp.Diff([]string{"latency", "size"}, others); diff != "" {
					t.Errorf("distributions (-want +got):\n%s", diff)
				}
				var checks, events []string
				for _, r := range in.requests() {
					for _, c := range r.body.Checks {
						checks = append(checks, c.Name)
					}
					for _, e := range r.body.Events {
						events = append(events, e.Title)
					}
				}
				if diff := cmp.Diff([]string{"datadog.agent.up", "b", "c"}, checks); diff != "" {
					t.Errorf("service checks (-want +got):\n%s", diff)
				}
				if diff := cmp.Diff([]string{"started", "c", "b"}, events); diff != "" { // by source
					t.Errorf("events (-want +got):\n%s", diff)
				}
				if s := f.Status()[0]; s.DroppedPts != 1 || s.Kinds[0].DroppedPoints["too_large"] != 1 || s.QueuePayloads != 0 || s.QueueBytes != 0 || s.Spool != nil && s.Spool.Bytes != 0 {
					t.Errorf("status %+v", s)
				}
			})
		}
	}
}

// FuzzHalve halves any body of any kind: two payloads or none come of it.
func FuzzHalve(f *testing.F) {
	b := everyKind()
	b.Series = append(b.Series, b.Series...)
	for _, name := range Compressions {
		e, err := newEncoder(name)
		if err != nil {
			f.Fatal(err)
		}
		for _, l := range b.lists(1, "h") {
			if _, _, err := e.encode(l, func(p *payloadItem) { f.Add(uint8(p.kind), p.encoding, p.body) }); err != nil {
				f.Fatal(err)
			}
		}
	}
	f.Fuzz(func(t *testing.T, k uint8, encoding string, body []byte) {
		halves, err := halve(file{kind: kind(k % kinds), encoding: encoding}, body)
		if err == nil && len(halves) != 0 && len(halves) != 2 {
			t.Errorf("%d halves", len(halves))
		}
	})
}

// BenchmarkEncode encodes one flush as the forwarder does, payloads and all.
func BenchmarkEncode(b *testing.B) {
	for _, n := range []int{1_000, 100_000} {
		batch := Batch{}
		for i := range n {
			batch.Series = append(batch.Series, metric.Series{
				Name: fmt.Sprintf("service.requests.%d", i%200), Host: "ip-10-0-0-1.ec2.internal", Type: metric.Rate, Interval: 10,
				Tags:   metric.Tags{"env:prod", fmt.Sprintf("endpoint:/v1/item/%d", i), "kube_namespace:shop", "pod_name:web-7d4b9c-" + fmt.Sprint(i%50), "service:web"},
				Points: []metric.Point{{Time: 1_700_000_000, Value: float64(i) / 10}},
			})
		}
		for _, name := range Compressions {
			b.Run(fmt.Sprintf("%s/%d", name, n), func(b *testing.B) {
				e, err := newEncoder(name)
				if err != nil {
					b.Fatal(err)
				}
				b.ReportAllocs()
				payloads, size := 0, 0
				for b.Loop() {
					payloads, size = 0, 0
					_, _, err := e.encode(seriesList(everyone, batch.Series), func(p *payloadItem) { payloads++; size += len(p.body) })
					if err != nil {
						b.Fatal(err)
					}
				}
				b.ReportMetric(float64(payloads), "payloads")
				b.ReportMetric(float64(size)/float64(n), "B/series")
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(n), "ns/series")
			})
		}
	}
}
