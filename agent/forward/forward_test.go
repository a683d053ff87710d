package forward

import (
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"kelpie.dev/kelpie/metric"
	"kelpie.dev/kelpie/metric/payload"
)

func TestCompressionsAndHeaders(t *testing.T) {
	for kind, encoding := range map[string]string{"": "zstd", "zstd": "zstd", "zlib": "deflate", "gzip": "gzip", "none": ""} {
		t.Run(kind, func(t *testing.T) {
			in := newIntake(t, nil)
			o := options(in.URL + "/") // a trailing slash does no harm
			o.Compression = kind
			f, err := New(o)
			if err != nil {
				t.Fatal(err)
			}
			c, end := run(t, f)
			c <- batch(7)
			end()
			if diff := cmp.Diff([]int64{7}, in.got()); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			for name, want := range map[string]string{
				"DD-API-KEY": testKey, "DD-Agent-Version": "1.2.3", "User-Agent": "kelpie-agent/1.2.3",
				"Content-Type": "application/x-protobuf", "Content-Encoding": encoding,
			} {
				if got := in.headers.Get(name); got != want {
					t.Errorf("header %s: %q, want %q", name, got, want)
				}
			}
		})
	}
}

// TestOutage holds that after each kind of failure every point arrives once, in
// order, and that what happened can be seen.
func TestOutage(t *testing.T) {
	const failures, batches = 8, 50
	for _, status := range []int{http.StatusNotFound, http.StatusRequestTimeout, http.StatusTooManyRequests, http.StatusInternalServerError, http.StatusBadGateway, http.StatusFound} {
		t.Run(http.StatusText(status), func(t *testing.T) {
			in := newIntake(t, func(request int) (int, string) {
				if request <= failures {
					return status, "try later"
				}
				return 0, ""
			})
			f, err := New(options(in.URL))
			if err != nil {
				t.Fatal(err)
			}
			c, end := run(t, f)
			for i := range int64(batches) {
				c <- batch(i)
			}
			eventually(t, "all points arrive", func() bool { return len(in.got()) >= batches })
			end()
			if diff := cmp.Diff(sequence(batches), in.got()); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			s := f.Status()[0]
			if s.Retries != failures || s.Failing || s.DeliveredPts != batches || s.DroppedPts != 0 || s.LastSuccess == nil {
				t.Errorf("status %+v", s)
			}
			if want := fmt.Sprintf("HTTP %d", status); !strings.HasPrefix(s.LastError, want) {
				t.Errorf("last error %q, want one that starts with %q", s.LastError, want)
			}
		})
	}
}

func TestIntakeNotThere(t *testing.T) {
	in := newIntake(t, nil)
	address := in.Listener.Addr().String()
	dead := httptest.NewServer(in)
	deadURL := dead.URL
	dead.Close()
	o := options(deadURL, in.URL)
	var log journal
	o.Log = slog.New(slog.NewTextHandler(&log, nil))
	o.DrainTimeout = 50 * time.Millisecond
	registry := prometheus.NewRegistry()
	o.Registerer = registry
	f, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	c, end := run(t, f)
	for i := range int64(10) {
		c <- batch(i)
	}
	eventually(t, "the neighbour at "+address+" gets everything", func() bool { return len(in.got()) == 10 })
	eventually(t, "retries", func() bool { return f.Status()[0].Retries > 3 })
	if s := f.Status()[0]; !s.Failing || s.QueuePayloads != 10 || !strings.Contains(s.LastError, "connection refused") || !strings.Contains(s.LastError, "DD_DD_URL") {
		t.Errorf("status %+v", s)
	}
	end()
	if s := f.Status()[0]; s.DroppedPts != 10 {
		t.Errorf("%d points dropped at shutdown, want 10", s.DroppedPts)
	}
	want := fmt.Sprintf(`
# HELP kelpie_agent_forward_dropped_points_total Points that will never be delivered, by reason.
# TYPE kelpie_agent_forward_dropped_points_total counter
kelpie_agent_forward_dropped_points_total{endpoint="%s sha256:3eb1bd",kind="series",reason="shutdown"} 10
`, deadURL)
	if err := testutil.GatherAndCompare(registry, strings.NewReader(want), "kelpie_agent_forward_dropped_points_total"); err != nil {
		t.Error(err)
	}
	if n := strings.Count(log.String(), "cannot deliver"); n != 1 {
		t.Errorf("the failure was logged %d times, want once:\n%s", n, &log)
	}
}

