package queryapi_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"kelpie.dev/kelpie/backend/auth"
	"kelpie.dev/kelpie/backend/queryapi"
	"kelpie.dev/kelpie/backend/store"
	"kelpie.dev/kelpie/metric"
	"kelpie.dev/kelpie/metric/payload"
	"kelpie.dev/kelpie/query"
	"kelpie.dev/kelpie/query/querytest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// api is a query API over a store, on a real listener. Its clock stands at the
// newest point that it was given.
type api struct {
	sec   int64
	store *store.Store
	api   *queryapi.API
	url   string
	reg   *prometheus.Registry
}

func newAPI(t testing.TB, o queryapi.Options) *api {
	t.Helper()
	a := &api{reg: prometheus.NewRegistry()}
	now := func() time.Time { return time.Unix(a.sec, 0) }
	st, err := store.Open(store.Options{Dir: t.TempDir(), Now: now, MinFree: -1, MaxSelectSeries: 50})
	if err != nil {
		t.Fatal(err)
	}
	apiKeys, err := auth.New("API", auth.Source{Keys: []string{"ak"}})
	if err != nil {
		t.Fatal(err)
	}
	appKeys, err := auth.New("application", auth.Source{Keys: []string{"pk"}})
	if err != nil {
		t.Fatal(err)
	}
	a.store = st
	o.Store, o.Now, o.Registerer = st, now, a.reg
	if o.Auth == nil {
		o.Auth = &auth.Checker{API: apiKeys, App: appKeys}
	}
	if o.Source == nil {
		o.Source = st
	}
	if a.api, err = queryapi.New(o); err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	a.api.Register(mux)
	srv := httptest.NewServer(mux)
	a.url = srv.URL
	t.Cleanup(func() {
		srv.Close()
		http.DefaultClient.CloseIdleConnections()
		if err := st.Close(); err != nil {
			t.Error(err)
		}
	})
	return a
}

// Load implements querytest.Target.
func (a *api) Load(ctx context.Context, series []metric.Series, distributions []metric.Distribution) error {
	for _, d := range distributions {
		for _, p := range d.Points {
			a.sec = max(a.sec, p.Time)
		}
	}
	for _, s := range series {
		for _, p := range s.Points {
			a.sec = max(a.sec, p.Time)
		}
	}
	if err := a.store.AppendDistributions(ctx, distributions); err != nil {
		return err
	}
	return a.store.Append(ctx, series)
}

// get returns the answer to GET path with both keys.
func (a *api) get(ctx context.Context, path string, params url.Values) (int, string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, a.url+path+"?"+params.Encode(), nil)
	if err != nil {
		return 0, "", err
	}
	req.Header.Set("DD-API-KEY", "ak")
	req.Header.Set("DD-APPLICATION-KEY", "pk")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(body), err
}

func params(from, to int64, text string) url.Values {
	return url.Values{"from": {strconv.FormatInt(from, 10)}, "to": {strconv.FormatInt(to, 10)}, "query": {text}}
}

// Query implements querytest.Target.
func (a *api) Query(ctx context.Context, text string, from, to int64) ([][]query.Result, error) {
	code, body, err := a.get(ctx, "/api/v1/query", params(from, to, text))
	if err != nil {
		return nil, err
	}
	var resp payload.QueryResponse
	if err := json.Unmarshal([]byte(body), &resp); err != nil {
		return nil, fmt.Errorf("HTTP %d: %w: %s", code, err, body)
	}
	if code != http.StatusOK || resp.Status != "ok" {
		return nil, fmt.Errorf("HTTP %d: %s", code, resp.Error)
	}
	out := [][]query.Result{nil}
	for _, s := range resp.Series {
		for len(out) <= *s.QueryIndex {
			out = append(out, nil)
		}
		r, err := decodeResult(s)
		if err != nil {
			return nil, err
		}
		out[*s.QueryIndex] = append(out[*s.QueryIndex], r)
	}
	return out, nil
}

// decodeResult is the inverse of what the API encodes; it also checks what is
// redundant on the wire.
func decodeResult(s payload.QuerySeries) (query.Result, error) {
	r := query.Result{Metric: s.Metric, Expression: s.Expression, Scope: s.Scope, Tags: s.TagSet, Interval: s.Interval}
	if s.Aggr != nil {
		r.Aggregator = *s.Aggr
	}
	if s.Unit != nil {
		r.Unit = s.Unit[0].Name
	}
	for _, p := range s.Pointlist {
		v := math.NaN()
		if p[1] != nil {
			v = *p[1]
		}
		r.Points = append(r.Points, query.Point{Time: int64(*p[0]) / 1000, Value: v})
	}
	n := len(r.Points)
	if s.Length != n || s.DisplayName != s.Metric || s.Attributes == nil || s.TagSet == nil || (s.Unit != nil && len(s.Unit) != 2) {
		return r, fmt.Errorf("series contradicts itself: %+v", s)
	}
	if n > 0 && (s.Start != r.Points[0].Time*1000 || s.End != r.Points[n-1].Time*1000+s.Interval*1000-1000) {
		return r, errors.New("start and end do not enclose the points")
	}
	return r, nil
}

