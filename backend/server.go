package backend

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"kelpie.dev/kelpie/backend/answer"
)

// otlpPort is where OpenTelemetry's exporters look for a collector.
const (
	otlpPort = "4317"
	otlpOff  = "off"
)

// listeners opens what is served, the main one first. All of them serve all
// routes.
func (b *backend) listeners(ctx context.Context) ([]net.Listener, error) {
	listen := (&net.ListenConfig{}).Listen
	if b.deps.Listener != nil {
		return []net.Listener{b.deps.Listener}, nil
	}
	main, err := listen(ctx, "tcp", b.cfg.Listen)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w (set KELPIE_LISTEN to a free address)", b.cfg.Listen, err)
	}
	if b.cfg.OTLPListen == otlpOff {
		return []net.Listener{main}, nil
	}
	addr := b.cfg.OTLPListen
	if addr == "" {
		// Nowhere where the main port is not.
		host, _, _ := net.SplitHostPort(b.cfg.Listen)
		addr = net.JoinHostPort(host, otlpPort)
	}
	otlp, err := listen(ctx, "tcp", addr)
	switch {
	case err == nil:
		return []net.Listener{main, otlp}, nil
	case b.cfg.OTLPListen == "":
		b.log.Warn("OTLP's usual port is taken: it is served on the main port only", "error", err, "address", main.Addr().String(), "mend", "set KELPIE_OTLP_LISTEN to a free address, or to off")
		return []net.Listener{main}, nil
	}
	return nil, errors.Join(fmt.Errorf("listen on %s: %w (set KELPIE_OTLP_LISTEN to a free address)", b.cfg.OTLPListen, err), main.Close())
}

// newServer returns a server whose limits hold for every connection.
func (b *backend) newServer(handler http.Handler) *http.Server {
	srv := &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       30 * time.Second, // a whole body, however slowly it comes
		WriteTimeout:      2 * time.Minute,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    32 << 10,
		ErrorLog:          slog.NewLogLogger(b.log.Handler(), slog.LevelDebug),
		Protocols:         new(http.Protocols),
		// A connection must not hold more than one of HTTP/1 would by much.
		HTTP2: &http.HTTP2Config{MaxConcurrentStreams: 32, MaxReceiveBufferPerConnection: 256 << 10, MaxReceiveBufferPerStream: 256 << 10},
	}
	srv.Protocols.SetHTTP1(true)
	srv.Protocols.SetUnencryptedHTTP2(true) // for gRPC, and the value stream, which talks both ways at once
	return srv
}

// serve listens and serves until ctx ends, then lets requests under way finish.
func (b *backend) serve(ctx context.Context, srv *http.Server) error {
	lns, err := b.listeners(ctx)
	if err != nil {
		return err
	}
	done := make(chan error, len(lns))
	slots := slotsFor(b.cfg.MaxConnections)
	for _, ln := range lns {
		go func() { done <- srv.Serve(limitListener(ln, slots)) }()
		b.log.Info("backend is serving", "address", ln.Addr().String(), "data", b.cfg.DataDir, "version", b.deps.Version)
	}
	b.listening.Store(true)
	running := len(lns)
	select {
	case err = <-done:
		running--
	case <-ctx.Done():
		err = nil
	}
	b.leaving.Store(true)
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), b.cfg.ShutdownTimeout)
	defer cancel()
	if err := srv.Shutdown(stop); err != nil {
		b.log.Warn("requests under way are cut: their senders will repeat them", "error", err)
		_ = srv.Close()
	}
	for range running {
		if ended := <-done; !errors.Is(ended, http.ErrServerClosed) {
			err = errors.Join(err, ended)
		}
	}
	if err != nil {
		return fmt.Errorf("serve: %w", err)
	}
	return nil
}

func notFound(w http.ResponseWriter, _ *http.Request) {
	answer.Error(w, http.StatusNotFound, "Not found")
}

// instrument counts requests by route and code.
func instrument(next http.Handler, reg prometheus.Registerer) http.Handler {
	requests := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "kelpie_backend_requests_total",
		Help: "HTTP requests by route and status code.",
	}, []string{"route", "code"})
	duration := prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name:    "kelpie_backend_request_duration_seconds",
		Help:    "Time to answer HTTP requests by route.",
		Buckets: prometheus.ExponentialBuckets(0.001, 4, 9),
	}, []string{"route"})
	reg.MustRegister(requests, duration)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		began := time.Now()
		rec := &recorder{ResponseWriter: w, code: http.StatusOK}
		defer func() {
			route := r.Pattern // set by the ServeMux
			requests.WithLabelValues(route, strconv.Itoa(rec.code)).Inc()
			duration.WithLabelValues(route).Observe(time.Since(began).Seconds())
		}()
		next.ServeHTTP(rec, r)
	})
}

// recorder remembers the status code.
type recorder struct {
	http.ResponseWriter
	code int
}

// WriteHeader implements http.ResponseWriter.
func (r *recorder) WriteHeader(code int) {
	r.code = code
	r.ResponseWriter.WriteHeader(code)
}

// Flush implements http.Flusher, which gRPC asks for.
func (r *recorder) Flush() { _ = http.NewResponseController(r.ResponseWriter).Flush() }

// Unwrap lets http.ResponseController reach the connection.
func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }

// slotsFor returns room for n connections; nil for 0, which means no limit.
func slotsFor(n int) chan struct{} {
	if n == 0 {
		return nil
	}
	return make(chan struct{}, n)
}

// limitListener accepts as many connections at a time as there are slots, which
// several listeners may share; more wait in the kernel's queue.
func limitListener(ln net.Listener, slots chan struct{}) net.Listener {
	if slots == nil {
		return ln
	}
	return &limited{Listener: ln, slots: slots, closed: make(chan struct{})}
}

type limited struct {
	net.Listener
	slots  chan struct{}
	closed chan struct{}
	once   sync.Once
}

// Accept implements net.Listener. A listener that waits for a connection takes
// no slot from the others.
func (l *limited) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	select {
	case l.slots <- struct{}{}:
		return &slotConn{Conn: c, free: func() { <-l.slots }}, nil
	case <-l.closed:
		return nil, errors.Join(net.ErrClosed, c.Close())
	}
}

// Close implements net.Listener.
func (l *limited) Close() error {
	l.once.Do(func() { close(l.closed) })
	return l.Listener.Close()
}

// slotConn frees its slot when it is closed.
type slotConn struct {
	net.Conn
	once sync.Once
	free func()
}

// Close implements net.Conn.
func (c *slotConn) Close() error {
	err := c.Conn.Close()
	c.once.Do(c.free)
	return err
}
