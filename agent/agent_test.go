package agent

import (
	"bytes"
	"context"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/DataDog/datadog-go/v5/statsd"
	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/zstd"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"kelpie.dev/kelpie/agent/dogstatsd"
	"kelpie.dev/kelpie/health"
	"kelpie.dev/kelpie/metric"
	"kelpie.dev/kelpie/metric/payload"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const testKey = "0123456789abcdef0123456789abcdef"

// intake keeps every point that reaches it, by series, and all else by name.
type intake struct {
	*httptest.Server
	mu       sync.Mutex
	status   int // 0 accepts
	points   map[string][]metric.Point
	sketches map[string][]metric.SketchPoint
	bodies   map[string][]string // of other routes, by path
}

func newIntake(t *testing.T) *intake {
	in := &intake{points: map[string][]metric.Point{}, sketches: map[string][]metric.SketchPoint{}, bodies: map[string][]string{}}
	decoder, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1))
	if err != nil {
		t.Fatal(err)
	}
	in.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		in.mu.Lock()
		defer in.mu.Unlock()
		if in.status != 0 {
			w.WriteHeader(in.status)
			return
		}
		body, err := io.ReadAll(r.Body)
		if err == nil {
			body, err = decoder.DecodeAll(body, nil)
		}
		if err == nil {
			err = in.take(r.URL.Path, body)
		}
		if err != nil || r.Header.Get("DD-API-KEY") != testKey {
			t.Errorf("request to %s with headers %v: %v", r.URL, r.Header, err)
		}
		w.WriteHeader(http.StatusAccepted)
	}))
	t.Cleanup(func() { in.Close(); decoder.Close() })
	return in
}

// take keeps what a request holds. in.mu is held.
func (in *intake) take(path string, body []byte) error {
	switch path {
	case "/api/v2/series":
		series, err := payload.DecodeV2(body)
		for _, s := range series {
			key := fmt.Sprintf("%s{%s} %s %s", s.Name, s.Tags, s.Type, s.Host)
			in.points[key] = append(in.points[key], s.Points...)
		}
		return err
	case "/api/beta/sketches":
		distributions, err := payload.DecodeSketches(body)
		for _, d := range distributions {
			key := fmt.Sprintf("%s{%s} %s", d.Name, d.Tags, d.Host)
			in.sketches[key] = append(in.sketches[key], d.Points...)
		}
		return err
	default:
		in.bodies[path] = append(in.bodies[path], string(body))
		return nil
	}
}

func (in *intake) answer(status int) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.status = status
}

// received returns the points whose series' name starts with prefix.
func (in *intake) received(prefix string) map[string][]metric.Point {
	in.mu.Lock()
	defer in.mu.Unlock()
	out := map[string][]metric.Point{}
	for key, points := range in.points {
		if strings.HasPrefix(key, prefix) {
			out[key] = append([]metric.Point(nil), points...)
		}
	}
	return out
}

// running is an agent under test. Its clock stands until advanced.
type running struct {
	config   Config
	registry *prometheus.Registry
	log      *syncBuffer
	flush    chan time.Time
	mu       sync.Mutex
	now      time.Time
	stop     func() error
}

type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

func freePort(t *testing.T) int {
	t.Helper()
	udp, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = udp.Close() }()
	return udp.LocalAddr().(*net.UDPAddr).Port
}

// start runs an agent that is configured by environment variables.
func start(t *testing.T, settings map[string]string) *running {
	t.Helper()
	environment := map[string]string{
		"DD_API_KEY": testKey, "DD_HOSTNAME": "node-1", "DD_DOGSTATSD_PORT": strconv.Itoa(freePort(t)),
		"DD_DOGSTATSD_SOCKET": filepath.Join(t.TempDir(), "dsd.socket"), "DD_HEALTH_PORT": strconv.Itoa(freePort(t)),
	}
	for k, v := range settings {
		environment[k] = v
	}
	config, err := ConfigFromEnv(func(name string) (string, bool) { v, ok := environment[name]; return v, ok })
	if err != nil {
		t.Fatal(err)
	}
	config.HealthAddr = "127.0.0.1" + config.HealthAddr
	r := &running{config: config, registry: prometheus.NewRegistry(), log: &syncBuffer{}, flush: make(chan time.Time), now: time.Unix(1_700_000_003, 0)}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		done <- Run(ctx, config, Deps{Version: "1.2.3", Log: slog.New(slog.NewTextHandler(r.log, nil)), Registry: r.registry, Now: r.clock, Flush: r.flush})
	}()
	r.stop = sync.OnceValue(func() error { cancel(); return <-done })
	t.Cleanup(func() {
		if err := r.stop(); err != nil {
			t.Errorf("Run: %v", err)
		}
		http.DefaultClient.CloseIdleConnections()
	})
	eventually(t, "the agent is ready", func() bool {
		var h health.Health
		return health.Fetch(t.Context(), config.HealthAddr, "/health", &h) == nil && h.Ready == "ok"
	})
	return r
}

