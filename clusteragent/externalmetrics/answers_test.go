package externalmetrics

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/custom-metrics-apiserver/pkg/provider"

	"kelpie.dev/kelpie/clusteragent/datadogmetric"
	"kelpie.dev/kelpie/clusteragent/policy"
	"kelpie.dev/kelpie/clusteragent/reference"
	"kelpie.dev/kelpie/clusteragent/source"
)

// readings are the newest of each query.
type readings map[string]source.Reading

func (r readings) Await(_ context.Context, k source.Key) source.Reading { return r[k.Query] }

func (r readings) Read(k source.Key) source.Reading { return r[k.Query] }

type objects map[types.NamespacedName]datadogmetric.Metric

func (o objects) Metric(id types.NamespacedName) (datadogmetric.Metric, bool) {
	m, ok := o[id]
	return m, ok
}

func external(name, selector string) autoscalingv2.MetricSpec {
	m := autoscalingv2.MetricIdentifier{Name: name}
	if selector != "" {
		m.Selector = &metav1.LabelSelector{MatchLabels: map[string]string{}}
		for pair := range strings.SplitSeq(selector, ",") {
			k, v, _ := strings.Cut(pair, "=")
			m.Selector.MatchLabels[k] = v
		}
	}
	return autoscalingv2.MetricSpec{Type: autoscalingv2.ExternalMetricSourceType, External: &autoscalingv2.ExternalMetricSource{Metric: m}}
}

func autoscaler(ns, name string, metrics ...autoscalingv2.MetricSpec) *autoscalingv2.HorizontalPodAutoscaler {
	return &autoscalingv2.HorizontalPodAutoscaler{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name},
		Spec: autoscalingv2.HorizontalPodAutoscalerSpec{Metrics: metrics}}
}

func serve(r readings, o Objects, hpas ...*autoscalingv2.HorizontalPodAutoscaler) *Provider {
	index := reference.NewIndex(reference.Options{Builder: reference.Builder{Aggregator: "avg", Rollup: 30 * time.Second}}, nil)
	for _, hpa := range hpas {
		index.Set(hpa)
	}
	p := &Provider{Index: index, Values: r, Objects: o, Rules: source.Rules{MaxAge: 2 * time.Minute}, Autogen: true}
	p.Instrument(prometheus.NewRegistry(), slog.New(slog.DiscardHandler))
	return p
}

// ask returns the values of all items: an autoscaler adds them up.
func ask(t *testing.T, p *Provider, ns, metric, selector string) ([]string, error) {
	t.Helper()
	sel, err := labels.Parse(selector)
	if err != nil {
		t.Fatal(err)
	}
	list, err := p.GetExternalMetric(t.Context(), ns, sel, provider.ExternalMetricInfo{Metric: metric})
	if err != nil {
		return nil, err
	}
	var values []string
	for _, item := range list.Items {
		values = append(values, item.Value.String())
	}
	return values, nil
}

// However many autoscalers and entries there are, each is answered one item, and
// it is its own.
func TestEachGetsItsOwnNumber(t *testing.T) {
	now := time.Now()
	value := func(v float64) source.Reading { return source.Reading{Value: v, At: now, Fetched: now, Attempted: now} }
	p := serve(readings{
		"avg:rps{*}.rollup(30)":       value(100),
		"avg:rps{app:web}.rollup(30)": value(7),
		"avg:rps{app:api}.rollup(30)": value(9),
		"avg:Rps{app:web}.rollup(30)": value(70),
	}, nil,
		autoscaler("a", "two-entries", external("rps", "app=web"), external("rps", "app=api")),
		autoscaler("a", "same", external("rps", "app=web")),
		autoscaler("b", "same", external("rps", "app=web")),
		autoscaler("b", "no-labels", external("rps", "")),
		autoscaler("c", "capital", external("Rps", "app=web")),
	)
	for _, c := range []struct{ ns, selector, want string }{
		{"a", "app=web", "7"}, {"a", "app=api", "9"}, {"b", "app=web", "7"}, {"b", "", "100"}, {"c", "app=web", "70"},
	} {
		got, err := ask(t, p, c.ns, "rps", c.selector)
		if err != nil || len(got) != 1 || got[0] != c.want {
			t.Errorf("rps{%s} in %s = %v, %v; want the one item %s", c.selector, c.ns, got, err, c.want)
		}
	}
}

