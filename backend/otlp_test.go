package backend

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"math"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlpmetric/otlpmetricgrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlpmetric/otlpmetrichttp"
	otelmetric "go.opentelemetry.io/otel/metric"
	sdk "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	"go.opentelemetry.io/otel/sdk/resource"
)

// TestOpenTelemetrySDK sends with the official Go SDK and reads with Datadog's
// query API: over both transports, with both temporalities.
func TestOpenTelemetrySDK(t *testing.T) {
	b := start(t, t.TempDir(), nil)
	host := strings.TrimPrefix(b.url, "http://")
	headers := map[string]string{"dd-api-key": "ak"}
	temporalities := map[string]sdk.TemporalitySelector{
		"delta":      func(sdk.InstrumentKind) metricdata.Temporality { return metricdata.DeltaTemporality },
		"cumulative": func(sdk.InstrumentKind) metricdata.Temporality { return metricdata.CumulativeTemporality },
	}
	for name, temporality := range temporalities {
		overHTTP, err := otlpmetrichttp.New(t.Context(), otlpmetrichttp.WithEndpoint(host), otlpmetrichttp.WithInsecure(), otlpmetrichttp.WithHeaders(headers),
			otlpmetrichttp.WithCompression(otlpmetrichttp.GzipCompression), otlpmetrichttp.WithTemporalitySelector(temporality))
		if err != nil {
			t.Fatal(err)
		}
		overGRPC, err := otlpmetricgrpc.New(t.Context(), otlpmetricgrpc.WithEndpoint(host), otlpmetricgrpc.WithInsecure(), otlpmetricgrpc.WithHeaders(headers),
			otlpmetricgrpc.WithCompressor("gzip"), otlpmetricgrpc.WithTemporalitySelector(temporality))
		if err != nil {
			t.Fatal(err)
		}
		for via, exporter := range map[string]sdk.Exporter{"http": overHTTP, "grpc": overGRPC} {
			t.Run(name+" over "+via, func(t *testing.T) { sendAndRead(t, b, name+"-"+via, exporter) })
		}
	}
	if err := b.end(t); err != nil {
		t.Error(err)
	}
}

