package backend

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"kelpie.dev/kelpie/backend/store"
	"kelpie.dev/kelpie/backend/stream"
)

// hostile is a backend's own server on a real listener, with the timeouts that
// a test can wait for.
type hostile struct {
	addr string
	log  *lockedBuffer
	reg  *prometheus.Registry
}

// lockedBuffer may be written while it is read.
type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

func startHostile(t *testing.T) *hostile {
	t.Helper()
	cfg, err := FromEnv(func(name string) (string, bool) {
		v, ok := map[string]string{"DD_API_KEY": "ak", "DD_APP_KEY": "pk", "KELPIE_DATA_DIR": t.TempDir()}[name]
		return v, ok
	})
	if err != nil {
		t.Fatal(err)
	}
	keys, err := cfg.keys(prometheus.NewRegistry(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	h := &hostile{log: &lockedBuffer{}, reg: prometheus.NewRegistry()}
	b := &backend{cfg: cfg, keys: keys, reg: h.reg, log: slog.New(slog.NewTextHandler(h.log, nil)), status: newStatus("test", newRecent(slog.DiscardHandler), nil), deps: Deps{Listener: listen(t)}}
	h.addr = b.deps.Listener.Addr().String()
	st, err := store.Open(store.Options{Dir: cfg.DataDir, MinFree: -1})
	if err != nil {
		t.Fatal(err)
	}
	book, err := b.openBook(st)
	if err != nil {
		t.Fatal(err)
	}
	values, err := stream.New(stream.Options{Source: st, Auth: keys})
	if err != nil {
		t.Fatal(err)
	}
	handler, err := b.handler(st, book, values)
	if err != nil {
		t.Fatal(err)
	}
	srv := b.newServer(handler)
	if srv.ReadHeaderTimeout > 5*time.Second || srv.ReadTimeout > 30*time.Second || srv.ReadTimeout == 0 || srv.MaxHeaderBytes > 32<<10 || srv.IdleTimeout == 0 || srv.WriteTimeout == 0 {
		t.Errorf("the server's limits are gone: %+v", srv)
	}
	srv.ReadHeaderTimeout, srv.ReadTimeout = 300*time.Millisecond, 600*time.Millisecond
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- b.serve(ctx, srv) }()
	t.Cleanup(func() {
		http.DefaultClient.CloseIdleConnections()
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
		_ = book.Close()
		_ = st.Close()
	})
	return h
}

// counter returns the sum of a metric's series that contain the text.
func (h *hostile) counter(t *testing.T, name, label string) float64 {
	t.Helper()
	families, err := h.reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	sum := 0.0
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() == name && strings.Contains(m.String(), `"`+label+`"`) {
				sum += m.GetCounter().GetValue()
			}
		}
	}
	return sum
}

// served fails unless a good client is answered at once.
func (h *hostile) served(t *testing.T) {
	t.Helper()
	began := time.Now()
	resp, err := http.Post("http://"+h.addr+"/api/v2/series?api_key=ak", "application/json", strings.NewReader(`{"series":[]}`))
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusAccepted || time.Since(began) > 5*time.Second {
		t.Errorf("a good client got %s after %s", resp.Status, time.Since(began))
	}
}

// drip writes text a byte at a time, slower than any timeout allows, until the
// server hangs up, and returns its answer.
func drip(t *testing.T, addr, head, text string) (answer string, took time.Duration) {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	began := time.Now()
	if _, err := io.WriteString(conn, head); err != nil {
		t.Fatal(err)
	}
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		tick := time.NewTicker(50 * time.Millisecond)
		defer tick.Stop()
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			case <-tick.C:
				if _, err := conn.Write([]byte{text[i%len(text)]}); err != nil {
					return
				}
			}
		}
	})
	_ = conn.SetReadDeadline(began.Add(20 * time.Second))
	all, _ := io.ReadAll(conn) // a reset after the answer is no matter
	close(stop)
	wg.Wait()
	return string(all), time.Since(began)
}

func TestClientsThatDripAreCutOff(t *testing.T) {
	h := startHostile(t)
	var wg sync.WaitGroup
	for _, tt := range []struct{ name, head, text, want string }{
		{"body", "POST /api/v2/series HTTP/1.1\r\nHost: x\r\nDD-API-KEY: ak\r\nContent-Length: 100000\r\n\r\n", " ", "HTTP/1.1 408"},
		{"chunked body", "POST /intake/ HTTP/1.1\r\nHost: x\r\nDD-API-KEY: ak\r\nTransfer-Encoding: chunked\r\n\r\n", "1\r\n \r\n", "HTTP/1.1 408"},
		{"body of what is ignored", "POST /api/v1/collector HTTP/1.1\r\nHost: x\r\nDD-API-KEY: ak\r\nContent-Length: 100000\r\n\r\n", " ", "HTTP/1.1 408"},
		{"headers", "POST /api/v2/series HTTP/1.1\r\nHost: x\r\n", "X-A: b\r\n", ""},
		{"request line", "", "P", ""},
		{"preface of HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n", "x", ""},
	} {
		wg.Go(func() {
			answer, took := drip(t, h.addr, tt.head, tt.text)
			if !strings.HasPrefix(answer, tt.want) || took > 10*time.Second {
				t.Errorf("%s: answered %.200q after %s", tt.name, answer, took)
			}
		})
	}
	h.served(t)
	wg.Wait()
	h.served(t)
	if n := h.counter(t, "kelpie_backend_intake_refused_total", "timeout"); n != 3 {
		t.Errorf("counted %v timeouts, want 3", n)
	}
}

