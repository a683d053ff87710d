package queryapi

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"
	"net/url"
	"slices"
	"time"
	"unicode/utf8"

	"kelpie.dev/kelpie/backend/answer"
	"kelpie.dev/kelpie/backend/quota"
	"kelpie.dev/kelpie/metric/payload"
	"kelpie.dev/kelpie/query"
)

// Limits of one request. Datadog's own clients keep to 7000 characters and 35
// queries.
const (
	maxRawQuery = 8 << 10
	maxBatch    = 100
)

// query is GET /api/v1/query.
func (a *API) query(w http.ResponseWriter, r *http.Request) {
	began := time.Now()
	from, to, text, err := queryParams(r.URL.Query())
	if err != nil {
		a.metrics.queries.WithLabelValues(outcomeInvalid).Inc()
		answer.Error(w, http.StatusBadRequest, err.Error())
		return
	}
	resp := payload.NewQueryResponse(text, from, to)
	batch, err := a.evaluate(r, resp, query.Window{From: from, To: to})
	took := time.Since(began)
	a.metrics.duration.Observe(took.Seconds())
	if err == nil || errors.Is(err, context.DeadlineExceeded) {
		a.NoteSlow(text, to-from, len(resp.Series), took)
	}
	outcome, message := blame(err, text)
	switch {
	case err == nil:
		a.metrics.queries.WithLabelValues(outcomeOK).Inc()
		a.noteQueried(batch)
		answer.JSON(w, http.StatusOK, resp)
	case outcome == "":
		a.unavailable(w, r, err)
	case outcome == outcomeBudget:
		a.tooMuch(w, "", err)
	default:
		a.metrics.queries.WithLabelValues(outcome).Inc()
		refused := payload.NewQueryResponse(text, from, to)
		refused.Status, refused.Error = "error", message
		answer.JSON(w, http.StatusBadRequest, refused)
	}
}

// evaluate fills resp with the results of its batch, and returns that.
func (a *API) evaluate(r *http.Request, resp *payload.QueryResponse, win query.Window) ([]query.Expr, error) {
	batch, err := query.ParseBatch(resp.Query)
	if err != nil {
		return nil, err
	}
	if len(batch) > maxBatch {
		return nil, &query.Error{Kind: query.Limit, Query: resp.Query, Offset: batch[maxBatch].Pos().Start, Message: fmt.Sprintf("more than %d queries in a batch", maxBatch)}
	}
	for _, e := range batch {
		if err := query.Check(e); err != nil {
			return nil, err
		}
		for _, key := range query.GroupBy(e) {
			if !slices.Contains(resp.GroupBy, key) {
				resp.GroupBy = append(resp.GroupBy, key)
			}
		}
	}
	if err := a.spend(r, win, batch); err != nil {
		return nil, err
	}
	for i, e := range batch {
		results, err := a.opts.Cache.Eval(r.Context(), a.opts.Source, e, win)
		if err != nil {
			return nil, err
		}
		for _, result := range results {
			resp.Series = append(resp.Series, encodeResult(result, i))
		}
	}
	return batch, nil
}

func queryParams(v url.Values) (from, to int64, text string, err error) {
	if from, err = seconds(v, "from"); err != nil {
		return 0, 0, "", err
	}
	if to, err = seconds(v, "to"); err != nil {
		return 0, 0, "", err
	}
	text = v.Get("query")
	switch {
	case text == "":
		return 0, 0, "", errors.New("query is required")
	case !utf8.ValidString(text):
		return 0, 0, "", errors.New("query is not UTF-8 text")
	case to < from:
		return 0, 0, "", errors.New("from must not be later than to")
	}
	return from, to, text, nil
}

// blame returns the outcome and Datadog's error text for an error that is the
// query's own fault, and "" for any other.
func blame(err error, text string) (outcome, message string) {
	var bad *query.Error
	var costs interface{ QueryLimit() }
	var budget *quota.CostError
	switch {
	case err == nil:
		return "", ""
	case errors.As(err, &budget) && budget.Wait > 0:
		return outcomeBudget, err.Error()
	case errors.As(err, &costs):
		return outcomeLimit, "Invalid query input:\n" + err.Error()
	case !errors.As(err, &bad):
		return "", ""
	case bad.Kind != query.Syntax:
		kind := outcomeUnsupported
		if bad.Kind == query.Limit {
			kind = outcomeLimit
		}
		return kind, fmt.Sprintf("Invalid query input:\n%s (line 1, column %d).", bad.Error(), bad.Column())
	}
	return outcomeSyntax, fmt.Sprintf("Error parsing query: \nunable to parse %s: %s, found '%s' (line 1, column %d).",
		text, bad.Error(), rest(bad), bad.Column())
}

// rest is what stands at the error, at most 20 characters.
func rest(e *query.Error) string {
	runes := []rune(e.Query[min(e.Offset, len(e.Query)):])
	return string(runes[:min(20, len(runes))])
}

// encodeResult puts a result into the words of the API.
func encodeResult(r query.Result, index int) payload.QuerySeries {
	s := payload.QuerySeries{
		Metric: r.Metric, DisplayName: r.Metric, Expression: r.Expression, Scope: r.Scope,
		TagSet: append([]string{}, r.Tags...), Interval: r.Interval, Length: len(r.Points),
		QueryIndex: &index, Pointlist: make([]payload.QueryPoint, len(r.Points)),
		Unit: unit(r.Unit), Attributes: map[string]any{},
	}
	if r.Aggregator != "" {
		s.Aggr = &r.Aggregator
	}
	for i, p := range r.Points {
		ms := float64(p.Time * 1000)
		s.Pointlist[i][0] = &ms
		if v := p.Value; !math.IsNaN(v) && !math.IsInf(v, 0) {
			s.Pointlist[i][1] = &v
		}
	}
	if n := len(r.Points); n > 0 {
		s.Start = r.Points[0].Time * 1000
		s.End = (r.Points[n-1].Time + r.Interval - 1) * 1000
	}
	return s
}