// TestQueryScripts runs the query language's own scripts through the HTTP API.
func TestQueryScripts(t *testing.T) {
	querytest.Run(t, "../../query/testdata", querytest.Base, func(t *testing.T) querytest.Target {
		return newAPI(t, queryapi.Options{})
	})
}

const t0 = 1_700_006_400

func series(name, host string, tags []string, v float64) metric.Series {
	return metric.Series{Name: name, Host: host, Tags: metric.NewTags(tags...), Type: metric.Rate, Interval: 10, Unit: "byte",
		Points: []metric.Point{{Time: t0, Value: v}, {Time: t0 + 10, Value: v}}}
}

func load(t *testing.T, a *api, s ...metric.Series) {
	t.Helper()
	if err := a.Load(t.Context(), s, nil); err != nil {
		t.Fatal(err)
	}
}

func TestQueryAnswersDatadogsJSON(t *testing.T) {
	a := newAPI(t, queryapi.Options{})
	load(t, a, series("net.sent", "a", []string{"env:prod"}, 1), series("net.sent", "b", []string{"env:prod"}, 2))
	code, body, err := a.get(t.Context(), "/api/v1/query", params(t0, t0+19, "sum:net.sent{env:prod} by {host},avg:none{*}"))
	if err != nil {
		t.Fatal(err)
	}
	one := func(host, v string) string {
		return `{"metric":"net.sent","display_name":"net.sent","expression":"sum:net.sent{env:prod,host:` + host + `}","scope":"env:prod,host:` + host +
			`","tag_set":["host:` + host + `"],"aggr":"sum","interval":1,"length":2,"query_index":0,"start":1700006400000,"end":1700006410000,` +
			`"pointlist":[[1700006400000,` + v + `],[1700006410000,` + v + `]],"unit":[{"id":2,"family":"bytes","name":"byte","short_name":"B","plural":"bytes","scale_factor":1},null],"attributes":{}}`
	}
	want := `{"status":"ok","res_type":"time_series","resp_version":1,"query":"sum:net.sent{env:prod} by {host},avg:none{*}",` +
		`"from_date":1700006400000,"to_date":1700006419000,"series":[` + one("a", "1") + "," + one("b", "2") + `],"values":[],"times":[],"group_by":["host"],"message":""}`
	var got, wanted any
	if err := errors.Join(json.Unmarshal([]byte(body), &got), json.Unmarshal([]byte(want), &wanted)); err != nil {
		t.Fatal(err)
	}
	// Buckets without data between two points depend on the query's rules.
	if d := cmp.Diff(wanted, got); code != 200 || d != "" {
		t.Errorf("HTTP %d: %s", code, d)
	}
}

