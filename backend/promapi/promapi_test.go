package promapi_test

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
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/api"
	v1 "github.com/prometheus/client_golang/api/prometheus/v1"
	"github.com/prometheus/common/model"
	"go.uber.org/goleak"

	"kelpie.dev/kelpie/backend/auth"
	"kelpie.dev/kelpie/backend/promapi"
	"kelpie.dev/kelpie/backend/quota"
	"kelpie.dev/kelpie/backend/store"
	"kelpie.dev/kelpie/metric"
	"kelpie.dev/kelpie/metric/payload"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// t0 is when the first point of every series is; the clock stands a minute later.
const t0 = 1_700_006_400

var start = time.Unix(t0, 0)

// served is an API over a store with some series, on a real listener.
type served struct {
	url    string
	mux    *http.ServeMux
	client v1.API
}

// basic sends the application key as Grafana's basic authentication does.
type basic struct{ key string }

func (b basic) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.SetBasicAuth("grafana", b.key)
	return http.DefaultTransport.RoundTrip(r)
}

func serve(t testing.TB, o promapi.Options) *served {
	t.Helper()
	now := func() time.Time { return start.Add(time.Minute) }
	st, err := store.Open(store.Options{Dir: t.TempDir(), Now: now, MinFree: -1})
	if err != nil {
		t.Fatal(err)
	}
	fill(t, st)
	apiKeys, err := auth.New("API", auth.Source{Keys: []string{"ak"}})
	if err != nil {
		t.Fatal(err)
	}
	appKeys, err := auth.New(auth.Application, auth.Source{Keys: []string{"pk"}, Files: []string{keyFile(t, "lk scopes=metrics_read")}})
	if err != nil {
		t.Fatal(err)
	}
	o.Queryable, o.Catalog, o.Auth, o.Now = st.Queryable(), st, auth.NewChecker(apiKeys, appKeys, nil), now
	a, err := promapi.New(o)
	if err != nil {
		t.Fatal(err)
	}
	s := &served{mux: http.NewServeMux()}
	a.Register(s.mux)
	srv := httptest.NewServer(s.mux)
	s.url = srv.URL
	client, err := api.NewClient(api.Config{Address: srv.URL + promapi.Prefix, RoundTripper: basic{"pk"}})
	if err != nil {
		t.Fatal(err)
	}
	s.client = v1.NewAPI(client)
	t.Cleanup(func() {
		srv.Close()
		http.DefaultClient.CloseIdleConnections()
		if err := st.Close(); err != nil { // waits for every querier
			t.Error(err)
		}
	})
	return s
}

