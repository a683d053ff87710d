package queryapi_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"

	"kelpie.dev/kelpie/backend/auth"
	"kelpie.dev/kelpie/backend/queryapi"
	"kelpie.dev/kelpie/backend/quota"
	"kelpie.dev/kelpie/metric"
)

// send returns the answer to a request with both keys.
func (a *api) send(ctx context.Context, method, path, body string) (int, http.Header, string, error) {
	req, err := http.NewRequestWithContext(ctx, method, a.url+path, strings.NewReader(body))
	if err != nil {
		return 0, nil, "", err
	}
	req.Header.Set("DD-API-KEY", "ak")
	req.Header.Set("DD-APPLICATION-KEY", "pk")
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, nil, "", err
	}
	defer func() { _ = resp.Body.Close() }()
	answer, err := io.ReadAll(resp.Body)
	return resp.StatusCode, resp.Header, string(answer), err
}

// TestScripts runs the requests under testdata: each is a method and a path, and
// its body below. Times are seconds after the first point that is loaded.
func TestScripts(t *testing.T) {
	datadriven.Walk(t, "testdata/api", func(t *testing.T, path string) {
		a := newAPI(t, queryapi.Options{Retention: 24 * time.Hour})
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			if d.Cmd == "load" {
				return a.script(t, d.Input)
			}
			body := strings.NewReplacer("\n", "", "T0", fmt.Sprint(t0*1000)).Replace(d.Input)
			target := strings.ReplaceAll(d.CmdArgs[0].String(), "T0", fmt.Sprint(t0))
			code, header, answer, err := a.send(t.Context(), d.Cmd, target, body)
			if err != nil {
				return err.Error()
			}
			answer = strings.NewReplacer(fmt.Sprint(t0/1000), "T", `},{"`, "},\n{\"", "],[", "],\n[").Replace(answer)
			return fmt.Sprintf("%d %s\n%s", code, header.Get("Content-Type"), answer)
		})
	})
}

