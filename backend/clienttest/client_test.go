// Package clienttest holds the backend to Datadog's official Go API client.
//
// It owns nothing but this test. It stands apart because the client takes
// minutes to compile.
package clienttest

import (
	"context"
	"math"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/DataDog/datadog-api-client-go/v2/api/datadog"
	"github.com/DataDog/datadog-api-client-go/v2/api/datadogV1"
	"github.com/DataDog/datadog-api-client-go/v2/api/datadogV2"
	"go.uber.org/goleak"

	"kelpie.dev/kelpie/backend"
	"kelpie.dev/kelpie/health"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	apiKey = "0123456789abcdef0123456789abcdef"
	appKey = "0123456789abcdef0123456789abcdef01234567"
)

// start runs a backend and returns the client and a function that makes a
// context with keys.
func start(t *testing.T) (*datadog.APIClient, func(api, app string) context.Context) {
	t.Helper()
	ln := listen(t)
	hl := listen(t)
	if err := hl.Close(); err != nil {
		t.Fatal(err)
	}
	vars := map[string]string{"KELPIE_DATA_DIR": t.TempDir(), "DD_API_KEY": apiKey, "DD_APP_KEY": appKey}
	cfg, err := backend.FromEnv(func(name string) (string, bool) { v, ok := vars[name]; return v, ok })
	if err != nil {
		t.Fatal(err)
	}
	cfg.Health = hl.Addr().String()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- backend.Run(ctx, cfg, backend.Deps{Version: "test", Listener: ln}) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		http.DefaultClient.CloseIdleConnections()
	})
	for deadline := time.Now().Add(30 * time.Second); ; {
		var h health.Health
		if err := health.Fetch(ctx, cfg.Health, "/health", &h); err == nil {
			break
		} else if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
	conf := datadog.NewConfiguration()
	conf.Servers = datadog.ServerConfigurations{{URL: "http://" + ln.Addr().String()}}
	conf.OperationServers = nil
	keys := func(api, app string) context.Context {
		return context.WithValue(t.Context(), datadog.ContextAPIKeys, map[string]datadog.APIKey{"apiKeyAuth": {Key: api}, "appKeyAuth": {Key: app}})
	}
	return datadog.NewAPIClient(conf), keys
}

func listen(t *testing.T) net.Listener {
	t.Helper()
	ln, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return ln
}

// bucket is a whole minute in the recent past, so that both points of the
// scripts fall into one rollup.
func bucket() int64 { return time.Now().Unix()/60*60 - 60 }

func submitV2(ctx context.Context, t *testing.T, api *datadogV2.MetricsApi, encoding *datadogV2.MetricContentEncoding, at int64, value float64) {
	t.Helper()
	body := datadogV2.MetricPayload{Series: []datadogV2.MetricSeries{{
		Metric: "flask.request.rate", Type: datadogV2.METRICINTAKETYPE_RATE.Ptr(), Interval: datadog.PtrInt64(10), Unit: datadog.PtrString("request"),
		Points:    []datadogV2.MetricPoint{{Timestamp: datadog.PtrInt64(at), Value: datadog.PtrFloat64(value)}},
		Resources: []datadogV2.MetricResource{{Type: datadog.PtrString("host"), Name: datadog.PtrString("node-1")}},
		Tags:      []string{"kube_namespace:test", "kube_deployment:test-metric-app"},
	}}}
	got, resp, err := api.SubmitMetrics(ctx, body, datadogV2.SubmitMetricsOptionalParameters{ContentEncoding: encoding})
	if err != nil || resp.StatusCode != http.StatusAccepted || len(got.Errors) != 0 {
		t.Fatalf("submit v2: %+v, %v", got, err)
	}
}

