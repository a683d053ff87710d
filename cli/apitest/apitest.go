// Package apitest serves Datadog's query API over series in memory, with the
// production query language, for the tests of the command line.
//
// It knows nothing of intake, storage or Kubernetes.
package apitest

import (
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"strconv"
	"sync"

	"kelpie.dev/kelpie/metric"
	"kelpie.dev/kelpie/metric/payload"
	"kelpie.dev/kelpie/query"
)

// An API answers /api/v1/validate, /api/v1/query and /api/v1/metrics.
type API struct {
	mu             sync.Mutex // guards all below
	apiKey, appKey string
	series         []metric.Series
}

// New returns an API that accepts one pair of keys.
func New(apiKey, appKey string) *API { return &API{apiKey: apiKey, appKey: appKey} }

// Accept changes the keys that are accepted.
func (a *API) Accept(apiKey, appKey string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.apiKey, a.appKey = apiKey, appKey
}

// Store replaces all series.
func (a *API) Store(series ...metric.Series) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.series = series
}

// Select implements query.Source.
func (a *API) Select(_ context.Context, sel query.Selector, from, to int64) ([]metric.Series, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	var out []metric.Series
	for _, s := range a.series {
		if s.Name != sel.Metric || !sel.Scope.Match(query.TagsOf(s)) {
			continue
		}
		s.Points = slices.DeleteFunc(slices.Clone(s.Points), func(p metric.Point) bool { return p.Time < from || p.Time > to })
		if len(s.Points) > 0 {
			out = append(out, s)
		}
	}
	return out, nil
}

// ServeHTTP implements http.Handler.
func (a *API) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	goodAPI := r.Header.Get("DD-API-KEY") == a.apiKey
	goodApp := r.Header.Get("DD-APPLICATION-KEY") == a.appKey
	a.mu.Unlock()
	switch {
	case !goodAPI, !goodApp && r.URL.Path != "/api/v1/validate":
		answer(w, http.StatusForbidden, payload.ErrorBody{Errors: []string{"Forbidden"}})
	case r.URL.Path == "/api/v1/validate":
		answer(w, http.StatusOK, map[string]bool{"valid": true})
	case r.URL.Path == "/api/v1/metrics":
		answer(w, http.StatusOK, map[string][]string{"metrics": a.names(r)})
	case r.URL.Path == "/api/v1/query":
		a.query(w, r)
	default:
		answer(w, http.StatusNotFound, payload.ErrorBody{Errors: []string{"Not found"}})
	}
}

func (a *API) names(r *http.Request) []string {
	from, _ := strconv.ParseInt(r.URL.Query().Get("from"), 10, 64)
	a.mu.Lock()
	defer a.mu.Unlock()
	names := []string{}
	for _, s := range a.series {
		if n := len(s.Points); n > 0 && s.Points[n-1].Time >= from {
			names = append(names, s.Name)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

func (a *API) query(w http.ResponseWriter, r *http.Request) {
	v := r.URL.Query()
	from, _ := strconv.ParseInt(v.Get("from"), 10, 64)
	to, _ := strconv.ParseInt(v.Get("to"), 10, 64)
	resp := payload.NewQueryResponse(v.Get("query"), from, to)
	if err := a.evaluate(r.Context(), resp, query.Window{From: from, To: to}); err != nil {
		resp.Status, resp.Error = "error", err.Error()
		answer(w, http.StatusBadRequest, resp)
		return
	}
	answer(w, http.StatusOK, resp)
}

func (a *API) evaluate(ctx context.Context, resp *payload.QueryResponse, win query.Window) error {
	batch, err := query.ParseBatch(resp.Query)
	if err != nil {
		return err
	}
	for i, e := range batch {
		results, err := query.Eval(ctx, a, e, win)
		if err != nil {
			return err
		}
		for _, res := range results {
			s := payload.QuerySeries{Metric: res.Metric, Expression: res.Expression, Scope: res.Scope, TagSet: res.Tags, Interval: res.Interval, QueryIndex: &i}
			for _, p := range res.Points {
				ms, value := float64(p.Time*1000), p.Value
				s.Pointlist = append(s.Pointlist, payload.QueryPoint{&ms, &value})
			}
			resp.Series = append(resp.Series, s)
		}
	}
	return nil
}

func answer(w http.ResponseWriter, code int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(body) // the client sees a cut answer
}
