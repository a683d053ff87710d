// Package datadog is a client of Datadog's HTTP API, as Datadog or a compatible
// backend serves it: where a site's intake and API are, how requests are
// authenticated, and what their errors say.
//
// It does one request per call. It does not retry, batch, cache or interpret
// values: its callers own those policies.
package datadog

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"kelpie.dev/kelpie/metric/payload"
)

// DefaultSite is Datadog's US1 site, the default of all its agents.
const DefaultSite = "datadoghq.com"

// IntakeURL returns where an agent of the given version ("7.81.1") sends series
// for a Datadog site. Pattern: reference metrics-pipeline A4.1.
func IntakeURL(site, version string) string {
	if site == "" {
		site = DefaultSite
	}
	prefix := strings.ReplaceAll(version, ".", "-")
	if prefix != "" {
		prefix += "-"
	}
	return "https://" + prefix + "app.agent." + site
}

// APIURL returns where a Datadog site's query API is.
func APIURL(site string) string {
	if site == "" {
		site = DefaultSite
	}
	return "https://api." + site
}

// Options configures a Client. BaseURL is required. No redirect is followed, also
// not by HTTP: the keys are headers that would go along to any host.
type Options struct {
	BaseURL   string        // such as https://api.datadoghq.eu, without a path
	APIKey    string        // sent as DD-API-KEY
	AppKey    string        // sent as DD-APPLICATION-KEY; not needed for Validate
	UserAgent string        // empty means "kelpie"
	Timeout   time.Duration // of a whole request; 0 means 10 s
	HTTP      *http.Client  // nil means a client of its own that honours proxy settings

	// OnRateLimit is told what each answer to Query says of its rate limit. It may
	// be called concurrently. Nil means that nobody cares.
	OnRateLimit func(RateLimit)
}

// RateLimit is what an answer's headers say: how many requests a period allows,
// how many are left, and when the next period begins.
type RateLimit struct {
	Limit, Remaining int
	Period, Reset    time.Duration
}

// rateLimit reads the headers; ok is false when they are missing or make no sense.
func rateLimit(h http.Header) (l RateLimit, ok bool) {
	var n [4]int
	for i, name := range [...]string{"Limit", "Remaining", "Period", "Reset"} {
		v, err := strconv.Atoi(h.Get("X-RateLimit-" + name))
		if err != nil || v < 0 || v > 1<<31-1 {
			return RateLimit{}, false
		}
		n[i] = v
	}
	if n[0] == 0 || n[2] == 0 {
		return RateLimit{}, false
	}
	return RateLimit{Limit: n[0], Remaining: min(n[1], n[0]), Period: time.Duration(n[2]) * time.Second, Reset: time.Duration(min(n[3], n[2])) * time.Second}, true
}

// Client asks one Datadog-compatible API. It is safe for concurrent use.
type Client struct {
	base   string
	shown  string // base without password, for messages
	opts   Options
	client *http.Client
}

// New validates o and returns a Client. It makes no request.
func New(o Options) (*Client, error) {
	u, err := url.Parse(o.BaseURL)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, fmt.Errorf("datadog API URL %q: expected http(s)://host[:port]", redacted(u, o.BaseURL))
	}
	if o.Timeout == 0 {
		o.Timeout = 10 * time.Second
	}
	if o.UserAgent == "" {
		o.UserAgent = "kelpie"
	}
	c := &Client{base: strings.TrimRight(o.BaseURL, "/"), opts: o}
	c.shown = strings.TrimRight(redacted(u, o.BaseURL), "/")
	if o.HTTP == nil {
		o.HTTP = &http.Client{Transport: http.DefaultTransport.(*http.Transport).Clone()}
	}
	client := *o.HTTP // the caller's own stays as it is
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	c.client = &client
	return c, nil
}

// redacted returns the URL u, written raw, without user and password. u is nil
// where raw cannot be parsed.
func redacted(u *url.URL, raw string) string {
	if u != nil && u.User == nil && u.Opaque == "" {
		return raw
	}
	if u != nil && u.Host != "" {
		shown := *u
		shown.User = url.User("xxxxx")
		return shown.String()
	}
	if at := strings.LastIndexByte(raw, '@'); at >= 0 {
		return "xxxxx" + raw[at:]
	}
	return raw
}

// BaseURL returns the API's URL without password, for messages.
func (c *Client) BaseURL() string { return c.shown }

// CloseIdle closes connections that no request uses.
func (c *Client) CloseIdle() { c.client.CloseIdleConnections() }

// APIError is an answer other than success.
type APIError struct {
	Status     int           // HTTP status; 200 for a query whose body says status "error"
	Messages   []string      // what the API said; may be empty
	RetryAfter time.Duration // from a rate limit's headers; 0 when not given
}

// Error says what the API answered.
func (e *APIError) Error() string {
	text := strings.Join(e.Messages, "; ")
	if text == "" {
		text = http.StatusText(e.Status)
	}
	return fmt.Sprintf("HTTP %d: %s", e.Status, text)
}

