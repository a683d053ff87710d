// Package metadata serves to node agents what only the cluster knows of their
// pods and nodes: the HTTP API of Datadog's cluster agent, as far as tags need it.
//
// It owns that API's paths and JSON, who may ask, and the index of what is asked
// for. It does not know what agents do with the answers, and it answers alike on
// every replica: no leader is needed to read.
package metadata

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"
)

// DefaultPort is the port of Datadog's cluster agent for its node agents (cluster_agent.cmd_port).
const DefaultPort = 5005

// MinToken is the least length of a token, as Datadog's agents ask for.
const MinToken = 32

// ServerOptions configures a Server. Index and Token are required.
type ServerOptions struct {
	Index *Index
	Token string // that callers must bear; at least MinToken characters
	Addr  string // such as ":5005"
	// Certificate returns what to serve with; nil makes a self-signed one, as node
	// agents of Datadog do not verify it.
	Certificate func(*tls.ClientHelloInfo) (*tls.Certificate, error)
	LegacyTLS   bool                  // allow TLS 1.2
	Registerer  prometheus.Registerer // nil registers nowhere
	Log         *slog.Logger          // nil discards
}

// Server serves an Index.
type Server struct {
	o    ServerOptions
	http *http.Server
}

// NewServer returns a Server that listens once it runs.
func NewServer(o ServerOptions) (*Server, error) {
	if o.Index == nil {
		return nil, errors.New("new metadata server: no index")
	}
	if len(o.Token) < MinToken {
		return nil, fmt.Errorf("new metadata server: the token has %d characters, want at least %d", len(o.Token), MinToken)
	}
	o.Log = cmp.Or(o.Log, slog.New(slog.DiscardHandler))
	if o.Certificate == nil {
		own, err := selfSigned(time.Now())
		if err != nil {
			return nil, fmt.Errorf("new metadata server: %w", err)
		}
		o.Certificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return own, nil }
	}
	least := uint16(tls.VersionTLS13)
	if o.LegacyTLS {
		least = tls.VersionTLS12
	}
	return &Server{o: o, http: &http.Server{
		Handler:   http.MaxBytesHandler(newHandler(o.Index, o.Token, o.Registerer), 0), // nobody sends a body
		TLSConfig: &tls.Config{MinVersion: least, GetCertificate: o.Certificate},
		// Who does not know the token cannot hold a connection for long, or send much.
		ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second, WriteTimeout: 30 * time.Second,
		IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 16 << 10,
		ErrorLog: slog.NewLogLogger(o.Log.Handler(), slog.LevelDebug), // handshakes of port scanners
	}}, nil
}

// Run listens and serves until ctx ends, and then returns nil.
func (s *Server) Run(ctx context.Context) error {
	ln, err := (&net.ListenConfig{}).Listen(ctx, "tcp", s.o.Addr)
	if err != nil {
		return fmt.Errorf("listen for node agents (DD_CLUSTER_AGENT_CMD_PORT): %w", err)
	}
	return s.Serve(ctx, ln)
}

// Serve serves ln until ctx ends, and then returns nil. It closes ln.
func (s *Server) Serve(ctx context.Context, ln net.Listener) error {
	s.o.Log.Info("serving metadata to node agents", "address", ln.Addr().String())
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		if err := s.http.ServeTLS(ln, "", ""); !errors.Is(err, http.ErrServerClosed) {
			return fmt.Errorf("serve metadata to node agents: %w", err)
		}
		return nil
	})
	g.Go(func() error {
		<-ctx.Done()
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		if s.http.Shutdown(end) != nil {
			_ = s.http.Close() // who is still there has had his time
		}
		return nil
	})
	return g.Wait()
}
