package intake

import (
	"bytes"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/snappy"
	writev2 "github.com/prometheus/client_golang/exp/api/remote/genproto/v2"
	"google.golang.org/protobuf/proto"
)

func writeBody(t testing.TB) []byte {
	t.Helper()
	body, err := proto.Marshal(&writev2.Request{
		Symbols: []string{"", "__name__", "up", "job", "API x"},
		Timeseries: []*writev2.TimeSeries{
			{LabelsRefs: []uint32{1, 2, 3, 4}, Samples: []*writev2.Sample{{Value: 1, Timestamp: time.Now().UnixMilli()}}},
			{LabelsRefs: []uint32{3, 4}, Samples: []*writev2.Sample{{Value: 1, Timestamp: time.Now().UnixMilli()}}},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	return snappy.Encode(nil, body)
}

const writeV2Type = "application/x-protobuf;proto=io.prometheus.write.v2.Request"

func TestRemoteWrite(t *testing.T) {
	f := newFixture(t)
	w := f.post("/api/v1/write", writeBody(t), "Content-Type", writeV2Type, "Content-Encoding", "snappy")
	if w.Code != http.StatusOK || w.Body.String() != `{"errors":["metric \"\": it has no name"],"refused":1}` || w.Header().Get("X-Prometheus-Remote-Write-Samples-Written") != "1" {
		t.Errorf("answered %d %s %v", w.Code, w.Body, w.Header())
	}
	if len(f.store.series) != 1 || f.store.series[0].Tags.String() != "job:API x" || f.foreign(dialectWrite, "taken") != 1 || f.foreign(dialectWrite, "refused") != 1 {
		t.Errorf("stored %+v", f.store.series)
	}
	w = f.post("/prometheus/api/v1/write", snappy.Encode(nil, nil), "Content-Encoding", "snappy")
	if w.Code != http.StatusNoContent || w.Body.Len() != 0 {
		t.Errorf("answered %d %s", w.Code, w.Body)
	}
	// Where nobody keeps raw keys, labels are normalized.
	f.in.rawKeys = nil
	f.post("/api/v1/write", writeBody(t), "Content-Type", writeV2Type, "Content-Encoding", "snappy")
	if len(f.store.series) != 2 || f.store.series[1].Tags.String() != "job:api_x" {
		t.Errorf("stored %+v", f.store.series)
	}
}

func TestRemoteWriteErrors(t *testing.T) {
	for _, tt := range []struct {
		name     string
		body     []byte
		header   []string
		code     int
		reason   string
		contains string
	}{
		{"wrong key", writeBody(t), []string{"DD-API-KEY", "nope"}, 403, reasonForbidden, "Forbidden"},
		{"content type", writeBody(t), []string{"Content-Type", "application/json"}, 415, reasonEncoding, "content type must be application/x-protobuf"},
		{"message", writeBody(t), []string{"Content-Type", "application/x-protobuf;proto=x.v3"}, 415, reasonEncoding, `message \"x.v3\" is not known`},
		{"not snappy", []byte("\xff\xff\xff"), []string{"Content-Encoding", "snappy"}, 400, reasonEncoding, "snappy: "},
		{"broken snappy", []byte("\x05hello"), []string{"Content-Encoding", "snappy"}, 400, reasonEncoding, "snappy: "},
		{"malformed", snappy.Encode(nil, []byte("{}")), []string{"Content-Encoding", "snappy"}, 400, reasonMalformed, "Payload is not in the expected format: decode remote write"},
		{"too big", make([]byte, 4<<20+1), nil, 413, reasonTooBig, "the received body is larger than 4194304 bytes"},
		{"bomb", snappy.Encode(nil, make([]byte, 17<<20)), []string{"Content-Encoding", "snappy"}, 413, reasonTooBig, "the decompressed body is larger than 16777216 bytes"},
		{"a length that lies", []byte("\xff\xff\xff\xff\x0f"), []string{"Content-Encoding", "snappy"}, 413, reasonTooBig, "decompressed"},
		{"bomb of samples", snappy.Encode(nil, append([]byte{0x0a, 0xc2, 0x9a, 0x0c}, bytes.Repeat([]byte{0x12, 0}, 100_001)...)), []string{"Content-Encoding", "snappy"}, 413, reasonTooBig, "too many values"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := newFixture(t)
			w := f.post("/api/v1/write", tt.body, tt.header...)
			if w.Code != tt.code || !strings.Contains(w.Body.String(), tt.contains) || f.refused(tt.reason) != 1 {
				t.Errorf("answered %d %s, counted %v", w.Code, w.Body, f.refused(tt.reason))
			}
			if len(f.store.series) != 0 || !f.in.bodies.TryAcquire(64<<20) || !f.in.decoding.TryAcquire(128<<20) {
				t.Error("something was stored, or memory was not given back")
			}
		})
	}
}
