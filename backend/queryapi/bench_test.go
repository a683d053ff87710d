package queryapi_test

import (
	"fmt"
	"net/http"
	"testing"

	"kelpie.dev/kelpie/backend/queryapi"
	"kelpie.dev/kelpie/metric"
)

// BenchmarkQuery asks over HTTP for what the cluster agent asks: five minutes
// of one deployment, among 10 000 contexts of the metric.
func BenchmarkQuery(b *testing.B) {
	a := newAPI(b, queryapi.Options{})
	batch := make([]metric.Series, 10_000)
	for i := range batch {
		batch[i] = metric.Series{Name: "bench.requests", Type: metric.Rate, Interval: 10, Points: make([]metric.Point, 1), Host: fmt.Sprint("node-", i%50),
			Tags: metric.NewTags("env:prod", fmt.Sprint("kube_deployment:web-", i%1000), fmt.Sprint("pod_name:web-", i))}
	}
	for t := range int64(30) {
		for i := range batch {
			batch[i].Points[0] = metric.Point{Time: t0 + 10*t, Value: float64(i)}
		}
		if err := a.Load(b.Context(), batch, nil); err != nil {
			b.Fatal(err)
		}
	}
	p := params(t0, t0+299, "avg:bench.requests{env:prod,kube_deployment:web-7}.rollup(30)")
	b.ReportAllocs()
	for b.Loop() {
		code, body, err := a.get(b.Context(), "/api/v1/query", p)
		if err != nil || code != http.StatusOK {
			b.Fatal(code, body, err)
		}
	}
}
