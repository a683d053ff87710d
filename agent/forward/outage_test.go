package forward

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"kelpie.dev/kelpie/metric"
)

// wire is a network of one intake in memory, so that HTTP as it is can run in
// the time of a synctest bubble. While it is down connections are refused.
type wire struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
	mu     sync.Mutex
	down   bool
	dials  []time.Time // that were refused
}

func newWire() *wire { return &wire{conns: make(chan net.Conn), closed: make(chan struct{})} }

func (w *wire) Accept() (net.Conn, error) {
	select {
	case c := <-w.conns:
		return c, nil
	case <-w.closed:
		return nil, net.ErrClosed
	}
}

func (w *wire) Close() error   { w.once.Do(func() { close(w.closed) }); return nil }
func (w *wire) Addr() net.Addr { return &net.UnixAddr{Name: "wire"} }

func (w *wire) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	w.mu.Lock()
	down := w.down
	if down {
		w.dials = append(w.dials, time.Now())
	}
	w.mu.Unlock()
	if down {
		return nil, errors.New("connection refused")
	}
	ours, theirs := net.Pipe()
	select {
	case w.conns <- theirs:
		return ours, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (w *wire) setDown(down bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.down = down
}

// serve starts h on a wire, inside a bubble, and returns options for it.
func serve(t *testing.T, h http.Handler) (*wire, Options) {
	w := newWire()
	server := &http.Server{Handler: h}
	go func() { _ = server.Serve(w) }()
	transport := &http.Transport{DialContext: w.dial, DisableKeepAlives: true}
	t.Cleanup(func() { _ = server.Close() })
	return w, Options{
		Endpoints: []Endpoint{{URL: "http://intake", APIKey: testKey}}, Hostname: "node-1", Transport: transport,
	}
}

// flush is the thousand series of one 10 s bucket.
func flush(bucket int64) Batch {
	var b Batch
	for i := range 1000 {
		b.Series = append(b.Series, metric.Series{
			Name: fmt.Sprintf("m.%d", i), Host: "node-1", Type: metric.Count, Interval: 10,
			Tags: metric.Tags{"env:prod", "pod:web-7d4b9c"}, Points: []metric.Point{{Time: bucket * 10, Value: float64(bucket)}},
		})
	}
	return b
}

// TestTenMinutes is the intake's being away for ten minutes while a thousand
// series come every 10 s: every point arrives once, and each series' in order,
// from memory as from the spool.
func TestTenMinutes(t *testing.T) {
	const before, away, after = 3, 60, 3
	for about, set := range map[string]func(*Options){
		"memory": func(*Options) {},
		"spool":  func(o *Options) { o.SpoolDir, o.QueueBytes = t.TempDir(), 1 },
	} {
		t.Run(about, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				in := &intake{}
				w, o := serve(t, in)
				set(&o)
				f := mustNew(t, o)
				c, end := run(t, f)
				for i := range int64(before + away + after) {
					w.setDown(i >= before && i < before+away)
					c <- flush(i)
					time.Sleep(10 * time.Second)
					synctest.Wait()
					if i != before+away-1 {
						continue
					}
					s := f.Status()[0]
					if s.QueuePayloads != away || !s.Failing || s.DroppedPts != 0 {
						t.Errorf("at the end of the outage: %+v", s)
					}
					if s.Spool != nil && (s.Spool.Payloads != away || s.QueueBytes != 0 || s.Spool.Error != "") {
						t.Errorf("at the end of the outage: %d bytes in memory, spool %+v", s.QueueBytes, *s.Spool)
					}
				}
				time.Sleep(2 * time.Minute) // longer than the longest backoff
				end()
				var want []int64
				for bucket := range int64(before + away + after) {
					for range 1000 {
						want = append(want, bucket*10)
					}
				}
				if diff := cmp.Diff(want, in.got()); diff != "" {
					t.Errorf("(-want +got):\n%.1000s", diff)
				}
				seen := map[string]int{}
				for _, r := range in.requests() {
					for _, s := range r.body.Series {
						seen[fmt.Sprint(s.Name, s.Points)]++
					}
				}
				if len(seen) != (before+away+after)*1000 {
					t.Errorf("%d different points, want %d", len(seen), (before+away+after)*1000)
				}
				checkBackoff(t, w.dials)
				if s := f.Status()[0]; s.DeliveredPts != (before+away+after)*1000 || s.DroppedPts != 0 || s.QueuePayloads != 0 || s.Failing {
					t.Errorf("at the end: %+v", s)
				}
				in.check(t)
			})
		})
	}
}

