package datadog

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestURLs(t *testing.T) {
	for got, want := range map[string]string{
		IntakeURL("", "7.81.1"):       "https://7-81-1-app.agent.datadoghq.com",
		IntakeURL("datadoghq.eu", ""): "https://app.agent.datadoghq.eu",
		APIURL("us3.datadoghq.com"):   "https://api.us3.datadoghq.com",
		APIURL(""):                    "https://api.datadoghq.com",
	} {
		if got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	for _, bad := range []string{"", "api.datadoghq.com", "ftp://x", "http://"} {
		if _, err := New(Options{BaseURL: bad}); err == nil {
			t.Errorf("base URL %q was accepted", bad)
		}
	}
}

// serve returns a client of a server that answers every request with f.
func serve(t *testing.T, o Options, f http.HandlerFunc) *Client {
	t.Helper()
	srv := httptest.NewServer(f)
	t.Cleanup(srv.Close)
	o.BaseURL = srv.URL + "/"
	c, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.CloseIdle)
	return c
}

func TestQuery(t *testing.T) {
	var got *http.Request
	c := serve(t, Options{APIKey: "k", AppKey: "a"}, func(w http.ResponseWriter, r *http.Request) {
		got = r
		_, _ = w.Write([]byte(`{"status":"ok","series":[{"metric":"m","query_index":1,"pointlist":[[1618221135000.0,null],[1618221145000,2.5]]}]}`))
	})
	resp, err := c.Query(t.Context(), []string{"avg:m{*}", "sum:n{a:b}"}, time.Unix(100, 0), time.Unix(200, 0))
	if err != nil {
		t.Fatal(err)
	}
	if want := "/api/v1/query?from=100&query=avg%3Am%7B%2A%7D%2Csum%3An%7Ba%3Ab%7D&to=200"; got.URL.String() != want {
		t.Errorf("asked %s, want %s", got.URL, want)
	}
	if got.Header.Get("DD-API-KEY") != "k" || got.Header.Get("DD-APPLICATION-KEY") != "a" {
		t.Errorf("keys were not sent: %v", got.Header)
	}
	s := resp.Series[0]
	if *s.QueryIndex != 1 || s.Pointlist[0][1] != nil || *s.Pointlist[1][1] != 2.5 {
		t.Errorf("decoded %+v", s)
	}
}

func TestErrors(t *testing.T) {
	for _, c := range []struct {
		name, body string
		status     int
		header     string
		want       APIError
	}{
		{"forbidden", `{"errors":["Forbidden"]}`, 403, "", APIError{Status: 403, Messages: []string{"Forbidden"}}},
		{"query error, new", `{"status":"error","error":"Error parsing query"}`, 400, "", APIError{Status: 400, Messages: []string{"Error parsing query"}}},
		{"query error, old", `{"status":"error","error":"Error parsing query"}`, 200, "", APIError{Status: 200, Messages: []string{"Error parsing query"}}},
		{"rate limit", `{"errors":["Too many requests"]}`, 429, "17", APIError{Status: 429, Messages: []string{"Too many requests"}, RetryAfter: 17 * time.Second}},
		{"a proxy's page", strings.Repeat("x", 300), 502, "", APIError{Status: 502, Messages: []string{strings.Repeat("x", 200) + "…"}}},
		{"nothing", "", 500, "", APIError{Status: 500}},
	} {
		client := serve(t, Options{}, func(w http.ResponseWriter, _ *http.Request) {
			if c.header != "" {
				w.Header().Set("X-RateLimit-Reset", c.header)
			}
			w.WriteHeader(c.status)
			_, _ = w.Write([]byte(c.body))
		})
		_, err := client.Query(t.Context(), []string{"q"}, time.Now(), time.Now())
		var got *APIError
		if !errors.As(err, &got) {
			t.Errorf("%s: error %v is no APIError", c.name, err)
			continue
		}
		if d := cmp.Diff(c.want, *got); d != "" {
			t.Errorf("%s (-want +got)\n%s", c.name, d)
		}
	}
}

func TestHangingServerIsGivenUp(t *testing.T) {
	release := make(chan struct{})
	c := serve(t, Options{Timeout: 20 * time.Millisecond}, func(http.ResponseWriter, *http.Request) { <-release })
	defer close(release)
	err := c.Validate(t.Context())
	if err == nil || !strings.Contains(err.Error(), "deadline exceeded") {
		t.Errorf("error %v, want a deadline", err)
	}
}