func (r *running) clock() time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.now
}

// advance moves the clock and flushes at its new time.
func (r *running) advance(d time.Duration) {
	r.mu.Lock()
	r.now = r.now.Add(d)
	now := r.now
	r.mu.Unlock()
	r.flush <- now
}

// value returns the sum of a metric's values whose labels hold label.
func (r *running) value(t *testing.T, name, label string) float64 {
	t.Helper()
	families, err := r.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	sum := 0.0
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				if label == "" || l.GetValue() == label {
					sum += m.GetCounter().GetValue() + m.GetGauge().GetValue()
					break
				}
			}
		}
	}
	return sum
}

func (r *running) waitValue(t *testing.T, name, label string, want float64) {
	t.Helper()
	eventually(t, fmt.Sprintf("%s{%s} = %v", name, label, want), func() bool { return r.value(t, name, label) == want })
}

func (r *running) status(t *testing.T) Status {
	t.Helper()
	var s Status
	if err := health.Fetch(t.Context(), r.config.HealthAddr, "/status", &s); err != nil {
		t.Fatal(err)
	}
	return s
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("never happened: %s", what)
		}
	}
}

// TestOfficialClient sends every type with Datadog's own client over each
// socket, and reads what the intake gets.
func TestOfficialClient(t *testing.T) {
	in := newIntake(t)
	r := start(t, map[string]string{
		"DD_DD_URL": in.URL, "DD_TAGS": "team:a zone:b", "DD_CLUSTER_NAME": "lab", "DD_DOGSTATSD_TAGS": "via:dogstatsd",
		"DD_DOGSTATSD_ORIGIN_DETECTION_CLIENT": "true",
	})
	for _, transport := range []struct{ name, address string }{
		{"udp", r.config.DogStatsD.UDPAddr}, {"uds", "unixgram://" + r.config.DogStatsD.Socket},
	} {
		client, err := statsd.New(transport.address, statsd.WithNamespace(transport.name+"."), statsd.WithoutTelemetry(), statsd.WithTags([]string{"env:test"}))
		if err != nil {
			t.Fatal(err)
		}
		for range 30 {
			_ = client.Incr("count", []string{"k:v"}, 1)
		}
		_ = client.Gauge("gauge", 1, nil, 1)
		_ = client.Gauge("gauge", 2.5, nil, 1)
		for _, v := range []float64{1, 1, 1, 2, 2, 2, 3, 3} {
			_ = client.Histogram("histogram", v, nil, 1)
			_ = client.Distribution("distribution", v, nil, 1)
		}
		_ = client.Timing("timing", 250*time.Millisecond, nil, 1)
		for _, v := range []string{"x", "y", "x"} {
			_ = client.Set("set", v, nil, 1)
		}
		if err := client.Close(); err != nil {
			t.Fatal(err)
		}
	}
	r.waitValue(t, "kelpie_agent_dogstatsd_samples_total", "ms", 2)
	r.waitValue(t, "kelpie_agent_dogstatsd_samples_total", "d", 16)
	r.waitValue(t, "kelpie_agent_dogstatsd_samples_total", "h", 16)
	r.waitValue(t, "kelpie_agent_dogstatsd_samples_total", "s", 4)
	r.waitValue(t, "kelpie_agent_dogstatsd_samples_total", "g", 2)
	r.waitValue(t, "kelpie_agent_dogstatsd_samples_total", "c", 2)
	r.advance(7 * time.Second)
	const base, start = "cluster_name:lab,env:test,%skube_cluster_name:lab,team:a,via:dogstatsd,zone:b", 1_700_000_000
	want := map[string][]metric.Point{}
	for _, transport := range []string{"udp", "uds"} {
		for name, value := range map[string]float64{
			"count": 3, "gauge": 2.5, "set": 2,
			"histogram.max": 3, "histogram.median": 2, "histogram.avg": 1.875, "histogram.count": 0.8, "histogram.95percentile": 3,
			"timing.max": 250, "timing.median": 250, "timing.avg": 250, "timing.count": 0.1, "timing.95percentile": 250,
		} {
			kind, tag := "gauge", ""
			if strings.HasSuffix(name, "count") {
				kind = "rate"
			}
			if name == "count" {
				tag = "k:v,"
			}
			want[fmt.Sprintf("%s.%s{%s} %s node-1", transport, name, fmt.Sprintf(base, tag), kind)] = []metric.Point{{Time: start, Value: value}}
		}
	}
	eventually(t, "all series arrive", func() bool { return len(in.received("ud")) >= len(want) })
	if diff := cmp.Diff(want, in.received("ud")); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	for _, transport := range []string{"udp", "uds"} {
		eventually(t, "the sketch of "+transport, func() bool {
			s := in.sketch(fmt.Sprintf("%s.distribution{"+base+"} node-1", transport, ""))
			return len(s) == 1 && s[0].Time == start && s[0].Sketch.Count == 8 && s[0].Sketch.Sum == 15
		})
	}
	r.advance(10 * time.Second)
	key := "udp.count{" + fmt.Sprintf(base, "k:v,") + "} rate node-1"
	eventually(t, "an explicit zero", func() bool { return len(in.received(key)[key]) == 2 })
	if diff := cmp.Diff([]metric.Point{{Time: start, Value: 3}, {Time: start + 10, Value: 0}}, in.received(key)[key]); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if got := in.received("datadog.agent.running{cluster_name:lab,kube_cluster_name:lab,team:a,version:1.2.3,zone:b} gauge node-1"); len(got) != 1 {
		t.Errorf("datadog.agent.running: %v", got)
	}
}

