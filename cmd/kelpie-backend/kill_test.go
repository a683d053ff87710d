package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"

	"kelpie.dev/kelpie/backend/store"
	"kelpie.dev/kelpie/metric"
	"kelpie.dev/kelpie/metric/payload"
	"kelpie.dev/kelpie/query"
)

// killRounds is how often the backend is killed. KELPIE_TEST_KILL_ROUNDS has more.
func killRounds(t *testing.T) int {
	rounds, set := os.LookupEnv("KELPIE_TEST_KILL_ROUNDS")
	if !set {
		return 20
	}
	n, err := strconv.Atoi(rounds)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// A parcel is one request of a sender: to contexts that are there, to one that is
// new, and late. All of its points are its own, so that each is found again.
type parcel struct {
	epoch, sender, number int
	base                  int64 // Unix time from which on the epoch's points lie
}

// span is how many seconds the points of one context are spread over.
const span = 2900

func (p parcel) value() float64 { return float64(p.sender*1_000_000 + p.number) }

func (p parcel) tags() metric.Tags {
	return metric.NewTags(fmt.Sprint("epoch:", p.epoch), fmt.Sprint("turn:", p.number/span), "kind:a", "kind:b")
}

func (p parcel) series() []metric.Series {
	at := func(sec int) []metric.Point { return []metric.Point{{Time: p.base + int64(sec), Value: p.value()}} }
	host := fmt.Sprint("h", p.sender)
	return []metric.Series{
		{Name: "kill.old", Host: host, Tags: p.tags(), Type: metric.Gauge, Points: at(p.number % span)},
		{Name: "kill.new", Host: host, Tags: metric.NewTags(fmt.Sprint("epoch:", p.epoch), fmt.Sprint("number:", p.number)), Type: metric.Gauge, Points: at(7)},
		{Name: "kill.late", Host: host, Tags: p.tags(), Type: metric.Gauge, Points: at(span - p.number%span)},
	}
}

func (p parcel) distributions() []metric.Distribution {
	var b metric.SketchBuilder
	b.Add(p.value()+1, 1)
	b.Add(2*p.value()+10, 1)
	at := func(sec int) []metric.SketchPoint {
		return []metric.SketchPoint{{Time: p.base + int64(sec), Sketch: b.Sketch()}}
	}
	host := fmt.Sprint("h", p.sender)
	return []metric.Distribution{
		{Name: "kill.dist", Host: host, Tags: p.tags(), Points: at(p.number % span)},
		{Name: "kill.dist", Host: host, Tags: metric.NewTags(fmt.Sprint("number:", p.number), fmt.Sprint("epoch:", p.epoch)), Points: at(7)},
	}
}

// sender sends parcels as one kind of client does.
type sender struct {
	number int
	next   int // number of the next parcel
	acked  []parcel
	zw     *zstd.Encoder
}

const senders = 6

func (s *sender) request(ctx context.Context, url string, p parcel) (*http.Request, error) {
	kind, path := "application/json", "/api/v1/series"
	var body []byte
	switch s.number % 3 {
	case 0:
		kind, path, body = "application/x-protobuf", "/api/v2/series", payload.AppendV2(nil, p.series())
	case 1:
		kind, path, body = "application/x-protobuf", "/api/beta/sketches", payload.AppendSketches(nil, p.distributions())
	default:
		var b bytes.Buffer
		for _, m := range p.series() {
			fmt.Fprintf(&b, `,{"metric":%q,"host":%q,"type":"gauge","tags":["%s"],"points":[[%d,%g]]}`, m.Name, m.Host, strings.Join(m.Tags, `","`), m.Points[0].Time, m.Points[0].Value)
		}
		body = append(append([]byte(`{"series":[`), b.Bytes()[1:]...), "]}"...)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url+path, bytes.NewReader(s.zw.EncodeAll(body, nil)))
	if err != nil {
		return nil, err
	}
	req.Header.Set("DD-API-KEY", "ak")
	req.Header.Set("Content-Type", kind)
	req.Header.Set("Content-Encoding", "zstd")
	return req, nil
}

// send sends parcels until the backend does not answer any more, or ctx ends: its
// port may be another's by then.
func (s *sender) send(ctx context.Context, url string, p parcel) error {
	client := &http.Client{Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	for {
		p.sender, p.number = s.number, s.next
		s.next++
		req, err := s.request(ctx, url, p)
		if err != nil {
			return err
		}
		resp, err := client.Do(req)
		if err != nil {
			return nil // it is dead
		}
		_, err = io.Copy(io.Discard, resp.Body)
		_ = resp.Body.Close()
		switch {
		case ctx.Err() != nil:
			return nil
		case resp.StatusCode != http.StatusAccepted:
			return errors.New(resp.Status)
		case err != nil:
			return nil // it died in the middle of its answer
		}
		s.acked = append(s.acked, p)
	}
}

// TestKillNineUnderLoad kills the backend again and again while several clients
// send, always on the same data, then looks for every point of every request that
// was answered with a 202.
func TestKillNineUnderLoad(t *testing.T) {
	dir, rounds := t.TempDir(), killRounds(t)
	zw, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(zstd.SpeedFastest))
	if err != nil {
		t.Fatal(err)
	}
	var all [senders]*sender
	for i := range all {
		all[i] = &sender{number: i, zw: zw}
	}
	var base int64
	for round := range rounds {
		if round%5 == 0 { // no point may become too old
			base = time.Now().Unix() - span - 600
			for _, s := range all {
				s.next = 0
			}
		}
		p := launch(t, dir, "KELPIE_MIN_FREE_BYTES=-1")
		var wg sync.WaitGroup
		ctx, stop := context.WithCancel(t.Context())
		for _, s := range all {
			wg.Go(func() {
				if err := s.send(ctx, p.url, parcel{epoch: round / 5, base: base}); err != nil {
					t.Error(err)
				}
			})
		}
		// The moment is random, also relative to what the backend is doing.
		<-time.After(time.Duration(rand.Int64N(int64(200 * time.Millisecond))))
		if err := p.end(t, syscall.SIGKILL); err == nil {
			t.Error("the backend ended of itself")
		}
		stop()
		wg.Wait()
		if t.Failed() {
			t.Fatalf("round %d\n%s", round, p.log.String())
		}
	}
	verify(t, dir, all[:], rounds)
}

func verify(t *testing.T, dir string, all []*sender, rounds int) {
	t.Helper()
	s, err := store.Open(store.Options{Dir: dir, MinFree: -1, MaxSelectSeries: 10_000_000, MaxSelectPoints: 1_000_000_000})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}()
	now := time.Now().Unix()
	values, sketches := make(map[string]float64), make(map[string]metric.Sketch)
	for _, name := range []string{"kill.old", "kill.new", "kill.late", "kill.dist"} {
		sel := query.Selector{Metric: name, Scope: query.All{}}
		series, err := s.Select(t.Context(), sel, now-86400, now)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range series {
			for _, p := range m.Points {
				values[fmt.Sprint(name, m.Host, m.Tags, p.Time)] = p.Value
			}
		}
		for d, err := range s.Distributions(t.Context(), sel, now-86400, now) {
			if err != nil {
				t.Fatal(err)
			}
			for _, p := range d.Clone().Points {
				sketches[fmt.Sprint(name, d.Host, d.Tags, p.Time)] = p.Sketch
			}
		}
	}
	points, missing := 0, 0
	for _, s := range all {
		if len(s.acked) < rounds {
			t.Errorf("sender %d had only %d requests acknowledged in %d rounds", s.number, len(s.acked), rounds)
		}
		for _, p := range s.acked {
			n, gone := p.missing(s.number%3 == 1, values, sketches)
			points, missing = points+n, missing+gone
		}
	}
	t.Logf("%d rounds, %d points acknowledged", rounds, points)
	if missing > 0 {
		t.Errorf("%d of %d acknowledged points are gone", missing, points)
	}
}

