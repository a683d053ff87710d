package forward

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"kelpie.dev/kelpie/metric"
	"kelpie.dev/kelpie/metric/payload"
)

func TestMain(m *testing.M) {
	runAsAgent() // when this is the process that TestKill kills
	goleak.VerifyTestMain(m)
}

const testKey = "0123456789abcdef0123456789abcdef"

// request is what an intake saw of one.
type request struct {
	method, path string
	header       http.Header
	body         Batch
	host         string // internalHostname of events
}

// intake is a Datadog-compatible intake that answers as told.
type intake struct {
	*httptest.Server
	mu       sync.Mutex
	answer   func(request int) (status int, body string) // nil accepts
	judge    func(w http.ResponseWriter, r *http.Request, body []byte) (done bool)
	asked    int
	headers  http.Header
	times    []int64 // of the points accepted, in order of arrival
	accepted []request
	errs     []error
}

func newIntake(t testing.TB, answer func(request int) (int, string)) *intake {
	in := &intake{answer: answer}
	in.Server = httptest.NewServer(in)
	t.Cleanup(func() {
		in.Close()
		in.check(t)
	})
	return in
}

func (in *intake) check(t testing.TB) {
	for _, err := range in.errs {
		t.Error("intake:", err)
	}
}

func (in *intake) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	in.mu.Lock()
	defer in.mu.Unlock()
	in.asked++
	in.headers = r.Header.Clone()
	if in.judge != nil && in.judge(w, r, body) {
		return
	}
	if in.answer != nil {
		if status, said := in.answer(in.asked); status != 0 {
			if status == http.StatusFound {
				w.Header().Set("Location", "http://192.0.2.1/")
			}
			w.WriteHeader(status)
			_, _ = io.WriteString(w, said)
			return
		}
	}
	var got request
	if err == nil {
		got, err = decode(r, body)
	}
	if err != nil {
		in.errs = append(in.errs, err)
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	in.accepted = append(in.accepted, got)
	for _, s := range got.body.Series {
		for _, p := range s.Points {
			in.times = append(in.times, p.Time)
		}
	}
	w.WriteHeader(http.StatusAccepted)
	_, _ = io.WriteString(w, `{"errors":[]}`)
}

// decode reads a request as an intake does.
func decode(r *http.Request, body []byte) (request, error) {
	out := request{method: r.Method, path: r.URL.RequestURI(), header: r.Header.Clone()}
	for k := range kind(kinds) {
		limits := routes[k]
		if limits.path != out.path || r.Method != http.MethodPost {
			continue
		}
		if len(body) > limits.maxBody {
			return out, fmt.Errorf("%s: body of %d bytes", k, len(body))
		}
		raw, err := decompress(body, r.Header.Get("Content-Encoding"), limits.maxRaw)
		if err != nil {
			return out, err
		}
		switch k {
		case kindSeries:
			out.body.Series, err = payload.DecodeV2(raw)
		case kindSketches:
			out.body.Distributions, err = payload.DecodeSketches(raw)
		case kindChecks:
			out.body.Checks, err = payload.DecodeChecks(raw)
		case kindEvents:
			out.body.Events, out.host, err = payload.DecodeEvents(raw)
		}
		return out, err
	}
	return out, fmt.Errorf("no route %s %s", r.Method, r.URL)
}

// got returns the times of the series' points, in order of arrival.
func (in *intake) got() []int64 {
	in.mu.Lock()
	defer in.mu.Unlock()
	return append([]int64(nil), in.times...)
}

func (in *intake) requests() []request {
	in.mu.Lock()
	defer in.mu.Unlock()
	return append([]request(nil), in.accepted...)
}

// batch is one series with a point at second i.
func batch(i int64) Batch {
	return Batch{Series: []metric.Series{{Name: "m", Type: metric.Gauge, Interval: 10, Points: []metric.Point{{Time: i, Value: 1}}}}}
}

// run starts f and returns its input and a function that ends it.
func run(t testing.TB, f *Forwarder) (in chan<- Batch, end func()) {
	t.Helper()
	c, done := make(chan Batch), make(chan error, 1)
	go func() { done <- f.Run(context.Background(), c) }()
	return c, func() {
		close(c)
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	}
}

func mustNew(t testing.TB, o Options) *Forwarder {
	t.Helper()
	f, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("never happened: %s", what)
		}
	}
}

func options(urls ...string) Options {
	o := Options{Version: "1.2.3", Hostname: "node-1", BackoffBase: time.Millisecond, BackoffMax: 5 * time.Millisecond, Timeout: 5 * time.Second}
	for _, u := range urls {
		o.Endpoints = append(o.Endpoints, Endpoint{URL: u, APIKey: testKey})
	}
	return o
}

func sequence(n int64) (out []int64) {
	for i := range n {
		out = append(out, i)
	}
	return out
}

// journal is a log that may be read while it is written.
type journal struct {
	mu   sync.Mutex
	text []byte
}

func (j *journal) Write(b []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.text = append(j.text, b...)
	return len(b), nil
}

func (j *journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return string(j.text)
}

func testLog(j *journal) *slog.Logger { return slog.New(slog.NewTextHandler(j, nil)) }