func (in *intake) sketch(key string) []metric.SketchPoint {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.sketches[key]
}

func (in *intake) body(path string) string {
	in.mu.Lock()
	defer in.mu.Unlock()
	return strings.Join(in.bodies[path], "\n")
}

func send(t *testing.T, r *running, datagrams ...string) {
	t.Helper()
	conn, err := net.Dial("udp", r.config.DogStatsD.UDPAddr)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	for _, d := range datagrams {
		if _, err := conn.Write([]byte(d)); err != nil {
			t.Fatal(err)
		}
	}
}

// TestBadLines holds that a bad line harms no line beside it, and that status,
// log and metrics name it.
func TestBadLines(t *testing.T) {
	in := newIntake(t)
	r := start(t, map[string]string{"DD_DD_URL": in.URL})
	send(t, r, "good:1|c\nbad line\n"+strings.Repeat("x", 500)+":1|zz\ngood:2|c", "datadog.dogstatsd.client.bytes_sent:1|g\ndatadog.dogstatsd.client.metrics:2|g", "_e{5,9}:title|text", "_sc|check|7\ngood:4|c\nnan:NaN|g", "good:1|g")
	r.waitValue(t, "kelpie_agent_dogstatsd_samples_total", "c", 3)
	r.waitValue(t, "kelpie_agent_dogstatsd_parse_errors_total", "not_finite", 1)
	r.waitValue(t, "kelpie_agent_dogstatsd_dropped_total", "type_conflict", 1)
	for metricName, reasons := range map[string][]string{
		"kelpie_agent_dogstatsd_parse_errors_total": {"no_type", "bad_type", "not_finite", "bad_event_lengths", "bad_check_status"},
		"kelpie_agent_dogstatsd_dropped_total":      {"type_conflict"},
	} {
		for _, reason := range reasons {
			if got := r.value(t, metricName, reason); got != 1 {
				t.Errorf("%s{%s} = %v, want 1", metricName, reason, got)
			}
		}
	}
	r.advance(7 * time.Second)
	eventually(t, "the good lines", func() bool { return len(in.received("good")) == 1 })
	if diff := cmp.Diff(map[string][]metric.Point{"good{} rate node-1": {{Time: 1_700_000_000, Value: 0.7}}}, in.received("good")); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	var text strings.Builder
	s := r.status(t)
	if err := s.Print(&text); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`"bad line"`, "no_type ×1", "xxx…", "another type", ": 5 datagrams", "good{}", "2 samples of 2 contexts datadog.dogstatsd.client.*", "API key sha256:3eb1bd"} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("status does not say %q:\n%s", want, &text)
		}
	}
	if !strings.Contains(r.log.String(), "bad line") || strings.Contains(text.String()+r.log.String(), testKey[28:]) {
		t.Errorf("log does not name the bad line, or shows the key:\n%s", r.log)
	}
}

