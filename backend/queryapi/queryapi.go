// Package queryapi answers Datadog's read API over HTTP: queries, and what
// metrics, tags and hosts there are.
//
// It owns parameters, limits and the exact JSON. It does not evaluate queries
// (package query does) and does not know how data is stored. Every route needs
// an API key and an application key.
package queryapi

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/semaphore"

	"kelpie.dev/kelpie/backend/answer"
	"kelpie.dev/kelpie/metric"
	"kelpie.dev/kelpie/query"
)

// Authorizer checks both keys of a request. Its errors' texts are answered.
type Authorizer interface {
	Read(r *http.Request) error
}

// Catalog knows which metrics there are.
type Catalog interface {
	// Active returns the sorted names of metrics with a point at since or later
	// and a context with the tags, which may hold "*".
	Active(ctx context.Context, since time.Time, tags ...string) ([]string, error)
	// Search returns the sorted names that contain text.
	Search(text string) []string
	// Describe returns a metric's type, interval and unit, whether it is a
	// distribution, and whether it is known.
	Describe(name string) (m metric.Series, isDistribution, ok bool)
}

// Tagger knows which tags there are.
type Tagger interface {
	// Tags returns all tags of a metric's contexts with data since.
	Tags(ctx context.Context, name string, since time.Time) (metric.Tags, error)
	// Hosts returns the sorted hosts with data since that contain text.
	Hosts(ctx context.Context, text string, since time.Time) ([]string, error)
}

// Options are an API's parts. The first four are required.
type Options struct {
	Source  query.Source
	Catalog Catalog
	Tags    Tagger
	Auth    Authorizer

	Timeout     time.Duration // of one request; 0 means 30 s
	Concurrency int           // requests evaluated at once; 0 means twice the processors
	Slow        time.Duration // a request longer than this is logged; 0 means 1 s
	Now         func() time.Time
	Registerer  prometheus.Registerer // nil registers nothing
	Log         *slog.Logger          // nil discards
}

// API serves the routes of Register. See New.
type API struct {
	opts    Options
	metrics *metrics
	slots   *semaphore.Weighted
	slow    slowest

	slowAfter atomic.Int64 // nanoseconds
}

// patience is how long a request waits for its turn.
const patience = 10 * time.Second

// New returns an API.
func New(o Options) (*API, error) {
	if o.Source == nil || o.Catalog == nil || o.Tags == nil || o.Auth == nil {
		return nil, errors.New("query API: source, catalog, tags and key check are required")
	}
	if o.Timeout == 0 {
		o.Timeout = 30 * time.Second
	}
	if o.Concurrency == 0 {
		o.Concurrency = 2 * runtime.GOMAXPROCS(0)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	a := &API{opts: o, metrics: newMetrics(o.Registerer), slots: semaphore.NewWeighted(int64(o.Concurrency))}
	a.SetSlow(o.Slow)
	return a, nil
}

// Register adds the API's routes to mux.
func (a *API) Register(mux *http.ServeMux) {
	mux.HandleFunc("GET /api/v1/query", a.guard(a.query))
	mux.HandleFunc("GET /api/v1/metrics", a.guard(a.active))
	mux.HandleFunc("GET /api/v1/metrics/{metric}", a.guard(a.describe))
	mux.HandleFunc("GET /api/v1/search", a.guard(a.search))
	mux.HandleFunc("GET /api/v2/metrics/{metric}/all-tags", a.guard(a.allTags))
}

// guard checks the keys, waits for the request's turn and bounds its time.
func (a *API) guard(serve func(http.ResponseWriter, *http.Request)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if err := a.opts.Auth.Read(r); err != nil {
			a.metrics.queries.WithLabelValues(outcomeForbidden).Inc()
			answer.Error(w, http.StatusForbidden, err.Error())
			return
		}
		if len(r.URL.RawQuery) > maxRawQuery {
			answer.Error(w, http.StatusRequestURITooLong, "URI too long: send the queries in several requests")
			return
		}
		wait, cancel := context.WithTimeout(r.Context(), patience)
		defer cancel()
		if a.slots.Acquire(wait, 1) != nil {
			a.metrics.queries.WithLabelValues(outcomeBusy).Inc()
			answer.Error(w, http.StatusServiceUnavailable, "too many queries at once: ask again later")
			return
		}
		defer a.slots.Release(1)
		ctx, done := context.WithTimeout(r.Context(), a.opts.Timeout)
		defer done()
		serve(w, r.WithContext(ctx))
	}
}

// unavailable answers an error that is not the request's fault.
func (a *API) unavailable(w http.ResponseWriter, r *http.Request, err error) {
	outcome, text := outcomeError, err.Error()
	if errors.Is(err, context.DeadlineExceeded) {
		outcome, text = outcomeTimeout, "the request took longer than "+a.opts.Timeout.String()+": narrow its scope or its time range"
	}
	a.metrics.queries.WithLabelValues(outcome).Inc()
	if r.Context().Err() == nil {
		a.opts.Log.Error("cannot answer a query", "route", r.Pattern, "error", err)
	}
	answer.Error(w, http.StatusServiceUnavailable, text)
}
