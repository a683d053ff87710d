package source

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"strconv"
	"strings"
	"time"

	"kelpie.dev/kelpie/datadog"
)

const (
	// maxVector bounds an answer. One series takes a few hundred bytes; the rest
	// is room to say how many series came instead.
	maxVector = 4 << 20
	// maxToken bounds a file that holds a token.
	maxToken = 64 << 10
)

// PromQLOptions says where a server with Prometheus' API is, and how it is
// asked. At most one of the ways to authenticate may be given.
type PromQLOptions struct {
	URL          string // such as http://prometheus:9090 or https://mimir/prometheus
	Bearer       string // token
	BearerFile   string // read for each request, as tokens of service accounts change
	User         string // basic authentication
	Password     string
	PasswordFile string // read for each request
	Tenant       string // sent as X-Scope-OrgID
	HTTP         *http.Client
}

// PromQL asks one server with Prometheus' API for values at an instant.
type PromQL struct {
	opts   PromQLOptions
	target string
	client *http.Client
}

// NewPromQL validates o and returns a PromQL. It makes no request.
func NewPromQL(o PromQLOptions) (*PromQL, error) {
	u, err := url.Parse(o.URL)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" || u.User != nil || u.RawQuery != "" {
		return nil, errors.New("the URL of Prometheus' API: expected http(s)://host[:port][/path], without user, password or query")
	}
	ways := 0
	for _, given := range []string{o.Bearer, o.BearerFile, o.User} {
		if given != "" {
			ways++
		}
	}
	if ways > 1 || o.Password != "" && o.PasswordFile != "" {
		return nil, errors.New("authentication to Prometheus' API: give one of a bearer token, a file with one, and a user with a password or a file with one")
	}
	if o.User == "" && (o.Password != "" || o.PasswordFile != "") {
		return nil, errors.New("authentication to Prometheus' API: there is a password and no user")
	}
	client := &http.Client{Transport: http.DefaultTransport.(*http.Transport).Clone()}
	if o.HTTP != nil {
		client.Transport = o.HTTP.Transport
	}
	// Credentials are headers that would go along to any host.
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &PromQL{opts: o, target: strings.TrimRight(o.URL, "/") + "/api/v1/query", client: client}, nil
}

// ofDatadog is how a query in Datadog's language begins.
var ofDatadog = regexp.MustCompile(`^\s*(avg|sum|min|max|count|p\d\d):`)

// checkPromQL refuses what is no PromQL for sure. The server judges the rest.
func checkPromQL(query string) error {
	switch {
	case strings.TrimSpace(query) == "":
		return errors.New("the query is empty")
	case ofDatadog.MatchString(query):
		return errors.New("this is Datadog's language and the source takes PromQL: " +
			"write a DatadogMetric with PromQL, or name another source in its annotation kelpie.dev/source")
	}
	return nil
}

// bare matches a plain selector: a metric's name, a set of matchers, or both,
// with no quoted brace that could hide something.
var bare = regexp.MustCompile(`^\s*(?:[a-zA-Z_:][a-zA-Z0-9_:]*\s*(?:\{(?:[^"'` + "`" + `{}#]|"(?:[^"\\]|\\.)*")*\})?|\{(?:[^"'` + "`" + `{}#]|"(?:[^"\\]|\\.)*")*\})\s*$`)

// sample is what an instant query returned.
type sample struct {
	at    time.Time
	value float64
}

// ask returns the value of a query now. Its time is that of the evaluation but
// for a plain selector, of which the sample's own can be had: there the server
// would serve a value of five minutes ago as if it were of now.
func (q *PromQL) ask(ctx context.Context, query string, now time.Time) (outcome, error) {
	s, bad, err := q.instant(ctx, url.Values{"query": {query}})
	if err != nil || bad != nil {
		return outcome{err: bad}, err
	}
	if math.IsNaN(s.value) || math.IsInf(s.value, 0) {
		return outcome{err: &Error{Reason: NotANumber, Message: fmt.Sprintf("the query's value is %v, which is no replica count's basis: "+
			"check for a division by zero, as of a ratio while nothing is asked for", s.value)}}, nil
	}
	if bare.MatchString(query) {
		same := strconv.FormatFloat(float64(s.at.UnixMilli())/1000, 'f', 3, 64)
		own, bad, err := q.instant(ctx, url.Values{"query": {"timestamp(" + query + ")"}, "time": {same}})
		if err != nil || bad != nil {
			return outcome{err: bad}, err
		}
		s.at = time.UnixMilli(int64(own.value * 1000))
	}
	// A server whose clock is ahead must not make a value that never ages.
	if s.at.After(now) {
		s.at = now
	}
	return outcome{at: s.at, value: s.value, series: query}, nil
}