func TestWrongKey(t *testing.T) {
	in := newIntake(t)
	in.answer(http.StatusForbidden)
	r := start(t, map[string]string{"DD_DD_URL": in.URL})
	send(t, r, "a:1|c")
	r.waitValue(t, "kelpie_agent_dogstatsd_samples_total", "c", 1)
	r.advance(7 * time.Second)
	r.waitValue(t, "kelpie_agent_forward_dropped_points_total", "forbidden", 4)
	s := r.status(t)
	for _, text := range []string{s.Forwarding[0].LastError, r.log.String()} {
		if !strings.Contains(text, "403") || !strings.Contains(text, "DD_API_KEY") || strings.Contains(text, testKey) {
			t.Errorf("%q does not name the mend, or shows the key", text)
		}
	}
	if ready := r.ready(t); ready != "ok" {
		t.Errorf("ready: %q at the first refusal: a startup probe would never pass", ready)
	}
	r.advance(10 * time.Second)
	r.waitValue(t, "kelpie_agent_forward_dropped_points_total", "forbidden", 8)
	if ready := r.ready(t); !strings.Contains(ready, "403") || !strings.Contains(ready, "DD_API_KEY") || strings.Contains(ready, testKey) {
		t.Errorf("ready: %q, want the refusal and its mend", ready)
	}
	in.answer(http.StatusServiceUnavailable) // says nothing about the key
	r.advance(10 * time.Second)
	eventually(t, "the intake is away", func() bool { return strings.Contains(r.status(t).Forwarding[0].LastError, "503") })
	if ready := r.ready(t); !strings.Contains(ready, "403") {
		t.Errorf("ready: %q, want the refusal still", ready)
	}
	in.answer(0)
	eventually(t, "ready once the key is accepted", func() bool { return r.ready(t) == "ok" })
}

func (r *running) ready(t *testing.T) string {
	t.Helper()
	var h health.Health
	if err := health.Fetch(t.Context(), r.config.HealthAddr, "/health", &h); err != nil && !errors.Is(err, health.ErrUnhealthy) {
		t.Fatal(err)
	}
	return h.Ready
}

// TestEventsAndServiceChecks holds that both arrive with the agent's tags and
// host, and that a histogram is copied to a distribution when asked for.
func TestEventsAndServiceChecks(t *testing.T) {
	in := newIntake(t)
	r := start(t, map[string]string{
		"DD_DD_URL": in.URL, "DD_TAGS": "team:a", "DD_HISTOGRAM_COPY_TO_DISTRIBUTION": "true", "DD_HISTOGRAM_COPY_TO_DISTRIBUTION_PREFIX": "d.",
		"DD_STATSD_METRIC_NAMESPACE": "shop", "DD_STATSD_METRIC_BLOCKLIST": "shop.secret",
	})
	send(t, r, "_e{6,4}:deploy|done|t:success|#version:7\n_sc|db.up|2|h:db-1|#role:main|m:it is | away\nh:1:2|h\nsecret:1|c")
	r.waitValue(t, "kelpie_agent_dogstatsd_samples_total", "h", 2)
	r.waitValue(t, "kelpie_agent_dogstatsd_dropped_total", "blocklist", 1)
	r.advance(7 * time.Second)
	for path, want := range map[string][]string{
		"/intake/":          {`"deploy"`, `"done"`, `"success"`, `"version:7"`, `"team:a"`, `"node-1"`},
		"/api/v1/check_run": {`"db.up"`, `"status":2`, `"db-1"`, `"it is | away"`, `"role:main"`, `"team:a"`, `"datadog.agent.up"`},
	} {
		for _, text := range want {
			eventually(t, path+" with "+text, func() bool { return strings.Contains(in.body(path), text) })
		}
	}
	eventually(t, "the copy of the histogram", func() bool { return len(in.sketch("d.shop.h{team:a} node-1")) == 1 })
	eventually(t, "the histogram", func() bool { return len(in.received("shop.h.max{team:a}")) == 1 })
	if got := in.received("shop.secret"); len(got) != 0 {
		t.Errorf("a blocked metric arrived: %v", got)
	}
	s := r.status(t)
	want := Taken{Samples: map[string]uint64{"h": 2}, Events: 1, ServiceChecks: 1, Dropped: map[string]uint64{"blocklist": 1}}
	if diff := cmp.Diff(want, s.Taken); diff != "" {
		t.Errorf("taken, by the status (-want +got):\n%s", diff)
	}
	var text strings.Builder
	if err := s.Print(&text); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"came in: 2 samples (h 2), 1 events, 1 service checks", "dropped: 1 lines (blocklist 1)"} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("status does not say %q:\n%s", want, &text)
		}
	}
}

