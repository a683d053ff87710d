package intake

import (
	"bytes"
	"compress/flate"
	"compress/gzip"
	"compress/zlib"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/snappy"
	"github.com/klauspost/compress/zstd"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/goleak"

	"kelpie.dev/kelpie/backend/auth"
	"kelpie.dev/kelpie/backend/record"
	"kelpie.dev/kelpie/metric"
	"kelpie.dev/kelpie/metric/payload"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// kept is an Appender that keeps what it is given, or fails.
type kept struct {
	mu            sync.Mutex
	series        []metric.Series
	distributions []metric.Distribution
	err           error
}

func (k *kept) AppendDistributions(_ context.Context, ds []metric.Distribution) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.err != nil {
		return k.err
	}
	k.distributions = append(k.distributions, ds...)
	return nil
}

func (k *kept) Append(_ context.Context, series []metric.Series) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.err != nil {
		return k.err
	}
	k.series = append(k.series, series...)
	return nil
}

type fixture struct {
	store *kept
	book  *record.Book
	in    *Intake
	reg   *prometheus.Registry
	log   bytes.Buffer
	mux   *http.ServeMux
}

func newFixture(t testing.TB) *fixture {
	t.Helper()
	keys, err := auth.New("API", auth.Source{Keys: []string{"key"}})
	if err != nil {
		t.Fatal(err)
	}
	f := &fixture{store: &kept{}, reg: prometheus.NewRegistry(), mux: http.NewServeMux()}
	f.book, err = record.Open(record.Options{Dir: t.TempDir(), MaxChecks: 3, MaxHosts: 2})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.book.Close() })
	f.in, err = New(Options{Store: f.store, Records: f.book, RawKeys: f.book, Auth: &auth.Checker{API: keys, App: keys}, Registerer: f.reg, Log: slog.New(slog.NewTextHandler(&f.log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	f.in.Register(f.mux)
	return f
}

// post sends a body with the key and returns the answer.
func (f *fixture) post(path string, body []byte, header ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodPost, path, bytes.NewReader(body))
	r.Header.Set("DD-API-KEY", "key")
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	f.mux.ServeHTTP(w, r)
	return w
}

func (f *fixture) refused(reason string) float64 {
	return testutil.ToFloat64(f.in.metrics.refused.WithLabelValues(reason))
}

const (
	v1JSON = `{"series":[{"metric":"app.hits","points":[[1700000000,"1.5"],[1700000010.4,2]],"tags":["Env:Prod","b"],"host":"h","type":"count","interval":10}]}`
	v2JSON = `{"series":[{"metric":"app.hits","type":1,"interval":10,"points":[{"timestamp":1700000000,"value":1.5},{"timestamp":1700000010,"value":2}],"resources":[{"type":"host","name":"h"}],"tags":["Env:Prod","b"]}]}`
)

var want = []metric.Series{{Name: "app.hits", Host: "h", Type: metric.Count, Interval: 10, Tags: metric.NewTags("b", "env:prod"),
	Points: []metric.Point{{Time: 1700000000, Value: 1.5}, {Time: 1700000010, Value: 2}}}}

func protobuf() []byte {
	in := want[0]
	in.Tags = metric.NewTags("Env:Prod", "b")
	return payload.AppendV2(nil, []metric.Series{in})
}

func encode(t testing.TB, encoding string, body []byte) []byte {
	t.Helper()
	var buf bytes.Buffer
	var w io.WriteCloser
	var err error
	switch encoding {
	case "":
		return body
	case "zstd":
		w, err = zstd.NewWriter(&buf, zstd.WithEncoderConcurrency(1))
	case "gzip":
		w = gzip.NewWriter(&buf)
	case "zlib":
		w = zlib.NewWriter(&buf)
	case "raw":
		w, err = flate.NewWriter(&buf, 6)
	}
	if err == nil {
		_, err = w.Write(body)
	}
	if err = errors.Join(err, w.Close()); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func TestSeriesInEveryFormAndEncoding(t *testing.T) {
	forms := []struct{ name, path, contentType, ok, okType, body string }{
		{"v1", "/api/v1/series", "text/json", `{"status": "ok"}`, "text/json", v1JSON},
		{"v2 JSON", "/api/v2/series", "application/json", `{"errors":[]}`, "application/json", v2JSON},
		{"v2 protobuf", "/api/v2/series", "application/x-protobuf", `{"errors":[]}`, "application/json", string(protobuf())},
	}
	encodings := map[string]string{"": "", "zstd": "zstd", "gzip": "gzip", "zlib": "deflate", "raw": "deflate"}
	for _, form := range forms {
		for encoding, header := range encodings {
			t.Run(form.name+" "+encoding, func(t *testing.T) {
				f := newFixture(t)
				w := f.post(form.path, encode(t, encoding, []byte(form.body)), "Content-Type", form.contentType, "Content-Encoding", header)
				if w.Code != http.StatusAccepted || w.Body.String() != form.ok || w.Header().Get("Content-Type") != form.okType {
					t.Errorf("answered %d %q %s", w.Code, w.Header().Get("Content-Type"), w.Body)
				}
				if d := cmp.Diff(want, f.store.series); d != "" {
					t.Error(d)
				}
			})
		}
	}
}

func TestDistributionsInEveryFormAndEncoding(t *testing.T) {
	var b metric.SketchBuilder
	for _, v := range []float64{1, 2, 300} {
		b.Add(v, 1)
	}
	want := []metric.Distribution{{Name: "app.time", Host: "h", Tags: metric.NewTags("b", "env:prod"),
		Points: []metric.SketchPoint{{Time: 1700000000, Sketch: b.Sketch()}}}}
	sent := want[0]
	sent.Name, sent.Tags = "app.time_", metric.NewTags("Env:Prod", "b")
	sketches := payload.AppendSketches(nil, []metric.Distribution{sent, {Name: "123"}})
	points := `{"series":[{"metric":"app.time","type":"distribution","points":[[1700000000,[1,2,300]]],"tags":["Env:Prod","b"],"host":"h"},{"metric":"123"}]}`
	encodings := map[string]string{"": "", "zstd": "zstd", "gzip": "gzip", "zlib": "deflate", "raw": "deflate"}
	for _, form := range []struct{ path, contentType, body string }{
		{"/api/beta/sketches", "application/x-protobuf", string(sketches)},
		{"/api/v1/sketches", "application/x-protobuf", string(sketches)},
		{"/api/v1/distribution_points", "text/json", points},
	} {
		for encoding, header := range encodings {
			t.Run(form.path+" "+encoding, func(t *testing.T) {
				f := newFixture(t)
				w := f.post(form.path, encode(t, encoding, []byte(form.body)), "Content-Type", form.contentType, "Content-Encoding", header)
				if w.Code != http.StatusAccepted || w.Body.String() != `{"status": "ok"}` {
					t.Errorf("answered %d %s", w.Code, w.Body)
				}
				if d := cmp.Diff(want, f.store.distributions); d != "" {
					t.Error(d)
				}
				if got := testutil.ToFloat64(f.in.metrics.series.WithLabelValues("name")); got != 1 {
					t.Errorf("counted %v names that cannot be kept, want 1", got)
				}
			})
		}
	}
}

// manyTags are more tags than a series may have, to put into a JSON list.
func manyTags() string {
	var b strings.Builder
	for i := range maxTags + 1 {
		fmt.Fprintf(&b, `","t:%d`, i)
	}
	return b.String()
}

// wide is a small body whose decoder would have to hold 64 MiB.
func wide(t testing.TB) []byte {
	t.Helper()
	var buf bytes.Buffer
	w, err := zstd.NewWriter(&buf, zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(64<<20))
	if err != nil {
		t.Fatal(err)
	}
	// Written in parts, so that the frame names its window and not its size.
	for range 20 {
		if _, err := w.Write(bytes.Repeat([]byte(" "), 1<<20)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// chunked hides a body's length.
type chunked struct{ io.Reader }

func TestErrors(t *testing.T) {
	big := func(n int) []byte { return bytes.Repeat([]byte(" "), n) }
	json, pb := "application/json", "application/x-protobuf"
	for _, tt := range []struct {
		name     string
		path     string
		body     []byte
		header   []string
		code     int
		reason   string
		contains string
	}{
		{"no key", "/api/v2/series", nil, []string{"DD-API-KEY", ""}, 403, reasonForbidden, `{"errors":["API key required"]}`},
		{"wrong key", "/api/v1/series", nil, []string{"DD-API-KEY", "nope"}, 403, reasonForbidden, `{"errors":["Forbidden"]}`},
		{"wrong key, sketches", "/api/beta/sketches", nil, []string{"DD-API-KEY", "nope"}, 403, reasonForbidden, `{"errors":["Forbidden"]}`},
		{"wrong key, metadata", "/intake/", nil, []string{"DD-API-KEY", "nope"}, 403, reasonForbidden, `{"errors":["Forbidden"]}`},
		{"wrong key, ignored route", "/api/v1/collector", nil, []string{"DD-API-KEY", "nope"}, 403, reasonForbidden, `{"errors":["Forbidden"]}`},
		{"empty body", "/api/v1/series", nil, nil, 400, reasonMalformed, "empty body"},
		{"broken JSON", "/api/v2/series", []byte(`{"series":[{]}`), []string{"Content-Type", json}, 400, reasonMalformed, "Payload is not in the expected format: decode JSON v2 series: byte 13"},
		{"bad type", "/api/v1/series", []byte(`{"series":[{"metric":"m","type":"histo"}]}`), nil, 400, reasonMalformed, "histo"},
		{"broken protobuf", "/api/v2/series", []byte{0x0a, 0xff}, []string{"Content-Type", pb}, 400, reasonMalformed, "Payload is not in the expected format"},
		{"JSON called protobuf", "/api/v2/series", []byte(v2JSON), []string{"Content-Type", pb}, 400, reasonMalformed, "Payload is not in the expected format"},
		{"unknown encoding", "/api/v2/series", []byte(v2JSON), []string{"Content-Encoding", "br"}, 400, reasonEncoding, `content encoding \"br\" is not supported`},
		{"not zstd", "/api/v2/series", []byte(v2JSON), []string{"Content-Encoding", "zstd"}, 400, reasonEncoding, "zstd"},
		{"not gzip", "/api/v2/series", []byte(v2JSON), []string{"Content-Encoding", "gzip"}, 400, reasonEncoding, "gzip"},
		{"not deflate", "/api/v2/series", []byte(v2JSON), []string{"Content-Encoding", "deflate"}, 400, reasonEncoding, "deflate"},
		{"cut zlib", "/api/v2/series", encode(t, "zlib", []byte(v2JSON))[:40], []string{"Content-Encoding", "deflate"}, 400, reasonEncoding, "zlib"},
		{"too big v2", "/api/v2/series", big(512_001), nil, 413, reasonTooBig, "Payload too big"},
		{"too big v1", "/api/v1/series", big(3_200_001), nil, 413, reasonTooBig, "Payload too big"},
		{"too big ignored", "/api/v1/collector", big(16<<20 + 1), nil, 413, reasonTooBig, "Payload too big"},
		{"bomb zstd", "/api/v2/series", encode(t, "zstd", big(8<<20)), []string{"Content-Encoding", "zstd"}, 413, reasonTooBig, "decompressed body is larger than 5242880 bytes"},
		{"zstd that wants a large window", "/api/v2/series", wide(t), []string{"Content-Encoding", "zstd"}, 400, reasonEncoding, "zstd: "},
		{"bomb gzip", "/api/v2/series", encode(t, "gzip", big(8<<20)), []string{"Content-Encoding", "gzip"}, 413, reasonTooBig, "decompressed"},
		{"bomb zlib v1", "/api/v1/series", encode(t, "zlib", big(63<<20)), []string{"Content-Encoding", "deflate"}, 413, reasonTooBig, "decompressed"},
		{"bomb raw deflate", "/api/v2/series", encode(t, "raw", big(8<<20)), []string{"Content-Encoding", "deflate"}, 413, reasonTooBig, "decompressed"},
		{"too many series", "/api/v2/series", encode(t, "zstd", bytes.Repeat([]byte("\x0a\x03\x12\x01m"), payload.MaxSeries+1)), []string{"Content-Type", pb, "Content-Encoding", "zstd"}, 413, reasonTooBig, "more than 100000 series"},
		{"series without name", "/api/v2/series", []byte("\x0a\x00"), []string{"Content-Type", pb}, 400, reasonMalformed, "series[0]: metric is missing"},
		{"broken sketches", "/api/beta/sketches", []byte{0x0a, 0xff}, nil, 400, reasonMalformed, "decode protobuf SketchPayload: byte 1"},
		{"too big sketches", "/api/v1/sketches", big(3_200_001), nil, 413, reasonTooBig, "Payload too big"},
		{"bomb sketches", "/api/beta/sketches", encode(t, "zstd", big(8<<20)), []string{"Content-Encoding", "zstd"}, 413, reasonTooBig, "decompressed body is larger than 5242880 bytes"},
		{"too many sketches", "/api/beta/sketches", encode(t, "zstd", bytes.Repeat([]byte("\x0a\x03\x0a\x01m"), payload.MaxSeries+1)), []string{"Content-Encoding", "zstd"}, 413, reasonTooBig, "more than 100000 series"},
		{"broken points", "/api/v1/distribution_points", []byte(`{"series":[{"metric":"m","points":[[1,2]]}]}`), nil, 400, reasonMalformed, "is not a list of values"},
		{"too big metadata", "/intake/", big(3_200_001), nil, 413, reasonTooBig, "Payload too big"},
		{"bomb metadata", "/intake/", encode(t, "zlib", big(8<<20)), []string{"Content-Encoding", "deflate"}, 413, reasonTooBig, "decompressed body is larger than 5242880 bytes"},
		{"empty metadata", "/intake/", nil, nil, 400, reasonMalformed, "decode events: unexpected end of JSON input"},
		{"list of metadata", "/intake/", []byte(`[]`), nil, 400, reasonMalformed, "cannot unmarshal array"},
		{"events that are none", "/intake/", []byte(`{"events":{"api":[1]}}`), nil, 400, reasonMalformed, `decode events: events[\"api\"]: element 0`},
		{"host tags that are none", "/intake/", []byte(`{"internalHostname":"h","host-tags":{"system":"x"}}`), nil, 400, reasonMalformed, "decode host metadata: host-tags"},
		{"event that is none", "/api/v1/events", []byte(`[]`), nil, 400, reasonMalformed, "decode event: json: cannot unmarshal array"},
		{"null event", "/api/v1/events", []byte(`null`), nil, 400, reasonMalformed, "expected an event object"},
		{"event without title", "/api/v1/events", []byte(`{"text":"x"}`), nil, 400, reasonMalformed, "title is missing"},
		{"event without text", "/api/v1/events", []byte(`{"title":"x"}`), nil, 400, reasonMalformed, "text is missing"},
		{"event of long ago", "/api/v1/events", []byte(`{"title":"x","text":"","date_happened":1000}`), nil, 400, reasonItem, "its time 1000 is more than 18 hours in the past"},
		{"event with too many tags", "/api/v1/events", fmt.Appendf(nil, `{"title":"x","text":"","tags":["a%s"]}`, strings.Repeat(`","b:c`, 10)+manyTags()), nil, 400, reasonItem, "it has more than 500 tags"},
		{"v2 event that is none", "/api/v2/events", []byte(`{}`), nil, 400, reasonMalformed, "data.attributes is missing"},
		{"v2 event with a bad time", "/api/v2/events", []byte(`{"data":{"attributes":{"title":"t","timestamp":"noon"}}}`), nil, 400, reasonMalformed, `timestamp \"noon\": expected ISO 8601`},
		{"check without name", "/api/v1/check_run", []byte(`[{"status":0}]`), nil, 400, reasonMalformed, "checks[0]: check is missing"},
		{"check with a bad status", "/api/v2/service_checks", []byte(`{"check":"c","status":4}`), nil, 400, reasonMalformed, `checks[0] \"c\": status 4: expected 0 to 3`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := newFixture(t)
			for _, hide := range []bool{false, true} {
				var body io.Reader = bytes.NewReader(tt.body)
				if hide {
					body = chunked{body}
				}
				r := httptest.NewRequest(http.MethodPost, tt.path, body)
				r.Header.Set("DD-API-KEY", "key")
				for i := 0; i+1 < len(tt.header); i += 2 {
					r.Header.Set(tt.header[i], tt.header[i+1])
				}
				w := httptest.NewRecorder()
				f.mux.ServeHTTP(w, r)
				if w.Code != tt.code || !strings.Contains(w.Body.String(), tt.contains) || !strings.HasPrefix(w.Body.String(), `{"errors":[`) {
					t.Errorf("answered %d %s; want %d with %s", w.Code, w.Body, tt.code, tt.contains)
				}
			}
			if got := f.refused(tt.reason); got != 2 {
				t.Errorf("counted %v refusals for %s, want 2", got, tt.reason)
			}
			if len(f.store.series)+len(f.store.distributions) != 0 {
				t.Error("something was stored")
			}
			if !strings.Contains(f.log.String(), "reason="+tt.reason) || strings.Contains(f.log.String(), "nope") {
				t.Errorf("log:\n%s", f.log.String())
			}
			// The neighbour is served, and all memory was given back.
			if w := f.post("/api/v1/series", []byte(v1JSON)); w.Code != http.StatusAccepted {
				t.Errorf("the next request got %d %s", w.Code, w.Body)
			}
			if !f.in.bodies.TryAcquire(64<<20) || !f.in.decoding.TryAcquire(128<<20) {
				t.Error("memory was not given back")
			}
		})
	}
}

func TestStoreFailureAsksToSendAgain(t *testing.T) {
	f := newFixture(t)
	f.store.err = errors.New("not enough free disk space")
	for i, route := range []string{"/api/v2/series", "/api/v1/distribution_points"} {
		w := f.post(route, []byte(`{"series":[]}`))
		if w.Code != http.StatusServiceUnavailable || !strings.Contains(w.Body.String(), "not enough free disk space") || f.refused(reasonUnavailable) != float64(i+1) {
			t.Errorf("%s answered %d %s", route, w.Code, w.Body)
		}
	}
}

func TestBusyIntakeAsksToSendAgain(t *testing.T) {
	f := newFixture(t)
	if !f.in.bodies.TryAcquire(64 << 20) {
		t.Fatal("the semaphore is in use")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel() // as if it had waited in vain
	r := httptest.NewRequest(http.MethodPost, "/api/v2/series", strings.NewReader(v2JSON)).WithContext(ctx)
	r.Header.Set("DD-API-KEY", "key")
	w := httptest.NewRecorder()
	f.mux.ServeHTTP(w, r)
	if w.Code != http.StatusServiceUnavailable || f.refused(reasonBusy) != 1 {
		t.Errorf("answered %d %s", w.Code, w.Body)
	}
}

func TestSlowClientGetsRequestTimeout(t *testing.T) {
	f := newFixture(t)
	srv := httptest.NewUnstartedServer(f.mux)
	srv.Config.ReadTimeout = 50 * time.Millisecond
	srv.Start()
	defer srv.Close()
	conn, err := net.Dial("tcp", srv.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	if _, err := fmt.Fprint(conn, "POST /api/v2/series HTTP/1.1\r\nHost: x\r\nDD-API-KEY: key\r\nContent-Length: 100\r\n\r\n{"); err != nil {
		t.Fatal(err)
	}
	answer, err := io.ReadAll(conn)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(string(answer), "HTTP/1.1 408") || !strings.Contains(string(answer), `{"errors":["Request timeout"]}`) {
		t.Errorf("answered %s", answer)
	}
}

func TestEveryAgentRouteIsTaken(t *testing.T) {
	routes := []string{
		"/api/v2/series", "/api/intake/metrics/v3/series", "/api/v1/series", "/api/beta/sketches", "/api/v1/check_run", "/intake/", "/intake",
		"/api/v1/metadata", "/api/v2/host_metadata", "/api/v2/events", "/api/v2/service_checks", "/api/v1/sketches",
		"/api/intake/metrics/v3/sketches", "/api/intake/metrics/v3beta/series", "/api/intake/metrics/v3beta/sketches",
		"/api/v1/collector", "/api/v1/container", "/api/v1/discovery", "/api/v1/connections", "/api/v1/orchestrator", "/api/v2/orch", "/api/v2/orchmanif",
		"/api/v1/distribution_points", "/api/v1/events",
	}
	bodies := map[string]string{
		"/api/v1/check_run": `[]`, "/api/v2/service_checks": `[]`, "/api/v1/events": `{"title":"t","text":"x"}`,
		"/api/v2/events": `{"data":{"type":"event","attributes":{"title":"t","category":"change"}}}`,
	}
	for _, withRecords := range []bool{true, false} {
		f := newFixture(t)
		if !withRecords {
			f.in.records = nil
			f.mux = http.NewServeMux()
			f.in.Register(f.mux)
		}
		for _, route := range routes {
			body := `{"series":[]}`
			if strings.HasSuffix(route, "/sketches") {
				body = "\x12\x00"
			}
			if b := bodies[route]; b != "" {
				body = b
			}
			if w := f.post(route, []byte(body)); w.Code != http.StatusAccepted {
				t.Errorf("POST %s answered %d %s", route, w.Code, w.Body)
			}
		}
		f.post("/intake/", []byte(`{"agent_checks":[]}`))
		if got := testutil.ToFloat64(f.in.metrics.ignored.WithLabelValues("POST /intake/{$}")); got != 2 {
			t.Errorf("counted %v payloads of /intake/, want 2", got)
		}
		if got := testutil.ToFloat64(f.in.metrics.ignored.WithLabelValues("POST /api/intake/metrics/v3/series")); got != 1 {
			t.Errorf("counted %v payloads of v3 series, want 1", got)
		}
		if n := strings.Count(f.log.String(), "POST /intake/{$}"); n != 1 {
			t.Errorf("the log says %d times that /intake/ has no effect, want once", n)
		}
	}
}

func TestValidate(t *testing.T) {
	f := newFixture(t)
	for _, tt := range []struct {
		url, header string
		code        int
		body        string
	}{
		{"/api/v1/validate", "", 403, `{"errors":["API key required"]}`},
		{"/api/v1/validate?api_key=x", "", 403, `{"errors":["Forbidden"]}`},
		{"/api/v1/validate?api_key=key", "", 200, `{"valid":true}`},
		{"/api/v1/validate", "key", 200, `{"valid":true}`},
	} {
		r := httptest.NewRequest(http.MethodGet, tt.url, nil)
		r.Header.Set("DD-API-KEY", tt.header)
		w := httptest.NewRecorder()
		f.mux.ServeHTTP(w, r)
		if w.Code != tt.code || w.Body.String() != tt.body {
			t.Errorf("%s: %d %s", tt.url, w.Code, w.Body)
		}
	}
}

func TestNormalize(t *testing.T) {
	f := newFixture(t)
	tags := make([]string, maxTags+1)
	for i := range tags {
		tags[i] = fmt.Sprint("t:", i)
	}
	var out outcome
	got := f.in.normalize([]metric.Series{
		{Name: "9 App-Hits._x", Tags: metric.NewTags("Team:A B", "team:a_b", "__")},
		{Name: "123"},
		{Name: "m", Host: strings.Repeat("h", 256)},
		{Name: "m", Tags: tags},
		{Name: "ok", Host: " Web-1 "},
	}, &out)
	wanted := []metric.Series{{Name: "App_Hits.x", Tags: metric.NewTags("team:a_b")}, {Name: "ok", Host: "Web-1"}}
	if d := cmp.Diff(wanted, got); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff([]string{
		`"123": its name has no letter, or more than 200 characters`, `"m": its host or device has more than 255 bytes`, `"m": it has more than 500 tags`,
	}, out.lines()); d != "" {
		t.Error(d)
	}
	for _, reason := range []string{"name", "host_too_long", "too_many_tags"} {
		if n := testutil.ToFloat64(f.in.metrics.series.WithLabelValues(reason)); n != 1 {
			t.Errorf("counted %v series for %s, want 1", n, reason)
		}
	}
}

// fuzzForms are the doors of the intake with the content type of each.
var fuzzForms = []struct{ path, kind string }{
	{"/api/v1/series", "text/json"}, {"/api/v2/series", "application/json"}, {"/api/v2/series", "application/x-protobuf"},
	{"/api/beta/sketches", "application/x-protobuf"}, {"/api/v1/distribution_points", "text/json"},
	{"/api/v1/check_run", "application/json"}, {"/api/v1/events", "application/json"}, {"/api/v2/events", "application/json"}, {"/intake/", "application/json"},
	{"/v1/metrics", "application/json"}, {"/v1/metrics", "application/x-protobuf"},
	{"/api/v1/write", "application/x-protobuf"}, {"/api/v1/write", writeV2Type},
}

// FuzzIntake sends arbitrary bodies in every form and encoding: the answer is
// always a success or an error in the route's own form, and what is stored is
// normalized.
func FuzzIntake(f *testing.F) {
	points := []byte(`{"series":[{"metric":"app.time","points":[[1700000000,[1,2,300]]],"tags":["Env:Prod"]}]}`)
	ds, err := payload.DecodeDistributionPoints(points)
	if err != nil {
		f.Fatal(err)
	}
	v2, err := snappy.Decode(nil, writeBody(f))
	if err != nil {
		f.Fatal(err)
	}
	for form, body := range [][]byte{[]byte(v1JSON), []byte(v2JSON), protobuf(), payload.AppendSketches(nil, ds), points,
		[]byte(`[{"check":"c","host_name":"h","status":1,"tags":["A:B"]}]`), []byte(`{"title":"t","text":"x","tags":["a"]}`),
		[]byte(`{"data":{"attributes":{"title":"t"}}}`), []byte(`{"internalHostname":"h","host-tags":{"system":["a:b"]},"events":{"api":[{"msg_title":"t"}]}}`),
		otlpJSON(1), otlpProto(f, otlpJSON(1)), []byte("\x0a\x19\x0a\x0e\x0a\x08__name__\x12\x02up\x12\x07\x10\x80\x80\x80\x80\x80\x01"), v2} {
		for e, encoding := range []string{"", "zstd", "gzip", "zlib", "raw"} {
			f.Add(uint8(form), uint8(e), encode(f, encoding, body))
		}
		f.Add(uint8(form), uint8(4), snappy.Encode(nil, body))
	}
	f.Add(uint8(1), uint8(0), []byte(`{"series":[{"metric":"_","points":[{"timestamp":1e400,"value":null}]}]}`))
	fix := newFixture(f) // its book takes a file
	f.Fuzz(func(t *testing.T, n, encoding uint8, body []byte) {
		fix.store.series, fix.store.distributions = nil, nil
		form := fuzzForms[int(n)%len(fuzzForms)]
		w := fix.post(form.path, body, "Content-Type", form.kind, "Content-Encoding", [...]string{"", "zstd", "gzip", "deflate", "snappy"}[encoding%5])
		prefix := `{"errors":["`
		if form.path == "/v1/metrics" {
			prefix = ""
		}
		switch w.Code {
		case http.StatusAccepted, http.StatusOK, http.StatusNoContent:
		case http.StatusBadRequest, http.StatusRequestEntityTooLarge:
			if !strings.HasPrefix(w.Body.String(), prefix) || w.Body.Len() == 0 {
				t.Errorf("answered %d %s", w.Code, w.Body)
			}
		default:
			t.Errorf("answered %d %s", w.Code, w.Body)
		}
		if form.path == "/api/v1/write" {
			return // names and labels stay as they are
		}
		for _, d := range fix.store.distributions {
			fix.store.series = append(fix.store.series, metric.Series{Name: d.Name, Tags: d.Tags})
		}
		for _, s := range fix.store.series {
			if name, ok := metric.NormalizeName(s.Name); !ok || name != s.Name {
				t.Errorf("stored the name %q", s.Name)
			}
			if d := cmp.Diff([]string(metric.NewTags(s.Tags...)), append([]string{}, s.Tags...)); d != "" && len(s.Tags) > 0 {
				t.Errorf("stored tags that are not canonical: %s", d)
			}
		}
	})
}
