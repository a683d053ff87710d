// Command test-metric-app answers "Hello!" and counts its requests.
//
// It is the smallest application that can be scaled on what it does: it owns
// one HTTP handler and one DogStatsD counter, and knows nothing of Kubernetes
// or of who reads the counter.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/DataDog/datadog-go/v5/statsd"
)

const (
	metricName   = "flask.request.rate"
	defaultAgent = "localhost:8125"
	drain        = 5 * time.Second // how long a stop waits for requests that are being answered
)

// tags say which workload the requests belong to; the autoscaler selects by them.
var tags = []string{"kube_namespace:test", "kube_deployment:test-metric-app"}

func main() {
	addr := flag.String("addr", ":5000", "address to listen on")
	flag.Parse()
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *addr, log); err != nil {
		log.Error("stopped", "err", err)
		os.Exit(1)
	}
}

// run serves until ctx ends, then answers what has begun and sends the last counts.
func run(ctx context.Context, addr string, log *slog.Logger) (err error) {
	client, err := statsd.New(agentAddr(os.LookupEnv))
	if err != nil {
		return fmt.Errorf("open the DogStatsD client; is DD_AGENT_HOST a host name or address? %w", err)
	}
	defer func() { err = errors.Join(err, client.Close()) }()

	l, err := new(net.ListenConfig).Listen(ctx, "tcp", addr)
	if err != nil {
		return fmt.Errorf("listen for requests; choose another address with -addr: %w", err)
	}
	log.Info("serving", "addr", l.Addr().String())
	return serve(ctx, l, handler(client, log))
}

// agentAddr is where the metrics go. Empty leaves it to the client, which reads
// DD_DOGSTATSD_URL, or DD_AGENT_HOST and DD_DOGSTATSD_PORT.
func agentAddr(lookup func(string) (string, bool)) string {
	for _, name := range []string{"DD_DOGSTATSD_URL", "DD_AGENT_HOST"} {
		if value, _ := lookup(name); value != "" {
			return ""
		}
	}
	return defaultAgent
}

// counter is what the handler needs of a DogStatsD client.
type counter interface {
	Incr(name string, tags []string, rate float64) error
}

func handler(c counter, log *slog.Logger) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if err := c.Incr(metricName, tags, 1); err != nil {
			log.Warn("count a request", "err", err)
		}
		if _, err := io.WriteString(w, "Hello!\n"); err != nil {
			log.Debug("answer a request", "err", err)
		}
	})
}

func serve(ctx context.Context, l net.Listener, h http.Handler) error {
	server := &http.Server{Handler: h, ReadHeaderTimeout: 5 * time.Second, IdleTimeout: time.Minute}
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	select {
	case err := <-served:
		return fmt.Errorf("serve requests: %w", err)
	case <-ctx.Done():
	}
	deadline, cancel := context.WithTimeout(context.WithoutCancel(ctx), drain)
	defer cancel()
	err := server.Shutdown(deadline)
	if err != nil {
		err = fmt.Errorf("finish the last requests within %s: %w", drain, errors.Join(err, server.Close()))
	}
	if ended := <-served; !errors.Is(ended, http.ErrServerClosed) {
		err = errors.Join(err, ended)
	}
	return err
}
