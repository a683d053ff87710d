package backend

import (
	"bytes"
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"

	"kelpie.dev/kelpie/backend/auth"
	"kelpie.dev/kelpie/backend/intake"
	"kelpie.dev/kelpie/backend/store"
	"kelpie.dev/kelpie/metric"
	"kelpie.dev/kelpie/metric/payload"
)

// BenchmarkIntake is a v2 protobuf payload of 1000 contexts, zstd, from the
// request to the write-ahead log.
func BenchmarkIntake(b *testing.B) {
	now := time.Unix(1_700_000_000, 0)
	st, err := store.Open(store.Options{Dir: b.TempDir(), MinFree: -1, Now: func() time.Time { return now }})
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = st.Close() }()
	keys, err := auth.New("API", auth.Source{Keys: []string{"key"}})
	if err != nil {
		b.Fatal(err)
	}
	in, err := intake.New(intake.Options{Store: st, Auth: &auth.Checker{API: keys, App: keys}})
	if err != nil {
		b.Fatal(err)
	}
	mux := http.NewServeMux()
	in.Register(mux)
	series := make([]metric.Series, 1000)
	for i := range series {
		series[i] = metric.Series{Name: "bench.requests", Host: fmt.Sprint("node-", i%50), Type: metric.Rate, Interval: 10, Points: make([]metric.Point, 1),
			Tags: metric.NewTags("env:prod", "kube_namespace:test", fmt.Sprint("kube_deployment:web-", i%100), fmt.Sprint("pod_name:web-", i))}
	}
	zw, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1))
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	n := 0
	for b.Loop() {
		b.StopTimer()
		n++
		now = now.Add(10 * time.Second)
		for i := range series {
			series[i].Points[0] = metric.Point{Time: now.Unix(), Value: float64(i * n)}
		}
		body := zw.EncodeAll(payload.AppendV2(nil, series), nil)
		b.StartTimer()
		r := httptest.NewRequest(http.MethodPost, "/api/v2/series", bytes.NewReader(body))
		r.Header.Set("DD-API-KEY", "key")
		r.Header.Set("Content-Type", "application/x-protobuf")
		r.Header.Set("Content-Encoding", "zstd")
		w := httptest.NewRecorder()
		mux.ServeHTTP(w, r)
		if w.Code != http.StatusAccepted {
			b.Fatal(w.Body)
		}
	}
	b.ReportMetric(float64(n*len(series))/b.Elapsed().Seconds(), "samples/s")
}
