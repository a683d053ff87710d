package intake

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	collector "go.opentelemetry.io/proto/slim/otlp/collector/metrics/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding/gzip"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
)

// otlpJSON is a body with one point each of a good and a bad gauge, and of a
// cumulative sum that was never seen.
func otlpJSON(value int) []byte {
	now := time.Now().UnixNano()
	return fmt.Appendf(nil, `{"resourceMetrics":[{"scopeMetrics":[{"metrics":[
		{"name":"Good One","gauge":{"dataPoints":[{"timeUnixNano":"%[1]d","asInt":"%[2]d","attributes":[{"key":"K","value":{"stringValue":"V V"}}]}]}},
		{"name":"123","gauge":{"dataPoints":[{"timeUnixNano":"%[1]d","asInt":"1"}]}},
		{"name":"c","sum":{"aggregationTemporality":2,"isMonotonic":true,"dataPoints":[{"startTimeUnixNano":"5","timeUnixNano":"%[1]d","asInt":"%[2]d"}]}}]}]}]}`, now, value)
}

func otlpProto(t testing.TB, body []byte) []byte {
	t.Helper()
	var req collector.ExportMetricsServiceRequest
	if err := protojson.Unmarshal(body, &req); err != nil {
		t.Fatal(err)
	}
	wire, err := proto.Marshal(&req)
	if err != nil {
		t.Fatal(err)
	}
	return wire
}

func (f *fixture) foreign(dialect, outcome string) float64 {
	return testutil.ToFloat64(f.in.metrics.foreign.WithLabelValues(dialect, outcome))
}

func TestOTLPOverHTTP(t *testing.T) {
	for _, encoding := range []string{"", "gzip", "zstd", "zlib"} {
		f := newFixture(t)
		header := map[string]string{"zlib": "deflate"}[encoding]
		if header == "" {
			header = encoding
		}
		w := f.post("/v1/metrics", encode(t, encoding, otlpJSON(5)), "Content-Type", "application/json; charset=utf-8", "Content-Encoding", header)
		var resp collector.ExportMetricsServiceResponse
		if err := protojson.Unmarshal(w.Body.Bytes(), &resp); err != nil || w.Code != http.StatusOK || resp.GetPartialSuccess().GetRejectedDataPoints() != 1 ||
			!strings.Contains(resp.GetPartialSuccess().GetErrorMessage(), `"123": its name has no letter`) {
			t.Errorf("%s: answered %d %s", encoding, w.Code, w.Body)
		}
		w = f.post("/api/intake/otlp/v1/metrics", encode(t, encoding, otlpProto(t, otlpJSON(8))), "Content-Type", "application/x-protobuf", "Content-Encoding", header)
		resp.Reset()
		if err := proto.Unmarshal(w.Body.Bytes(), &resp); err != nil || w.Code != http.StatusOK || w.Header().Get("Content-Type") != "application/x-protobuf" || resp.GetPartialSuccess().GetRejectedDataPoints() != 1 {
			t.Errorf("%s: answered %d %s", encoding, w.Code, w.Body)
		}
		if len(f.store.series) != 3 || f.store.series[0].Name != "Good_One" || f.store.series[0].Tags.String() != "k:v_v" || f.store.series[2].Points[0].Value != 3 {
			t.Errorf("%s: stored %+v", encoding, f.store.series)
		}
		if f.foreign(dialectOTLP, "taken") != 3 || f.foreign(dialectOTLP, "refused") != 2 || f.foreign(dialectOTLP, "first") != 1 {
			t.Errorf("%s: counted %v taken, %v refused, %v first", encoding, f.foreign(dialectOTLP, "taken"), f.foreign(dialectOTLP, "refused"), f.foreign(dialectOTLP, "first"))
		}
	}
}

func TestOTLPErrors(t *testing.T) {
	big := bytes.Repeat([]byte(" "), 9<<20)
	js, pb := "application/json", "application/x-protobuf"
	for _, tt := range []struct {
		name     string
		body     []byte
		header   []string
		code     int
		reason   string
		contains string
	}{
		{"no key", otlpJSON(1), []string{"DD-API-KEY", "", "Content-Type", js}, 403, reasonForbidden, `{"code":16,"message":"API key required"}`},
		{"wrong key", otlpJSON(1), []string{"DD-API-KEY", "nope", "Content-Type", js}, 403, reasonForbidden, `{"code":16,"message":"Forbidden"}`},
		{"no content type", otlpJSON(1), nil, 415, reasonEncoding, "content type must be"},
		{"broken JSON", []byte(`{`), []string{"Content-Type", js}, 400, reasonMalformed, `{"code":3,"message":"Payload is not in the expected format: decode OTLP JSON`},
		{"broken protobuf", []byte(`{`), []string{"Content-Type", pb}, 400, reasonMalformed, "Payload is not in the expected format: decode OTLP protobuf"},
		{"not gzip", otlpJSON(1), []string{"Content-Type", js, "Content-Encoding", "gzip"}, 400, reasonEncoding, "gzip"},
		{"too big", big, []string{"Content-Type", js}, 413, reasonTooBig, "the received body is larger than 4194304 bytes"},
		{"bomb", encode(t, "gzip", big), []string{"Content-Type", js, "Content-Encoding", "gzip"}, 413, reasonTooBig, "the decompressed body is larger than 8388608 bytes"},
		{"bomb of messages", encode(t, "gzip", bytes.Repeat([]byte{0x0a, 0}, 600_000)), []string{"Content-Type", pb, "Content-Encoding", "gzip"}, 413, reasonTooBig, "too many values"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := newFixture(t)
			w := f.post("/v1/metrics", tt.body, tt.header...)
			if w.Code != tt.code || !strings.Contains(w.Body.String(), tt.contains) || f.refused(tt.reason) != 1 {
				t.Errorf("answered %d %s, counted %v", w.Code, w.Body, f.refused(tt.reason))
			}
			if len(f.store.series) != 0 || !f.in.bodies.TryAcquire(64<<20) || !f.in.decoding.TryAcquire(128<<20) {
				t.Error("something was stored, or memory was not given back")
			}
		})
	}
}

