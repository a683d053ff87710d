package openmetrics

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.uber.org/goleak"
	"sigs.k8s.io/yaml"

	"kelpie.dev/kelpie/agent/check"
	"kelpie.dev/kelpie/agent/check/fetch"
	"kelpie.dev/kelpie/metric"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// application exports metrics with Prometheus' own client.
type application struct {
	*prometheus.Registry
	requests *prometheus.CounterVec
	queue    prometheus.Gauge
	latency  *prometheus.HistogramVec
	size     prometheus.Summary
	handler  http.Handler
}

func newApplication() *application {
	a := &application{
		Registry: prometheus.NewRegistry(),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "shop_requests_total"}, []string{"method", "code"}),
		queue:    prometheus.NewGauge(prometheus.GaugeOpts{Name: "shop_queue_length"}),
		latency:  prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "shop_latency_seconds", Buckets: []float64{0.005, 1, 2.5}}, []string{"method"}),
		size:     prometheus.NewSummary(prometheus.SummaryOpts{Name: "shop_size_bytes", Objectives: map[float64]float64{0.5: 0.1}}),
	}
	a.MustRegister(a.requests, a.queue, a.latency, a.size)
	// The format that the client prefers is asked for by others.
	a.handler = promhttp.HandlerFor(a.Registry, promhttp.HandlerOpts{EnableOpenMetrics: true})
	return a
}

// TestScripts runs the scripts under testdata. Their commands are
//
//	serve               an application that exports with Prometheus' client; each
//	                    run finds 10 more requests and latencies of 1 s
//	page [status=N] [type=MEDIA_TYPE]  what the endpoint answers instead
//	check               makes a check of an instance in YAML; URL is the endpoint
//	run at=SECONDS      prints series, service checks, warnings and the error
func TestScripts(t *testing.T) {
	datadriven.Walk(t, "testdata", func(t *testing.T, path string) {
		s := &script{}
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { s.handler.ServeHTTP(w, r) }))
		defer server.Close()
		s.url = server.URL + "/metrics"
		defer s.close()
		datadriven.RunTest(t, path, s.command)
	})
}

type script struct {
	url     string
	handler http.Handler
	app     *application
	trial   *check.Trial
}

func (s *script) close() {
	if s.trial != nil {
		s.trial.Close()
	}
}

func (s *script) command(t *testing.T, d *datadriven.TestData) string {
	switch d.Cmd {
	case "serve":
		s.app = newApplication()
		s.handler = s.app.handler
		return ""
	case "page":
		status, mediaType, body := 200, "text/plain; version=0.0.4", d.Input+"\n"
		d.MaybeScanArgs(t, "status", &status)
		d.MaybeScanArgs(t, "type", &mediaType)
		s.handler = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", mediaType)
			w.WriteHeader(status)
			_, _ = fmt.Fprint(w, body)
		})
		return ""
	case "check":
		return s.create(t, d)
	case "run":
		return s.run(t, d)
	default:
		d.Fatalf(t, "unknown command %q", d.Cmd)
		return ""
	}
}

func (s *script) create(t *testing.T, d *datadriven.TestData) string {
	s.close()
	s.trial = nil
	i := check.Instance{Access: fetch.Access{File: true}}
	text, err := yaml.YAMLToJSON([]byte(strings.ReplaceAll(d.Input, "URL", s.url)))
	if err != nil {
		d.Fatalf(t, "%v", err)
	}
	if err := json.Unmarshal(text, &i.Values); err != nil {
		d.Fatalf(t, "%v", err)
	}
	trial, err := check.NewTrial(Kind(), i)
	if err != nil {
		return "error: " + err.Error() + "\n"
	}
	s.trial = trial
	if w := trial.Warnings(); w != nil {
		return "warning: " + w.Error() + "\n"
	}
	return ""
}

func (s *script) run(t *testing.T, d *datadriven.TestData) string {
	var at int64
	d.ScanArgs(t, "at", &at)
	if s.app != nil {
		s.app.requests.WithLabelValues("GET", "200").Add(10)
		s.app.queue.Inc()
		for range 10 {
			s.app.latency.WithLabelValues("GET").Observe(1)
		}
		s.app.size.Observe(7)
	}
	series, checks, err := s.trial.Run(t.Context(), time.Unix(at, 0))
	var lines []string
	for _, one := range series {
		lines = append(lines, fmt.Sprintf("%s{%s} %s %v", one.Name, one.Tags, one.Type, one.Points[0].Value))
	}
	slices.Sort(lines)
	for _, c := range checks {
		lines = append(lines, strings.TrimSpace(fmt.Sprintf("check %s{%s} %s %s", c.Name, c.Tags, map[metric.CheckStatus]string{0: "ok", 2: "critical"}[c.Status], c.Message)))
	}
	if w := s.trial.Warnings(); w != nil {
		lines = append(lines, "warning: "+w.Error())
	}
	if err != nil {
		lines = append(lines, "error: "+err.Error())
	}
	return strings.ReplaceAll(strings.Join(lines, "\n")+"\n", s.url, "URL")
}

func TestNumbersAreWrittenAsDatadogWritesThem(t *testing.T) {
	for text, want := range map[string]string{
		"0": "0", "1": "1.0", "0.005": "0.005", "2.5": "2.5", "-1": "-1.0", "10000000": "10000000.0",
		"1e16": "1e+16", "1e-5": "1e-05", "1.5e-7": "1.5e-07", "1e+100": "1e+100", "+Inf": "inf", "-Inf": "-inf",
	} {
		v, err := strconv.ParseFloat(text, 64)
		if err != nil {
			t.Fatal(err)
		}
		if got := number(v); got != want {
			t.Errorf("number(%s) = %q, want %q", text, got, want)
		}
	}
}
