package datadog

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/zstd"

	"kelpie.dev/kelpie/metric"
	"kelpie.dev/kelpie/metric/payload"
)

func unpack(t *testing.T, data []byte) []metric.Series {
	t.Helper()
	r, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	raw, err := r.DecodeAll(data, nil)
	if err != nil {
		t.Fatal(err)
	}
	if len(raw) > maxSeriesBytes {
		t.Errorf("a body has %d bytes, want at most %d", len(raw), maxSeriesBytes)
	}
	series, err := payload.DecodeV2(raw)
	if err != nil {
		t.Fatal(err)
	}
	return series
}

// Bodies keep the intake's bounds, and hold all series in their order.
func TestEncodeSplits(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	noise := func(n int) string {
		b := make([]byte, n)
		for i := range b {
			b[i] = byte('!' + random.IntN(90))
		}
		return string(b)
	}
	for _, c := range []struct {
		name    string
		series  int
		points  int
		tag     func() string
		bodies  int
		dropped int
	}{
		{"none", 0, 1, nil, 0, 0},
		{"one body", 100, 1, func() string { return "a:b" }, 1, 0},
		{"points", 10_001, 1, func() string { return "a:b" }, 2, 0},
		{"bytes", 6, 1, func() string { return strings.Repeat("x", 1<<20) }, 2, 0},
		{"compressed bytes", 6, 1, func() string { return noise(200_000) }, 4, 0},
		{"one series of too many points", 1, 10_001, func() string { return "a:b" }, 0, 10_001},
		{"one series too large", 1, 1, func() string { return noise(1 << 20) }, 0, 1},
	} {
		series := make([]metric.Series, c.series)
		for i := range series {
			series[i] = metric.Series{Name: fmt.Sprintf("m%05d", i), Tags: metric.NewTags(c.tag()), Type: metric.Gauge, Points: make([]metric.Point, c.points)}
			for j := range series[i].Points {
				series[i].Points[j] = metric.Point{Time: int64(1000 + j), Value: float64(i)}
			}
		}
		e, err := NewSeriesEncoder()
		if err != nil {
			t.Fatal(err)
		}
		bodies, dropped := e.Encode(series)
		if len(bodies) != c.bodies || dropped != c.dropped {
			t.Errorf("%s: %d bodies, %d points dropped; want %d, %d", c.name, len(bodies), dropped, c.bodies, c.dropped)
		}
		var got []metric.Series
		for _, b := range bodies {
			more := unpack(t, b.Data)
			if len(b.Data) > maxSeriesCompressed || b.Points > maxSeriesPoints || b.Points != len(more)*c.points {
				t.Errorf("%s: a body of %d bytes says %d points and has %d series", c.name, len(b.Data), b.Points, len(more))
			}
			got = append(got, more...)
		}
		if c.dropped == 0 && c.series > 0 {
			if diff := cmp.Diff(series, got); diff != "" {
				t.Errorf("%s (-want +got):\n%.2000s", c.name, diff)
			}
		}
	}
}

func TestSubmit(t *testing.T) {
	e, err := NewSeriesEncoder()
	if err != nil {
		t.Fatal(err)
	}
	sent := []metric.Series{{Name: "m", Type: metric.Gauge, Points: []metric.Point{{Time: 1, Value: 2}}}}
	bodies, _ := e.Encode(sent)
	for _, c := range []struct {
		name   string
		answer http.HandlerFunc
		want   string // in the error; "" for none
		status int
		retry  time.Duration
	}{
		{"accepted", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusAccepted) }, "", 0, 0},
		{"key refused", func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusForbidden)
			_, _ = io.WriteString(w, `{"errors":["Forbidden"]}`)
		}, "Forbidden", 403, 0},
		{"slow down", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", "7")
			w.WriteHeader(http.StatusTooManyRequests)
		}, "429", 429, 7 * time.Second},
		{"redirected", func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "https://elsewhere.example/x", http.StatusFound)
		}, "elsewhere.example", 302, 0},
		{"a page of a proxy", func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusBadGateway)
			_, _ = io.WriteString(w, strings.Repeat("x", 1<<20))
		}, "xxx…", 502, 0},
	} {
		var got []metric.Series
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			body, err := io.ReadAll(r.Body)
			if err != nil {
				t.Error(err)
			}
			got = unpack(t, body)
			want := map[string]string{"Dd-Api-Key": "key", "Content-Type": "application/x-protobuf", "Content-Encoding": "zstd", "User-Agent": "ua"}
			for name, v := range want {
				if r.Header.Get(name) != v {
					t.Errorf("header %s is %q, want %q", name, r.Header.Get(name), v)
				}
			}
			if r.Method != http.MethodPost || r.URL.Path != "/api/v2/series" || r.Header.Get("DD-APPLICATION-KEY") != "" {
				t.Errorf("%s %s with application key %q", r.Method, r.URL.Path, r.Header.Get("DD-APPLICATION-KEY"))
			}
			c.answer(w, r)
		}))
		client, err := New(Options{BaseURL: s.URL + "/", APIKey: "key", AppKey: "app", UserAgent: "ua"})
		if err != nil {
			t.Fatal(err)
		}
		err = client.Submit(t.Context(), bodies[0])
		client.CloseIdle()
		s.Close()
		if diff := cmp.Diff(sent, got); diff != "" {
			t.Errorf("%s: sent (-want +got):\n%s", c.name, diff)
		}
		if c.want == "" {
			if err != nil {
				t.Errorf("%s: %v", c.name, err)
			}
			continue
		}
		var api *APIError
		if !errors.As(err, &api) || api.Status != c.status || api.RetryAfter != c.retry || !strings.Contains(err.Error(), c.want) || len(err.Error()) > 500 || strings.Contains(err.Error(), "key ") {
			t.Errorf("%s: %v, want status %d, retry after %s and %q", c.name, err, c.status, c.retry, c.want)
		}
	}
}

func TestSubmitToNobody(t *testing.T) {
	client, err := New(Options{BaseURL: "http://user:secret@127.0.0.1:1", APIKey: "key"})
	if err != nil {
		t.Fatal(err)
	}
	err = client.Submit(t.Context(), SeriesBody{})
	if err == nil || strings.Contains(err.Error(), "secret") || !strings.Contains(err.Error(), "127.0.0.1:1") {
		t.Errorf("%v, want an error that names the host and not the password", err)
	}
}
