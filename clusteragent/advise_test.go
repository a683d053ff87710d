package clusteragent

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"kelpie.dev/kelpie/clusteragent/advice"
	"kelpie.dev/kelpie/health"
)

// told counts the events of an autoscaler with a reason and a word in them.
func (c *cluster) told(t *testing.T, autoscaler, reason, word string) (n int32) {
	t.Helper()
	list, err := c.kube.CoreV1().Events("test").List(t.Context(), metav1.ListOptions{FieldSelector: "involvedObject.name=" + autoscaler + ",reason=" + reason})
	must(t, err)
	for _, e := range list.Items {
		if strings.Contains(e.Message, word) {
			n += max(e.Count, 1)
		}
	}
	return n
}

func (c *cluster) wantTold(t *testing.T, autoscaler, reason, word string, want int32) {
	t.Helper()
	eventually(t, 10*time.Second, func() string {
		if n := c.told(t, autoscaler, reason, word); n != want {
			return fmt.Sprintf("%s was told %q of %q %d times, want %d", autoscaler, reason, word, n, want)
		}
		return ""
	})
}

// TestAdviceOnTargets has an autoscaler told, once, that its target does not suit
// its query, and no other.
func TestAdviceOnTargets(t *testing.T) {
	c := startCluster(t)
	b := newBackend(t)
	ln := listen(t)
	c.register(t, ln)
	const total, average = "sum:queue.length{app:web}", "avg:queue.length{app:web}"
	b.set(func(b *backend) { b.values[total], b.values[average], b.values["sum:plain{*}.rollup(30)"] = 40, 20, 5 })
	r := c.start(t, "a", ln, map[string]string{
		"DD_EXTERNAL_METRICS_PROVIDER_ENDPOINT": b.URL, "DD_EXTERNAL_METRICS_PROVIDER_USE_DATADOGMETRIC_CRD": "true", "DD_EXTERNAL_METRICS_AGGREGATOR": "sum",
	})
	c.apply(t, metrics, "datadogmetrics", metricText("queue", total, ""))
	byAverage := strings.NewReplacer("type: Value, value", "type: AverageValue, averageValue").Replace(hpaText("fits", "datadogmetric@test:queue", "{}"))
	c.apply(t, hpas, "horizontalpodautoscalers", byAverage)
	c.apply(t, hpas, "horizontalpodautoscalers", hpaText("multiplies", "datadogmetric@test:queue", "{}"))
	c.apply(t, hpas, "horizontalpodautoscalers", hpaText("plain", "plain", "{}"))
	c.wantValue(t, 10*time.Second, "datadogmetric@test:queue", "", "40") // advice, not an error
	c.wantTold(t, "multiplies", advice.TotalByValue, "metric datadogmetric@test:queue: the query adds up", 1)
	c.wantTold(t, "plain", advice.TotalByValue, "metric plain: ", 1)
	var s Status
	must(t, health.Fetch(t.Context(), r.health, "/status", &s))
	var said []string
	for _, m := range s.Metrics {
		for _, text := range m.Advice {
			said = append(said, m.Query+" "+text)
		}
	}
	slices.Sort(said)
	if len(said) != 2 || !strings.HasPrefix(said[0], "sum:plain{*}.rollup(30) test/plain: ") || !strings.HasPrefix(said[1], total+" test/multiplies: "+advice.TotalByValue) {
		t.Errorf("the status advises %q, want the two", said)
	}

	// Once mended, and wrong again, it is told again.
	c.apply(t, metrics, "datadogmetrics", metricText("queue", average, ""))
	c.wantValue(t, 10*time.Second, "datadogmetric@test:queue", "", "20")
	c.apply(t, metrics, "datadogmetrics", metricText("queue", total, ""))
	c.wantTold(t, "multiplies", advice.TotalByValue, "the query adds up", 2)
	if n := c.told(t, "fits", advice.TotalByValue, ""); n != 0 {
		t.Errorf("an autoscaler whose target fits was told %d times", n)
	}
	if n := c.told(t, "plain", advice.TotalByValue, ""); n != 1 {
		t.Errorf("one that was told was told %d times", n)
	}
}