// script loads lines of "name{tags} type value value …", a point every 10 s.
// A type "d" is a distribution of so many equal values.
func (a *api) script(t *testing.T, text string) string {
	t.Helper()
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		name, tags, _ := strings.Cut(strings.TrimSuffix(f[0], "}"), "{")
		all := metric.NewTags(strings.Split(tags, ",")...)
		var s metric.Series
		var d metric.Distribution
		for i, text := range f[2:] {
			var v float64
			if _, err := fmt.Sscan(text, &v); err != nil {
				t.Fatal(err)
			}
			at := t0 + 10*int64(i)
			s.Points = append(s.Points, metric.Point{Time: at, Value: v})
			var b metric.SketchBuilder
			b.Add(v, 1)
			d.Points = append(d.Points, metric.SketchPoint{Time: at, Sketch: b.Sketch()})
		}
		var err error
		if f[1] == "d" {
			d.Name, d.Tags = name, all
			err = a.Load(t.Context(), nil, []metric.Distribution{d})
		} else {
			s.Name, s.Tags, s.Interval, s.Unit = name, all, 10, map[string]string{"bytes": "byte"}[name]
			if s.Type, err = metric.ParseType(f[1]); err == nil {
				err = a.Load(t.Context(), []metric.Series{s}, nil)
			}
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return ""
}

func timeseriesBody(text string) string {
	return fmt.Sprintf(`{"data":{"type":"timeseries_request","attributes":{"from":%d,"to":%d,"queries":[{"data_source":"metrics","query":%q,"name":"a"}]}}}`, t0*1000, (t0+60)*1000, text)
}

func TestFormulaBodiesAreBounded(t *testing.T) {
	a := newAPI(t, queryapi.Options{})
	code, _, body, err := a.send(t.Context(), "POST", "/api/v2/query/timeseries", timeseriesBody("avg:m{*}")+strings.Repeat(" ", 512<<10))
	if err != nil || code != http.StatusRequestEntityTooLarge || body != `{"errors":["Payload too big"]}` {
		t.Errorf("%d %s %v", code, body, err)
	}
	code, _, body, err = a.send(t.Context(), "PUT", "/api/v1/metrics/none", strings.Repeat(" ", 512<<10))
	if err != nil || code != http.StatusNotFound {
		t.Errorf("%d %s %v", code, body, err)
	}
}

func TestSlowLogCoversFormulas(t *testing.T) {
	var log bytes.Buffer
	a := newAPI(t, queryapi.Options{Source: stuck{}, Timeout: 20 * time.Millisecond, Slow: time.Millisecond, Log: slog.New(slog.NewTextHandler(&log, nil))})
	code, _, body, err := a.send(t.Context(), "POST", "/api/v2/query/timeseries", timeseriesBody("avg:m{*}"))
	if err != nil || code != http.StatusServiceUnavailable || !strings.Contains(body, "took longer than 20ms") {
		t.Errorf("%d %s %v", code, body, err)
	}
	if slow := a.api.Slowest(); len(slow) != 1 || slow[0].Query != "a=avg:m{*}" || slow[0].Span != 60 {
		t.Errorf("slowest queries are %+v", slow)
	}
	if !strings.Contains(log.String(), `msg="slow query" query="a=avg:m{*}"`) {
		t.Errorf("the log is %s", log.String())
	}
}

func TestRateLimitsAndHeaders(t *testing.T) {
	sec := int64(t0)
	q, err := quota.New(quota.Options{Rates: "query=2/3600,metrics=1/60", Now: func() time.Time { return time.Unix(sec, 0) }})
	if err != nil {
		t.Fatal(err)
	}
	a := newAPI(t, queryapi.Options{Quota: q})
	for i, want := range []int{200, 200, 429, 429} {
		path := "/api/v1/query?" + params(t0, t0+1, "avg:m{*}").Encode()
		method, body := "GET", ""
		if i%2 == 1 {
			method, path, body = "POST", "/api/v2/query/timeseries", timeseriesBody("avg:m{*}")
		}
		code, h, answer, err := a.send(t.Context(), method, path, body)
		if err != nil || code != want || h.Get("X-RateLimit-Limit") != "2" || h.Get("X-RateLimit-Period") != "3600" || h.Get("X-RateLimit-Name") != "query" ||
			h.Get("X-RateLimit-Remaining") != fmt.Sprint(max(0, 1-i)) || h.Get("X-RateLimit-Reset") != fmt.Sprint(3600-sec%3600) {
			t.Errorf("request %d: %d %v %v", i, code, h, err)
		}
		if code == 429 && answer != `{"errors":["Too many requests"]}` {
			t.Errorf("request %d: %s", i, answer)
		}
	}
	if code, h, _, err := a.send(t.Context(), "GET", "/api/v1/metrics?from=1", ""); err != nil || code != 200 || h.Get("X-RateLimit-Remaining") != "0" {
		t.Errorf("a list has limits of its own: %d %v %v", code, h, err)
	}
	if n := a.outcome(t, "rate_limit"); n != 2 {
		t.Errorf("counted %v", n)
	}
}

func TestCostLimits(t *testing.T) {
	q, err := quota.New(quota.Options{MaxCost: 1000, Budget: 1500, Now: func() time.Time { return time.Unix(t0, 0) }})
	if err != nil {
		t.Fatal(err)
	}
	a := newAPI(t, queryapi.Options{Quota: q})
	var many []metric.Series
	for i := range 20 {
		many = append(many, series("wide", fmt.Sprint("h", i), nil, 1))
	}
	load(t, a, many...)
	for _, tt := range []struct {
		span int64
		text string
		code int
		want string
	}{
		{1000, "avg:wide{*}", 400, "would read about 2000 points of 20 series, more than the 1000 that are allowed: narrow its scope or its time range"},
		{1000, "avg:wide{host:h1},avg:wide{host:h2}", 200, ""},
		{490, "avg:wide{*}", 200, ""},
		{490, "avg:wide{*}", 429, "would read about 980 points of 20 series, and this application key has read 1180 of the 1500 that it may in a minute: ask again in 60 s"},
	} {
		code, h, body, err := a.send(t.Context(), "GET", "/api/v1/query?"+params(t0, t0+tt.span, tt.text).Encode(), "")
		if err != nil || code != tt.code || !strings.Contains(body, tt.want) {
			t.Errorf("%s over %d s: %d %s %v", tt.text, tt.span, code, body, err)
		}
		if code == 429 && (h.Get("X-RateLimit-Reset") != "60" || h.Get("X-RateLimit-Name") != "query_points") {
			t.Errorf("headers are %v", h)
		}
	}
	value := a.api.GuardValue(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })
	for text, want := range map[string]int{"avg:wide{*}": 400, "avg:wide{host:h3}": 204, "avg:wide{": 204} {
		req := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/api/kelpie/v1/value?query="+url.QueryEscape(text), nil)
		req.Header.Set("DD-API-KEY", "ak")
		req.Header.Set("DD-APPLICATION-KEY", "pk")
		w := httptest.NewRecorder()
		if value(w, req); w.Code != want || want == 400 && !strings.Contains(w.Body.String(), "points of 20 series, more than the 1000") {
			t.Errorf("the value of %s: %d %s, want %d", text, w.Code, w.Body, want)
		}
	}
	body := strings.Replace(timeseriesBody("avg:wide{*}"), fmt.Sprint(t0+60), fmt.Sprint(t0+1000), 1)
	code, _, answer, err := a.send(t.Context(), "POST", "/api/v2/query/timeseries", body)
	if err != nil || code != 400 || !strings.HasPrefix(answer, `{"errors":["API input validation failed: would read about 2000 points`) {
		t.Errorf("%d %s %v", code, answer, err)
	}
}