func sendAndRead(t *testing.T, b *running, service string, exporter sdk.Exporter) {
	reader := sdk.NewPeriodicReader(exporter, sdk.WithInterval(time.Hour))
	provider := sdk.NewMeterProvider(sdk.WithReader(reader), sdk.WithResource(resource.NewSchemaless(
		attribute.String("service.name", service), attribute.String("host.name", "node-1"), attribute.String("k8s.namespace.name", "shop"))),
		sdk.WithView(sdk.NewView(sdk.Instrument{Name: "exp.latency"}, sdk.Stream{Aggregation: sdk.AggregationBase2ExponentialHistogram{MaxSize: 160, MaxScale: 20}})))
	defer func() {
		if err := provider.Shutdown(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
	}()
	meter := provider.Meter("test")
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	requests, err := meter.Int64Counter("http.requests", otelmetric.WithUnit("{request}"))
	must(err)
	inFlight, err := meter.Int64UpDownCounter("in.flight")
	must(err)
	temperature, err := meter.Float64Gauge("temperature")
	must(err)
	latency, err := meter.Float64Histogram("latency", otelmetric.WithUnit("ms"), otelmetric.WithExplicitBucketBoundaries(1, 10, 100, 1000))
	must(err)
	exp, err := meter.Float64Histogram("exp.latency")
	must(err)
	route := otelmetric.WithAttributes(attribute.String("http.route", "/Cart"))
	ctx := t.Context()
	if left := time.Until(time.Now().Truncate(time.Hour).Add(time.Hour)); left < 5*time.Second {
		<-time.After(left) // the queries' buckets must not part what is sent
	}
	began := time.Now().Unix()
	// Seconds apart, for of two points in one second the last stands.
	for round := range 2 {
		requests.Add(ctx, int64(5+round), route)
		inFlight.Add(ctx, 3, route)
		temperature.Record(ctx, 20.5+float64(round), route)
		for i := range 100 {
			latency.Record(ctx, float64(i), route)
			exp.Record(ctx, float64(i+1), route)
		}
		must(provider.ForceFlush(ctx))
		if round == 0 {
			next := time.Now().Truncate(time.Second).Add(time.Second)
			<-time.After(time.Until(next) + 10*time.Millisecond) // the SDK's timestamps are the wall clock's
		}
	}
	maxLatency := [2]float64{90, 100} // of a cumulative histogram the bucket alone is known
	inFlightNow := [2]float64{6, 6}
	if strings.HasPrefix(service, "delta") {
		maxLatency = [2]float64{99, 99}
		inFlightNow = [2]float64{3, 3} // of a sum that may fall, the differences are counts, as Datadog has them
	}
	for q, want := range map[string][2]float64{
		"sum:http.requests{service:%s,host:node-1,kube_namespace:shop,http.route:/cart}.as_count().rollup(sum,3600)": {11, 11},
		"avg:temperature{service:%s,http.route:/cart}.rollup(max,3600)":                                              {21.5, 21.5},
		"count:latency{service:%s,http.route:/cart}.as_count().rollup(3600)":                                         {200, 200},
		"p50:exp.latency{service:%s}.rollup(3600)":                                                                   {49, 52},
		"max:latency{service:%s}.rollup(3600)":                                                                       maxLatency,
		"avg:in.flight{service:%s}.rollup(max,3600)":                                                                 inFlightNow,
	} {
		q = fmt.Sprintf(q, service)
		if v := askOne(t, b, q, began-7200, time.Now().Unix()+1); !(v >= want[0] && v <= want[1]) {
			t.Errorf("%s is %v, want %v", q, v, want)
		}
	}
}

// askOne returns the sum of the points of a query that has one series.
func askOne(t *testing.T, b *running, q string, from, to int64) float64 {
	t.Helper()
	code, body := b.do(t, "GET", fmt.Sprintf("/api/v1/query?from=%d&to=%d&query=%s", from, to, url.QueryEscape(q)), "")
	var got struct {
		Series []struct {
			Pointlist [][2]*float64 `json:"pointlist"`
		} `json:"series"`
	}
	if err := json.Unmarshal([]byte(body), &got); err != nil || code != http.StatusOK || len(got.Series) != 1 {
		t.Errorf("%s: %d %s", q, code, body)
		return math.NaN()
	}
	total := 0.0
	for _, p := range got.Series[0].Pointlist {
		if p[1] != nil {
			total += *p[1]
		}
	}
	return total
}

func TestOpenTelemetryExportersSeeRefusals(t *testing.T) {
	b := start(t, t.TempDir(), nil)
	host := strings.TrimPrefix(b.url, "http://")
	overHTTP, err := otlpmetrichttp.New(t.Context(), otlpmetrichttp.WithEndpoint(host), otlpmetrichttp.WithInsecure())
	if err != nil {
		t.Fatal(err)
	}
	overGRPC, err := otlpmetricgrpc.New(t.Context(), otlpmetricgrpc.WithEndpoint(host), otlpmetricgrpc.WithInsecure(), otlpmetricgrpc.WithHeaders(map[string]string{"dd-api-key": "wrong"}))
	if err != nil {
		t.Fatal(err)
	}
	for want, exporter := range map[string]sdk.Exporter{"API key required": overHTTP, "Unauthenticated desc = Forbidden": overGRPC} {
		err := exporter.Export(t.Context(), &metricdata.ResourceMetrics{Resource: resource.Empty()})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
		if err := exporter.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
	}
	if err := b.end(t); err != nil {
		t.Error(err)
	}
}

func TestOTLPIsServedOnItsOwnPort(t *testing.T) {
	free := listen(t)
	second := listen(t)
	main, otlp := free.Addr().String(), second.Addr().String()
	for _, ln := range []interface{ Close() error }{free, second} {
		if err := ln.Close(); err != nil {
			t.Fatal(err)
		}
	}
	var log bytes.Buffer
	b := &backend{cfg: Config{Listen: main, OTLPListen: otlp, MaxConnections: 1, ShutdownTimeout: time.Second}, log: slog.New(slog.NewTextHandler(&log, nil))}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- b.serve(ctx, b.newServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })))
	}()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	for _, addr := range []string{main, otlp, main, otlp} {
		for deadline := time.Now().Add(10 * time.Second); ; {
			resp, err := client.Get("http://" + addr + "/")
			if err == nil {
				_ = resp.Body.Close()
				break
			}
			if time.Now().After(deadline) {
				t.Fatal(err)
			}
		}
	}
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
	// By default it is on the main port's own address, and no reason to fail.
	taken, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:"+otlpPort)
	if err == nil {
		defer func() { _ = taken.Close() }()
	}
	b.cfg.OTLPListen = ""
	lns, err := b.listeners(t.Context())
	if err != nil || len(lns) != 1 || !strings.Contains(log.String(), "127.0.0.1:"+otlpPort) {
		t.Fatalf("%d listeners, %v\n%s", len(lns), err, log.String())
	}
	_ = lns[0].Close()
	b.cfg.OTLPListen = otlpOff
	lns, err = b.listeners(t.Context())
	if err != nil || len(lns) != 1 {
		t.Fatalf("%d listeners, %v", len(lns), err)
	}
	_ = lns[0].Close()
}