func TestQueryErrors(t *testing.T) {
	a := newAPI(t, queryapi.Options{})
	var many []metric.Series
	for i := range 60 {
		many = append(many, series("wide", fmt.Sprint("h", i), nil, 1))
	}
	load(t, a, many...)
	for _, tt := range []struct {
		name    string
		params  url.Values
		code    int
		want    string
		outcome string
	}{
		{"no from", url.Values{"to": {"1"}, "query": {"m{*}"}}, 400, `{"errors":["from is required: Unix seconds"]}`, "invalid"},
		{"odd to", url.Values{"from": {"1"}, "to": {"1e300"}, "query": {"m{*}"}}, 400, `{"errors":["to must be Unix seconds"]}`, "invalid"},
		{"NaN", url.Values{"from": {"NaN"}, "to": {"1"}, "query": {"m{*}"}}, 400, `{"errors":["from must be Unix seconds"]}`, "invalid"},
		{"no query", params(1, 2, ""), 400, `{"errors":["query is required"]}`, "invalid"},
		{"backwards", params(2, 1, "m{*}"), 400, `{"errors":["from must not be later than to"]}`, "invalid"},
		{"syntax", params(1, 2, "avg:ok{*},sum:m{env:prod by {x}"), 400, `Error parsing query: \nunable to parse avg:ok{*},sum:m{env:prod by {x}: error at 25: expected`, "syntax"},
		{"column", params(1, 2, "avg:m{*"), 400, `(line 1, column 8).`, "syntax"},
		{"mixed", params(1, 2, "avg:m{a:1,b:2 OR c:3}"), 400, `'AND' and 'OR' cannot be mixed with ','`, "syntax"},
		{"unsupported", params(1, 2, "frobnicate(m{*})"), 400, "Invalid query input:\\n", "unsupported"},
		{"cost", params(t0, t0+20, "avg:wide{*}"), 400, `Invalid query input:\nselect wide{*}: reads more than 50 series: narrow`, "limit"},
		{"batch", params(1, 2, strings.TrimSuffix(strings.Repeat("m{*},", 101), ",")), 400, "more than 100 queries in a batch", "limit"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			before := a.outcome(t, tt.outcome)
			code, body, err := a.get(t.Context(), "/api/v1/query", tt.params)
			if err != nil {
				t.Fatal(err)
			}
			if code != tt.code || !strings.Contains(body, tt.want) {
				t.Errorf("HTTP %d %s; want %d with %s", code, body, tt.code, tt.want)
			}
			if got := a.outcome(t, tt.outcome) - before; got != 1 {
				t.Errorf("counted %v as %s, want 1", got, tt.outcome)
			}
			if strings.Contains(body, `"status":"error"`) && !strings.Contains(body, `"series":[],"values":[],"times":[],"group_by":[]`) {
				t.Errorf("the error lacks empty lists: %s", body)
			}
		})
	}
	code, body, err := a.get(t.Context(), "/api/v1/query", params(1, 2, strings.Repeat("m{*},", 4000)))
	if err != nil || code != http.StatusRequestURITooLong || !strings.HasPrefix(body, `{"errors":["URI too long`) {
		t.Errorf("a long URI got %d %s %v", code, body, err)
	}
	// The neighbour is served.
	code, body, err = a.get(t.Context(), "/api/v1/query", params(t0, t0+20, "avg:wide{host:h1},avg:unknown.metric{*}"))
	if err != nil || code != 200 || strings.Count(body, `"pointlist"`) != 1 {
		t.Errorf("the next query got %d %s %v", code, body, err)
	}
}

func (a *api) outcome(t *testing.T, name string) float64 {
	t.Helper()
	all, err := a.reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range all {
		if family.GetName() != "kelpie_backend_queries_total" {
			continue
		}
		for _, m := range family.GetMetric() {
			if m.GetLabel()[0].GetValue() == name {
				return m.GetCounter().GetValue()
			}
		}
	}
	t.Fatalf("no counter for the outcome %s", name)
	return 0
}

// stuck is a Source that never answers.
type stuck struct{}