// TestRefused holds that what is refused for good is dropped with a counter and
// a mend, that the key is never shown, and that the next payload has its chance.
func TestRefused(t *testing.T) {
	for status, want := range map[int]struct{ reason, mend string }{
		http.StatusBadRequest:            {"bad_request", "Datadog-compatible intake"},
		http.StatusForbidden:             {"forbidden", "DD_API_KEY"},
		http.StatusRequestEntityTooLarge: {"too_large", "raise its limit"},
	} {
		t.Run(want.reason, func(t *testing.T) {
			in := newIntake(t, func(request int) (int, string) {
				if request == 1 {
					return status, `{"errors":["no ` + "\n" + `way"]}`
				}
				return 0, ""
			})
			o := options(in.URL)
			registry := prometheus.NewRegistry()
			o.Registerer = registry
			var log journal
			o.Log = slog.New(slog.NewTextHandler(&log, nil))
			f, err := New(o)
			if err != nil {
				t.Fatal(err)
			}
			c, end := run(t, f)
			c <- batch(0)
			eventually(t, "the refusal", func() bool { return f.Status()[0].DroppedPts == 1 })
			c <- batch(1)
			end()
			if diff := cmp.Diff([]int64{1}, in.got()); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			n, err := testutil.GatherAndCount(registry, "kelpie_agent_forward_dropped_payloads_total")
			if err != nil || n != 1 || testutil.ToFloat64(f.metrics.droppedItems.WithLabelValues(in.URL+" sha256:3eb1bd", "series", want.reason)) != 1 {
				t.Errorf("drop not counted as %s (%d label sets, %v)", want.reason, n, err)
			}
			s := f.Status()[0]
			for _, text := range []string{s.LastError, log.String()} {
				if !strings.Contains(text, want.mend) || strings.Contains(text, testKey) || !strings.Contains(text, fmt.Sprint(status)) {
					t.Errorf("error %q, want one that says %q and not the key", text, want.mend)
				}
			}
			if s.Retries != 0 {
				t.Errorf("%d retries", s.Retries)
			}
		})
	}
}

// TestReady holds that a key that is refused makes the forwarder unready, not at
// once, and not while another intake takes the data.
func TestReady(t *testing.T) {
	refuse := func(int) (int, string) { return http.StatusUnauthorized, "" }
	bad, worse, good := newIntake(t, refuse), newIntake(t, refuse), newIntake(t, nil)
	for about, tt := range map[string]struct {
		urls  []string
		after time.Duration // between the two refusals
		ready bool
	}{
		"one key accepted":  {[]string{bad.URL, good.URL}, time.Minute, true},
		"refused just now":  {[]string{bad.URL, worse.URL}, 9 * time.Second, true},
		"refused both":      {[]string{bad.URL, worse.URL}, 10 * time.Second, false},
		"the only one away": {[]string{"http://127.0.0.1:1"}, time.Minute, true},
	} {
		t.Run(about, func(t *testing.T) {
			o := options(tt.urls...)
			var passed atomic.Int64
			o.Now = func() time.Time { return time.Unix(1_700_000_000, passed.Load()) }
			o.DrainTimeout = 100 * time.Millisecond
			f, err := New(o)
			if err != nil {
				t.Fatal(err)
			}
			if err := f.Ready(); err != nil {
				t.Errorf("before the first request: %v", err)
			}
			answered := func(n uint64) bool {
				for _, s := range f.Status() {
					if s.DroppedPts+s.DeliveredPts+s.Retries < n {
						return false
					}
				}
				return true
			}
			c, end := run(t, f)
			defer end()
			c <- batch(0)
			eventually(t, "the first answers", func() bool { return answered(1) })
			passed.Store(int64(tt.after))
			c <- batch(1)
			eventually(t, "the second answers", func() bool { return answered(2) })
			if !tt.ready { // the second answers may be to what was asked before
				eventually(t, "it is not ready", func() bool { return f.Ready() != nil })
			}
			err = f.Ready()
			if tt.ready != (err == nil) {
				t.Fatalf("ready: %v", err)
			}
			for _, want := range []string{bad.URL, worse.URL, "401", "DD_API_KEY"} {
				if err != nil && !strings.Contains(err.Error(), want) {
					t.Errorf("error %q does not say %q", err, want)
				}
			}
		})
	}
}