func keyFile(t testing.TB, text string) string {
	t.Helper()
	path := t.TempDir() + "/keys"
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func fill(t testing.TB, st *store.Store) {
	t.Helper()
	var batch []metric.Series
	for i, tags := range [][]string{{"kube_namespace:test", "kube_service:a", "kube_service:b"}, {"kube_namespace:test", "canary"}, {"kube_namespace:prod"}} {
		s := metric.Series{Name: "flask.request.rate", Host: fmt.Sprint("Node-", i), Tags: metric.NewTags(tags...), Type: metric.Rate, Interval: 10, Unit: "request"}
		for j := range int64(4) {
			s.Points = append(s.Points, metric.Point{Time: t0 + 10*j, Value: float64(10*i) + float64(j)})
		}
		batch = append(batch, s)
	}
	if err := st.Append(t.Context(), batch); err != nil {
		t.Fatal(err)
	}
	var b metric.SketchBuilder
	for v := range 100 {
		b.Add(float64(v+1), 1)
	}
	d := metric.Distribution{Name: "app.latency", Tags: metric.NewTags("kube_namespace:test"), Points: []metric.SketchPoint{{Time: t0, Sketch: b.Sketch()}}}
	if err := st.AppendDistributions(t.Context(), []metric.Distribution{d}); err != nil {
		t.Fatal(err)
	}
	text := "Requests a second"
	err := st.EditMetadata("flask.request.rate", func(m payload.MetricMetadata) (payload.MetricMetadata, error) {
		m.Description = &text
		return m, nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestClientQueries(t *testing.T) {
	s := serve(t, promapi.Options{})
	for _, tt := range []struct{ query, want string }{
		{"1+1", "scalar: 2 @[1700006430]"},
		{`{"flask.request.rate", kube_namespace="test"}`, `flask.request.rate{__host__="Node-0", host="node-0", kube_namespace="test", kube_service="a,b"} => 3 @[1700006430]
flask.request.rate{__host__="Node-1", canary="true", host="node-1", kube_namespace="test"} => 13 @[1700006430]`},
		{`sum({"flask.request.rate", kube_service=~"(.*,)?b(,.*)?"})`, "{} => 3 @[1700006430]"},
		{`sum by (kube_namespace) ({"flask.request.rate"})`, `{kube_namespace="prod"} => 23 @[1700006430]
{kube_namespace="test"} => 16 @[1700006430]`},
		{`avg_over_time({"flask.request.rate", canary="true"}[25s])`, `{__host__="Node-1", canary="true", host="node-1", kube_namespace="test"} => 12 @[1700006430]`},
		{`histogram_count({"app.latency"})`, `{kube_namespace="test"} => 100 @[1700006430]`},
		{`max({"app.latency", __part__="max"})`, "{} => 100 @[1700006430]"},
		{`{"none.of.that"}`, ""},
	} {
		got, warnings, _, err := s.client.Query(t.Context(), tt.query, start.Add(30*time.Second))
		if err != nil || len(warnings) > 0 {
			t.Errorf("%s: %v %v", tt.query, warnings, err)
			continue
		}
		if d := cmp.Diff(strings.Split(tt.want, "\n"), strings.Split(got.String(), "\n"), cmp.Transformer("sort", sorted)); d != "" {
			t.Errorf("%s: %s", tt.query, d)
		}
	}
	quantile, _, _, err := s.client.Query(t.Context(), `histogram_quantile(0.95, sum({"app.latency"}))`, start)
	vector, ok := quantile.(model.Vector)
	if err != nil || !ok || len(vector) != 1 || math.Abs(float64(vector[0].Value)-95) > 2 {
		t.Errorf("p95 is %v, %v", quantile, err)
	}
}

func sorted(lines []string) map[string]int {
	set := make(map[string]int)
	for _, line := range lines {
		set[line]++
	}
	return set
}

func TestClientQueriesRanges(t *testing.T) {
	s := serve(t, promapi.Options{})
	got, _, _, err := s.client.QueryRange(t.Context(), `{"flask.request.rate", kube_namespace="prod"}`, v1.Range{Start: start, End: start.Add(30 * time.Second), Step: 15 * time.Second})
	matrix, ok := got.(model.Matrix)
	if err != nil || !ok || len(matrix) != 1 {
		t.Fatalf("%v, %v", got, err)
	}
	want := []model.SamplePair{{Timestamp: t0 * 1000, Value: 20}, {Timestamp: (t0 + 15) * 1000, Value: 21}, {Timestamp: (t0 + 30) * 1000, Value: 23}}
	if d := cmp.Diff(want, matrix[0].Values); d != "" {
		t.Error(d)
	}
	for _, tt := range []struct {
		query string
		step  time.Duration
		want  string
	}{
		{"up", 0, "zero or negative query resolution step"},
		{"up", time.Millisecond, "exceeded maximum resolution of 11,000 points per timeseries"},
		{"sum(", time.Second, `invalid parameter "query": 1:5: parse error`},
		{"rate(up)", time.Second, "expected type range vector"},
	} {
		_, _, _, err := s.client.QueryRange(t.Context(), tt.query, v1.Range{Start: start, End: start.Add(time.Hour), Step: tt.step})
		var bad *v1.Error
		if !errors.As(err, &bad) || bad.Type != v1.ErrBadData || !strings.Contains(bad.Msg, tt.want) {
			t.Errorf("%s by %s: %v, want %s", tt.query, tt.step, err, tt.want)
		}
	}
}

func TestClientLists(t *testing.T) {
	s := serve(t, promapi.Options{})
	ctx, end := t.Context(), start.Add(time.Minute)
	names, _, _, err := s.client.LabelNames(ctx, nil, start, end)
	if d := cmp.Diff(model.LabelNames{"__host__", "__name__", "canary", "host", "kube_namespace", "kube_service"}, names); err != nil || d != "" {
		t.Error(err, d)
	}
	values, _, _, err := s.client.LabelValues(ctx, "__name__", nil, start, end)
	if d := cmp.Diff(model.LabelValues{"app.latency", "flask.request.rate"}, values); err != nil || d != "" {
		t.Error(err, d)
	}
	values, _, _, err = s.client.LabelValues(ctx, "kube_service", []string{`{"flask.request.rate"}`, `{kube_namespace="prod"}`}, start, end)
	if d := cmp.Diff(model.LabelValues{"a,b"}, values); err != nil || d != "" {
		t.Error(err, d)
	}
	series, warnings, _, err := s.client.Series(ctx, []string{`{kube_namespace="prod"}`, `{host="node-2"}`, `{"app.latency"}`}, start, end, v1.WithLimit(1))
	if err != nil || len(series) != 1 || series[0]["host"] != "node-2" || len(warnings) != 1 {
		t.Errorf("%v, %v, %v", series, warnings, err)
	}
	meta, err := s.client.Metadata(ctx, "", "")
	want := map[string][]v1.Metadata{
		"app.latency":        {{Type: v1.MetricType("gaugehistogram")}},
		"flask.request.rate": {{Type: v1.MetricTypeGauge, Help: "Requests a second", Unit: "request"}},
	}
	if d := cmp.Diff(want, meta); err != nil || d != "" {
		t.Error(err, d)
	}
	// The client returns the JSON of a text.
	if text, err := s.client.FormatQuery(ctx, `sum({"a.b"})by(c)`); err != nil || text != `"sum by (c) ({__name__=\"a.b\"})"` {
		t.Errorf("%s, %v", text, err)
	}
	if info, err := s.client.Buildinfo(ctx); err != nil || info.Version == "" {
		t.Errorf("%+v, %v", info, err)
	}
	if rules, err := s.client.Rules(ctx, nil); err != nil || len(rules.Groups) != 0 {
		t.Errorf("%+v, %v", rules, err)
	}
	if alerts, err := s.client.Alerts(ctx); err != nil || len(alerts.Alerts) != 0 {
		t.Errorf("%+v, %v", alerts, err)
	}
	if exemplars, err := s.client.QueryExemplars(ctx, "up", start, end); err != nil || len(exemplars) != 0 {
		t.Errorf("%+v, %v", exemplars, err)
	}
}

// do sends a request with the given authorization.
func (s *served) do(t *testing.T, method, target, body string, set func(*http.Request)) (int, http.Header, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, s.url+target, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	set(req)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, resp.Header, string(answer)
}

func password(key string) func(*http.Request) {
	return func(r *http.Request) { r.SetBasicAuth("any", key) }
}

// TestJSONIsPrometheus compares with answers of Prometheus to the same questions.
func TestJSONIsPrometheus(t *testing.T) {
	s := serve(t, promapi.Options{})
	for _, tt := range []struct {
		path string
		code int
		want string
	}{
		{"/api/v1/query?query=1%2B1&time=1700006400.5", 200, `{"status":"success","data":{"resultType":"scalar","result":[1700006400.5,"2"]}}`},
		{"/api/v1/query?query=up", 200, `{"status":"success","data":{"resultType":"vector","result":[]}}`},
		{"/api/v1/query_range?query=up&start=1&end=2&step=1", 200, `{"status":"success","data":{"resultType":"matrix","result":[]}}`},
		{"/api/v1/query?time=2023-11-15T00:00:10Z&query=" + url.QueryEscape(`min({"flask.request.rate"})`), 200,
			`{"status":"success","data":{"resultType":"vector","result":[{"metric":{},"value":[1700006410,"1"]}]}}`},
		{"/api/v1/query?time=x&query=up", 400, `{"status":"error","errorType":"bad_data","error":"invalid parameter \"time\": cannot parse \"x\" to a valid timestamp"}`},
		{"/api/v1/series", 400, `{"status":"error","errorType":"bad_data","error":"no match[] parameter provided"}`},
		{"/api/v1/series?match[]=" + url.QueryEscape(`{a=""}`), 400, `{"status":"error","errorType":"bad_data","error":"invalid parameter \"match[]\": match[] must contain at least one non-empty matcher"}`},
		{"/api/v1/label/kube_service/values", 200, `{"status":"success","data":["a,b"]}`},
		{"/api/v1/label/none/values", 200, `{"status":"success","data":[]}`},
		{"/api/v1/label/U__kube_5f_namespace/values", 200, `{"status":"success","data":["prod","test"]}`},
		{"/api/v1/labels?start=5&end=1", 400, `{"status":"error","errorType":"bad_data","error":"end timestamp must not be before start time"}`},
		{"/api/v1/query?query=up&limit=-1", 400, `{"status":"error","errorType":"bad_data","error":"invalid parameter \"limit\": limit must be non-negative"}`},
	} {
		code, h, body := s.do(t, "GET", promapi.Prefix+tt.path, "", password("pk"))
		if code != tt.code || body != tt.want || h.Get("Content-Type") != "application/json" {
			t.Errorf("%s: %d %s\nwant %d %s", tt.path, code, body, tt.code, tt.want)
		}
	}
	code, _, body := s.do(t, "POST", promapi.Prefix+"/api/v1/query", "query=1%2B1&time=1", password("pk"))
	if code != 200 || body != `{"status":"success","data":{"resultType":"scalar","result":[1,"2"]}}` {
		t.Errorf("POST: %d %s", code, body)
	}
	code, _, body = s.do(t, "POST", promapi.Prefix+"/api/v1/query", "query="+strings.Repeat("x", 2<<20), password("pk"))
	if code != 400 || !strings.Contains(body, "request body too large") {
		t.Errorf("a large form: %d %s", code, body)
	}
}

func TestKeys(t *testing.T) {
	s := serve(t, promapi.Options{})
	for _, tt := range []struct {
		name string
		set  func(*http.Request)
		path string
		code int
		want string
	}{
		{"none", func(*http.Request) {}, "/api/v1/query?query=1", 401, "an application key is required"},
		{"wrong password", password("ak"), "/api/v1/query?query=1", 401, "an application key is required"},
		{"bearer", func(r *http.Request) { r.Header.Set("Authorization", "Bearer pk") }, "/api/v1/query?query=1", 200, ""},
		{"headers", func(r *http.Request) { r.Header.Set("DD-API-KEY", "ak"); r.Header.Set("DD-APPLICATION-KEY", "pk") }, "/api/v1/query?query=1", 200, ""},
		{"scope", password("lk"), "/api/v1/query?query=1", 403, "Token is missing required scope timeseries_query"},
		{"scope of lists", password("lk"), "/api/v1/labels", 200, ""},
		{"health needs none", func(*http.Request) {}, "/-/healthy", 200, "Healthy"},
		{"readiness needs none", func(*http.Request) {}, "/-/ready", 200, ""},
	} {
		code, h, body := s.do(t, "GET", promapi.Prefix+tt.path, "", tt.set)
		if code != tt.code || !strings.Contains(body, tt.want) || (code == 401) != strings.HasPrefix(h.Get("WWW-Authenticate"), "Basic ") {
			t.Errorf("%s: %d %s %v", tt.name, code, body, h)
		}
	}
}

func TestLimits(t *testing.T) {
	q, err := quota.New(quota.Options{Rates: "query=3/3600", MaxCost: 50, Now: func() time.Time { return start }})
	if err != nil {
		t.Fatal(err)
	}
	var slow []string
	s := serve(t, promapi.Options{Quota: q, MaxSeries: 2, Slow: func(text string, _ int64, series int, _ time.Duration) {
		slow = append(slow, fmt.Sprint(text, " ", series))
	}})
	target := promapi.Prefix + "/api/v1/query?query=" + url.QueryEscape(`{"flask.request.rate"}`)
	code, _, body := s.do(t, "GET", target, "", password("pk"))
	if code != 422 || !strings.Contains(body, `"errorType":"execution","error":"the query would read about 90 points of 3 series, more than the 50`) {
		t.Errorf("%d %s", code, body)
	}
	code, h, body := s.do(t, "GET", promapi.Prefix+"/api/v1/query?query=vector(1)", "", password("pk"))
	if code != 200 || h.Get("X-RateLimit-Remaining") != "1" || len(slow) != 1 || slow[0] != "vector(1) 1" {
		t.Errorf("%d %v %s %q", code, h, body, slow)
	}
	s.do(t, "GET", target, "", password("pk"))
	code, _, body = s.do(t, "GET", target, "", password("pk"))
	if code != 429 || !strings.Contains(body, `"errorType":"too_many_requests"`) {
		t.Errorf("%d %s", code, body)
	}
	code, _, body = s.do(t, "GET", promapi.Prefix+"/api/v1/labels", "", password("pk"))
	if code != 200 || body != `{"status":"success","data":["__host__","__name__"],"warnings":["results truncated due to limit"]}` {
		t.Errorf("%d %s", code, body)
	}
}

func TestTimeoutOfTheRequest(t *testing.T) {
	s := serve(t, promapi.Options{Timeout: time.Nanosecond})
	code, _, body := s.do(t, "GET", promapi.Prefix+"/api/v1/query?query=up", "", password("pk"))
	if code != 503 {
		t.Errorf("%d %s", code, body)
	}
}

func TestVersionIsTheEngines(t *testing.T) {
	s := serve(t, promapi.Options{})
	info, err := s.client.Buildinfo(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	mod, err := os.ReadFile("../../go.mod")
	if err != nil {
		t.Fatal(err)
	}
	// Prometheus 3.16.0 is the Go module's v0.316.0.
	module := "github.com/prometheus/prometheus v0." + strings.Replace(info.Version, ".", "", 1)
	if !strings.Contains(string(mod), module) {
		t.Errorf("the API says that it is Prometheus %s, and go.mod does not have %s", info.Version, module)
	}
}

func FuzzParameters(f *testing.F) {
	q, err := quota.New(quota.Options{Rates: quota.Off}) // fuzzing would use them up
	if err != nil {
		f.Fatal(err)
	}
	s := serve(f, promapi.Options{Timeout: 2 * time.Second, Quota: q})
	f.Add("query=up&time=1&limit=2&start=1&end=2&step=1&match[]=up")
	f.Add(`query={"a.b"}[5m:1s] offset 1d&match[]={a=~"b.*"}&lookback_delta=1h&timeout=1s`)
	f.Fuzz(func(t *testing.T, raw string) {
		v, err := url.ParseQuery(raw)
		if err != nil || len(raw) > 4096 {
			return
		}
		for _, path := range []string{"query", "query_range", "labels", "series", "metadata", "label/host/values"} {
			r := httptest.NewRequestWithContext(context.Background(), http.MethodGet, promapi.Prefix+"/api/v1/"+path+"?"+v.Encode(), nil)
			r.SetBasicAuth("", "pk")
			w := httptest.NewRecorder()
			s.mux.ServeHTTP(w, r)
			if w.Code == http.StatusInternalServerError || !json.Valid(w.Body.Bytes()) {
				t.Errorf("%s?%s: %d %s", path, raw, w.Code, w.Body)
			}
		}
	})
}
