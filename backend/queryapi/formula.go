package queryapi

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"
	"slices"
	"strings"
	"time"

	"kelpie.dev/kelpie/backend/answer"
	"kelpie.dev/kelpie/metric/payload"
	"kelpie.dev/kelpie/query"
)

// jsonAPI is the content type of the v2 query API's answers.
const jsonAPI = "application/vnd.api+json"

// A question is a request of the v2 query API, parsed.
type question struct {
	*payload.FormulaRequest
	win     query.Window
	empty   bool                  // no whole second lies in the window
	queries []query.Expr          // of the request's queries
	names   map[string]query.Expr // the same by name
	asked   []query.Expr          // what is answered: the formulas, or the queries where there is none
}

// An answerer computes the answer to a question, and of how many series it is.
type answerer func(ctx context.Context, q *question) (doc any, series int, err error)

// timeseries is POST /api/v2/query/timeseries.
func (a *API) timeseries(w http.ResponseWriter, r *http.Request) {
	a.formulas(w, r, "timeseries_request", a.answerTimeseries)
}

// scalar is POST /api/v2/query/scalar.
func (a *API) scalar(w http.ResponseWriter, r *http.Request) {
	a.formulas(w, r, "scalar_request", a.answerScalar)
}

func (a *API) formulas(w http.ResponseWriter, r *http.Request, kind string, compute answerer) {
	began := time.Now()
	body, code, err := readBody(w, r, maxQueryBody)
	if err != nil {
		a.refuse(w, jsonAPI, outcomeInvalid, code, err.Error())
		return
	}
	q, err := a.ask(body, kind)
	var doc any
	if err == nil {
		var series int
		if err = a.spend(r, q.win, q.asked); err == nil {
			doc, series, err = compute(r.Context(), q)
		}
		took := time.Since(began)
		a.metrics.duration.Observe(took.Seconds())
		if err == nil || errors.Is(err, context.DeadlineExceeded) {
			a.NoteSlow(q.text(), (q.To-q.From)/1000, series, took)
		}
	}
	outcome, message := blameV2(err)
	switch {
	case err == nil:
		a.metrics.queries.WithLabelValues(outcomeOK).Inc()
		a.noteQueried(q.asked)
		answer.Document(w, http.StatusOK, jsonAPI, doc)
	case outcome == "":
		a.unavailable(w, r, err)
	case outcome == outcomeBudget:
		a.tooMuch(w, jsonAPI, err)
	default:
		a.refuse(w, jsonAPI, outcome, http.StatusBadRequest, message)
	}
}

// text is what the log shows of q: its formulas and queries.
func (q *question) text() string {
	parts := make([]string, 0, len(q.Formulas)+len(q.Queries))
	for _, f := range q.Formulas {
		parts = append(parts, f.Formula)
	}
	for _, sub := range q.Queries {
		if sub.Name != "" {
			parts = append(parts, sub.Name+"="+sub.Query)
		} else {
			parts = append(parts, sub.Query)
		}
	}
	return strings.Join(parts, "; ")
}

// errRetention is answered in Datadog's own words, without a frame.
var errRetention = errors.New("Queries ending outside the retention date are invalid") //nolint:staticcheck // not ours to write small

// An invalid is a request that is not what the API documents.
type invalid struct{ error }

// Unwrap returns what is wrong with it.
func (i invalid) Unwrap() error { return i.error }

// ask parses a request and everything in it.
func (a *API) ask(body []byte, kind string) (*question, error) {
	req, err := payload.DecodeFormulaRequest(body, kind)
	if err != nil {
		return nil, invalid{err}
	}
	if a.opts.Retention > 0 && req.To < a.opts.Now().Add(-a.opts.Retention).UnixMilli() {
		return nil, invalid{errRetention}
	}
	q := &question{FormulaRequest: req, names: make(map[string]query.Expr, len(req.Queries))}
	// Buckets begin at whole seconds; the end is exclusive.
	q.win = query.Window{From: ceilDiv(req.From, 1000), To: ceilDiv(req.To, 1000) - 1, Interval: ceilDiv(req.Interval, 1000)}
	q.empty = q.win.To < q.win.From
	for i, sub := range req.Queries {
		e, err := query.Parse(sub.Query)
		if err == nil {
			err = query.Check(e)
		}
		if err != nil {
			return nil, fmt.Errorf("data.attributes.queries[%d]: %w", i, err)
		}
		q.queries = append(q.queries, e)
		q.names[sub.Name] = e
	}
	q.asked, err = q.parseFormulas(q.names)
	return q, err
}

// parseFormulas parses what is answered over the given meaning of names.
func (q *question) parseFormulas(names map[string]query.Expr) ([]query.Expr, error) {
	if len(q.Formulas) == 0 {
		return q.queries, nil
	}
	out := make([]query.Expr, len(q.Formulas))
	for i, f := range q.Formulas {
		e, err := query.ParseFormula(f.Formula, names)
		if err == nil {
			err = query.Check(e)
		}
		if err != nil {
			return nil, fmt.Errorf("data.attributes.formulas[%d]: %w", i, err)
		}
		out[i] = e
	}
	return out, nil
}

// blameV2 is blame in the frame of the v2 API's errors.
func blameV2(err error) (outcome, message string) {
	const frame = "API input validation failed: "
	var not invalid
	var bad *query.Error
	if errors.As(err, &not) {
		if errors.Is(err, errRetention) {
			return outcomeInvalid, not.Error()
		}
		return outcomeInvalid, frame + not.Error()
	}
	outcome, _ = blame(err, "")
	if outcome == "" {
		return "", ""
	}
	if !errors.As(err, &bad) {
		return outcome, frame + err.Error()
	}
	return outcome, fmt.Sprintf("%s%s, found '%s' in '%s' (line 1, column %d).", frame, err, rest(bad), bad.Query, bad.Column())
}

// limited returns the first of results by their values, as limit says.
func limited(results []query.Result, limit *payload.FormulaLimit, value func(query.Result) float64) []query.Result {
	if limit == nil || limit.Count == 0 {
		return results
	}
	ranked := slices.Clone(results)
	slices.SortStableFunc(ranked, func(x, y query.Result) int {
		vx, vy := value(x), value(y)
		switch {
		case math.IsNaN(vx) || math.IsNaN(vy):
			return cmp.Compare(vy, vx) // null is less than any number, and so last
		case limit.Order == "asc":
			return cmp.Compare(vx, vy)
		}
		return cmp.Compare(vy, vx)
	})
	return ranked[:min(int64(len(ranked)), limit.Count)]
}

// limitOf is the limit of the i-th thing that is answered.
func (q *question) limitOf(i int) *payload.FormulaLimit {
	if i < len(q.Formulas) {
		return q.Formulas[i].Limit
	}
	return nil
}

func ceilDiv(a, b int64) int64 { return (a + b - 1) / b } // of what is not negative
