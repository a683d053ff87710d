package clienttest

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/DataDog/datadog-api-client-go/v2/api/datadog"
	"github.com/DataDog/datadog-api-client-go/v2/api/datadogV1"
	"github.com/DataDog/datadog-api-client-go/v2/api/datadogV2"
	"github.com/google/go-cmp/cmp"
)

// check reports a call of the client that failed, or that answered with what the
// client does not know.
func check(t *testing.T, call string, err error, unparsed map[string]any) {
	t.Helper()
	if err != nil {
		var bad datadog.GenericOpenAPIError
		if errors.As(err, &bad) {
			t.Fatalf("%s: %v: %s", call, err, bad.Body())
		}
		t.Fatalf("%s: %v", call, err)
	}
	if unparsed != nil {
		t.Errorf("%s: the client met what it does not know: %v", call, unparsed)
	}
}

// refused reports a call that did not fail with the code.
func refused(t *testing.T, call string, resp *http.Response, err error, code int) {
	t.Helper()
	if err == nil || resp == nil || resp.StatusCode != code {
		t.Errorf("%s: %v, want HTTP %d", call, err, code)
	}
}

// submitFleet submits a gauge of two hosts at three buckets, and a distribution.
func submitFleet(ctx context.Context, t *testing.T, client *datadog.APIClient, at int64) {
	t.Helper()
	v1, v2 := datadogV1.NewMetricsApi(client), datadogV2.NewMetricsApi(client)
	body := datadogV2.MetricPayload{}
	for i, host := range []string{"node-1", "node-2"} {
		s := datadogV2.MetricSeries{
			Metric: "queue.depth", Type: datadogV2.METRICINTAKETYPE_GAUGE.Ptr(), Unit: datadog.PtrString("byte"),
			Resources: []datadogV2.MetricResource{{Type: datadog.PtrString("host"), Name: datadog.PtrString(host)}}, Tags: []string{"env:prod", "queue:" + host},
		}
		for j := range int64(3) {
			s.Points = append(s.Points, datadogV2.MetricPoint{Timestamp: datadog.PtrInt64(at + 10*j), Value: datadog.PtrFloat64(float64((1 + 9*int64(i)) * (j + 1)))})
		}
		body.Series = append(body.Series, s)
	}
	_, _, err := v2.SubmitMetrics(ctx, body)
	check(t, "SubmitMetrics", err, nil)
	values := []float64{1, 2, 3, 4}
	_, _, err = v1.SubmitDistributionPoints(ctx, datadogV1.DistributionPointsPayload{Series: []datadogV1.DistributionPointsSeries{{
		Metric: "app.latency", Host: datadog.PtrString("node-1"), Tags: []string{"env:prod"}, Type: datadogV1.DISTRIBUTIONPOINTSTYPE_DISTRIBUTION.Ptr(),
		Points: [][]datadogV1.DistributionPointItem{{
			datadogV1.DistributionPointTimestampAsDistributionPointItem(datadog.PtrFloat64(float64(at))), datadogV1.DistributionPointDataAsDistributionPointItem(&values),
		}},
	}}})
	check(t, "SubmitDistributionPoints", err, nil)
}