func (stuck) Select(ctx context.Context, _ query.Selector, _, _ int64) ([]metric.Series, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

func TestQueryTimeout(t *testing.T) {
	a := newAPI(t, queryapi.Options{Source: stuck{}, Timeout: 20 * time.Millisecond})
	code, body, err := a.get(t.Context(), "/api/v1/query", params(1, 2, "avg:m{*}"))
	if err != nil || code != http.StatusServiceUnavailable || !strings.Contains(body, "took longer than 20ms") {
		t.Errorf("got %d %s %v", code, body, err)
	}
	if got := a.outcome(t, "timeout"); got != 1 {
		t.Errorf("counted %v timeouts", got)
	}
	if slow := a.api.Slowest(); len(slow) != 1 || slow[0].Query != "avg:m{*}" {
		t.Errorf("slowest queries are %+v", slow)
	}
}

// routes are all of the API: a new one belongs here, too.
var routes = []string{
	"GET /api/v1/query", "POST /api/v2/query/timeseries", "POST /api/v2/query/scalar",
	"GET /api/v1/metrics", "GET /api/v1/metrics/m", "PUT /api/v1/metrics/m", "GET /api/v1/search",
	"GET /api/v2/metrics", "GET /api/v2/metrics/m/all-tags", "GET /api/v2/metrics/m/volumes", "GET /api/v2/metrics/m/estimate",
	"GET /api/v2/metrics/m/active-configurations", "GET /api/v2/metrics/m/assets",
	"GET /api/v2/metrics/m/tags", "POST /api/v2/metrics/m/tags", "PATCH /api/v2/metrics/m/tags", "DELETE /api/v2/metrics/m/tags",
	"GET /api/v1/hosts", "GET /api/v1/hosts/totals", "GET /api/v1/tags/hosts", "GET /api/v1/tags/hosts/h",
}

func TestKeysAreRequired(t *testing.T) {
	a := newAPI(t, queryapi.Options{})
	for _, route := range routes {
		method, path, _ := strings.Cut(route, " ")
		for _, keys := range []string{"", "api_key=ak", "application_key=pk", "api_key=ak&application_key=ak", "api_key=pk&application_key=pk"} {
			req, err := http.NewRequestWithContext(t.Context(), method, a.url+path+"?"+keys, nil)
			if err != nil {
				t.Fatal(err)
			}
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			body, err := io.ReadAll(resp.Body)
			_ = resp.Body.Close()
			if err != nil || resp.StatusCode != http.StatusForbidden || string(body) != `{"errors":["Forbidden"]}` {
				t.Errorf("%s?%s: %d %s %v", route, keys, resp.StatusCode, body, err)
			}
		}
	}
	if got, want := a.outcome(t, "forbidden"), float64(5*len(routes)); got != want {
		t.Errorf("counted %v refusals, want %v", got, want)
	}
}

func TestLists(t *testing.T) {
	a := newAPI(t, queryapi.Options{})
	load(t, a, series("net.sent", "Web-1", []string{"env:prod"}, 1), series("net.recv", "db-1", []string{"env:dev"}, 2))
	for _, tt := range []struct {
		path   string
		params url.Values
		code   int
		want   string
	}{
		{"/api/v1/metrics", url.Values{"from": {"1700006410"}}, 200, `{"from":"1700006410","metrics":["net.recv","net.sent"]}`},
		{"/api/v1/metrics", url.Values{"from": {"1700006411"}}, 200, `{"from":"1700006411","metrics":[]}`},
		{"/api/v1/metrics", url.Values{"from": {"1700006400"}, "host": {"Web-1"}}, 200, `{"from":"1700006400","metrics":["net.sent"]}`},
		{"/api/v1/metrics", url.Values{"from": {"1700006400"}, "tag_filter": {"env:d*"}}, 200, `{"from":"1700006400","metrics":["net.recv"]}`},
		{"/api/v1/metrics", url.Values{"from": {"1700006400"}, "tag_filter": {"env:dev OR host:web*"}}, 200, `{"from":"1700006400","metrics":["net.recv","net.sent"]}`},
		{"/api/v1/metrics", url.Values{"from": {"1700006400"}, "tag_filter": {"env:a OR"}}, 400, `{"errors":["tag_filter: expected a tag or \"*\" at 8, expected tags such as env:prod,service:web* or env:prod AND NOT service:web"]}`},
		{"/api/v1/metrics", url.Values{"from": {"1700006400"}, "tag_filter": {"*} by {host"}}, 400, `{"errors":["tag_filter must be tags such as env:prod,service:web* or env:prod AND NOT service:web"]}`},
		{"/api/v1/metrics", nil, 400, `{"errors":["from is required: Unix seconds"]}`},
		{"/api/v1/search", url.Values{"q": {"metrics:sen"}}, 200, `{"results":{"metrics":["net.sent"]}}`},
		{"/api/v1/search", url.Values{"q": {"hosts:WEB"}}, 200, `{"results":{"hosts":["web-1"]}}`},
		{"/api/v1/search", url.Values{"q": {"recv"}}, 200, `{"results":{"hosts":[],"metrics":["net.recv"]}}`},
		{"/api/v1/search", nil, 400, `{"errors":["q is required: metrics:TEXT, hosts:TEXT or TEXT"]}`},
		{"/api/v1/metrics/net.sent", nil, 200, `{"description":null,"short_name":null,"integration":null,"statsd_interval":10,"per_unit":null,"type":"rate","unit":"byte"}`},
		{"/api/v1/metrics/none", nil, 404, `{"errors":["metric_name not found"]}`},
		{"/api/v2/metrics/net.sent/all-tags", nil, 200, `{"data":{"attributes":{"tags":["env:prod","host:web-1"]},"id":"net.sent","type":"metrics"}}`},
		{"/api/v2/metrics/none/all-tags", nil, 404, `{"errors":["metric_name not found"]}`},
		{"/api/v2/metrics/net.sent/all-tags", url.Values{"window[seconds]": {"x"}}, 400, `{"errors":["window[seconds] must be a number of seconds"]}`},
	} {
		code, body, err := a.get(t.Context(), tt.path, tt.params)
		if err != nil || code != tt.code || body != tt.want {
			t.Errorf("%s %v: %d %s %v; want %d %s", tt.path, tt.params, code, body, err, tt.code, tt.want)
		}
	}
}
