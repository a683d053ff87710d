// Command tlsproxy puts TLS in front of one HTTP server.
//
// The lab has it for clients that ask a fixed host name over TLS and nothing
// else, as KEDA's Datadog scaler does. It owns one listener and knows nothing of
// what it passes on.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"
)

const drain = 5 * time.Second // how long a stop waits for requests that are being answered

func main() {
	addr := flag.String("addr", ":8443", "address to listen on")
	to := flag.String("to", "", "the HTTP server's URL (required)")
	dir := flag.String("certificate", "/certs", "folder with tls.crt and tls.key")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *addr, *to, *dir); err != nil {
		slog.New(slog.NewTextHandler(os.Stderr, nil)).Error("stopped", "err", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, addr, to, dir string) error {
	target, err := url.Parse(to)
	if err != nil || target.Host == "" {
		return fmt.Errorf("-to %q is no URL of a server, such as http://backend:8080", to)
	}
	server := &http.Server{Addr: addr, Handler: proxy(target), ReadHeaderTimeout: drain, IdleTimeout: time.Minute}
	served := make(chan error, 1)
	go func() {
		served <- server.ListenAndServeTLS(filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key"))
	}()
	select {
	case err := <-served:
		return fmt.Errorf("serve TLS on %s: %w", addr, err)
	case <-ctx.Done():
	}
	ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), drain)
	defer cancel()
	err = server.Shutdown(ending)
	if ended := <-served; !errors.Is(ended, http.ErrServerClosed) {
		err = errors.Join(err, ended)
	}
	return err
}

// proxy passes requests on as they are, but for the host that they name.
func proxy(target *url.URL) http.Handler {
	return &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(target) }}
}
