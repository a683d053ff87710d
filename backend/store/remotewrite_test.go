package store_test

import (
	"fmt"
	"math"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/exp/api/remote"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/prompb"
	writev2 "github.com/prometheus/prometheus/prompb/io/prometheus/write/v2"

	"kelpie.dev/kelpie/backend/auth"
	"kelpie.dev/kelpie/backend/intake"
	"kelpie.dev/kelpie/backend/record"
	"kelpie.dev/kelpie/backend/store"
	"kelpie.dev/kelpie/metric"
	"kelpie.dev/kelpie/query"
)

// receiver is an intake over a store, on a real listener.
type receiver struct {
	store *store.Store
	book  *record.Book
	url   string
}

func newReceiver(t *testing.T) *receiver {
	t.Helper()
	st, err := store.Open(store.Options{Dir: t.TempDir(), MinFree: -1})
	if err != nil {
		t.Fatal(err)
	}
	book, err := record.Open(record.Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	keys, err := auth.New("API", auth.Source{Keys: []string{"key"}})
	if err != nil {
		t.Fatal(err)
	}
	in, err := intake.New(intake.Options{Store: st, Records: book, RawKeys: book, Auth: &auth.Checker{API: keys, App: keys}})
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	in.Register(mux)
	srv := httptest.NewServer(mux)
	t.Cleanup(func() {
		srv.Close()
		_ = book.Close()
		_ = st.Close()
	})
	return &receiver{store: st, book: book, url: srv.URL}
}

// keyed adds the API key to requests.
type keyed string

// RoundTrip implements http.RoundTripper.
func (k keyed) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Set("DD-API-KEY", string(k))
	return http.DefaultTransport.RoundTrip(r)
}