func TestFullQueueDropsTheOldest(t *testing.T) {
	var up sync.WaitGroup
	up.Add(1)
	in := newIntake(t, func(int) (int, string) { up.Wait(); return 0, "" })
	o := options(in.URL)
	o.Compression = "none"
	size := len(payload.AppendV2(nil, batch(1).Series))
	o.QueueBytes = 3 * size
	f, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	c, end := run(t, f)
	c <- batch(100)
	eventually(t, "the first request", func() bool {
		q := f.senders[0].queue
		q.mu.Lock()
		defer q.mu.Unlock()
		return len(q.lists[kindSeries]) == 1 && q.lists[kindSeries][0].taken
	})
	for i := int64(101); i < 106; i++ {
		c <- batch(i)
	}
	eventually(t, "drops", func() bool { return f.Status()[0].DroppedPts == 3 })
	up.Done()
	end()
	if diff := cmp.Diff([]int64{100, 104, 105}, in.got()); diff != "" {
		t.Errorf("what was on its way and the newest stay (-want +got):\n%s", diff)
	}
}

func TestSplitting(t *testing.T) {
	in := newIntake(t, nil)
	o := options(in.URL)
	f, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	noise := func(n int) string { // that does not compress
		b := make([]byte, n)
		for i := range b {
			b[i] = byte('!' + rand.IntN(90))
		}
		return string(b)
	}
	var series []metric.Series
	for i := range int64(25_000) {
		s := batch(i).Series[0]
		if i%100 == 0 {
			s.Tags = metric.Tags{noise(8000)}
		}
		series = append(series, s)
	}
	huge := batch(-1).Series[0]
	huge.Tags = metric.Tags{noise(700_000)}
	series = append(series[:5000:5000], append([]metric.Series{huge}, series[5000:]...)...)
	c, end := run(t, f)
	c <- Batch{Series: series}
	eventually(t, "all arrives", func() bool { s := f.Status()[0]; return s.DeliveredPts+s.DroppedPts == 25_001 })
	end()
	if diff := cmp.Diff(sequence(25_000), in.got()); diff != "" {
		t.Errorf("(-want +got):\n%.2000s", diff)
	}
	if s := f.Status()[0]; s.DroppedPts != 1 || s.Delivered != 4 { // 25 000 points are 3 by their number, 4 by their size
		t.Errorf("status %+v: want the oversized series dropped alone", s)
	}
}

func TestOptionsErrors(t *testing.T) {
	for about, o := range map[string]Options{
		"no intake":   {},
		"http://host": options("ftp://x"),
		"no API key":  {Endpoints: []Endpoint{{URL: "https://x"}}},
		"line break":  {Endpoints: []Endpoint{{URL: "https://x", APIKey: "a\nb"}}},
		"expected zstd": func() Options {
			o := options("https://x")
			o.Compression = "br"
			return o
		}(),
	} {
		if _, err := New(o); err == nil || !strings.Contains(err.Error(), about) {
			t.Errorf("error %v, want one that says %q", err, about)
		}
	}
	if _, err := New(options("https://user:secret@x/?api_key=secret", "::")); err == nil || strings.Contains(err.Error(), "secret") {
		t.Errorf("error %v", err)
	}
}
