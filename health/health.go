// Package health serves how a role is doing: liveness, readiness, metrics and
// status, read-only, on one port; and reads it back for the status commands.
//
// It does not decide what healthy means. Each role passes that in.
package health

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Options says what a Server serves. Addr is required; a nil Live, Ready or
// Status means "always", "always" and an empty object.
type Options struct {
	Addr     string                // host:port to listen on
	Role     string                // such as "agent"; shown by /health
	Version  string                // shown by /health
	Registry *prometheus.Registry  // served at /metrics; nil serves 404
	Live     func() error          // nil while the process makes progress
	Ready    func() error          // nil while the role can do its work
	Status   func() any            // a JSON-encodable snapshot
	Reports  map[string]func() any // further ones, each served at its path, such as "/shadow"
	Stream   http.Handler          // served at /stream; nil serves 404
	Log      *slog.Logger          // nil discards
}

// Server serves a role's health. The zero value is not usable; see New.
type Server struct {
	opts    Options
	handler http.Handler
}

// New returns a Server that listens once Run is called.
func New(o Options) *Server {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	s := &Server{opts: o}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /live", probe(o.Live))
	mux.HandleFunc("GET /ready", probe(o.Ready))
	mux.HandleFunc("GET /startup", probe(o.Ready))
	mux.HandleFunc("GET /health", s.health)
	mux.HandleFunc("GET /status", s.status)
	for path, report := range o.Reports {
		mux.HandleFunc("GET "+path, func(w http.ResponseWriter, _ *http.Request) { s.writeJSON(w, http.StatusOK, report()) })
	}
	if o.Stream != nil {
		mux.Handle("GET /stream", o.Stream)
	}
	if o.Registry != nil {
		mux.Handle("GET /metrics", promhttp.HandlerFor(o.Registry, promhttp.HandlerOpts{Registry: o.Registry}))
	}
	s.handler = mux
	return s
}

// Handler returns the server's routes, for a role that serves them elsewhere.
func (s *Server) Handler() http.Handler { return s.handler }

// Run listens and serves until ctx ends. It returns an error that names the
// address when that cannot be listened on, and nil after a clean stop.
func (s *Server) Run(ctx context.Context) error {
	ln, err := (&net.ListenConfig{}).Listen(ctx, "tcp", s.opts.Addr)
	if err != nil {
		return fmt.Errorf("listen for health and metrics on %s: %w (set DD_HEALTH_PORT to a free port)", s.opts.Addr, err)
	}
	srv := server(s.handler)
	done := make(chan error, 1)
	go func() { done <- srv.Serve(ln) }()
	select {
	case err := <-done:
		return fmt.Errorf("serve health on %s: %w", s.opts.Addr, err)
	case <-ctx.Done():
	}
	// Probes are short: a scrape that takes longer than this is cut.
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	if err := srv.Shutdown(stop); err != nil {
		_ = srv.Close()
	}
	if err := <-done; !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve health on %s: %w", s.opts.Addr, err)
	}
	return nil
}

// server bounds every phase of a connection: whoever reaches the port, and says
// nothing, must not hold it. A prober's or a scraper's idle connection is closed
// after more than two of their usual periods.
func server(handler http.Handler) *http.Server {
	return &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second, // no route reads a body
		WriteTimeout:      30 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    16 << 10,
	}
}

func probe(check func() error) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		if check != nil {
			if err := check(); err != nil {
				http.Error(w, err.Error(), http.StatusServiceUnavailable)
				return
			}
		}
		_, _ = io.WriteString(w, "ok\n")
	}
}

// Health is the body of /health.
type Health struct {
	Role    string `json:"role"`
	Version string `json:"version"`
	Live    string `json:"live"`  // "ok", or what is wrong
	Ready   string `json:"ready"` // "ok", or what is missing
}

func (s *Server) health(w http.ResponseWriter, _ *http.Request) {
	say := func(check func() error) string {
		if check != nil {
			if err := check(); err != nil {
				return err.Error()
			}
		}
		return "ok"
	}
	h := Health{Role: s.opts.Role, Version: s.opts.Version, Live: say(s.opts.Live), Ready: say(s.opts.Ready)}
	code := http.StatusOK
	if h.Live != "ok" || h.Ready != "ok" {
		code = http.StatusServiceUnavailable
	}
	s.writeJSON(w, code, h)
}

func (s *Server) status(w http.ResponseWriter, _ *http.Request) {
	var v any = struct{}{}
	if s.opts.Status != nil {
		v = s.opts.Status()
	}
	s.writeJSON(w, http.StatusOK, v)
}

func (s *Server) writeJSON(w http.ResponseWriter, code int, v any) {
	body, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		s.opts.Log.Error("cannot encode status", "role", s.opts.Role, "error", err)
		http.Error(w, "encode status: "+err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_, _ = w.Write(append(body, '\n'))
}

// maxAnswer bounds what Fetch reads: a status has a kilobyte or two for each metric
// that is in trouble, and there may be ten thousand.
const maxAnswer = 32 << 20

// ErrUnhealthy reports that the role answered, and answered that it is not well.
var ErrUnhealthy = errors.New("not healthy")

// Fetch reads path from the role's health port at addr into the JSON value
// into. It fills into and returns ErrUnhealthy (wrapped) for a 503 that carries
// JSON, as /health does.
func Fetch(ctx context.Context, addr, path string, into any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+path, nil)
	if err != nil {
		return fmt.Errorf("ask %s for %s: %w", addr, path, err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return fmt.Errorf("ask %s for %s: %w (is the process running, and is this its health port?)", addr, path, err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	if err != nil {
		return fmt.Errorf("read %s from %s: %w", path, addr, err)
	}
	if len(body) > maxAnswer {
		return fmt.Errorf("read %s from %s: it is longer than %d MiB; curl http://%s%s shows it all", path, addr, maxAnswer>>20, addr, path)
	}
	jerr := json.Unmarshal(body, into)
	switch {
	case resp.StatusCode == http.StatusServiceUnavailable && jerr == nil:
		return fmt.Errorf("%s at %s: %w", path, addr, ErrUnhealthy)
	case resp.StatusCode != http.StatusOK:
		return fmt.Errorf("ask %s for %s: HTTP %s", addr, path, resp.Status)
	case jerr != nil:
		return fmt.Errorf("decode %s from %s: %w", path, addr, jerr)
	}
	return nil
}