// What could not be stored is sent again, and must then say the same.
func TestOTLPThatCannotBeStoredComesAgain(t *testing.T) {
	f := newFixture(t)
	f.post("/v1/metrics", otlpJSON(5), "Content-Type", "application/json")
	f.store.series, f.store.err = nil, errors.New("not enough free disk space")
	again := otlpJSON(8)
	if w := f.post("/v1/metrics", again, "Content-Type", "application/json"); w.Code != http.StatusServiceUnavailable || !strings.Contains(w.Body.String(), `{"code":14,"message":"not enough free disk space"}`) {
		t.Errorf("answered %d %s", w.Code, w.Body)
	}
	f.store.err = nil
	f.post("/v1/metrics", again, "Content-Type", "application/json")
	if len(f.store.series) != 2 || f.store.series[1].Points[0].Value != 3 {
		t.Errorf("stored %+v", f.store.series)
	}
}

// serve serves the fixture as the backend does.
func (f *fixture) serve(t *testing.T) *httptest.Server {
	t.Helper()
	srv := httptest.NewUnstartedServer(f.mux)
	srv.Config.Protocols = new(http.Protocols)
	srv.Config.Protocols.SetHTTP1(true)
	srv.Config.Protocols.SetUnencryptedHTTP2(true)
	srv.Start()
	t.Cleanup(srv.Close)
	return srv
}

func TestOTLPOverGRPC(t *testing.T) {
	f := newFixture(t)
	conn, err := grpc.NewClient(strings.TrimPrefix(f.serve(t).URL, "http://"), grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithDefaultCallOptions(grpc.ForceCodecV2(rawMessage{})))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	export := func(key string, body []byte, opts ...grpc.CallOption) (*collector.ExportMetricsServiceResponse, error) {
		var out []byte
		err := conn.Invoke(metadata.AppendToOutgoingContext(t.Context(), "dd-api-key", key), otlpMethod, &body, &out, opts...)
		var resp collector.ExportMetricsServiceResponse
		if err == nil {
			err = proto.Unmarshal(out, &resp)
		}
		return &resp, err
	}
	for i, opts := range [][]grpc.CallOption{nil, {grpc.UseCompressor(gzip.Name)}} {
		resp, err := export("key", otlpProto(t, otlpJSON(5+i)), opts...)
		if err != nil || resp.GetPartialSuccess().GetRejectedDataPoints() != 1 {
			t.Errorf("%v %v", resp, err)
		}
	}
	if len(f.store.series) != 3 || f.store.series[0].Name != "Good_One" {
		t.Errorf("stored %+v", f.store.series)
	}
	for _, tt := range []struct {
		name, key string
		body      []byte
		opts      []grpc.CallOption
		code      codes.Code
		text      string
		reason    string
	}{
		{"no key", "", nil, nil, codes.Unauthenticated, "API key required", reasonForbidden},
		{"wrong key", "nope", nil, nil, codes.Unauthenticated, "Forbidden", reasonForbidden},
		{"broken", "key", []byte("{"), nil, codes.InvalidArgument, "decode OTLP protobuf", reasonMalformed},
		{"messages", "key", bytes.Repeat([]byte{0x0a, 0}, 600_000), nil, codes.ResourceExhausted, "too many values", reasonTooBig},
		{"too big", "key", make([]byte, 5<<20), nil, codes.ResourceExhausted, "larger than max", reasonEncoding},
		{"bomb", "key", make([]byte, 50<<20), []grpc.CallOption{grpc.UseCompressor(gzip.Name)}, codes.ResourceExhausted, "larger than", reasonEncoding},
	} {
		before := f.refused(tt.reason)
		_, err := export(tt.key, tt.body, append(tt.opts, grpc.MaxCallSendMsgSize(64<<20))...)
		if status.Code(err) != tt.code || !strings.Contains(err.Error(), tt.text) || f.refused(tt.reason) != before+1 {
			t.Errorf("%s: %v, counted %v", tt.name, err, f.refused(tt.reason)-before)
		}
	}
	f.store.mu.Lock()
	f.store.err = errors.New("not enough free disk space")
	f.store.mu.Unlock()
	if _, err := export("key", otlpProto(t, otlpJSON(5))); status.Code(err) != codes.Unavailable {
		t.Errorf("where nothing can be stored: %v", err)
	}
	if !f.in.bodies.TryAcquire(64<<20) || !f.in.decoding.TryAcquire(128<<20) {
		t.Error("memory was not given back")
	}
}
