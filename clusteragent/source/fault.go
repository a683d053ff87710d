package source

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"kelpie.dev/kelpie/datadog"
)

// fault is a failed request, judged: is a query of it to blame, or the source?
type fault struct {
	unasked bool   // it was found without an attempt
	class   string // label of datadog_requests
	blames  bool   // some query of the request is at fault
	slow    bool   // one slow query of the request may be at fault, or the source
	pause   time.Duration
	err     Error
}

// judge returns the fault in err, which is not nil.
func (p *Poller) judge(err error) fault {
	var api *datadog.APIError
	switch {
	case errors.Is(err, errMismatch):
		return fault{class: "response_error", blames: true, err: Error{Reason: QueryRejected, Message: err.Error()}}
	case errors.As(err, &api):
		return p.judgeStatus(api)
	case errors.Is(err, context.DeadlineExceeded):
		return fault{class: "unknown_error", slow: true, err: Error{Reason: SourceUnavailable,
			Message: fmt.Sprintf("%s did not answer within %s; check its load and its log", p.name(), p.opts.Timeout)}}
	default:
		return fault{class: "unknown_error", err: Error{Reason: SourceUnavailable,
			Message: fmt.Sprintf("no usable answer from the source: %v; check that it runs and that the cluster agent can reach it", err)}}
	}
}

func (p *Poller) judgeStatus(api *datadog.APIError) fault {
	text := strings.Join(api.Messages, "; ")
	switch api.Status {
	case http.StatusUnauthorized, http.StatusForbidden:
		return fault{class: "other_http_error", err: Error{Reason: Unauthorized,
			Message: fmt.Sprintf("%s refuses the keys (HTTP %d: %s); check %s", p.name(), api.Status, text, p.opts.KeysHint)}}
	case http.StatusTooManyRequests:
		return fault{class: "rate_limit_error", pause: api.RetryAfter, err: Error{Reason: RateLimited,
			Message: fmt.Sprintf("%s asks for fewer requests (HTTP 429: %s); raise the polling interval, or the limit there", p.name(), text)}}
	case http.StatusBadRequest, http.StatusRequestURITooLong, http.StatusUnprocessableEntity, http.StatusOK:
		class := "other_http_error"
		switch api.Status {
		case http.StatusUnprocessableEntity:
			class = "unprocessable_entity_error"
		case http.StatusOK:
			class = "response_error"
		}
		return fault{class: class, blames: true, err: Error{Reason: QueryRejected,
			Message: fmt.Sprintf("%s refuses the query: %s", p.name(), text)}}
	default:
		slow := api.Status == http.StatusServiceUnavailable || api.Status == http.StatusGatewayTimeout
		return fault{class: "other_http_error", slow: slow, err: Error{Reason: SourceUnavailable,
			Message: fmt.Sprintf("%s answers HTTP %d: %s; check its log", p.name(), api.Status, text)}}
	}
}

func (p *Poller) name() string { return "the source " + p.opts.SourceURL }

// request asks for keys, which share a window, once.
func (p *Poller) request(ctx context.Context, keys []Key, now time.Time) ([]outcome, error) {
	ctx, cancel := context.WithTimeout(ctx, p.opts.Timeout)
	defer cancel()
	defer func(start time.Time) { p.tel.latency.Observe(time.Since(start).Seconds()) }(time.Now())
	if p.opts.PromQL != nil {
		o, err := p.opts.PromQL.ask(ctx, keys[0].Query, now) // batches are of one
		return []outcome{o}, err
	}
	queries := make([]string, len(keys))
	for i, k := range keys {
		queries[i] = k.Query
	}
	resp, err := p.opts.Querier.Query(ctx, queries, now.Add(-keys[0].Window), now)
	if err != nil {
		return nil, err
	}
	return answers(resp, len(keys), keys[0].Window, p.opts.Latest)
}