// Query evaluates queries over [from, to] in one call of /api/v1/query; each
// series of the answer names its query by QueryIndex. Datadog fails the whole
// batch when one query is bad, with an *APIError.
func (c *Client) Query(ctx context.Context, queries []string, from, to time.Time) (*payload.QueryResponse, error) {
	v := url.Values{"query": {strings.Join(queries, ",")}, "from": {unix(from)}, "to": {unix(to)}}
	var out payload.QueryResponse
	if err := c.get(ctx, queryPath, v, &out); err != nil {
		return nil, fmt.Errorf("query %s: %w", c.shown, err)
	}
	if out.Status == "error" {
		return nil, fmt.Errorf("query %s: %w", c.shown, &APIError{Status: http.StatusOK, Messages: []string{out.Error}})
	}
	return &out, nil
}

const queryPath = "/api/v1/query"

// Validate checks the API key. A refused key is an *APIError with Status 403.
func (c *Client) Validate(ctx context.Context) error {
	var out struct {
		Valid bool `json:"valid"`
	}
	if err := c.get(ctx, "/api/v1/validate", nil, &out); err != nil {
		return fmt.Errorf("validate API key at %s: %w", c.shown, err)
	}
	if !out.Valid {
		return fmt.Errorf("validate API key at %s: %w", c.shown, &APIError{Status: http.StatusForbidden, Messages: []string{"the key is not valid"}})
	}
	return nil
}

// Metrics lists the names of metrics that received points since from.
func (c *Client) Metrics(ctx context.Context, from time.Time) ([]string, error) {
	var out struct {
		Metrics []string `json:"metrics"`
	}
	if err := c.get(ctx, "/api/v1/metrics", url.Values{"from": {unix(from)}}, &out); err != nil {
		return nil, fmt.Errorf("list metrics of %s: %w", c.shown, err)
	}
	return out.Metrics, nil
}

func unix(t time.Time) string { return strconv.FormatInt(t.Unix(), 10) }

// maxAnswer bounds an answer: 35 queries of 1500 points with generous JSON.
const maxAnswer = 32 << 20

// errTooLarge says that an answer was cut.
var errTooLarge = errors.New("the answer is larger than 32 MiB: ask for fewer series or a shorter window")

func (c *Client) get(ctx context.Context, path string, params url.Values, into any) error {
	ctx, cancel := context.WithTimeout(ctx, c.opts.Timeout)
	defer cancel()
	target := c.base + path
	if len(params) > 0 {
		target += "?" + params.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, target, nil)
	if err != nil {
		return fmt.Errorf("build request: %w", err)
	}
	req.Header.Set("User-Agent", c.opts.UserAgent)
	req.Header.Set("Accept", "application/json")
	req.Header.Set("DD-API-KEY", c.opts.APIKey)
	if c.opts.AppKey != "" {
		req.Header.Set("DD-APPLICATION-KEY", c.opts.AppKey)
	}
	resp, err := c.client.Do(req)
	if err != nil {
		// The URL in net/http's error repeats the whole query; the cause is enough.
		var ue *url.Error
		if errors.As(err, &ue) {
			err = ue.Err
		}
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	if l, ok := rateLimit(resp.Header); ok && path == queryPath && c.opts.OnRateLimit != nil {
		c.opts.OnRateLimit(l)
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	if err != nil {
		return fmt.Errorf("read answer: %w", err)
	}
	if len(body) > maxAnswer {
		return errTooLarge
	}
	if resp.StatusCode/100 == 3 {
		return &APIError{Status: resp.StatusCode, Messages: []string{redirect(resp.Header.Get("Location"))}}
	}
	if resp.StatusCode/100 != 2 {
		return &APIError{Status: resp.StatusCode, Messages: messages(body), RetryAfter: retryAfter(resp.Header)}
	}
	if err := json.Unmarshal(body, into); err != nil {
		return fmt.Errorf("decode answer: %w", err)
	}
	return nil
}

// redirect is the message for an answer that sends elsewhere. It names the host
// alone: the rest repeats the query.
func redirect(location string) string {
	const text = "redirects are not followed, as the keys would go along: set the API's own URL"
	if u, err := url.Parse(location); err == nil && u.Host != "" {
		return fmt.Sprintf("redirected to %.200s: %s", u.Host, text)
	}
	return text
}

// messages reads an error body in any of the shapes Datadog uses; see reference
// metrics-pipeline B1.3 and B2.3. Text that is not JSON, such as a proxy's page,
// is shortened.
func messages(body []byte) []string {
	var shapes struct {
		Errors []string `json:"errors"`
		Error  string   `json:"error"`
	}
	if json.Unmarshal(body, &shapes) == nil {
		if shapes.Error != "" {
			return append(shapes.Errors, shapes.Error)
		}
		return shapes.Errors
	}
	text := strings.TrimSpace(string(body))
	if text == "" {
		return nil
	}
	const longest = 200
	if len(text) > longest {
		text = text[:longest] + "…"
	}
	return []string{text}
}

// retryAfter reads the rate limit's reset, in seconds from now.
func retryAfter(h http.Header) time.Duration {
	for _, name := range [...]string{"X-RateLimit-Reset", "Retry-After"} {
		if n, err := strconv.ParseFloat(h.Get(name), 64); err == nil && n > 0 {
			return time.Duration(n * float64(time.Second))
		}
	}
	return 0
}