func TestOfficialClientAsksFormulas(t *testing.T) {
	client, keys := start(t)
	ctx := keys(apiKey, appKey)
	at := bucket()
	submitFleet(ctx, t, client, at)
	api := datadogV2.NewMetricsApi(client)

	query := func(name, text string) datadogV2.TimeseriesQuery {
		return datadogV2.MetricsTimeseriesQueryAsTimeseriesQuery(&datadogV2.MetricsTimeseriesQuery{DataSource: datadogV2.METRICSDATASOURCE_METRICS, Name: &name, Query: text})
	}
	series, _, err := api.QueryTimeseriesData(ctx, datadogV2.TimeseriesFormulaQueryRequest{Data: datadogV2.TimeseriesFormulaRequest{
		Type: datadogV2.TIMESERIESFORMULAREQUESTTYPE_TIMESERIES_REQUEST,
		Attributes: datadogV2.TimeseriesFormulaRequestAttributes{
			From: at * 1000, To: (at + 30) * 1000, Interval: datadog.PtrInt64(10_000),
			Formulas: []datadogV2.QueryFormula{{Formula: "a + b", Limit: &datadogV2.FormulaLimit{Count: datadog.PtrInt32(1), Order: datadogV2.QUERYSORTORDER_DESC.Ptr()}}},
			Queries:  []datadogV2.TimeseriesQuery{query("a", "avg:queue.depth{*} by {host}"), query("b", "sum:queue.depth{env:prod} by {host}")},
		},
	}})
	check(t, "QueryTimeseriesData", err, series.UnparsedObject)
	got := series.Data.Attributes
	if len(got.Series) != 1 || !slices.Equal(got.Series[0].GroupTags, []string{"host:node-2"}) || got.Series[0].GetQueryIndex() != 0 || got.Series[0].Unit[0].GetName() != "byte" ||
		!slices.Equal(got.Times, []int64{at * 1000, (at + 10) * 1000, (at + 20) * 1000}) || *got.Values[0][2] != 60 {
		t.Errorf("timeseries: %+v", got)
	}

	scalar := func(name, text string, how datadogV2.MetricsAggregator) datadogV2.ScalarQuery {
		return datadogV2.MetricsScalarQueryAsScalarQuery(&datadogV2.MetricsScalarQuery{DataSource: datadogV2.METRICSDATASOURCE_METRICS, Name: &name, Query: text, Aggregator: how})
	}
	table, _, err := api.QueryScalarData(ctx, datadogV2.ScalarFormulaQueryRequest{Data: datadogV2.ScalarFormulaRequest{
		Type: datadogV2.SCALARFORMULAREQUESTTYPE_SCALAR_REQUEST,
		Attributes: datadogV2.ScalarFormulaRequestAttributes{
			From: at * 1000, To: (at + 30) * 1000,
			Formulas: []datadogV2.QueryFormula{{Formula: "a * 2"}, {Formula: "b"}},
			Queries: []datadogV2.ScalarQuery{
				scalar("a", "avg:queue.depth{*} by {host}.rollup(10)", datadogV2.METRICSAGGREGATOR_MAX),
				scalar("b", "avg:queue.depth{*} by {host}.rollup(10)", datadogV2.METRICSAGGREGATOR_LAST),
			},
		},
	}})
	check(t, "QueryScalarData", err, table.UnparsedObject)
	columns := table.Data.Attributes.Columns
	if len(columns) != 3 || columns[0].GroupScalarColumn == nil || columns[1].DataScalarColumn == nil {
		t.Fatalf("scalar: %+v", columns)
	}
	if d := cmp.Diff([][]string{{"node-1"}, {"node-2"}}, columns[0].GroupScalarColumn.Values); d != "" {
		t.Error(d)
	}
	if a, b := columns[1].DataScalarColumn, columns[2].DataScalarColumn; a.GetName() != "a * 2" || *a.Values[0] != 6 || *a.Values[1] != 60 || *b.Values[1] != 30 {
		t.Errorf("scalar: %+v %+v", a, b)
	}

	_, resp, err := api.QueryTimeseriesData(ctx, datadogV2.TimeseriesFormulaQueryRequest{Data: datadogV2.TimeseriesFormulaRequest{
		Type:       datadogV2.TIMESERIESFORMULAREQUESTTYPE_TIMESERIES_REQUEST,
		Attributes: datadogV2.TimeseriesFormulaRequestAttributes{From: 2, To: 1, Queries: []datadogV2.TimeseriesQuery{query("a", "avg:m{*}")}},
	}})
	refused(t, "QueryTimeseriesData, backwards", resp, err, http.StatusBadRequest)
	if resp.Header.Get("X-RateLimit-Name") != "query" || resp.Header.Get("X-RateLimit-Reset") == "" {
		t.Errorf("headers are %v", resp.Header)
	}
}

