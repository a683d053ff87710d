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
	"iter"
	"log/slog"
	"net/http"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/semaphore"

	"kelpie.dev/kelpie/backend/auth"
	"kelpie.dev/kelpie/backend/quota"
	"kelpie.dev/kelpie/metric"
	"kelpie.dev/kelpie/metric/payload"
	"kelpie.dev/kelpie/query"
)

// Authorizer checks both keys of a request, and that the application key has the
// scope. Its errors' texts are answered.
type Authorizer interface {
	Allow(r *http.Request, scope string) (auth.Grant, error)
}

// Store knows which metrics, tags and hosts there are, and what people say of them.
type Store interface {
	Catalog
	Surveyor
	Describer
	TagConfigurer
	Hosts
}

// Catalog knows which metrics there are.
type Catalog interface {
	// Names returns the sorted names of metrics with a point at since or later and
	// a context in the scope.
	Names(ctx context.Context, scope query.Scope, since time.Time) ([]string, error)
	// Search returns the sorted names that contain text.
	Search(text string) []string
	// Describe returns a metric's type, interval and unit, whether it is a
	// distribution, and whether it is known.
	Describe(name string) (m metric.Series, isDistribution, ok bool)
}

// Surveyor knows contexts by the index, without their points.
type Surveyor interface {
	// Reach returns how many contexts a selection has over a time, and the interval
	// in seconds of their points, or 0.
	Reach(ctx context.Context, sel query.Selector, from, to int64) (series, interval int64, err error)
	// Contexts yields them.
	Contexts(ctx context.Context, sel query.Selector, from, to int64) iter.Seq2[metric.Series, error]
	// Tags returns all tags of a metric's contexts with data since.
	Tags(ctx context.Context, name string, since time.Time) (metric.Tags, error)
}

// Describer keeps what people set of metrics.
type Describer interface {
	Metadata(name string) payload.MetricMetadata
	EditMetadata(name string, edit func(payload.MetricMetadata) (payload.MetricMetadata, error)) error
}

// TagConfigurer keeps tag configurations. In an edit nil is none.
type TagConfigurer interface {
	TagConfigurations() map[string]payload.TagConfiguration
	EditTagConfiguration(name string, edit func(*payload.TagConfiguration) (*payload.TagConfiguration, error)) error
}

// Hosts knows hosts, in lower case.
type Hosts interface {
	// Hosts returns the sorted hosts with data since that contain text.
	Hosts(ctx context.Context, text string, since time.Time) ([]string, error)
	// HostTags returns the hosts with data since, with the tags of each.
	HostTags(ctx context.Context, since time.Time) (map[string]metric.Tags, error)
	// LastReported returns the Unix time of a host's newest point since, or 0.
	LastReported(ctx context.Context, host string, since time.Time) (int64, error)
}

// Options are an API's parts. The first three are required.
type Options struct {
	Source query.Source
	Store  Store
	Auth   Authorizer

	Cache       *query.Cache        // of what graphs have shown; nil means none
	Quota       *quota.Quota        // what a key may use; nil means quota's defaults
	Slots       *semaphore.Weighted // requests evaluated at once; nil makes Concurrency of them
	Concurrency int                 // 0 means twice the processors
	Timeout     time.Duration       // of one request; 0 means 30 s
	Slow        time.Duration       // a request longer than this is logged; 0 means 1 s
	Retention   time.Duration       // of the store; 0 answers queries of any time
	Now         func() time.Time
	Registerer  prometheus.Registerer // nil registers nothing
	Log         *slog.Logger          // nil discards
}

// API serves the routes of Register. See New.
type API struct {
	opts    Options
	metrics *metrics
	slow    slowest
	queried queried

	slowAfter atomic.Int64 // nanoseconds
}

// New returns an API.
func New(o Options) (*API, error) {
	if o.Source == nil || o.Store == nil || o.Auth == nil {
		return nil, errors.New("query API: source, store and key check are required")
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
	if o.Slots == nil {
		o.Slots = semaphore.NewWeighted(int64(o.Concurrency))
	}
	if o.Quota == nil {
		var err error
		if o.Quota, err = quota.New(quota.Options{Now: o.Now}); err != nil {
			return nil, err
		}
	}
	a := &API{opts: o, metrics: newMetrics(o.Registerer, o.Cache)}
	a.SetSlow(o.Slow)
	return a, nil
}

// Register adds the API's routes to mux.
func (a *API) Register(mux *http.ServeMux) {
	query := a.guard("timeseries_query", quota.Query)
	mux.HandleFunc("GET /api/v1/query", query(a.query))
	mux.HandleFunc("POST /api/v2/query/timeseries", query(a.timeseries))
	mux.HandleFunc("POST /api/v2/query/scalar", query(a.scalar))

	list := a.guard("metrics_read", quota.Metrics)
	mux.HandleFunc("GET /api/v1/metrics", list(a.active))
	mux.HandleFunc("GET /api/v1/metrics/{metric}", list(a.describe))
	mux.HandleFunc("GET /api/v1/search", list(a.search))
	mux.HandleFunc("GET /api/v2/metrics", list(a.listMetrics))
	mux.HandleFunc("GET /api/v2/metrics/{metric}/tags", list(a.known(a.tagConfiguration)))
	mux.HandleFunc("GET /api/v2/metrics/{metric}/all-tags", list(a.known(a.allTags)))
	mux.HandleFunc("GET /api/v2/metrics/{metric}/volumes", list(a.known(a.volumes)))
	mux.HandleFunc("GET /api/v2/metrics/{metric}/active-configurations", list(a.known(a.activeConfigurations)))
	mux.HandleFunc("GET /api/v2/metrics/{metric}/estimate", list(a.known(a.estimate)))
	mux.HandleFunc("GET /api/v2/metrics/{metric}/assets", list(a.known(a.assets)))

	write := a.guard("metrics_metadata_write", quota.Metadata)
	mux.HandleFunc("PUT /api/v1/metrics/{metric}", write(a.known(a.putMetadata)))
	configure := a.guard("metric_tags_write", quota.Metadata)
	mux.HandleFunc("POST /api/v2/metrics/{metric}/tags", configure(a.known(a.createTagConfiguration)))
	mux.HandleFunc("PATCH /api/v2/metrics/{metric}/tags", configure(a.known(a.updateTagConfiguration)))
	mux.HandleFunc("DELETE /api/v2/metrics/{metric}/tags", configure(a.known(a.deleteTagConfiguration)))

	hosts := a.guard("hosts_read", quota.Metrics)
	mux.HandleFunc("GET /api/v1/hosts", hosts(a.listHosts))
	mux.HandleFunc("GET /api/v1/hosts/totals", hosts(a.hostTotals))
	mux.HandleFunc("GET /api/v1/tags/hosts", hosts(a.tagsOfHosts))
	mux.HandleFunc("GET /api/v1/tags/hosts/{host}", hosts(a.tagsOfHost))
}