// checkBackoff holds that ten minutes of refusals are as few as the rule says:
// waits of at most 4, 8, … 64 s and at least half of that.
func checkBackoff(t *testing.T, dials []time.Time) {
	t.Helper()
	for i := 1; i < len(dials); i++ {
		limit := min(4*time.Second<<min(i-1, 10), 64*time.Second)
		if d := dials[i].Sub(dials[i-1]); d < limit/2 || d > limit {
			t.Errorf("wait %d of %s, want within [%s, %s]", i, d, limit/2, limit)
		}
	}
	if n := len(dials); n < 600/64 || n > 600/32+6 {
		t.Errorf("%d attempts in ten minutes", n)
	}
}

// hang takes a request and never answers: it ends when the client goes away,
// which a server notices only once it has read the body.
func hang(_ http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body)
	<-r.Context().Done()
}

// TestAnswers holds what each answer of an intake, garbage and silence included,
// does to the payloads: what arrives, after how long at least, and what is
// counted.
func TestAnswers(t *testing.T) {
	status := func(code int, header ...string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			for i := 0; i < len(header); i += 2 {
				w.Header().Set(header[i], header[i+1])
			}
			w.WriteHeader(code)
		}
	}
	garbage := func(text string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			c, _, err := w.(http.Hijacker).Hijack()
			if err == nil {
				_, _ = c.Write([]byte(text))
				_ = c.Close()
			}
		}
	}
	briefly := [2]time.Duration{2 * time.Second, 4 * time.Second}
	for about, tt := range map[string]struct {
		first   http.HandlerFunc // answers the first request; the others are accepted
		waited  [2]time.Duration // bounds of what passes until the second request
		arrive  int64
		dropped map[string]uint64
		says    string // the last error
	}{
		"accepts slowly": {first: func(w http.ResponseWriter, r *http.Request) {
			time.Sleep(19 * time.Second)
			w.WriteHeader(http.StatusAccepted)
		}, waited: [2]time.Duration{19 * time.Second, 19 * time.Second}, arrive: 2},
		"never answers":         {hang, [2]time.Duration{22 * time.Second, 24 * time.Second}, 3, nil, "deadline exceeded"},
		"rate limit":            {status(429, "Retry-After", "30"), [2]time.Duration{30 * time.Second, 30 * time.Second}, 3, nil, "HTTP 429"},
		"rate limit by a date":  {status(429, "Retry-After", "Sat, 01 Jan 2000 00:00:40 GMT"), [2]time.Duration{38 * time.Second, 40 * time.Second}, 3, nil, "HTTP 429"},
		"rate limit of an hour": {status(429, "Retry-After", "3600"), [2]time.Duration{64 * time.Second, 64 * time.Second}, 3, nil, "HTTP 429"},
		"rate limit, garbage":   {status(429, "Retry-After", "-1 soon"), briefly, 3, nil, "HTTP 429"},
		"500":                   {status(500), briefly, 3, nil, "HTTP 500"},
		"599":                   {status(599), briefly, 3, nil, "HTTP 599"},
		"404":                   {status(404), briefly, 3, nil, "HTTP 404"},
		"408":                   {status(408), briefly, 3, nil, "HTTP 408"},
		"418":                   {status(418), briefly, 3, nil, "HTTP 418"},
		"redirect":              {status(301, "Location", "http://elsewhere/"), briefly, 3, nil, "HTTP 301"},
		"no HTTP":               {garbage("SSH-2.0-x\r\n"), briefly, 3, nil, "reach intake"},
		"half a header":         {garbage("HTTP/1.1 202 Acc"), briefly, 3, nil, "reach intake"},
		"closes":                {garbage(""), briefly, 3, nil, "EOF"},
		"400":                   {status(400), [2]time.Duration{}, 2, map[string]uint64{"bad_request": 1}, "HTTP 400"},
		"401":                   {status(401), briefly, 3, nil, "HTTP 401"},
		"403":                   {status(403), [2]time.Duration{}, 2, map[string]uint64{"forbidden": 1}, "HTTP 403"},
		"413":                   {status(413), [2]time.Duration{}, 2, map[string]uint64{"too_large": 1}, "HTTP 413"},
	} {
		t.Run(about, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				in := &intake{}
				var mu sync.Mutex
				var times []time.Time
				_, o := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					mu.Lock()
					times = append(times, time.Now())
					first := len(times) == 1
					mu.Unlock()
					if first {
						tt.first(w, r)
						return
					}
					in.ServeHTTP(w, r)
				}))
				f := mustNew(t, o)
				c, end := run(t, f)
				for i := range int64(3) {
					c <- batch(i)
				}
				time.Sleep(5 * time.Minute)
				end()
				if diff := cmp.Diff(sequence(3)[3-tt.arrive:], in.got()); diff != "" {
					t.Errorf("(-want +got):\n%s", diff)
				}
				if d := times[1].Sub(times[0]); d < tt.waited[0] || d > tt.waited[1] {
					t.Errorf("asked again after %s, want within %v", d, tt.waited)
				}
				s := f.Status()[0]
				if diff := cmp.Diff(tt.dropped, s.Kinds[0].DroppedPoints); diff != "" {
					t.Errorf("dropped (-want +got):\n%s", diff)
				}
				if !strings.Contains(s.LastError, tt.says) || (tt.says == "") != (s.LastError == "") {
					t.Errorf("last error %q, want %q", s.LastError, tt.says)
				}
				if want := 3 - uint64(len(tt.dropped)); s.DeliveredPts != want || s.QueuePayloads != 0 || s.Failing {
					t.Errorf("status %+v, want %d delivered", s, want)
				}
			})
		})
	}
}

