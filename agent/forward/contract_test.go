package forward

import (
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"kelpie.dev/kelpie/metric"
)

// everyKind is a batch that holds two items or more of most kinds.
func everyKind() Batch {
	return Batch{
		Series: []metric.Series{
			{Name: "requests", Host: "node-1", Type: metric.Rate, Interval: 10, Tags: metric.Tags{"env:prod", "service:web"}, Points: []metric.Point{{Time: 1_700_000_000, Value: 2.5}}},
		},
		Distributions: []metric.Distribution{
			{Name: "latency", Host: "node-1", Tags: metric.Tags{"env:prod"}, Points: []metric.SketchPoint{
				{Time: 1_700_000_000, Sketch: metric.Sketch{Count: 2, Min: 1, Max: 2, Sum: 3, Bins: []metric.Bin{{Key: 1338, N: 1}, {Key: 1383, N: 1}}}}}},
			{Name: "size", Points: []metric.SketchPoint{
				{Time: 1_700_000_000, Sketch: metric.Sketch{Count: 1, Min: 1, Max: 1, Sum: 1, Bins: []metric.Bin{{Key: 1338, N: 1}}}}}},
		},
		Checks: []metric.ServiceCheck{{Name: "datadog.agent.up", Status: metric.CheckOK, Host: "node-1"}},
		Events: []metric.Event{{Title: "started", Text: "at last", Host: "node-1", Priority: "normal", AlertType: "info"}},
	}
}

// TestContract holds the requests of each kind to what a stock Datadog intake
// takes (reference metrics-pipeline A4.2 to A4.5): method, path, every header
// that is ours, and the body, of which testdata/contract.txt has the bytes.
func TestContract(t *testing.T) {
	recorded := map[string]struct {
		header http.Header
		body   string
	}{}
	server := newIntake(t, nil)
	server.judge = func(w http.ResponseWriter, r *http.Request, body []byte) bool {
		h := r.Header.Clone()
		h.Del("Content-Length") // the server's own view of the body
		recorded[r.Method+" "+r.URL.RequestURI()] = struct {
			header http.Header
			body   string
		}{h, string(body)}
		return false
	}
	o := options(server.URL)
	o.Compression = "none"
	o.Now = func() time.Time { return time.Unix(1_700_000_005, 0) }
	f := mustNew(t, o)
	c, end := run(t, f)
	b := everyKind()
	b.Events = append(b.Events,
		metric.Event{Title: "t", Text: "x", Time: 1_700_000_001, Priority: "low", SourceType: "jenkins", AlertType: "error", AggregationKey: "k", Tags: metric.Tags{"a:b"}},
		metric.Event{Title: "second of api", Priority: "normal", AlertType: "info"})
	b.Checks = append(b.Checks, metric.ServiceCheck{Name: "db.up", Status: metric.CheckCritical, Time: 1_700_000_002, Message: "no \"answer\"", Tags: metric.Tags{"db:x"}})
	c <- b
	end()

	common := func(kind string) http.Header {
		h := http.Header{
			"Dd-Api-Key": {testKey}, "Dd-Agent-Version": {"1.2.3"}, "User-Agent": {"kelpie-agent/1.2.3"}, "Accept-Encoding": {"gzip"},
			"Content-Type": {"application/json"},
		}
		if kind == "protobuf" {
			h.Set("Content-Type", "application/x-protobuf")
			h.Set("DD-Agent-Payload", "5.0.215")
		}
		return h
	}
	jsonBodies, err := os.ReadFile("testdata/contract.txt")
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(string(jsonBodies)), "\n")
	for i, tt := range []struct{ request, format string }{
		{"POST /api/v1/check_run", "json"}, {"POST /intake/", "json"},
		{"POST /api/v2/series", "protobuf"}, {"POST /api/beta/sketches", "protobuf"},
	} {
		got, ok := recorded[tt.request]
		if !ok {
			t.Errorf("no %s among the requests", tt.request)
			continue
		}
		if diff := cmp.Diff(common(tt.format), got.header); diff != "" {
			t.Errorf("%s: headers (-want +got):\n%s", tt.request, diff)
		}
		if tt.format == "json" {
			if diff := cmp.Diff(lines[i], got.body); diff != "" {
				t.Errorf("%s: body (-want +got):\n%s", tt.request, diff)
			}
		}
	}
	if len(recorded) != 4 {
		t.Errorf("%d different requests, want 4", len(recorded))
	}
	var decoded Batch
	for _, r := range server.requests() {
		decoded.Series = append(decoded.Series, r.body.Series...)
		decoded.Distributions = append(decoded.Distributions, r.body.Distributions...)
	}
	if diff := cmp.Diff(b.Series, decoded.Series); diff != "" {
		t.Errorf("series (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(b.Distributions, decoded.Distributions); diff != "" {
		t.Errorf("distributions (-want +got):\n%s", diff)
	}
	const metadata = "\x12\x00" // SketchPayload's field 2: once, and empty
	if body := recorded["POST /api/beta/sketches"].body; strings.Count(body, metadata) != 1 || !strings.HasSuffix(body, metadata) {
		t.Errorf("sketches do not end in their metadata: %q", body)
	}
}
