package source

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"slices"
	"sync"
	"time"

	"kelpie.dev/kelpie/datadog"
	"kelpie.dev/kelpie/metric/payload"
)

// Bounds of how long an endpoint that failed is left alone: doubled at each
// failure, halved at each success.
const (
	minRetry = 30 * time.Second
	maxRetry = 30 * time.Minute
)

// Endpoint is one place that answers a source's queries.
type Endpoint struct {
	URL     string // shown; without credentials
	Querier Querier
}

// EndpointStatus is the health of one of several endpoints. Its words are those
// of Datadog's cluster agent.
type EndpointStatus struct {
	URL         string    `json:"url"`
	Status      string    `json:"status"` // OK, Failed or Unknown
	LastSuccess time.Time `json:"last_success,omitzero"`
	LastFailure time.Time `json:"last_failure,omitzero"`
	Retry       float64   `json:"retry_interval_seconds"`
	Used        bool      `json:"used"` // gave the newest answer
}

// A Failover asks the first of several endpoints that answers. What another
// endpoint would answer in the same way, such as that a query is wrong or the
// keys are, is the answer. It may be used concurrently.
type Failover struct {
	timeout time.Duration
	log     *slog.Logger

	mu        sync.Mutex // guards what follows
	endpoints []*endpoint
	used      *endpoint
}

type endpoint struct {
	Endpoint
	status EndpointStatus
	retry  time.Duration
	skip   time.Time // it is asked last until then
}

// NewFailover returns a Failover over endpoints, in the order of preference, of
// which each has timeout to answer.
func NewFailover(timeout time.Duration, log *slog.Logger, endpoints ...Endpoint) (*Failover, error) {
	if len(endpoints) == 0 {
		return nil, errors.New("new failover: no endpoints")
	}
	f := &Failover{timeout: timeout, log: log}
	for _, e := range endpoints {
		f.endpoints = append(f.endpoints, &endpoint{Endpoint: e, retry: minRetry, status: EndpointStatus{URL: e.URL, Status: "Unknown"}})
	}
	return f, nil
}

// Query asks the endpoints in turn. If none answers, it returns the error of the
// first, which is the one that somebody wanted asked.
func (f *Failover) Query(ctx context.Context, queries []string, from, to time.Time) (*payload.QueryResponse, error) {
	var failed []*endpoint
	var first error
	for _, e := range f.order(time.Now()) {
		resp, err := f.try(ctx, e, queries, from, to)
		if ctx.Err() != nil && err != nil {
			return nil, err
		}
		if err == nil || !another(err) {
			f.answered(e, failed)
			return resp, err
		}
		f.mu.Lock()
		e.status.Status, e.status.LastFailure = "Failed", time.Now()
		f.mu.Unlock()
		failed = append(failed, e)
		if first == nil || e == f.endpoints[0] {
			first = err
		}
	}
	return nil, first
}

func (f *Failover) try(ctx context.Context, e *endpoint, queries []string, from, to time.Time) (*payload.QueryResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, f.timeout)
	defer cancel()
	return e.Querier.Query(ctx, queries, from, to)
}

// another reports whether another endpoint may do better: the network failed,
// the server did, or it asks for fewer requests.
func another(err error) bool {
	var api *datadog.APIError
	return !errors.As(err, &api) || api.Status == http.StatusTooManyRequests || api.Status >= http.StatusInternalServerError
}

// order returns the endpoints to try, those that failed of late at the end.
func (f *Failover) order(now time.Time) []*endpoint {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := slices.Clone(f.endpoints)
	slices.SortStableFunc(out, func(a, b *endpoint) int {
		skipA, skipB := now.Before(a.skip), now.Before(b.skip)
		switch {
		case skipA == skipB:
			return 0
		case skipA:
			return 1
		default:
			return -1
		}
	})
	return out
}

// answered notes that e has answered a request on which others failed: only
// then is it known that the fault was theirs, and not a slow query's.
func (f *Failover) answered(e *endpoint, failed []*endpoint) {
	now := time.Now()
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, other := range failed {
		other.skip = now.Add(other.retry)
		other.retry = min(2*other.retry, maxRetry)
	}
	e.status.Status, e.status.LastSuccess, e.skip = "OK", now, time.Time{}
	e.retry = max(e.retry/2, minRetry)
	if f.used != e {
		if f.used != nil {
			f.log.Warn("values come from another endpoint now", "from", f.used.URL, "to", e.URL)
		}
		f.used = e
	}
}

// Status returns the health of each endpoint, in the order of preference.
func (f *Failover) Status() []EndpointStatus {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := make([]EndpointStatus, len(f.endpoints))
	for i, e := range f.endpoints {
		out[i] = e.status
		out[i].Retry, out[i].Used = e.retry.Seconds(), e == f.used
	}
	return out
}