// client is Prometheus' own sender.
func (r *receiver) client(t *testing.T, path, key string) *remote.API {
	t.Helper()
	c, err := remote.NewAPI(r.url, remote.WithAPIPath(path), remote.WithAPIHTTPClient(&http.Client{Transport: keyed(key)}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(http.DefaultClient.CloseIdleConnections)
	return c
}

// sample is a scrape of everything that Prometheus knows, n of it.
func sample(at time.Time, n int64) ([]prompb.TimeSeries, writev2.Request) {
	ms := at.UnixMilli()
	h := &histogram.Histogram{Schema: 3, Count: uint64(10 * n), Sum: float64(20 * n), ZeroThreshold: 1e-9,
		PositiveSpans: []histogram.Span{{Offset: 9, Length: 1}}, PositiveBuckets: []int64{10 * n}} // (2, 2.18]
	all := []struct {
		labels labels.Labels
		value  float64
		native *histogram.Histogram
	}{
		{labels: labels.FromStrings("__name__", "http_requests_total", "method", "GET", "path", "/A b", "instance", "10.0.0.1:9100", "host", "node-1", "code", "200"), value: float64(100 * n)},
		{labels: labels.FromStrings("__name__", "job:rate:5m", "Job", "x"), value: 1},
		{labels: labels.FromStrings("__name__", "latency_bucket", "le", "+Inf"), value: 5},
		{labels: labels.FromStrings("__name__", "温度", "device", "sda"), value: 3},
		{labels: labels.FromStrings("__name__", "gone"), value: math.Float64frombits(value.StaleNaN)},
		{labels: labels.FromStrings("__name__", "latency", "route", "/Cart"), native: h},
	}
	var v1 []prompb.TimeSeries
	symbols := writev2.NewSymbolTable()
	var v2 writev2.Request
	for _, s := range all {
		one := prompb.TimeSeries{Labels: prompb.FromLabels(s.labels, nil)}
		two := writev2.TimeSeries{LabelsRefs: symbols.SymbolizeLabels(s.labels, nil), Metadata: writev2.Metadata{UnitRef: symbols.Symbolize("seconds")}}
		if s.native != nil {
			one.Histograms = append(one.Histograms, prompb.FromIntHistogram(ms, s.native))
			two.Histograms = append(two.Histograms, writev2.FromIntHistogram(0, ms, s.native))
		} else {
			one.Samples = append(one.Samples, prompb.Sample{Value: s.value, Timestamp: ms})
			two.Samples = append(two.Samples, writev2.Sample{Value: s.value, Timestamp: ms})
		}
		v1, v2.Timeseries = append(v1, one), append(v2.Timeseries, two)
	}
	v2.Symbols = symbols.Symbols()
	return v1, v2
}

func TestPrometheusRemoteWrite(t *testing.T) {
	for _, version := range []string{"v1", "v2"} {
		t.Run(version, func(t *testing.T) {
			r := newReceiver(t)
			path := map[string]string{"v1": "/api/v1/write", "v2": "/prometheus/api/v1/write"}[version]
			client := r.client(t, path, "key")
			now := time.Now().Truncate(time.Second)
			for n := range int64(2) {
				v1, v2 := sample(now.Add(time.Duration(n-1)*15*time.Second), n+1)
				var stats remote.WriteResponseStats
				var err error
				if version == "v1" {
					stats, err = client.Write(t.Context(), remote.WriteV1MessageType, &prompb.WriteRequest{Timeseries: v1})
				} else {
					stats, err = client.Write(t.Context(), remote.WriteV2MessageType, &v2)
				}
				if err != nil || version == "v2" && (stats.Samples != 4 || stats.Histograms != int(n)) {
					t.Fatalf("written %+v, %v", stats, err)
				}
			}
			unit := map[string]string{"v2": "second"}[version]
			from, to := now.Unix()-60, now.Unix()
			counter := metric.Series{Name: "http_requests_total", Host: "node-1", Type: metric.Gauge, Unit: unit, Tags: metric.NewTags("method:GET", "path:/A b", "instance:10.0.0.1:9100", "code:200"),
				Points: []metric.Point{{Time: to - 15, Value: 100}, {Time: to, Value: 200}}}
			// As they were sent, for PromQL.
			got, err := r.store.Select(t.Context(), query.Selector{Metric: "http_requests_total", Scope: query.All{}}, from, to)
			if d := cmp.Diff([]metric.Series{counter}, got); err != nil || d != "" {
				t.Errorf("%v %s", err, d)
			}
			// As Datadog has them, for its language.
			joined := r.book.Join(r.store, r.store)
			counter.Tags = metric.NewTags("method:get", "path:/a_b", "instance:10.0.0.1:9100", "code:200")
			got, err = joined.Select(t.Context(), query.Selector{Metric: "http_requests_total", Scope: &query.And{Terms: []query.Scope{&query.Tag{Key: "method", Value: "get"}, &query.Tag{Key: "host", Value: "node-1"}}}}, from, to)
			if d := cmp.Diff([]metric.Series{counter}, got); err != nil || d != "" {
				t.Errorf("%v %s", err, d)
			}
			if names := r.store.Search(""); !slices.Equal(names, []string{"http_requests_total", "job:rate:5m", "latency", "latency_bucket", "温度"}) {
				t.Errorf("names %q", names)
			}
			bucket, err := r.store.Select(t.Context(), query.Selector{Metric: "latency_bucket", Scope: query.All{}}, from, to)
			if err != nil || len(bucket) != 1 || bucket[0].Tags.String() != "le:+Inf" {
				t.Errorf("%v %v", bucket, err)
			}
			disk, err := r.store.Select(t.Context(), query.Selector{Metric: "温度", Scope: query.All{}}, from, to)
			if err != nil || len(disk) != 1 || disk[0].Device != "sda" || len(disk[0].Tags) != 0 {
				t.Errorf("%v %v", disk, err)
			}
			found := 0
			for d, err := range joined.Distributions(t.Context(), query.Selector{Metric: "latency", Scope: &query.Tag{Key: "route", Value: "/cart"}}, from, to) {
				if err != nil {
					t.Fatal(err)
				}
				found++
				s := d.Points[0].Sketch
				if p50 := s.Quantile(.5); len(d.Points) != 1 || s.Count != 10 || s.Sum != 20 || p50 < 2 || p50 > 2.19 {
					t.Errorf("%+v", d)
				}
			}
			if found != 1 {
				t.Errorf("%d distributions", found)
			}
		})
	}
}

func TestPrometheusSeesRefusals(t *testing.T) {
	r := newReceiver(t)
	at := time.Now().UnixMilli()
	good := prompb.TimeSeries{Labels: []prompb.Label{{Name: "__name__", Value: "up"}}, Samples: []prompb.Sample{{Value: 1, Timestamp: at}}}
	bad := prompb.TimeSeries{Labels: []prompb.Label{{Name: "job", Value: "x"}}, Samples: []prompb.Sample{{Value: 1, Timestamp: at}}}
	send := func(key string, series ...prompb.TimeSeries) error {
		_, err := r.client(t, "/api/v1/write", key).Write(t.Context(), remote.WriteV1MessageType, &prompb.WriteRequest{Timeseries: series})
		return err
	}
	if err := send("wrong", good); err == nil || !strings.Contains(err.Error(), "Forbidden") {
		t.Errorf("with a wrong key: %v", err)
	}
	if err := send("key", bad, good); err != nil {
		t.Errorf("one bad of two: %v", err)
	}
	if got := fmt.Sprint(r.store.Search("")); got != "[up]" {
		t.Errorf("stored %s", got)
	}
}