// TestKindsDoNotWait holds that an intake that does not know one kind gets the
// others, and that one endpoint that never answers delays no other.
func TestKindsDoNotWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in := &intake{}
		_, o := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			switch {
			case r.Host == "dead":
				hang(w, r)
			case r.URL.Path == "/api/beta/sketches":
				w.WriteHeader(http.StatusNotFound)
			default:
				in.ServeHTTP(w, r)
			}
		}))
		o.Endpoints = append(o.Endpoints, Endpoint{URL: "http://dead", APIKey: testKey})
		f := mustNew(t, o)
		c, end := run(t, f)
		start := time.Now()
		for i := range int64(10) {
			b := everyKind()
			b.Series = batch(i).Series
			c <- b
		}
		synctest.Wait()
		if diff := cmp.Diff(sequence(10), in.got()); diff != "" || time.Since(start) != 0 {
			t.Errorf("after %s (-want +got):\n%s", time.Since(start), diff)
		}
		for _, want := range []struct {
			endpoint, payloads int
		}{{0, 10}, {1, 40}} { // the sketches; all
			if s := f.Status()[want.endpoint]; s.QueuePayloads != want.payloads || s.DroppedPts != 0 {
				t.Errorf("endpoint %d: %+v, want %d payloads to wait", want.endpoint, s, want.payloads)
			}
		}
		end()
		if time.Since(start) != 2*time.Second {
			t.Errorf("the drain took %s, want all of DrainTimeout and no more", time.Since(start))
		}
		if s := f.Status()[1]; s.DroppedPts != 50 || s.QueuePayloads != 0 { // series 1, sketches 2, checks 1, events 1, ten times
			t.Errorf("endpoint 1 at the end: %+v", s)
		}
		in.check(t)
	})
}