// missing counts p's points, and those that are not stored as they were sent.
func (p parcel) missing(distributions bool, values map[string]float64, sketches map[string]metric.Sketch) (points, missing int) {
	if !distributions {
		for _, m := range p.series() {
			points++
			if v, ok := values[fmt.Sprint(m.Name, m.Host, m.Tags, m.Points[0].Time)]; !ok || v != p.value() {
				missing++
			}
		}
		return points, missing
	}
	for _, d := range p.distributions() {
		points++
		want := d.Points[0].Sketch
		if got := sketches[fmt.Sprint(d.Name, d.Host, d.Tags, d.Points[0].Time)]; got.Count != 2 || got.Min != want.Min || got.Max != want.Max || got.Sum != want.Sum {
			missing++
		}
	}
	return points, missing
}

func point(at int64, v float64) string {
	return fmt.Sprintf(`{"series":[{"metric":"m","type":"gauge","points":[[%d,%g]],"tags":["a:b"]}]}`, at, v)
}

// post sends a body of /api/v1/series, which must be taken.
func post(t *testing.T, url, body string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url+"/api/v1/series", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("DD-API-KEY", "ak")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusAccepted {
		t.Fatal(resp.Status)
	}
}

// stored returns the answer to a query of what post sent.
func stored(t *testing.T, url string, at int64) string {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, fmt.Sprintf("%s/api/v1/query?from=%d&to=%d&query=avg:m{a:b}", url, at-60, at+1), http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("DD-API-KEY", "ak")
	req.Header.Set("DD-APPLICATION-KEY", "pk")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}
