package clusteragent

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestMetricsThatComeLate serves points of four minutes ago to nobody who did not
// ask for it, and says what to ask for.
func TestMetricsThatComeLate(t *testing.T) {
	c := startCluster(t)
	b := newBackend(t)
	ln := listen(t)
	c.register(t, ln)
	const query = "avg:aws.sqs.messages{queue:jobs}"
	b.set(func(b *backend) { b.values[query], b.frozen = 5, time.Now().Add(-4*time.Minute) })
	c.start(t, "a", ln, map[string]string{"DD_EXTERNAL_METRICS_PROVIDER_ENDPOINT": b.URL, "DD_EXTERNAL_METRICS_PROVIDER_USE_DATADOGMETRIC_CRD": "true"})
	auto := strings.Replace(metricText("auto", query, ""), "namespace: test", "namespace: test, annotations: {kelpie.dev/max-age: auto}", 1)
	c.apply(t, metrics, "datadogmetrics", metricText("late", query, ""))
	c.apply(t, metrics, "datadogmetrics", metricText("asked", query, `, maxAge: 5m`))
	c.apply(t, metrics, "datadogmetrics", auto)
	for _, name := range []string{"late", "asked", "auto"} {
		c.apply(t, hpas, "horizontalpodautoscalers", hpaText(name, "datadogmetric@test:"+name, "{}"))
	}
	// Points come on, four minutes late each.
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		for tick := time.NewTicker(200 * time.Millisecond); ; {
			select {
			case <-ctx.Done():
				tick.Stop()
				return
			case <-tick.C:
				b.set(func(b *backend) { b.frozen = time.Now().Add(-4 * time.Minute) })
			}
		}
	})
	defer wg.Wait()
	defer stop()
	c.wantValue(t, 10*time.Second, "datadogmetric@test:asked", "", "5")
	c.wantValue(t, 20*time.Second, "datadogmetric@test:auto", "", "5")
	c.wantError(t, "datadogmetric@test:late", "", 422, "Stale: newest point", "is 4m", "metrics like this come late (points are about 4m0s old when they come, and 10s apart): set maxAge to at least 5m0s")
	c.wantConditions(t, "late", "Active=True/Referenced", "Valid=False/Stale", "Updated=True/PointReceived", "Error=True/Stale")
	c.wantConditions(t, "auto", "Active=True/Referenced", "Valid=True/ValueAvailable", "Updated=True/PointReceived", "Error=False/NoError")
}
