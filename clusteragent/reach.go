package clusteragent

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"k8s.io/client-go/rest"
)

// How often the Kubernetes API server is looked for, and how long it may be out
// of reach until this replica says that it is not ready. Readiness is then looked
// at every 2 s (chart), so that requests go to the other replicas before what
// this one remembers is too old.
const (
	reachPeriod = 3 * time.Second
	reachLimit  = 10 * time.Second
)

// reach knows whether the Kubernetes API server answers this replica. One that
// is cut off sees neither new autoscalers nor changed ones and cannot ask who may
// read: others should answer in its place. Where none can, the API server is the
// one that is gone, and nobody asks.
type reach struct {
	look    func(context.Context) error
	log     *slog.Logger
	last    atomic.Pointer[time.Time] // of the last answer; by the monotonic clock, too
	problem atomic.Pointer[string]
}

// newReach returns a reach with a client and a connection of its own: the shared
// client makes requests wait in line for its rate limit, and the shared
// connection, kept by its watches, may be dead for most of a minute after the API
// server is within reach again.
func newReach(config *rest.Config, log *slog.Logger) (*reach, error) {
	own := rest.CopyConfig(config)
	own.Dial = (&net.Dialer{Timeout: reachPeriod}).DialContext // client-go shares no transport that dials for itself
	client, err := rest.HTTPClientFor(own)
	if err != nil {
		return nil, fmt.Errorf("connect to Kubernetes: %w", err)
	}
	base, _, err := rest.DefaultServerUrlFor(config)
	if err != nil {
		return nil, fmt.Errorf("connect to Kubernetes: %w", err)
	}
	r := &reach{log: log, look: func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, reachPeriod)
		defer cancel()
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, base.JoinPath("version").String(), http.NoBody)
		if err != nil {
			return fmt.Errorf("ask the Kubernetes API server for its version: %w", err)
		}
		resp, err := client.Do(req)
		if err != nil {
			client.CloseIdleConnections() // what is half open would fail the next look too
			return err                    // names the request
		}
		// Any status is an answer: a refusal says that it is there.
		return resp.Body.Close()
	}}
	r.last.Store(new(time.Now()))
	return r, nil
}

// run looks until ctx ends, and then returns nil.
func (r *reach) run(ctx context.Context) error {
	tick := time.NewTicker(reachPeriod)
	defer tick.Stop()
	for {
		r.once(ctx, time.Now)
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

func (r *reach) once(ctx context.Context, now func() time.Time) {
	err := r.look(ctx)
	if err == nil {
		if was := r.problem.Swap(nil); was != nil {
			r.log.Info("the Kubernetes API server answers again")
		}
		r.last.Store(new(now()))
		return
	}
	if ctx.Err() != nil {
		return
	}
	text := err.Error()
	if was := r.problem.Swap(&text); was == nil {
		r.log.Warn("the Kubernetes API server does not answer; values are served on", "error", err)
	}
}

// lost says that the API server is out of reach, or nil.
func (r *reach) lost(now time.Time) error {
	problem, last := r.problem.Load(), r.last.Load()
	if problem == nil || last == nil {
		return nil
	}
	away := now.Sub(*last)
	if away < reachLimit {
		return nil
	}
	return fmt.Errorf("the Kubernetes API server has not answered this replica for %s, and new autoscalers are not seen; is a NetworkPolicy or the node's network in the way? %s",
		away.Round(time.Second), *problem)
}
