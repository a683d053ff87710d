package promapi

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"

	"github.com/prometheus/prometheus/promql"

	"kelpie.dev/kelpie/backend/answer"
	"kelpie.dev/kelpie/backend/quota"
)

// Outcomes: success, or the type of the error. Those of Prometheus have its words.
const (
	success      = "success"
	badData      = "bad_data"
	execution    = "execution"
	timeout      = "timeout"
	internal     = "internal"
	unavailable  = "unavailable"
	unauthorized = "unauthorized"
	forbidden    = "forbidden"
	limited      = "too_many_requests"
)

var codes = map[string]int{
	badData: http.StatusBadRequest, execution: http.StatusUnprocessableEntity, timeout: http.StatusServiceUnavailable,
	internal: http.StatusInternalServerError, unavailable: http.StatusServiceUnavailable, unauthorized: http.StatusUnauthorized,
	forbidden: http.StatusForbidden, limited: http.StatusTooManyRequests,
}

// A failure is an error with its type.
type failure struct {
	kind string
	err  error
}

func (f *failure) Error() string { return f.err.Error() }

// bad is a failure of the request's parameters.
func bad(format string, args ...any) *failure {
	return &failure{badData, fmt.Errorf(format, args...)}
}

// response is the frame of every answer.
type response struct {
	Status    string   `json:"status"`
	Data      any      `json:"data,omitempty"`
	ErrorType string   `json:"errorType,omitempty"`
	Error     string   `json:"error,omitempty"`
	Warnings  []string `json:"warnings,omitempty"`
	Infos     []string `json:"infos,omitempty"`
}

func (a *API) succeed(w http.ResponseWriter, r *request, data any) {
	a.answers.WithLabelValues(success).Inc()
	answer.JSON(w, http.StatusOK, response{Status: success, Data: data, Warnings: r.warnings, Infos: r.infos})
}

func (a *API) fail(w http.ResponseWriter, f *failure) {
	a.answers.WithLabelValues(f.kind).Inc()
	answer.JSON(w, codes[f.kind], response{Status: "error", ErrorType: f.kind, Error: f.Error()})
}

// failed answers an error by what it is.
func (a *API) failed(w http.ResponseWriter, r *http.Request, err error) {
	var f *failure
	var cost *quota.CostError
	var stored promql.ErrStorage
	var slow promql.ErrQueryTimeout
	var canceled promql.ErrQueryCanceled
	switch {
	case errors.As(err, &f):
	case errors.As(err, &cost) && cost.Wait > 0:
		w.Header().Set("X-Ratelimit-Reset", strconv.FormatInt(int64(cost.Wait.Seconds()), 10))
		f = &failure{limited, err}
	case errors.As(err, &cost):
		f = &failure{execution, fmt.Errorf("the query %w", err)}
	case errors.As(err, &slow), errors.As(err, &canceled), errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		f = &failure{timeout, fmt.Errorf("the request took longer than %s, or was given up: %w", a.opts.Timeout, err)}
	case errors.As(err, &stored):
		f = &failure{internal, err}
	default:
		f = &failure{execution, err}
	}
	if f.kind == internal && r.Context().Err() == nil {
		a.opts.Log.Error("cannot answer a PromQL query", "route", r.Pattern, "error", err)
	}
	a.fail(w, f)
}