func TestOfficialClient(t *testing.T) {
	client, keys := start(t)
	ctx := keys(apiKey, appKey)
	v1, v2 := datadogV1.NewMetricsApi(client), datadogV2.NewMetricsApi(client)
	at := bucket()

	valid, _, err := datadogV1.NewAuthenticationApi(client).Validate(ctx)
	if err != nil || !valid.GetValid() {
		t.Fatalf("validate: %+v, %v", valid, err)
	}
	submitV2(ctx, t, v2, nil, at, 3)
	// The client's zstd needs cgo; the intake's tests have it.
	submitV2(ctx, t, v2, datadogV2.METRICCONTENTENCODING_GZIP.Ptr(), at+10, 5)
	submitV2(ctx, t, v2, datadogV2.METRICCONTENTENCODING_DEFLATE.Ptr(), at+20, 10)
	body := datadogV1.MetricsPayload{Series: []datadogV1.Series{{
		Metric: "queue.depth", Type: datadog.PtrString("gauge"), Host: datadog.PtrString("node-2"), Tags: []string{"env:prod"},
		Points: [][]*float64{{datadog.PtrFloat64(float64(at)), datadog.PtrFloat64(42)}},
	}}}
	if got, _, err := v1.SubmitMetrics(ctx, body, datadogV1.SubmitMetricsOptionalParameters{ContentEncoding: datadogV1.METRICCONTENTENCODING_DEFLATE.Ptr()}); err != nil || got.GetStatus() != "ok" {
		t.Fatalf("submit v1: %+v, %v", got, err)
	}

	q := "avg:flask.request.rate{kube_deployment:test-metric-app,kube_namespace:test}.rollup(60),sum:queue.depth{*} by {host}.rollup(60)"
	got, _, err := v1.QueryMetrics(ctx, at-60, at+59, q)
	if err != nil || got.GetStatus() != "ok" || len(got.Series) != 2 {
		t.Fatalf("query: %+v, %v", got, err)
	}
	first, second := got.Series[0], got.Series[1]
	if first.GetMetric() != "flask.request.rate" || first.GetInterval() != 60 || first.GetQueryIndex() != 0 || len(first.Pointlist) != 1 || *first.Pointlist[0][1] != 6 ||
		*first.Pointlist[0][0] != float64(at*1000) || first.GetAggr() != "avg" || len(first.Unit) != 2 || first.Unit[0].GetName() != "request" {
		t.Errorf("first series: %+v", first)
	}
	if second.GetQueryIndex() != 1 || second.GetScope() != "host:node-2" || !slices.Equal(second.TagSet, []string{"host:node-2"}) || *second.Pointlist[0][1] != 42 {
		t.Errorf("second series: %+v", second)
	}
	if len(first.UnparsedObject)+len(second.UnparsedObject) > 0 || len(got.AdditionalProperties) > 0 && got.AdditionalProperties["values"] == nil {
		t.Error("the client met what it does not know")
	}

	active, _, err := v1.ListActiveMetrics(ctx, at)
	if err != nil || !slices.Equal(active.Metrics, []string{"flask.request.rate", "queue.depth"}) {
		t.Errorf("active: %+v, %v", active, err)
	}
	active, _, err = v1.ListActiveMetrics(ctx, at, datadogV1.ListActiveMetricsOptionalParameters{Host: datadog.PtrString("node-2")})
	if err != nil || !slices.Equal(active.Metrics, []string{"queue.depth"}) {
		t.Errorf("active of a host: %+v, %v", active, err)
	}
	found, _, err := v1.ListMetrics(ctx, "metrics:flask") //nolint:staticcheck // deprecated, and still what many use
	if results := found.GetResults(); err != nil || !slices.Equal(results.Metrics, []string{"flask.request.rate"}) {
		t.Errorf("search: %+v, %v", found, err)
	}
	meta, _, err := v1.GetMetricMetadata(ctx, "flask.request.rate")
	if err != nil || meta.GetType() != "rate" || meta.GetStatsdInterval() != 10 || meta.GetUnit() != "request" {
		t.Errorf("metadata: %+v, %v", meta, err)
	}
	tags, _, err := v2.ListTagsByMetricName(ctx, "flask.request.rate")
	data := tags.GetData()
	if attributes := data.GetAttributes(); err != nil || !slices.Equal(attributes.Tags, []string{"host:node-1", "kube_deployment:test-metric-app", "kube_namespace:test"}) {
		t.Errorf("tags: %+v, %v", tags, err)
	}
}

