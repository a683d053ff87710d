// Package promapi answers the reading part of Prometheus' HTTP API under
// /prometheus/, so that Grafana's data source and promtool work as they are.
//
// It owns parameters, limits and the exact JSON. PromQL itself is Prometheus' own
// engine, over the store's Queryable. The prefix is there because Datadog's
// GET /api/v1/query has the same path.
//
// A request is let in by an application key: as the password of basic
// authentication, as a bearer token, or in Datadog's two headers.
package promapi

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"runtime"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/storage"
	"golang.org/x/sync/semaphore"

	"kelpie.dev/kelpie/backend/auth"
	"kelpie.dev/kelpie/backend/quota"
	"kelpie.dev/kelpie/metric"
	"kelpie.dev/kelpie/metric/payload"
)

// Prefix is what all paths begin with.
const Prefix = "/prometheus"

// Authorizer checks the key of a request, and that it has the scope.
type Authorizer interface {
	AllowAlone(r *http.Request, scope string) (auth.Grant, error)
}

// Catalog knows which metrics there are, and what people say of them.
type Catalog interface {
	Search(text string) []string
	Describe(name string) (m metric.Series, isDistribution, ok bool)
	Metadata(name string) payload.MetricMetadata
}

// Options are an API's parts. The first three are required.
type Options struct {
	Queryable storage.Queryable
	Catalog   Catalog
	Auth      Authorizer

	Quota      *quota.Quota        // what a key may use; nil means quota's defaults
	Slots      *semaphore.Weighted // requests evaluated at once; nil means twice the processors
	MaxSamples int                 // that a query may hold in memory; 0 means 20 000 000
	MaxSeries  int                 // in one list; 0 means 100 000
	Timeout    time.Duration       // of one request; 0 means 30 s
	// Slow is called of every query with how long it took, and Log told of those
	// beyond a limit by whoever counts them; nil calls nothing.
	Slow       func(text string, span int64, series int, took time.Duration)
	Now        func() time.Time
	Registerer prometheus.Registerer // nil registers nothing
	Log        *slog.Logger          // nil discards
}

// API serves the routes of Register. See New.
type API struct {
	opts    Options
	parser  parser.Parser
	engine  *promql.Engine
	answers *prometheus.CounterVec
}

// New returns an API. Its engine's metrics are Prometheus' own.
func New(o Options) (*API, error) {
	if o.Queryable == nil || o.Catalog == nil || o.Auth == nil {
		return nil, errors.New("Prometheus API: store, catalog and key check are required") //nolint:staticcheck // a name
	}
	if o.Timeout == 0 {
		o.Timeout = 30 * time.Second
	}
	if o.MaxSamples == 0 {
		o.MaxSamples = 20_000_000
	}
	if o.MaxSeries == 0 {
		o.MaxSeries = 100_000
	}
	if o.Slots == nil {
		o.Slots = semaphore.NewWeighted(int64(2 * runtime.GOMAXPROCS(0)))
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Slow == nil {
		o.Slow = func(string, int64, int, time.Duration) {}
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Quota == nil {
		var err error
		if o.Quota, err = quota.New(quota.Options{Now: o.Now}); err != nil {
			return nil, err
		}
	}
	a := &API{opts: o, parser: parser.NewParser(parser.Options{})}
	a.engine = promql.NewEngine(promql.EngineOpts{
		Logger: o.Log.With("part", "promql"), Reg: o.Registerer, MaxSamples: o.MaxSamples, Timeout: o.Timeout,
		LookbackDelta: lookback, EnableAtModifier: true, EnableNegativeOffset: true, Parser: a.parser,
		NoStepSubqueryIntervalFn: func(int64) int64 { return defaultStep.Milliseconds() },
	})
	a.answers = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "kelpie_backend_promql_requests_total",
		Help: "Requests of the Prometheus API by outcome: success, or the type of the error.",
	}, []string{"outcome"})
	for _, kind := range []string{success, unauthorized, forbidden, limited, badData, execution, timeout, internal, unavailable} {
		a.answers.WithLabelValues(kind)
	}
	if o.Registerer != nil {
		o.Registerer.MustRegister(a.answers)
	}
	return a, nil
}