// 404 for what is unknown, 422 for what is wrong or has no data, 503 for what
// may come by itself: who asks can tell whether to wait.
func TestStatusCodes(t *testing.T) {
	now := time.Now()
	failed := func(r source.Reason) source.Reading {
		return source.Reading{Attempted: now, Err: &source.Error{Reason: r, Message: "what the source says"}}
	}
	stale := source.Reading{Value: 1, At: now.Add(-time.Hour), Fetched: now.Add(-time.Hour), Attempted: now}
	r := readings{"stale": stale}
	o := objects{{Namespace: "a", Name: "unused"}: {ID: types.NamespacedName{Namespace: "a", Name: "unused"}},
		{Namespace: "a", Name: "stale"}: {Active: true, Key: source.Key{Query: "stale"}},
		{Namespace: "a", Name: "broken"}: {Active: true, Problem: &source.Error{Reason: "InvalidSpec",
			Message: "spec.query is empty"}}}
	for _, reason := range []source.Reason{source.SyntaxError, source.QueryTooLong, source.QueryRejected, source.NoData, source.MultipleSeries, source.NotANumber,
		source.Unauthorized, source.RateLimited, source.SourceUnavailable} {
		name := strings.ToLower(string(reason))
		r[name] = failed(reason)
		o[types.NamespacedName{Namespace: "a", Name: name}] = datadogmetric.Metric{Active: true, Key: source.Key{Query: name}}
	}
	o[types.NamespacedName{Namespace: "a", Name: "new"}] = datadogmetric.Metric{Active: true, Key: source.Key{Query: "new"}}
	p := serve(r, o, autoscaler("a", "h", external("empty.tag", "env="), external("with-dash", "")))
	for _, c := range []struct {
		metric, selector string
		code             int32
		words            string
	}{
		{"datadogmetric@a:absent", "", 404, `no DatadogMetric "absent" in namespace "a"`},
		{"datadogmetric@a:not a name", "", 404, "is no object name"},
		{"nobody.asks", "", 404, "no HorizontalPodAutoscaler asks for metric"},
		{"empty.tag", "env=prod", 404, "with this name there is"},

		{"empty.tag", "env=", 422, "InvalidSelector: the selector of metric"},
		{"with-dash", "", 422, "InvalidMetricName: metric name"},
		{"datadogmetric@a:unused", "", 422, "NotReferenced: "},
		{"datadogmetric@a:broken", "", 422, "InvalidSpec: spec.query is empty"},
		{"datadogmetric@a:stale", "", 422, "Stale: newest point"},
		{"datadogmetric@a:stale", "", 422, "(the last value was 1 at " + stale.At.UTC().Format(time.RFC3339) + ")"},
		{"datadogmetric@a:syntaxerror", "", 422, "SyntaxError: what the source says"},
		{"datadogmetric@a:querytoolong", "", 422, "QueryTooLong: "},
		{"datadogmetric@a:queryrejected", "", 422, "QueryRejected: "},
		{"datadogmetric@a:nodata", "", 422, "NoData: "},
		{"datadogmetric@a:multipleseries", "", 422, "MultipleSeries: "},
		{"datadogmetric@a:notanumber", "", 422, "NotANumber: "},

		{"datadogmetric@a:unauthorized", "", 503, "Unauthorized: "},
		{"datadogmetric@a:ratelimited", "", 503, "RateLimited: "},
		{"datadogmetric@a:sourceunavailable", "", 503, "SourceUnavailable: "},
		{"datadogmetric@a:new", "", 503, "Pending: not asked yet"},
	} {
		got, err := ask(t, p, "a", c.metric, c.selector)
		var status apierrors.APIStatus
		if !errors.As(err, &status) || status.Status().Code != c.code || !strings.Contains(err.Error(), c.words) {
			t.Errorf("%s{%s} = %v, %v; want %d with %q", c.metric, c.selector, got, err, c.code, c.words)
		}
	}
}