func TestOfficialClientSubmitsDistributions(t *testing.T) {
	client, keys := start(t)
	ctx := keys(apiKey, appKey)
	v1 := datadogV1.NewMetricsApi(client)
	at := bucket()
	// Of 200 values in two contexts the 95th percentile is 950.
	for i, host := range []string{"node-1", "node-2"} {
		values := make([]float64, 100)
		for j := range values {
			values[j] = float64(5 * (2*j + i + 1))
		}
		body := datadogV1.DistributionPointsPayload{Series: []datadogV1.DistributionPointsSeries{{
			Metric: "app.latency", Host: datadog.PtrString(host), Tags: []string{"env:prod"}, Type: datadogV1.DISTRIBUTIONPOINTSTYPE_DISTRIBUTION.Ptr(),
			Points: [][]datadogV1.DistributionPointItem{
				{datadogV1.DistributionPointTimestampAsDistributionPointItem(datadog.PtrFloat64(float64(at))), datadogV1.DistributionPointDataAsDistributionPointItem(&values)},
			},
		}}}
		got, resp, err := v1.SubmitDistributionPoints(ctx, body, datadogV1.SubmitDistributionPointsOptionalParameters{ContentEncoding: datadogV1.DISTRIBUTIONPOINTSCONTENTENCODING_DEFLATE.Ptr()})
		if err != nil || resp.StatusCode != http.StatusAccepted || got.GetStatus() != "ok" {
			t.Fatalf("submit: %+v, %v", got, err)
		}
	}
	got, _, err := v1.QueryMetrics(ctx, at, at+59, "p95:app.latency{env:prod}.rollup(60),count:app.latency{*} by {host}.rollup(60),avg:app.latency{*}.rollup(60)")
	if err != nil || got.GetStatus() != "ok" || len(got.Series) != 4 {
		t.Fatalf("query: %+v, %v", got, err)
	}
	if p95 := got.Series[0]; p95.GetAggr() != "p95" || len(p95.Pointlist) != 1 || math.Abs(*p95.Pointlist[0][1]-950) > 950./128 {
		t.Errorf("p95: %+v", p95)
	}
	if n := got.Series[2]; n.GetScope() != "host:node-2" || *n.Pointlist[0][1] != 100 {
		t.Errorf("count of a host: %+v", n)
	}
	if avg := got.Series[3]; *avg.Pointlist[0][1] != 502.5 {
		t.Errorf("avg: %+v", avg)
	}
	meta, _, err := v1.GetMetricMetadata(ctx, "app.latency")
	if err != nil || meta.GetType() != "distribution" {
		t.Errorf("metadata: %+v, %v", meta, err)
	}
	active, _, err := v1.ListActiveMetrics(ctx, at, datadogV1.ListActiveMetricsOptionalParameters{TagFilter: datadog.PtrString("env:prod")})
	if err != nil || !slices.Equal(active.Metrics, []string{"app.latency"}) {
		t.Errorf("active: %+v, %v", active, err)
	}
}

func TestOfficialClientSeesErrors(t *testing.T) {
	client, keys := start(t)
	v1 := datadogV1.NewMetricsApi(client)
	now := time.Now().Unix()
	for _, tt := range []struct {
		name string
		ctx  context.Context
		q    string
		code int
		want string
	}{
		{"wrong API key", keys("wrong", appKey), "avg:m{*}", 403, "Forbidden"},
		{"wrong application key", keys(apiKey, "wrong"), "avg:m{*}", 403, "Forbidden"},
		{"syntax", keys(apiKey, appKey), "avg:m{*", 400, "(line 1, column 8)"},
	} {
		_, resp, err := v1.QueryMetrics(tt.ctx, now-60, now, tt.q)
		if err == nil || resp.StatusCode != tt.code {
			t.Errorf("%s: %v, %v", tt.name, resp, err)
			continue
		}
		if generic, ok := err.(datadog.GenericOpenAPIError); !ok || !strings.Contains(string(generic.Body()), tt.want) { //nolint:errorlint // the client returns it bare
			t.Errorf("%s: %v", tt.name, err)
		}
	}
	valid, resp, err := datadogV1.NewAuthenticationApi(client).Validate(keys("wrong", appKey))
	if err == nil || resp.StatusCode != http.StatusForbidden || valid.GetValid() {
		t.Errorf("validate with a wrong key: %+v, %v", valid, err)
	}
	empty, _, err := v1.QueryMetrics(keys(apiKey, appKey), now-60, now, "avg:unknown.metric{*}")
	if err != nil || empty.GetStatus() != "ok" || len(empty.Series) != 0 {
		t.Errorf("unknown metric: %+v, %v", empty, err)
	}
}