const (
	// lookback is how old the point may be that an instant is answered with, as
	// Prometheus' default.
	lookback = 5 * time.Minute
	// defaultStep is that of subqueries without one.
	defaultStep = time.Minute
)

// Register adds the API's routes to mux.
func (a *API) Register(mux *http.ServeMux) {
	query := a.guard("timeseries_query", quota.Query)
	list := a.guard("metrics_read", quota.Metrics)
	for _, method := range []string{"GET ", "POST "} {
		mux.HandleFunc(method+Prefix+"/api/v1/query", query(a.instant))
		mux.HandleFunc(method+Prefix+"/api/v1/query_range", query(a.overRange))
		mux.HandleFunc(method+Prefix+"/api/v1/format_query", list(a.format))
		mux.HandleFunc(method+Prefix+"/api/v1/query_exemplars", list(empty([]any{})))
		mux.HandleFunc(method+Prefix+"/api/v1/labels", list(a.labelNames))
		mux.HandleFunc(method+Prefix+"/api/v1/series", list(a.series))
	}
	mux.HandleFunc("GET "+Prefix+"/api/v1/label/{name}/values", list(a.labelValues))
	mux.HandleFunc("GET "+Prefix+"/api/v1/metadata", list(a.metadata))
	mux.HandleFunc("GET "+Prefix+"/api/v1/status/buildinfo", list(empty(buildInfo())))
	// There are no rules and no alerts; Grafana asks for both.
	mux.HandleFunc("GET "+Prefix+"/api/v1/rules", list(empty(map[string]any{"groups": []any{}})))
	mux.HandleFunc("GET "+Prefix+"/api/v1/alerts", list(empty(map[string]any{"alerts": []any{}})))
	for _, path := range []string{"/-/healthy", "/-/ready"} {
		mux.HandleFunc("GET "+Prefix+path, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/plain; charset=utf-8")
			_, _ = w.Write([]byte("Prometheus Server is Healthy.\n"))
		})
	}
}

// A handler returns the data of an answer.
type handler func(r *request) (data any, err error)

// request is a request with what its handling brings up.
type request struct {
	*http.Request
	key      string // the application key's name
	warnings []string
	infos    []string
	done     func() // to call when the answer is written; nil is nothing
}

func empty(data any) handler { return func(*request) (any, error) { return data, nil } }

// Limits of a request.
const (
	maxForm  = 1 << 20
	maxQuery = 64 << 10
	patience = 10 * time.Second
)

// guard checks the key and its scope, counts the request, bounds it, waits for
// its turn, and answers.
func (a *API) guard(scope, kind string) func(handler) http.HandlerFunc {
	return func(serve handler) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			grant, err := a.opts.Auth.AllowAlone(r, scope)
			if err != nil {
				a.fail(w, denied(w, err))
				return
			}
			if !a.opts.Quota.Take(w.Header(), grant.Key, kind) {
				a.fail(w, &failure{limited, errors.New("Too many requests")}) //nolint:staticcheck // Datadog's own words
				return
			}
			r.Body = http.MaxBytesReader(w, r.Body, maxForm)
			if err := r.ParseForm(); err != nil {
				a.fail(w, bad("error parsing form values: %w", err))
				return
			}
			ctx, cancel := context.WithTimeout(r.Context(), a.opts.Timeout)
			defer cancel()
			wait, stop := context.WithTimeout(ctx, patience)
			defer stop()
			if a.opts.Slots.Acquire(wait, 1) != nil {
				a.fail(w, &failure{unavailable, errors.New("too many queries at once: ask again later")})
				return
			}
			defer a.opts.Slots.Release(1)
			req := &request{Request: r.WithContext(ctx), key: grant.Key}
			data, err := serve(req)
			if req.done != nil {
				defer req.done()
			}
			if err != nil {
				a.failed(w, r, err)
				return
			}
			a.succeed(w, req, data)
		}
	}
}

// denied says how to be let in.
func denied(w http.ResponseWriter, err error) *failure {
	var scope *auth.ScopeError
	if errors.As(err, &scope) {
		return &failure{forbidden, err}
	}
	w.Header().Set("WWW-Authenticate", `Basic realm="Kelpie: any user, an application key as password"`)
	return &failure{unauthorized, errors.New("an application key is required: as password of basic authentication, as bearer token, or in DD-APPLICATION-KEY beside DD-API-KEY")}
}