func TestOfficialClientDescribesMetrics(t *testing.T) {
	client, keys := start(t)
	ctx := keys(apiKey, appKey)
	at := bucket()
	submitFleet(ctx, t, client, at)
	v1, v2 := datadogV1.NewMetricsApi(client), datadogV2.NewMetricsApi(client)

	meta, _, err := v1.UpdateMetricMetadata(ctx, "queue.depth", datadogV1.MetricMetadata{Description: datadog.PtrString("What waits"), PerUnit: datadog.PtrString("second")})
	check(t, "UpdateMetricMetadata", err, meta.UnparsedObject)
	submitFleet(ctx, t, client, at) // which must not undo it
	meta, _, err = v1.GetMetricMetadata(ctx, "queue.depth")
	check(t, "GetMetricMetadata", err, meta.UnparsedObject)
	if meta.GetDescription() != "What waits" || meta.GetUnit() != "byte" || meta.GetPerUnit() != "second" || meta.GetType() != "gauge" {
		t.Errorf("metadata: %+v", meta)
	}
	_, resp, err := v1.UpdateMetricMetadata(ctx, "none", meta)
	refused(t, "UpdateMetricMetadata of an unknown metric", resp, err, http.StatusNotFound)

	listed, _, err := v2.ListTagConfigurations(ctx)
	check(t, "ListTagConfigurations", err, listed.UnparsedObject)
	if len(listed.Data) != 2 || listed.Data[0].Metric.GetId() != "app.latency" || listed.Meta != nil {
		t.Errorf("metrics: %+v", listed)
	}
	listed, _, err = v2.ListTagConfigurations(ctx, *datadogV2.NewListTagConfigurationsOptionalParameters().
		WithFilterTags("env:prod AND host:node-2").WithFilterConfigured(false).WithFilterMetricType(datadogV2.METRICTAGCONFIGURATIONMETRICTYPECATEGORY_NON_DISTRIBUTION).WithWindowSeconds(3600))
	check(t, "ListTagConfigurations, filtered", err, listed.UnparsedObject)
	if len(listed.Data) != 1 || listed.Data[0].Metric.GetId() != "queue.depth" {
		t.Errorf("filtered metrics: %+v", listed)
	}
	var names []string
	pages, stop := v2.ListTagConfigurationsWithPagination(ctx, *datadogV2.NewListTagConfigurationsOptionalParameters().WithPageSize(1))
	for page := range pages {
		check(t, "ListTagConfigurationsWithPagination", page.Error, nil)
		names = append(names, page.Item.Metric.GetId())
	}
	stop()
	if d := cmp.Diff([]string{"app.latency", "queue.depth"}, names); d != "" {
		t.Error(d)
	}

	tags, _, err := v2.ListTagsByMetricName(ctx, "queue.depth")
	check(t, "ListTagsByMetricName", err, tags.UnparsedObject)
	if !slices.Contains(tags.Data.Attributes.Tags, "queue:node-2") {
		t.Errorf("tags: %+v", tags)
	}
	volumes, _, err := v2.ListVolumesByMetricName(ctx, "queue.depth")
	check(t, "ListVolumesByMetricName", err, volumes.UnparsedObject)
	if v := volumes.Data.MetricIngestedIndexedVolume; v == nil || v.Attributes.GetIngestedVolume() != 2 {
		t.Errorf("volumes: %+v", volumes)
	}
	estimate, _, err := v2.EstimateMetricsOutputSeries(ctx, "queue.depth", *datadogV2.NewEstimateMetricsOutputSeriesOptionalParameters().WithFilterGroups("env"))
	check(t, "EstimateMetricsOutputSeries", err, estimate.UnparsedObject)
	if a := estimate.Data.Attributes; a.GetEstimatedOutputSeries() != 1 || a.GetEstimateType() != datadogV2.METRICESTIMATETYPE_COUNT_OR_GAUGE || time.Since(a.GetEstimatedAt()) > time.Minute {
		t.Errorf("estimate: %+v", a)
	}
	assets, _, err := v2.ListMetricAssets(ctx, "queue.depth")
	check(t, "ListMetricAssets", err, assets.UnparsedObject)
	if assets.Data.GetId() != "queue.depth" {
		t.Errorf("assets: %+v", assets)
	}
	if _, _, err := v1.QueryMetrics(ctx, at, at+30, "max:queue.depth{env:prod} by {host}"); err != nil {
		t.Fatal(err)
	}
	used, _, err := v2.ListActiveMetricConfigurations(ctx, "queue.depth")
	check(t, "ListActiveMetricConfigurations", err, used.UnparsedObject)
	if a := used.Data.Attributes; !slices.Equal(a.ActiveTags, []string{"env", "host"}) || len(a.ActiveAggregations) != 1 || a.ActiveAggregations[0].Space != datadogV2.METRICCUSTOMSPACEAGGREGATION_MAX {
		t.Errorf("active configurations: %+v", a)
	}
}