func TestScopesOfRoutes(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys")
	if err := os.WriteFile(path, []byte("pk scopes=timeseries_query\nrk scopes=metrics_read"), 0o600); err != nil {
		t.Fatal(err)
	}
	apiKeys, err := auth.New("API", auth.Source{Keys: []string{"ak"}})
	if err != nil {
		t.Fatal(err)
	}
	appKeys, err := auth.New(auth.Application, auth.Source{Files: []string{path}})
	if err != nil {
		t.Fatal(err)
	}
	a := newAPI(t, queryapi.Options{Auth: auth.NewChecker(apiKeys, appKeys, nil)})
	for path, want := range map[string]string{
		"/api/v1/query":               "",
		"/api/v1/metrics":             "metrics_read",
		"/api/v2/metrics":             "metrics_read",
		"/api/v1/hosts":               "hosts_read",
		"PUT /api/v1/metrics/m":       "metrics_metadata_write",
		"POST /api/v2/metrics/m/tags": "metric_tags_write",
	} {
		method, target, ok := strings.Cut(path, " ")
		if !ok {
			method, target = "GET", path
		}
		code, _, body, err := a.send(t.Context(), method, target, "")
		if err != nil || (code == 403) != (want != "") || want != "" && body != `{"errors":["Token is missing required scope `+want+`"]}` {
			t.Errorf("%s: %d %s %v", path, code, body, err)
		}
	}
}

// unlimited is an API without rates, which fuzzing would use up.
func unlimited(f *testing.F) *http.ServeMux {
	q, err := quota.New(quota.Options{Rates: quota.Off})
	if err != nil {
		f.Fatal(err)
	}
	mux := http.NewServeMux()
	newAPI(f, queryapi.Options{Quota: q}).api.Register(mux)
	return mux
}

func FuzzFormulaRequests(f *testing.F) {
	mux := unlimited(f)
	f.Add(timeseriesBody("avg:m{*} by {host}"))
	f.Add(`{"data":{"type":"scalar_request","attributes":{"from":0,"to":60000,"formulas":[{"formula":"a/b+1"}],"queries":[{"data_source":"metrics","query":"p95:m{*}","name":"a","aggregator":"percentile"},{"data_source":"metrics","query":"m{*}","name":"b","aggregator":"area"}]}}}`)
	f.Fuzz(func(t *testing.T, body string) {
		for _, path := range []string{"/api/v2/query/timeseries", "/api/v2/query/scalar"} {
			r := httptest.NewRequest(http.MethodPost, path+"?api_key=ak&application_key=pk", strings.NewReader(body))
			w := httptest.NewRecorder()
			mux.ServeHTTP(w, r)
			if w.Code != 200 && w.Code != 400 {
				t.Errorf("%s %s: %d %s", path, body, w.Code, w.Body)
			}
		}
	})
}

func FuzzParameters(f *testing.F) {
	mux := unlimited(f)
	f.Add("filter[tags]=env:prod AND a:b&page[size]=2&page[cursor]=bQ&window[seconds]=60&from=1&tag_filter=x")
	f.Add("filter[groups]=a,b&filter[pct]=true&start=1&count=2&sort_dir=desc&filter=x")
	f.Fuzz(func(t *testing.T, raw string) {
		v, err := url.ParseQuery(raw)
		if err != nil || len(raw) > 4096 {
			return
		}
		v.Set("api_key", "ak")
		v.Set("application_key", "pk")
		for _, path := range []string{"/api/v1/metrics", "/api/v2/metrics", "/api/v2/metrics/m/estimate", "/api/v1/hosts", "/api/v1/query"} {
			w := httptest.NewRecorder()
			mux.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path+"?"+v.Encode(), nil))
			if w.Code != 200 && w.Code != 400 && w.Code != 404 && w.Code != http.StatusRequestURITooLong {
				t.Errorf("%s?%s: %d %s", path, raw, w.Code, w.Body)
			}
		}
	})
}