// TestStream holds that parsed samples can be watched live, those of one metric
// only, with the tags that the agent adds.
func TestStream(t *testing.T) {
	in := newIntake(t)
	r := start(t, map[string]string{"DD_DD_URL": in.URL, "DD_DOGSTATSD_TAGS": "via:agent"})
	ctx, cancel := context.WithCancel(t.Context())
	var out syncBuffer
	done := make(chan error, 1)
	go func() { done <- Stream(ctx, "http://"+r.config.HealthAddr, "shop.*", false, &out) }()
	eventually(t, "a sample of shop.*", func() bool {
		send(t, r, "shop.orders:1:2|c|@0.5|#k:v\nother:1|c\nshop.users:ann|s")
		return strings.Contains(out.String(), "shop.users:ann|s")
	})
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if text := out.String(); !strings.Contains(text, "shop.orders:1:2|c|@0.5  [k:v via:agent]") || strings.Contains(text, "other") {
		t.Errorf("the stream shows:\n%s", text)
	}
	if err := Stream(t.Context(), "http://"+r.config.HealthAddr, "[", false, io.Discard); err == nil || !strings.Contains(err.Error(), "pattern") {
		t.Errorf("a bad pattern: %v", err)
	}
}

// TestBackendAway holds that nothing is lost while the backend is away, and
// that a second intake does not notice.
func TestBackendAway(t *testing.T) {
	in, second := newIntake(t), newIntake(t)
	in.answer(http.StatusServiceUnavailable)
	more, err := json.Marshal(map[string][]string{second.URL: {testKey}})
	if err != nil {
		t.Fatal(err)
	}
	r := start(t, map[string]string{"DD_DD_URL": in.URL, "DD_ADDITIONAL_ENDPOINTS": string(more)})
	want := []metric.Point{}
	for i := range 5 {
		send(t, r, fmt.Sprintf("a:%d|g", i))
		r.waitValue(t, "kelpie_agent_dogstatsd_samples_total", "g", float64(i+1))
		r.advance(10 * time.Second)
		want = append(want, metric.Point{Time: 1_700_000_000 + 10*int64(i), Value: float64(i)})
	}
	const key = "a{} gauge node-1"
	eventually(t, "the second intake has it all", func() bool { return len(second.received(key)[key]) == 5 })
	eventually(t, "all of it waits for the first one", func() bool {
		s := r.status(t).Forwarding[0]
		return s.Failing && s.QueuePayloads == 10 && strings.Contains(s.LastError, "503")
	})
	if ready := r.ready(t); ready != "ok" {
		t.Errorf("ready: %q while the backend is away, want ok", ready)
	}
	in.answer(0)
	eventually(t, "the backend has it all", func() bool { return len(in.received(key)[key]) == 5 })
	for _, intake := range []*intake{in, second} {
		if diff := cmp.Diff(want, intake.received(key)[key]); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	}
}

