package queryapi

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strconv"
	"time"

	"kelpie.dev/kelpie/backend/answer"
	"kelpie.dev/kelpie/backend/auth"
	"kelpie.dev/kelpie/backend/quota"
	"kelpie.dev/kelpie/query"
)

// patience is how long a request waits for its turn.
const patience = 10 * time.Second

// Limits of bodies in bytes.
const (
	maxQueryBody = 512 << 10
	maxEditBody  = 64 << 10
)

// grantKey is the context's key of the request's grant.
type grantKey struct{}

// GuardValue puts before serve, which answers the parameter query's value now,
// what all queries pass: keys and their scope, rate and turn, and the budget of
// what they read. A query that cannot be parsed is for serve to refuse.
func (a *API) GuardValue(serve http.HandlerFunc) http.HandlerFunc {
	return a.guard("timeseries_query", quota.Query)(func(w http.ResponseWriter, r *http.Request) {
		e, err := query.Parse(r.URL.Query().Get("query"))
		if err == nil && query.CheckValue(e) == nil {
			now := a.opts.Now().Unix()
			err = a.spend(r, query.Window{From: now - query.Lookback(e), To: now}, []query.Expr{e})
			switch outcome, message := blame(err, ""); {
			case err == nil:
			case outcome == outcomeBudget:
				a.tooMuch(w, "", err)
				return
			case outcome != "":
				a.refuse(w, "", outcome, http.StatusBadRequest, message)
				return
			default:
				a.unavailable(w, r, err)
				return
			}
		}
		serve(w, r)
	})
}

// guard checks the keys and their scope, counts the request, waits for its turn
// and bounds its time.
func (a *API) guard(scope, kind string) func(http.HandlerFunc) http.HandlerFunc {
	return func(serve http.HandlerFunc) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			grant, err := a.opts.Auth.Allow(r, scope)
			if err != nil {
				a.refuse(w, "", outcomeForbidden, http.StatusForbidden, err.Error())
				return
			}
			if !a.opts.Quota.Take(w.Header(), grant.Key, kind) {
				a.refuse(w, "", outcomeLimited, http.StatusTooManyRequests, "Too many requests")
				return
			}
			if len(r.URL.RawQuery) > maxRawQuery {
				a.refuse(w, "", outcomeInvalid, http.StatusRequestURITooLong, "URI too long: send the queries in several requests")
				return
			}
			wait, cancel := context.WithTimeout(r.Context(), patience)
			defer cancel()
			if a.opts.Slots.Acquire(wait, 1) != nil {
				a.refuse(w, "", outcomeBusy, http.StatusServiceUnavailable, "too many queries at once: ask again later")
				return
			}
			defer a.opts.Slots.Release(1)
			ctx, done := context.WithTimeout(context.WithValue(r.Context(), grantKey{}, grant), a.opts.Timeout)
			defer done()
			serve(w, r.WithContext(ctx))
		}
	}
}

// refuse counts and answers an error of the request; "" is the content type of
// most of them.
func (a *API) refuse(w http.ResponseWriter, contentType, outcome string, code int, message string) {
	a.metrics.queries.WithLabelValues(outcome).Inc()
	if contentType == "" {
		answer.Error(w, code, message)
		return
	}
	answer.Document(w, code, contentType, map[string][]string{"errors": {message}})
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

// tooMuch answers that a key's budget is used up for now.
func (a *API) tooMuch(w http.ResponseWriter, contentType string, err error) {
	var costs *quota.CostError
	if errors.As(err, &costs) {
		h := w.Header()
		h.Set("X-Ratelimit-Limit", strconv.FormatInt(costs.Limit, 10))
		h.Set("X-Ratelimit-Period", "60")
		h.Set("X-Ratelimit-Remaining", strconv.FormatInt(max(0, costs.Limit-costs.Spent), 10))
		h.Set("X-Ratelimit-Reset", strconv.FormatInt(int64(costs.Wait.Seconds()), 10))
		h.Set("X-Ratelimit-Name", "query_points")
	}
	a.refuse(w, contentType, outcomeBudget, http.StatusTooManyRequests, err.Error())
}

// unknownInterval is how often points are taken to come whose interval is not known.
const unknownInterval = 10

// spend estimates what evaluating the expressions would read, and takes it from
// the budget of the request's key.
func (a *API) spend(r *http.Request, win query.Window, exprs []query.Expr) error {
	var cost quota.Cost
	for _, e := range exprs {
		for leaf := range query.Queries(e) {
			series, interval, err := a.opts.Store.Reach(r.Context(), query.Selector{Metric: leaf.Metric, Scope: leaf.Scope}, win.From, win.To)
			if err != nil {
				return err
			}
			if interval == 0 {
				interval = unknownInterval
			}
			cost = cost.Add(quota.Of(series, win.To-win.From, interval))
		}
	}
	grant, _ := r.Context().Value(grantKey{}).(auth.Grant)
	return a.opts.Quota.Spend(grant.Key, cost)
}

// readBody returns the request's body, or the code and text of a refusal.
func readBody(w http.ResponseWriter, r *http.Request, limit int64) (body []byte, code int, err error) {
	if e := r.Header.Get("Content-Encoding"); e != "" && e != "identity" {
		return nil, http.StatusUnsupportedMediaType, errors.New("Content-Encoding is not supported here: send the body as it is")
	}
	body, err = io.ReadAll(http.MaxBytesReader(w, r.Body, limit))
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &large):
		return nil, http.StatusRequestEntityTooLarge, errors.New("Payload too big") //nolint:staticcheck // Datadog's own words
	case err != nil:
		return nil, http.StatusBadRequest, errors.New("the body ended early")
	}
	return body, 0, nil
}
