package health

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func get(t *testing.T, h http.Handler, path string) (int, string) {
	t.Helper()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, path, nil))
	return w.Code, w.Body.String()
}

func TestRoutes(t *testing.T) {
	reg := prometheus.NewRegistry()
	c := prometheus.NewCounter(prometheus.CounterOpts{Name: "kelpie_things_total", Help: "Things."})
	reg.MustRegister(c)
	c.Add(3)
	notReady := errors.New("store is opening")
	s := New(Options{Addr: "x", Role: "backend", Version: "v1", Registry: reg,
		Ready: func() error { return notReady }, Status: func() any { return map[string]int{"series": 5} },
		Reports: map[string]func() any{"/shadow": func() any { return map[string]int{"rows": 7} }}})
	for _, c := range []struct {
		path string
		code int
		want string
	}{
		{"/live", 200, "ok\n"},
		{"/ready", 503, "store is opening"},
		{"/startup", 503, "store is opening"},
		{"/health", 503, `"ready": "store is opening"`},
		{"/status", 200, `"series": 5`},
		{"/metrics", 200, "kelpie_things_total 3"},
		{"/shadow", 200, `"rows": 7`},
		{"/other", 404, "not found"},
	} {
		code, body := get(t, s.Handler(), c.path)
		if code != c.code || !strings.Contains(body, c.want) {
			t.Errorf("GET %s = %d %q, want %d with %q", c.path, code, body, c.code, c.want)
		}
	}
	w := httptest.NewRecorder()
	s.Handler().ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/status", nil))
	if w.Code != http.StatusMethodNotAllowed {
		t.Errorf("POST /status = %d, want 405: nothing here changes state", w.Code)
	}
}

func TestRunAndFetch(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := ln.Addr().String()
	busy := New(Options{Addr: addr}).Run(t.Context())
	if busy == nil || !strings.Contains(busy.Error(), addr) {
		t.Errorf("a taken port must be named: %v", busy)
	}
	if err := ln.Close(); err != nil {
		t.Fatal(err)
	}

	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	s := New(Options{Addr: addr, Role: "agent", Version: "v9", Live: func() error { return errors.New("stuck") }})
	go func() { done <- s.Run(ctx) }()
	var h Health
	for h.Role == "" && ctx.Err() == nil {
		err = Fetch(ctx, addr, "/health", &h)
	}
	if !errors.Is(err, ErrUnhealthy) {
		t.Errorf("Fetch error = %v, want ErrUnhealthy", err)
	}
	if d := cmp.Diff(Health{Role: "agent", Version: "v9", Live: "stuck", Ready: "ok"}, h); d != "" {
		t.Errorf("(-want +got)\n%s", d)
	}
	if err := Fetch(ctx, addr, "/nothing", &h); err == nil || !strings.Contains(err.Error(), "404") {
		t.Errorf("Fetch of an unknown path = %v, want a 404", err)
	}
	http.DefaultClient.CloseIdleConnections()
	cancel()
	if err := <-done; err != nil {
		t.Errorf("Run = %v after a clean stop", err)
	}
}

// TestConnectionsAreBounded has a client that sends half of a body, and one that
// goes on holding its connection: the server closes both.
func TestConnectionsAreBounded(t *testing.T) {
	for name, send := range map[string]string{
		"slow body": "POST /live HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nx",
		"idle":      "GET /live HTTP/1.1\r\nHost: x\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			srv := server(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) }))
			if srv.ReadTimeout == 0 || srv.IdleTimeout == 0 {
				t.Fatalf("read timeout %s, idle timeout %s: want both", srv.ReadTimeout, srv.IdleTimeout)
			}
			srv.ReadTimeout, srv.IdleTimeout = srv.ReadTimeout/1000, srv.IdleTimeout/1000 // shorter, for the test
			ln, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			done := make(chan error, 1)
			go func() { done <- srv.Serve(ln) }()
			conn, err := net.Dial("tcp", ln.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			if _, err := io.WriteString(conn, send); err != nil {
				t.Error(err)
			}
			if err := conn.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
				t.Error(err)
			}
			if _, err := io.Copy(io.Discard, conn); errors.Is(err, os.ErrDeadlineExceeded) {
				t.Error("the connection was never closed")
			}
			if err := errors.Join(conn.Close(), srv.Close()); err != nil {
				t.Error(err)
			}
			if err := <-done; !errors.Is(err, http.ErrServerClosed) {
				t.Error(err)
			}
		})
	}
}

// What is cut off must not be called no JSON.
func TestFetchSaysWhenThereIsTooMuch(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, `"`+strings.Repeat("x", maxAnswer)+`"`)
	}))
	defer srv.Close()
	var got string
	if err := Fetch(t.Context(), srv.Listener.Addr().String(), "/status", &got); err == nil || !strings.Contains(err.Error(), "longer than 32 MiB") {
		t.Errorf("error %v, want one that says how much there is", err)
	}
	http.DefaultClient.CloseIdleConnections()
}