func TestOfficialClientReadsAndWritesEventsAndChecks(t *testing.T) {
	client, keys := start(t)
	ctx := keys(apiKey, appKey)
	events := datadogV1.NewEventsApi(client)
	now := time.Now().Unix()
	created, resp, err := events.CreateEvent(ctx, datadogV1.EventCreateRequest{
		Title: "deploy", Text: "v2", Host: datadog.PtrString("web-1"), Tags: []string{"env:prod"}, DateHappened: &now,
		AlertType: datadogV1.EVENTALERTTYPE_WARNING.Ptr(), Priority: *datadogV1.NewNullableEventPriority(datadogV1.EVENTPRIORITY_LOW.Ptr()),
		SourceTypeName: datadog.PtrString("jenkins"), AggregationKey: datadog.PtrString("k"),
	})
	event := created.GetEvent()
	if err != nil || resp.StatusCode != http.StatusAccepted || created.GetStatus() != "ok" || event.GetTitle() != "deploy" || event.GetId() == 0 || event.GetDateHappened() != now {
		t.Fatalf("create: %+v, %v", created, err)
	}
	got, _, err := events.GetEvent(ctx, event.GetId())
	if e := got.GetEvent(); err != nil || e.GetText() != "v2" || e.GetIdStr() != event.GetIdStr() || e.GetPriority() != datadogV1.EVENTPRIORITY_LOW || e.GetAlertType() != datadogV1.EVENTALERTTYPE_WARNING || len(e.UnparsedObject) > 0 {
		t.Errorf("get: %+v, %v", got, err)
	}
	if _, resp, err := events.GetEvent(ctx, 1); err == nil || resp.StatusCode != http.StatusNotFound {
		t.Errorf("get what is not there: %v", err)
	}
	for _, tt := range []struct {
		filter datadogV1.ListEventsOptionalParameters
		n      int
	}{
		{datadogV1.ListEventsOptionalParameters{}, 1},
		{*datadogV1.NewListEventsOptionalParameters().WithPriority(datadogV1.EVENTPRIORITY_LOW).WithSources("jenkins").WithTags("env:prod,host:web-1").WithUnaggregated(true), 1},
		{*datadogV1.NewListEventsOptionalParameters().WithPriority(datadogV1.EVENTPRIORITY_NORMAL), 0},
		{*datadogV1.NewListEventsOptionalParameters().WithTags("env:test"), 0},
		{*datadogV1.NewListEventsOptionalParameters().WithUnaggregated(true).WithPage(1), 0},
	} {
		if list, _, err := events.ListEvents(ctx, now-60, now+60, tt.filter); err != nil || len(list.GetEvents()) != tt.n {
			t.Errorf("list %+v: %+v, %v", tt.filter, list, err)
		}
	}
	if _, resp, err := events.ListEvents(keys(apiKey, "wrong"), now-60, now+60); err == nil || resp.StatusCode != http.StatusForbidden {
		t.Errorf("list with a wrong key: %v", err)
	}
	v2, resp, err := datadogV2.NewEventsApi(client).CreateEvent(ctx, datadogV2.EventCreateRequestPayload{Data: datadogV2.EventCreateRequest{
		Type: datadogV2.EVENTCREATEREQUESTTYPE_EVENT,
		Attributes: datadogV2.EventPayload{Title: "flag", Category: datadogV2.EVENTCATEGORY_CHANGE, Message: datadog.PtrString("on"), Attributes: datadogV2.EventPayloadAttributes{
			ChangeEventCustomAttributes: datadogV2.NewChangeEventCustomAttributes(*datadogV2.NewChangeEventCustomAttributesChangedResource("f", datadogV2.CHANGEEVENTCUSTOMATTRIBUTESCHANGEDRESOURCETYPE_FEATURE_FLAG)),
		}},
	}})
	if data := v2.GetData(); err != nil || resp.StatusCode != http.StatusAccepted || data.GetType() != "event" {
		t.Errorf("create v2: %+v, %v", v2, err)
	}
	checks := []datadogV1.ServiceCheck{{Check: "app.ok", HostName: "web-1", Status: datadogV1.SERVICECHECKSTATUS_OK, Tags: []string{"env:prod"}, Timestamp: &now}}
	if got, resp, err := datadogV1.NewServiceChecksApi(client).SubmitServiceCheck(ctx, checks); err != nil || resp.StatusCode != http.StatusAccepted || got.GetStatus() != "ok" {
		t.Errorf("check: %+v, %v", got, err)
	}
}