// TestShutdownFollowsTheData holds that what was sent before the end arrives,
// from the open bucket, too.
func TestShutdownFollowsTheData(t *testing.T) {
	in := newIntake(t)
	r := start(t, map[string]string{"DD_DD_URL": in.URL})
	for range 100 {
		send(t, r, "a:1|c")
	}
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string][]metric.Point{"a{} rate node-1": {{Time: 1_700_000_000, Value: 10}}}, in.received("a{")); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestPodTags holds that a sample gets its pod's tags by entity id, container
// id and socket credentials, also when the pod is too new to be known at first.
func TestPodTags(t *testing.T) {
	pods, err := os.ReadFile("origin/testdata/pods.json")
	if err != nil {
		t.Fatal(err)
	}
	asked := 0
	kubelet := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if asked++; asked == 1 {
			_, _ = io.WriteString(w, `{"items":[]}`) // not yet
			return
		}
		_, _ = w.Write(pods)
	}))
	defer kubelet.Close()
	dir := t.TempDir()
	ca := filepath.Join(dir, "ca.crt")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: kubelet.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	process := filepath.Join(dir, strconv.Itoa(os.Getpid()))
	if err := os.Mkdir(process, 0o700); err != nil {
		t.Fatal(err)
	}
	app := strings.Repeat("a", 64)
	if err := os.WriteFile(filepath.Join(process, "cgroup"), []byte("0::/kubepods/"+app+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	host, port, err := net.SplitHostPort(kubelet.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	in := newIntake(t)
	r := start(t, map[string]string{
		"DD_DD_URL": in.URL, "DD_KUBERNETES_KUBELET_HOST": host, "DD_KUBERNETES_HTTPS_KUBELET_PORT": port, "DD_KUBELET_CLIENT_CA": ca,
		"DD_KUBELET_AUTH_TOKEN_PATH": filepath.Join(dir, "token"), "DD_CONTAINER_PROC_ROOT": dir,
		"DD_DOGSTATSD_ORIGIN_DETECTION": "true", "DD_DOGSTATSD_ORIGIN_DETECTION_CLIENT": "true",
	})
	send(t, r, "udp.entity:1|c|#dd.internal.entity_id:11111111-2222-3333-4444-555555555555,dd.internal.card:orchestrator\nudp.none:1|c",
		"udp.container:1|c|c:ci-"+app)
	client, err := statsd.New("unixgram://"+r.config.DogStatsD.Socket, statsd.WithoutTelemetry(), statsd.WithoutOriginDetection())
	if err != nil {
		t.Fatal(err)
	}
	_ = client.Incr("uds.credentials", nil, 1)
	if err := client.Close(); err != nil {
		t.Fatal(err)
	}
	r.waitValue(t, "kelpie_agent_dogstatsd_samples_total", "c", 4)
	r.advance(7 * time.Second)
	eventually(t, "all series", func() bool { return len(in.received("ud")) == 4 })
	for _, want := range []struct{ series, tag string }{
		{"udp.entity", "pod_name:test-metric-app-7b9f6c8d5x-x2k4m"}, {"udp.entity", "kube_deployment:test-metric-app"},
		{"udp.container", "kube_container_name:test-metric-app"}, {"uds.credentials", "kube_namespace:test"},
	} {
		for key := range in.received(want.series) {
			if !strings.Contains(key, want.tag) {
				t.Errorf("%s lacks tag %s", key, want.tag)
			}
		}
	}
	for key := range in.received("udp.none") {
		if key != "udp.none{} rate node-1" {
			t.Errorf("a sample without origin became %s", key)
		}
	}
	if s := r.status(t).Origin; !s.Enabled || s.Pods != 4 || s.Error != "" || s.Lines["resolved"] != 3 || s.Lines["none"] != 1 || s.Lines["unresolved"] != 0 {
		t.Errorf("origin status %+v", s)
	}
	var text strings.Builder
	status := r.status(t)
	if err := status.Print(&text); err != nil {
		t.Fatal(err)
	}
	if want := "pod kube-system/etcd-node-1: annotation ad.datadoghq.com/tags: expected a JSON object"; !strings.Contains(text.String(), want) {
		t.Errorf("status does not say %q:\n%s", want, &text)
	}
}

// TestNoSocketDirectory holds that UDP goes on without the socket.
func TestNoSocketDirectory(t *testing.T) {
	in := newIntake(t)
	r := start(t, map[string]string{"DD_DD_URL": in.URL, "DD_DOGSTATSD_SOCKET": "/nonexistent/dsd.socket"})
	send(t, r, "a:1|c")
	r.waitValue(t, "kelpie_agent_dogstatsd_samples_total", "c", 1)
	if log := r.log.String(); !strings.Contains(log, "UDP goes on") || !strings.Contains(log, "DD_DOGSTATSD_SOCKET") {
		t.Errorf("log does not say what to do:\n%s", log)
	}
}

// TestReaders holds that as many readers share the UDP port as are asked for,
// and that the default follows the machine.
func TestReaders(t *testing.T) {
	in := newIntake(t)
	r := start(t, map[string]string{"DD_DD_URL": in.URL, "KELPIE_DOGSTATSD_UDP_READERS": "3"})
	for range 20 { // as many senders
		send(t, r, "a:1|c")
	}
	r.waitValue(t, "kelpie_agent_dogstatsd_samples_total", "c", 20)
	for _, l := range r.status(t).Listeners {
		if want := map[dogstatsd.Transport]int{dogstatsd.UDP: 3, dogstatsd.Unixgram: 1}[l.Transport]; runtime.GOOS == "linux" && l.Readers != want {
			t.Errorf("%s: %d readers, want %d", l.Transport, l.Readers, want)
		}
	}
	for processors, want := range map[int]int{1: 1, 2: 1, 3: 1, 4: 2, 8: 4, 64: 4} {
		if got := defaultReaders(processors); got != want {
			t.Errorf("%d readers on %d processors, want %d", got, processors, want)
		}
	}
}