// HTTP/2 gives a body that drips no more time, that of gRPC neither.
func TestClientsThatDripOverHTTP2AreCutOff(t *testing.T) {
	h := startHostile(t)
	transport := &http.Transport{Protocols: new(http.Protocols)}
	transport.Protocols.SetUnencryptedHTTP2(true)
	defer transport.CloseIdleConnections()
	for path, kind := range map[string]string{"/v1/metrics": "application/json", "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export": "application/grpc"} {
		body, write := io.Pipe()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+h.addr+path, body)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("DD-API-KEY", "ak")
		req.Header.Set("Content-Type", kind)
		var wg sync.WaitGroup
		stop := make(chan struct{})
		wg.Go(func() {
			tick := time.NewTicker(50 * time.Millisecond)
			defer tick.Stop()
			frame := []byte{0, 0, 0, 16, 0} // of gRPC: 4096 bytes are to come
			for i := 0; ; i++ {
				if _, err := write.Write(frame[i%len(frame) : i%len(frame)+1]); err != nil {
					return
				}
				select {
				case <-stop:
					return
				case <-tick.C:
				}
			}
		})
		began := time.Now()
		resp, err := transport.RoundTrip(req)
		outcome := fmt.Sprint(err)
		if err == nil {
			_, _ = io.Copy(io.Discard, resp.Body)
			_ = resp.Body.Close()
			outcome = resp.Status + " grpc-status " + resp.Header.Get("Grpc-Status") + resp.Trailer.Get("Grpc-Status")
		}
		close(stop)
		_ = body.Close()
		wg.Wait()
		if took := time.Since(began); took > 10*time.Second || strings.HasPrefix(outcome, "200 OK grpc-status 0") {
			t.Errorf("%s: %s after %s", path, outcome, took)
		}
		if path == "/v1/metrics" && !strings.HasPrefix(outcome, "408") {
			t.Errorf("%s: %s", path, outcome)
		}
	}
	h.served(t)
}

func TestHeaderBombs(t *testing.T) {
	h := startHostile(t)
	for name, bomb := range map[string]string{
		"one header":   "X-A: " + strings.Repeat("a", 1<<20) + "\r\n",
		"many headers": strings.Repeat("X-A: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n", 20_000),
	} {
		conn, err := net.Dial("tcp", h.addr)
		if err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		wg.Go(func() { _, _ = io.WriteString(conn, "POST /api/v2/series HTTP/1.1\r\nHost: x\r\n"+bomb+"\r\n") })
		line, err := bufio.NewReader(conn).ReadString('\n')
		_ = conn.Close()
		wg.Wait()
		if err != nil || !strings.Contains(line, "431") {
			t.Errorf("%s: answered %q, %v", name, line, err)
		}
	}
	// Over HTTP/2, where headers are compressed.
	transport := &http.Transport{Protocols: new(http.Protocols)}
	transport.Protocols.SetUnencryptedHTTP2(true)
	defer transport.CloseIdleConnections()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+h.addr+"/api/v2/series", strings.NewReader("{}"))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("DD-API-KEY", "ak")
	for i := range 2000 {
		req.Header.Set(fmt.Sprint("X-A-", i), strings.Repeat("a", 100))
	}
	if resp, err := transport.RoundTrip(req); err == nil {
		_ = resp.Body.Close()
		if resp.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
			t.Errorf("over HTTP/2: answered %s", resp.Status)
		}
	}
	h.served(t)
}

// TestWrongKeysAtAHighRate: each is refused and counted, its body stays unread,
// and neither log nor memory grows with them.
func TestWrongKeysAtAHighRate(t *testing.T) {
	h := startHostile(t)
	h.served(t)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	client := &http.Client{Transport: &http.Transport{MaxConnsPerHost: 20}}
	defer client.CloseIdleConnections()
	body := bytes.Repeat([]byte(" "), 64<<10)
	routes := []string{"/api/v2/series", "/api/v1/series", "/intake/", "/api/v1/check_run", "/api/v1/events", "/v1/metrics", "/api/v1/write", "/api/v1/collector"}
	const each = 250
	var wg sync.WaitGroup
	for _, route := range routes {
		wg.Go(func() {
			for i := range each {
				req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+h.addr+route, bytes.NewReader(body))
				if err != nil {
					t.Error(err)
					return
				}
				req.Header.Set("DD-API-KEY", fmt.Sprint("guess-", i))
				resp, err := client.Do(req)
				if err != nil {
					t.Error(err)
					return
				}
				_, _ = io.Copy(io.Discard, resp.Body)
				_ = resp.Body.Close()
				if resp.StatusCode != http.StatusForbidden {
					t.Errorf("%s answered %s", route, resp.Status)
				}
			}
		})
	}
	wg.Wait()
	runtime.GC()
	runtime.ReadMemStats(&after)
	if n := h.counter(t, "kelpie_backend_intake_refused_total", "forbidden"); n != float64(each*len(routes)) {
		t.Errorf("counted %v", n)
	}
	if n := h.counter(t, "kelpie_backend_intake_bytes_total", "wire"); n > 100 {
		t.Errorf("read %v bytes of bodies", n)
	}
	if lines := strings.Count(h.log.String(), "request refused"); lines > 20 {
		t.Errorf("%d lines of log", lines)
	}
	if strings.Contains(h.log.String(), "guess-") {
		t.Error("a key is in the log")
	}
	if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > 8<<20 {
		t.Errorf("memory grew by %d bytes", grown)
	}
	h.served(t)
}