func TestOfficialClientConfiguresTags(t *testing.T) {
	client, keys := start(t)
	ctx := keys(apiKey, appKey)
	submitFleet(ctx, t, client, bucket())
	api := datadogV2.NewMetricsApi(client)
	const name = "app.latency"

	_, resp, err := api.ListTagConfigurationByName(ctx, name)
	refused(t, "ListTagConfigurationByName", resp, err, http.StatusNotFound)
	create := datadogV2.MetricTagConfigurationCreateRequest{Data: datadogV2.MetricTagConfigurationCreateData{
		Id: name, Type: datadogV2.METRICTAGCONFIGURATIONTYPE_MANAGE_TAGS, Attributes: &datadogV2.MetricTagConfigurationCreateAttributes{
			Tags: []string{"env"}, MetricType: datadogV2.METRICTAGCONFIGURATIONMETRICTYPES_DISTRIBUTION, IncludePercentiles: datadog.PtrBool(true),
		},
	}}
	made, resp, err := api.CreateTagConfiguration(ctx, name, create)
	check(t, "CreateTagConfiguration", err, made.UnparsedObject)
	if resp.StatusCode != http.StatusCreated || !made.Data.Attributes.GetIncludePercentiles() {
		t.Errorf("created: %d %+v", resp.StatusCode, made)
	}
	_, resp, err = api.CreateTagConfiguration(ctx, name, create)
	refused(t, "CreateTagConfiguration again", resp, err, http.StatusConflict)
	changed, _, err := api.UpdateTagConfiguration(ctx, name, datadogV2.MetricTagConfigurationUpdateRequest{Data: datadogV2.MetricTagConfigurationUpdateData{
		Id: name, Type: datadogV2.METRICTAGCONFIGURATIONTYPE_MANAGE_TAGS, Attributes: &datadogV2.MetricTagConfigurationUpdateAttributes{Tags: []string{"env", "host"}},
	}})
	check(t, "UpdateTagConfiguration", err, changed.UnparsedObject)
	read, _, err := api.ListTagConfigurationByName(ctx, name)
	check(t, "ListTagConfigurationByName", err, read.UnparsedObject)
	if a := read.Data.Attributes; !slices.Equal(a.Tags, []string{"env", "host"}) || !a.GetIncludePercentiles() || a.CreatedAt == nil {
		t.Errorf("configuration: %+v", a)
	}
	listed, _, err := api.ListTagConfigurations(ctx, *datadogV2.NewListTagConfigurationsOptionalParameters().WithFilterConfigured(true))
	check(t, "ListTagConfigurations", err, listed.UnparsedObject)
	if len(listed.Data) != 1 || listed.Data[0].MetricTagConfiguration.GetId() != name {
		t.Errorf("configured metrics: %+v", listed)
	}
	if _, err := api.DeleteTagConfiguration(ctx, name); err != nil {
		t.Errorf("DeleteTagConfiguration: %v", err)
	}
	resp, err = api.DeleteTagConfiguration(ctx, name)
	refused(t, "DeleteTagConfiguration again", resp, err, http.StatusNotFound)
}

