package clusteragent

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apiserver/pkg/server/dynamiccertificates"
	"k8s.io/client-go/util/cert"
	"k8s.io/metrics/pkg/apis/external_metrics"
	"sigs.k8s.io/custom-metrics-apiserver/pkg/provider"

	"kelpie.dev/kelpie/clusteragent/externalmetrics"
)

// kedaStandIn answers as KEDA's metrics server does, which is made of the same
// library: by the ScaledObject that the selector names.
type kedaStandIn struct{}

func (kedaStandIn) GetExternalMetric(_ context.Context, _ string, sel labels.Selector, info provider.ExternalMetricInfo) (*external_metrics.ExternalMetricValueList, error) {
	name, found := sel.RequiresExactMatch("scaledobject.keda.sh/name")
	if !found || name != "orders" {
		return nil, apierrors.NewNotFound(externalmetricsResource, name)
	}
	return &external_metrics.ExternalMetricValueList{Items: []external_metrics.ExternalMetricValue{
		{MetricName: info.Metric, Value: resource.MustParse("7500m"), Timestamp: metav1.Now()},
	}}, nil
}

var externalmetricsResource = schemaOf("external.metrics.k8s.io", "v1beta1", "externalmetrics").GroupResource()

func (kedaStandIn) ListAllExternalMetrics() []provider.ExternalMetricInfo {
	return []provider.ExternalMetricInfo{{Metric: "s0-cron"}}
}

// startKEDA serves the stand-in, which authenticates and authorizes its callers
// as KEDA does, until the returned function is called.
func (c *cluster) startKEDA(t *testing.T, caFile string) (url string, stop func()) {
	t.Helper()
	crt, key, err := cert.GenerateSelfSignedCertKey("127.0.0.1", []net.IP{net.IPv4(127, 0, 0, 1)}, nil)
	must(t, err)
	must(t, os.WriteFile(caFile, crt, 0o600))
	pair, err := dynamiccertificates.NewStaticCertKeyContent("keda", crt, key)
	must(t, err)
	ln := listen(t)
	s, err := externalmetrics.NewServer(externalmetrics.ServerOptions{
		Config: c.config, Kubeconfig: c.kubeconfig, Listener: ln, Provider: kedaStandIn{}, Certificate: pair,
	})
	must(t, err)
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	stop = func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("KEDA's stand-in ended with %v", err)
		}
		done <- nil
	}
	t.Cleanup(stop)
	return fmt.Sprintf("https://127.0.0.1:%d", ln.Addr().(*net.TCPAddr).Port), stop
}

// One APIService, two providers behind it.
func TestFrontDoor(t *testing.T) {
	c := startCluster(t)
	b := newBackend(t)
	b.set(func(b *backend) { b.values["avg:m{*}.rollup(30)"] = 42 })
	ca := filepath.Join(t.TempDir(), "ca.crt")
	url, stop := c.startKEDA(t, ca)
	ln := listen(t)
	c.register(t, ln)
	r := c.start(t, "front", ln, map[string]string{
		"DD_EXTERNAL_METRICS_PROVIDER_ENDPOINT": b.URL, "KELPIE_KEDA_URL": url, "KELPIE_KEDA_CA_FILE": ca,
	})
	c.apply(t, hpas, "horizontalpodautoscalers", hpaText("plain", "m", "{}"))
	c.apply(t, hpas, "horizontalpodautoscalers", strings.Replace(hpaText("keda-hpa-orders", "s0-cron", `{matchLabels: {scaledobject.keda.sh/name: orders}}`),
		"namespace: test}", "namespace: test, labels: {app.kubernetes.io/managed-by: keda-operator}}", 1))
	c.wantAvailable(t)

	c.wantValue(t, 10*time.Second, "m", "", "42")
	c.wantValue(t, 10*time.Second, "s0-cron", "scaledobject.keda.sh/name=orders", "7500m")
	c.wantError(t, "s0-cron", "scaledobject.keda.sh/name=other", 404, "KEDA: ")
	eventually(t, 10*time.Second, func() string {
		list, err := c.kube.Discovery().ServerResourcesForGroupVersion("external.metrics.k8s.io/v1beta1")
		if err != nil {
			return err.Error()
		}
		var names []string
		for _, r := range list.APIResources {
			names = append(names, r.Name)
		}
		if got := strings.Join(names, " "); !strings.Contains(got, "s0-cron") || !strings.Contains(got, "m") {
			return "discovery lists " + got + "; want both providers' metrics"
		}
		return ""
	})
	b.set(func(b *backend) {
		for q := range b.asked {
			if strings.Contains(q, "s0-cron") {
				t.Errorf("KEDA's metric was asked of the source: %s", q)
			}
		}
	})

	stop()
	c.wantError(t, "s0-cron", "scaledobject.keda.sh/name=orders", 503, "cannot reach KEDA's metrics server "+url)
	c.wantValue(t, time.Second, "m", "", "42")
	if got := c.counter(t, r, `kelpie_keda_requests_total{answer="200"}`); got == "absent" || got == "0" {
		t.Errorf("requests passed on: %s", got)
	}
}