// promAnswer is the body of an answer.
type promAnswer struct {
	Status string `json:"status"`
	Type   string `json:"errorType"`
	Error  string `json:"error"`
	Data   struct {
		Type   string          `json:"resultType"`
		Result json.RawMessage `json:"result"`
	} `json:"data"`
}

// instant sends one instant query. An error of the query's own is bad; err is
// for judge.
func (q *PromQL) instant(ctx context.Context, form url.Values) (s sample, bad *Error, err error) {
	body, code, header, err := q.post(ctx, form)
	if err != nil {
		return sample{}, nil, err
	}
	if len(body) > maxVector {
		return sample{}, &Error{Reason: MultipleSeries, Message: "the answer is larger than 4 MiB and an autoscaler needs one series: aggregate, as with sum(…)"}, nil
	}
	var a promAnswer
	derr := json.Unmarshal(body, &a)
	switch {
	case code/100 == 3:
		return sample{}, nil, &datadog.APIError{Status: code, Messages: []string{"redirects are not followed, as the credentials would go along: set the API's own URL"}}
	case derr == nil && a.Status == "error":
		if code == http.StatusOK {
			code = http.StatusBadRequest
		}
		return sample{}, nil, &datadog.APIError{Status: code, Messages: []string{fmt.Sprintf("%.500s (%.50s)", a.Error, a.Type)}, RetryAfter: seconds(header)}
	case code/100 != 2:
		return sample{}, nil, &datadog.APIError{Status: code, Messages: []string{fmt.Sprintf("%.200q", body)}, RetryAfter: seconds(header)}
	case derr != nil:
		return sample{}, nil, fmt.Errorf("decode answer: %w", derr)
	}
	return a.one()
}

func seconds(h http.Header) time.Duration {
	n, err := strconv.Atoi(h.Get("Retry-After"))
	if err != nil || n <= 0 {
		return 0
	}
	return time.Duration(min(n, 3600)) * time.Second
}

// post sends form and returns at most a byte more than maxVector of the answer.
func (q *PromQL) post(ctx context.Context, form url.Values) ([]byte, int, http.Header, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, q.target, strings.NewReader(form.Encode()))
	if err != nil {
		return nil, 0, nil, fmt.Errorf("build request: %w", err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set("Accept", "application/json")
	req.Header.Set("User-Agent", "kelpie")
	if q.opts.Tenant != "" {
		req.Header.Set("X-Scope-OrgID", q.opts.Tenant)
	}
	if err := q.authenticate(req); err != nil {
		return nil, 0, nil, err
	}
	resp, err := q.client.Do(req)
	if err != nil {
		var ue *url.Error
		if errors.As(err, &ue) {
			err = ue.Err // the URL is named once, by the message around
		}
		return nil, 0, nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxVector+1))
	if err != nil {
		return nil, 0, nil, fmt.Errorf("read answer: %w", err)
	}
	return body, resp.StatusCode, resp.Header, nil
}

func (q *PromQL) authenticate(req *http.Request) error {
	bearer, password := q.opts.Bearer, q.opts.Password
	for _, f := range []struct {
		path string
		into *string
	}{{q.opts.BearerFile, &bearer}, {q.opts.PasswordFile, &password}} {
		if f.path == "" {
			continue
		}
		text, err := readToken(f.path)
		if err != nil {
			return err
		}
		*f.into = text
	}
	switch {
	case bearer != "":
		req.Header.Set("Authorization", "Bearer "+bearer)
	case q.opts.User != "":
		req.SetBasicAuth(q.opts.User, password)
	}
	return nil
}

func readToken(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", fmt.Errorf("read credentials for Prometheus' API: %w", err)
	}
	defer func() { _ = f.Close() }()
	b, err := io.ReadAll(io.LimitReader(f, maxToken))
	if err != nil {
		return "", fmt.Errorf("read credentials for Prometheus' API: %w", err)
	}
	return strings.TrimSpace(string(b)), nil
}

// CloseIdle closes connections that no request uses.
func (q *PromQL) CloseIdle() { q.client.CloseIdleConnections() }