// TestOfficialClientSeesWhatIsNotThere: features of Datadog's billing have no
// counterpart here, and are answered by 404, not by a pretence.
func TestOfficialClientSeesWhatIsNotThere(t *testing.T) {
	client, keys := start(t)
	ctx := keys(apiKey, appKey)
	submitFleet(ctx, t, client, bucket())
	api := datadogV2.NewMetricsApi(client)
	for _, operation := range []string{"CreateTagIndexingRule", "ListTagIndexingRules", "GetHistoricalMetricsConfiguration"} {
		if client.GetConfig().IsUnstableOperation("v2." + operation) {
			client.GetConfig().SetUnstableOperationEnabled("v2."+operation, true)
		}
	}
	for call, ask := range map[string]func() (*http.Response, error){
		"ListTagIndexingRules": func() (*http.Response, error) { _, r, err := api.ListTagIndexingRules(ctx); return r, err },
		"GetHistoricalMetricsConfiguration": func() (*http.Response, error) {
			_, r, err := api.GetHistoricalMetricsConfiguration(ctx, "queue.depth")
			return r, err
		},
		"GetMetricTagCardinalityDetails": func() (*http.Response, error) {
			_, r, err := api.GetMetricTagCardinalityDetails(ctx, "queue.depth")
			return r, err
		},
		"CreateBulkTagsMetricsConfiguration": func() (*http.Response, error) {
			//nolint:staticcheck // deprecated, and still there
			_, r, err := api.CreateBulkTagsMetricsConfiguration(ctx, datadogV2.MetricBulkTagConfigCreateRequest{Data: datadogV2.MetricBulkTagConfigCreate{Id: "queue", Type: datadogV2.METRICBULKCONFIGURETAGSTYPE_BULK_MANAGE_TAGS}})
			return r, err
		},
	} {
		resp, err := ask()
		refused(t, call, resp, err, http.StatusNotFound)
	}
}

func TestOfficialClientListsHosts(t *testing.T) {
	client, keys := start(t)
	ctx := keys(apiKey, appKey)
	at := bucket()
	submitFleet(ctx, t, client, at)
	hosts, tags := datadogV1.NewHostsApi(client), datadogV1.NewTagsApi(client)

	list, _, err := hosts.ListHosts(ctx, *datadogV1.NewListHostsOptionalParameters().WithFilter("node").WithCount(1).WithSortDir("desc"))
	check(t, "ListHosts", err, list.UnparsedObject)
	if len(list.HostList) != 1 || list.GetTotalMatching() != 2 || list.GetTotalReturned() != 1 {
		t.Fatalf("hosts: %+v", list)
	}
	if h := list.HostList[0]; h.GetName() != "node-2" || !h.GetUp() || h.GetLastReportedTime() < at || !slices.Contains(h.TagsBySource["Datadog"], "env:prod") {
		t.Errorf("host: %+v", h)
	}
	totals, _, err := hosts.GetHostTotals(ctx)
	check(t, "GetHostTotals", err, totals.UnparsedObject)
	if totals.GetTotalActive() != 2 || totals.GetTotalUp() != 2 {
		t.Errorf("totals: %+v", totals)
	}
	all, _, err := tags.ListHostTags(ctx)
	check(t, "ListHostTags", err, all.UnparsedObject)
	if !slices.Equal(all.Tags["env:prod"], []string{"node-1", "node-2"}) {
		t.Errorf("tags: %+v", all)
	}
	one, _, err := tags.GetHostTags(ctx, "node-2")
	check(t, "GetHostTags", err, one.UnparsedObject)
	if one.GetHost() != "node-2" || !slices.Equal(one.Tags, []string{"env:prod", "queue:node-2"}) {
		t.Errorf("tags of a host: %+v", one)
	}
	_, resp, err := tags.GetHostTags(ctx, "none")
	refused(t, "GetHostTags of an unknown host", resp, err, http.StatusNotFound)
}