func TestPolicyAtTheAPI(t *testing.T) {
	now := time.Now()
	m := func(change func(*datadogmetric.Metric)) datadogmetric.Metric {
		m := datadogmetric.Metric{Active: true, Key: source.Key{Query: "q"}, Limits: source.Limits{MaxAge: time.Minute}}
		change(&m)
		return m
	}
	o := objects{
		{Namespace: "a", Name: "lag"}:  m(func(*datadogmetric.Metric) {}),
		{Namespace: "a", Name: "lent"}: m(func(m *datadogmetric.Metric) { m.Allowed = "b" }),
		{Namespace: "a", Name: "wide"}: m(func(m *datadogmetric.Metric) {
			m.Problem = &source.Error{Reason: policy.Forbidden, Message: "too wide"}
		}),
		{Namespace: "a", Name: "many"}: m(func(m *datadogmetric.Metric) {
			m.Problem = &source.Error{Reason: policy.QuotaExceeded, Message: "too many"}
		}),
	}
	for _, c := range []struct {
		mode, from, metric string
		want               string // of the error; "" for a value
	}{
		{policy.Open, "b", "datadogmetric@a:lag", ""},
		{policy.Namespaced, "a", "datadogmetric@a:lag", ""},
		{policy.Namespaced, "b", "datadogmetric@a:lag", "Forbidden: metric datadogmetric@a:lag is of namespace"},
		{policy.Namespaced, "b", "datadogmetric@a:lent", ""},
		{policy.Namespaced, "c", "datadogmetric@a:lent", "Forbidden: metric datadogmetric@a:lent is of namespace"},
		{policy.Namespaced, "b", "datadogmetric@a:absent", "Forbidden: metric datadogmetric@a:absent is of namespace"},
		{policy.Namespaced, "a", "datadogmetric@a:wide", "Forbidden: too wide"},
		{policy.Namespaced, "a", "datadogmetric@a:many", "QuotaExceeded: too many"},
	} {
		p := serve(readings{"q": {Value: 3, At: now, Fetched: now, Attempted: now}}, o)
		p.Policy = &policy.Policy{Mode: c.mode}
		got, err := ask(t, p, c.from, c.metric, "")
		switch {
		case c.want == "" && (err != nil || len(got) != 1 || got[0] != "3"):
			t.Errorf("%s, %s from %s: %v, %v; want 3", c.mode, c.metric, c.from, got, err)
		case c.want != "" && (!apierrors.IsForbidden(err) || !strings.Contains(err.Error(), c.want)):
			t.Errorf("%s, %s from %s: %v, %v; want 403 with %q", c.mode, c.metric, c.from, got, err, c.want)
		case c.want != "" && testutil.ToFloat64(p.tel.refused.WithLabelValues(strings.Split(c.want, ":")[0])) != 1:
			t.Errorf("%s from %s: refused and not counted", c.metric, c.from)
		}
	}
	// A plain name whose query the policy refuses.
	p := serve(readings{}, nil)
	p.Index = reference.NewIndex(reference.Options{Builder: reference.Builder{Aggregator: "avg", Rollup: 30 * time.Second},
		Judge: func(string, string) error { return &policy.Refusal{Reason: policy.Forbidden, Message: "not for you"} }}, nil)
	p.Index.Set(autoscaler("a", "h", external("rps", "")))
	if _, err := ask(t, p, "a", "rps", ""); !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), "Forbidden: not for you") {
		t.Errorf("a plain name: %v, want 403", err)
	}
}

// Everybody may read discovery: where namespaces are kept apart it names no
// other's metrics.
func TestDiscoveryKeepsNamespacesApart(t *testing.T) {
	p := serve(nil, nil, autoscaler("a", "h", external("rps", "")))
	for mode, want := range map[string]string{"open": "[{rps}]", "namespaced": "[{" + placeholder + "}]"} {
		var err error
		if p.Policy, err = policy.Parse("mode: " + mode); err != nil {
			t.Fatal(err)
		}
		if got := fmt.Sprint(p.ListAllExternalMetrics()); got != want {
			t.Errorf("mode %s: discovery lists %s, want %s", mode, got, want)
		}
	}
}
