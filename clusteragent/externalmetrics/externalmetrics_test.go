package externalmetrics

import (
	"context"
	"crypto/tls"
	"log/slog"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"sigs.k8s.io/custom-metrics-apiserver/pkg/provider"

	"kelpie.dev/kelpie/clusteragent/reference"
	"kelpie.dev/kelpie/clusteragent/source"
)

// The vectors of reference external-metrics §1.4.
func TestQuantity(t *testing.T) {
	for _, c := range []struct {
		v    float64
		want string
	}{
		{42, "42"}, {0, "0"}, {16.7, "16700m"}, {0.25, "250m"}, {-0.5, "-500m"}, {12.3456, "12345600u"}, {0.0001234, "123400n"},
		{1e6, "1e+06"}, {1500000, "1500e3"}, {1e21, "1e+21"}, {2332548489456.5576, "2332548489456557600e-6"}, {1e-12, "1e-9"},
		{1.0 / 3, "333333334n"}, {12345.678, "12345.678"}, {123.456, "123.456"},
	} {
		q, err := Quantity(c.v)
		want := resource.MustParse(c.want)
		if err != nil || q.Cmp(want) != 0 {
			t.Errorf("Quantity(%v) = %s, %v; want %s", c.v, q.String(), err, c.want)
		}
	}
	for _, v := range []float64{math.NaN(), math.Inf(1), math.Inf(-1)} {
		if q, err := Quantity(v); err == nil {
			t.Errorf("Quantity(%v) = %s, want an error: it must never leave as a number", v, q.String())
		}
	}
}

func TestMetricLabels(t *testing.T) {
	sel, err := labels.Parse("a=b,c in (d),e in (f,g),h!=i,j")
	if err != nil {
		t.Fatal(err)
	}
	got := metricLabels(sel)
	if len(got) != 2 || got["a"] != "b" || got["c"] != "d" {
		t.Errorf("metricLabels = %v, want what the selector fixes: a=b and c=d", got)
	}
	if got := metricLabels(labels.Everything()); got != nil {
		t.Errorf("metricLabels of everything = %v, want none", got)
	}
}

func TestFailureBoundsTheQuery(t *testing.T) {
	err := failure(&source.Error{Reason: source.NoData, Message: "no series"}, "avg:m{"+strings.Repeat("é", 5000)+"}")
	if n := len(err.Error()); n > 500 || !strings.HasPrefix(err.Error(), "NoData: no series (query: avg:m{é") {
		t.Errorf("%d bytes: %.80s…; want the reason first and the query cut: an event holds 1024 bytes", n, err)
	}
}

func TestIssueAndRenew(t *testing.T) {
	now := time.Now()
	names := []string{"svc.ns.svc", "svc"}
	first, err := issue(nil, names, now)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := usable(first, "svc.ns.svc", now)
	if err != nil || leaf.NotAfter.Sub(now) < 300*24*time.Hour {
		t.Fatalf("usable = %v, %v; want a year", leaf, err)
	}
	renewed, err := issue(first, names, now.Add(340*24*time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	if string(renewed[caCertKey]) != string(first[caCertKey]) {
		t.Error("a renewal changed the authority: whoever trusts it would notice")
	}
	if string(renewed[corev1.TLSCertKey]) == string(first[corev1.TLSCertKey]) {
		t.Error("a renewal kept the certificate")
	}
	if _, err := tls.X509KeyPair(renewed[corev1.TLSCertKey], renewed[corev1.TLSPrivateKeyKey]); err != nil {
		t.Error(err)
	}
	old, err := issue(first, names, now.Add(9*365*24*time.Hour+30*24*time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	if string(old[caCertKey]) == string(first[caCertKey]) {
		t.Error("an authority that ends before the new certificate was kept")
	}
	other, err := issue(nil, names, now)
	if err != nil {
		t.Fatal(err)
	}
	mix := func(base map[string][]byte, key string, v []byte) map[string][]byte {
		out := map[string][]byte{}
		for k, b := range base {
			out[k] = b
		}
		out[key] = v
		return out
	}
	for _, c := range []struct {
		name string
		data map[string][]byte
		svc  string
		at   time.Time
		want string
	}{
		{"empty", nil, "svc.ns.svc", now, "not a pair"},
		{"foreign key", mix(first, corev1.TLSPrivateKeyKey, other[corev1.TLSPrivateKeyKey]), "svc.ns.svc", now, "not a pair"},
		{"foreign authority", mix(first, caCertKey, other[caCertKey]), "svc.ns.svc", now, "does not verify"},
		{"no authority", mix(first, caCertKey, []byte("hand-edited")), "svc.ns.svc", now, "holds no certificate"},
		{"other service", first, "new.ns.svc", now, "does not verify"},
		{"expired", first, "svc.ns.svc", now.Add(366 * 24 * time.Hour), "has ended"},
	} {
		if _, err := usable(c.data, c.svc, c.at); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: usable = %v, want %q", c.name, err, c.want)
		}
	}
}

// waits remembers until when each read was ready to wait.
type waits struct {
	until []time.Time
	known source.Reading
}

func (w *waits) Read(source.Key) source.Reading { return w.known }

func (w *waits) Await(ctx context.Context, _ source.Key) source.Reading {
	end, _ := ctx.Deadline()
	w.until = append(w.until, end)
	return source.Reading{}
}

func TestRequestWaitsAtMostAMoment(t *testing.T) {
	index := reference.NewIndex(reference.Options{Builder: reference.Builder{Aggregator: "avg", Rollup: 30 * time.Second}}, nil)
	index.Set(&autoscalingv2.HorizontalPodAutoscaler{
		ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: "h"},
		Spec: autoscalingv2.HorizontalPodAutoscalerSpec{Metrics: []autoscalingv2.MetricSpec{{Type: autoscalingv2.ExternalMetricSourceType,
			External: &autoscalingv2.ExternalMetricSource{Metric: autoscalingv2.MetricIdentifier{Name: "m"}}}}},
	})
	w := &waits{}
	p := &Provider{Index: index, Values: w}
	p.Instrument(prometheus.NewRegistry(), slog.New(slog.DiscardHandler))
	ask := func(ctx context.Context, metric string) error {
		_, err := p.GetExternalMetric(ctx, "a", labels.Everything(), provider.ExternalMetricInfo{Metric: metric})
		return err
	}
	start := time.Now()
	if err := ask(t.Context(), "m"); !apierrors.IsServiceUnavailable(err) {
		t.Errorf("a metric without reading: %v, want 503", err)
	}
	if err := ask(t.Context(), "other"); !apierrors.IsNotFound(err) {
		t.Errorf("a metric that nobody asks for: %v, want 404", err)
	}
	hurried, cancel := context.WithDeadline(t.Context(), start)
	defer cancel()
	if err := ask(hurried, "m"); !apierrors.IsServiceUnavailable(err) {
		t.Errorf("a request that is over: %v, want 503", err)
	}
	if len(w.until) != 2 || w.until[0].After(time.Now().Add(firstWait)) || !w.until[1].Equal(start) {
		t.Errorf("requests from %s wait until %s; want the known metric's two: a moment, and not past the request's own end", start, w.until)
	}
	for _, known := range []source.Reading{{Attempted: start, Fetched: start, At: start}, {Err: &source.Error{Reason: source.RateLimited}}} {
		w.until, w.known = nil, known
		if _ = ask(t.Context(), "m"); len(w.until) != 0 {
			t.Errorf("with %+v known, a request waits", known)
		}
	}
}