func TestTruncatedAnswer(t *testing.T) {
	c := serve(t, Options{}, func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(`{"metrics":["a"`)) })
	if _, err := c.Metrics(t.Context(), time.Now()); err == nil || !strings.Contains(err.Error(), "decode answer") {
		t.Errorf("error %v", err)
	}
}

func TestValidateAndMetrics(t *testing.T) {
	c := serve(t, Options{APIKey: "good"}, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/api/v1/metrics":
			_, _ = w.Write([]byte(`{"metrics":["a","b"],"from":"1"}`))
		default:
			_, _ = w.Write([]byte(`{"valid":true}`))
		}
	})
	if err := c.Validate(t.Context()); err != nil {
		t.Error(err)
	}
	names, err := c.Metrics(t.Context(), time.Unix(1, 0))
	if err != nil {
		t.Error(err)
	}
	if d := cmp.Diff([]string{"a", "b"}, names); d != "" {
		t.Error(d)
	}
}

func TestRedirectsDoNotCarryTheKeys(t *testing.T) {
	var followed atomic.Bool
	thief := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { followed.Store(true) }))
	t.Cleanup(thief.Close)
	own := &http.Client{Transport: &http.Transport{}}
	for name, o := range map[string]Options{"own client": {}, "caller's client": {HTTP: own}} {
		o.APIKey, o.AppKey = "k", "a"
		c := serve(t, o, func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, thief.URL+"/?query=secret", http.StatusTemporaryRedirect)
		})
		err := c.Validate(t.Context())
		var api *APIError
		if !errors.As(err, &api) || api.Status != http.StatusTemporaryRedirect || !strings.Contains(err.Error(), "redirected to "+strings.TrimPrefix(thief.URL, "http://")) {
			t.Errorf("%s: %v, want an APIError that names the host", name, err)
		}
		if err != nil && strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: the error repeats the query: %v", name, err)
		}
	}
	if followed.Load() {
		t.Error("a redirect was followed: the keys went to another host")
	}
	if own.CheckRedirect != nil {
		t.Error("the caller's client was changed")
	}
}

func TestMessagesHideThePasswordOfTheURL(t *testing.T) {
	for _, bad := range []string{"ftp://me:hunter2@x", "http://me:hunter2@", "http://me:hunter2@x:port", "me:hunter2@x", "://me:hunter2@x"} {
		if _, err := New(Options{BaseURL: bad}); err == nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%q: error %v, want one without the password", bad, err)
		}
	}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, password, _ := r.BasicAuth(); password != "hunter2" {
			t.Errorf("sent password %q", password)
		}
		http.Error(w, "no", http.StatusForbidden)
	}))
	t.Cleanup(srv.Close)
	c, err := New(Options{BaseURL: strings.Replace(srv.URL, "http://", "http://me:hunter2@", 1) + "/"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.CloseIdle)
	if err := c.Validate(t.Context()); err == nil || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("error %v, want one without the password", err)
	}
	if strings.Contains(c.BaseURL(), "hunter2") || !strings.HasSuffix(c.BaseURL(), strings.TrimPrefix(srv.URL, "http:/")[1:]) {
		t.Errorf("base URL is shown as %s", c.BaseURL())
	}
}

func TestRateLimitOfHeaders(t *testing.T) {
	for text, want := range map[string]RateLimit{
		"1600 1599 3600 42":   {1600, 1599, time.Hour, 42 * time.Second},
		"1600 1700 3600 9999": {1600, 1600, time.Hour, time.Hour},
		"1600 -1 3600 42":     {},
		"0 0 3600 42":         {},
		"1600 x 3600 42":      {},
		"1600 1599 0 0":       {},
	} {
		h := http.Header{}
		for i, v := range strings.Fields(text) {
			h.Set("X-RateLimit-"+[]string{"Limit", "Remaining", "Period", "Reset"}[i], v)
		}
		if got, ok := rateLimit(h); got != want || ok != (want != RateLimit{}) {
			t.Errorf("%s: %+v, %v; want %+v", text, got, ok, want)
		}
	}
}
