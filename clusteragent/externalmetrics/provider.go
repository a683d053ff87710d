// Package externalmetrics serves external.metrics.k8s.io/v1beta1: to the
// HorizontalPodAutoscaler's controller through the Kubernetes API server, and to
// whoever else may ask.
//
// It owns the API server, its certificate and its registration, and the form of
// answers and errors. It answers from memory: it does not know how values come
// about, and only a request for one that was never asked for before waits, a
// moment, for it.
package externalmetrics

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/selection"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/metrics/pkg/apis/external_metrics"
	"sigs.k8s.io/custom-metrics-apiserver/pkg/provider"

	"kelpie.dev/kelpie/clusteragent/datadogmetric"
	"kelpie.dev/kelpie/clusteragent/policy"
	"kelpie.dev/kelpie/clusteragent/reference"
	"kelpie.dev/kelpie/clusteragent/source"
)

// placeholder is listed by discovery when no metric is in use: an empty list
// makes discovery clients fail. The name is Datadog's.
const placeholder = "externalmetrics"

// firstWait bounds how long a request waits for a metric's first value. The
// controller reads a new autoscaler's metrics at once and warns of each that is
// not there; the first poll is a matter of a tenth of a second.
const firstWait = time.Second

// Objects knows DatadogMetric objects; *datadogmetric.Reconciler does.
type Objects interface {
	Metric(types.NamespacedName) (datadogmetric.Metric, bool)
}

// Values knows the newest value of queries; *source.Poller does.
type Values interface {
	Read(source.Key) source.Reading
	// Await waits only for the first reading of a key in use.
	Await(context.Context, source.Key) source.Reading
}

// Provider answers requests for external metrics.
type Provider struct {
	Index   *reference.Index
	Values  Values
	Objects Objects // nil without CRD mode
	Rules   source.Rules
	KEDA    *KEDA          // serves KEDA's own metrics; nil for nobody
	Policy  *policy.Policy // nil is the open one
	Autogen bool           // plain metric names are served in CRD mode too

	tel *telemetry
	log *slog.Logger
}

// GetExternalMetric returns exactly one value, or an error a person can act on.
func (p *Provider) GetExternalMetric(ctx context.Context, namespace string, sel labels.Selector, info provider.ExternalMetricInfo) (*external_metrics.ExternalMetricValueList, error) {
	if p.KEDA != nil && isKEDA(sel) {
		return p.KEDA.Get(ctx, namespace, info.Metric, sel) // counted there
	}
	start := time.Now()
	item, err := p.item(ctx, namespace, info.Metric, sel)
	now := time.Now()
	p.tel.count(err, now.Sub(start))
	if err != nil {
		p.log.Debug("no value to serve", "namespace", namespace, "metric", info.Metric, "selector", sel.String(), "error", err)
		return nil, err
	}
	p.tel.age.Observe(now.Sub(item.Timestamp.Time).Seconds())
	return &external_metrics.ExternalMetricValueList{Items: []external_metrics.ExternalMetricValue{item}}, nil
}

func (p *Provider) item(ctx context.Context, namespace, metric string, sel labels.Selector) (external_metrics.ExternalMetricValue, error) {
	m, err := p.find(namespace, metric, sel)
	if err != nil {
		return external_metrics.ExternalMetricValue{}, err
	}
	var reading source.Reading
	if m.Active {
		if reading = p.Values.Read(m.Key); reading.Attempted.IsZero() && reading.Err == nil {
			wait, cancel := context.WithTimeout(ctx, firstWait)
			reading = p.Values.Await(wait, m.Key)
			cancel()
		}
	}
	served, why := m.Value(reading, time.Now())
	if why != nil {
		if string(why.Reason) == policy.Forbidden || string(why.Reason) == policy.QuotaExceeded {
			return external_metrics.ExternalMetricValue{}, p.forbid(&policy.Refusal{Reason: string(why.Reason), Message: why.Error()})
		}
		if !reading.At.IsZero() {
			known := *why // which others hold too
			known.Message += fmt.Sprintf(" (the last value was %s at %s)", strconv.FormatFloat(reading.Value, 'g', 6, 64), reading.At.UTC().Format(time.RFC3339))
			why = &known
		}
		return external_metrics.ExternalMetricValue{}, failure(why, m.Query)
	}
	q, qerr := Quantity(served.Value)
	if qerr != nil {
		return external_metrics.ExternalMetricValue{}, failure(&source.Error{Reason: source.NotANumber, Message: qerr.Error()}, m.Query)
	}
	if served.StandsFor != nil {
		p.tel.standIns.WithLabelValues(string(served.StandsFor.Reason)).Inc()
	}
	return external_metrics.ExternalMetricValue{
		MetricName: metric, MetricLabels: metricLabels(sel), Timestamp: metav1.NewTime(served.At.UTC()), Value: q,
	}, nil
}

// find returns what the requested name and selector mean.
func (p *Provider) find(namespace, metric string, sel labels.Selector) (datadogmetric.Metric, error) {
	if reference.IsObject(metric) {
		return p.object(namespace, metric)
	}
	if p.KEDA == nil && isKEDA(sel) {
		return datadogmetric.Metric{}, notFound("metric %q is KEDA's (label %s), and KEDA's metrics server is not configured here: "+
			"set clusterAgent.metricsProvider.keda.enabled to true (KELPIE_KEDA_URL)", metric, kedaLabel)
	}
	if p.Objects != nil && !p.Autogen {
		return datadogmetric.Metric{}, notFound("metric %q is a plain name and those are switched off (DD_EXTERNAL_METRICS_PROVIDER_ENABLE_DATADOGMETRIC_AUTOGEN): "+
			"write a DatadogMetric and refer to it as %s<namespace>:<name>", metric, reference.Prefix)
	}
	in, ok := p.Index.Inline(namespace, metric, sel)
	switch {
	case !ok:
		return datadogmetric.Metric{}, notFound("no HorizontalPodAutoscaler asks for metric %q with selector %q%s", metric, sel.String(), p.others(namespace, metric))
	case in.Err != nil:
		if no, ok := errors.AsType[*policy.Refusal](in.Err); ok {
			return datadogmetric.Metric{}, p.forbid(no)
		}
		return datadogmetric.Metric{}, failure(&source.Error{Reason: Untranslatable(in.Err), Message: in.Err.Error()}, "")
	}
	if p.Objects != nil {
		// The generated object is the metric once it exists: its query may be edited.
		if m, ok := p.Objects.Metric(p.Index.Autogen(in.Query)); ok && m.Active {
			return m, nil
		}
	}
	return datadogmetric.Metric{
		Query: in.Query, Active: true, Limits: p.Rules.Limits(0),
		Key: source.Key{Query: in.Query, Window: p.Rules.Window(0, 0)},
	}, nil
}

func (p *Provider) others(namespace, metric string) string {
	known := p.Index.Selectors(namespace, metric)
	if len(known) == 0 {
		return ": values are fetched for the metrics that autoscalers name"
	}
	const most = 3
	if len(known) > most {
		known = append(known[:most:most], "…")
	}
	return fmt.Sprintf("; with this name there is %q", known)
}

func (p *Provider) object(namespace, metric string) (datadogmetric.Metric, error) {
	if p.Objects == nil {
		return datadogmetric.Metric{}, notFound("metric %q refers to a DatadogMetric, but the cluster agent runs without them: "+
			"set clusterAgent.metricsProvider.useDatadogMetrics to true (DD_EXTERNAL_METRICS_PROVIDER_USE_DATADOGMETRIC_CRD)", metric)
	}
	id, err := reference.ParseObject(metric, namespace)
	if err != nil {
		return datadogmetric.Metric{}, notFound("%v", err)
	}
	if err := p.Index.Allowed(namespace, id); err != nil {
		return datadogmetric.Metric{}, p.forbid(&policy.Refusal{Reason: policy.Forbidden, Message: err.Error()})
	}
	m, ok := p.Objects.Metric(id)
	// Refused in the same words whether there is such an object or not.
	if no := p.Policy.Refers(namespace, id.Namespace, id.Name, m.Allowed); no != nil {
		return datadogmetric.Metric{}, p.forbid(no)
	}
	if !ok {
		return datadogmetric.Metric{}, notFound("there is no DatadogMetric %q in namespace %q: create it, or correct the metric name %q", id.Name, id.Namespace, metric)
	}
	return m, nil
}

// ListAllExternalMetrics lists the metrics in use, for discovery: ours and KEDA's.
// It does not say who asks, and everybody may: where namespaces are kept apart
// ours are nobody's to list.
func (p *Provider) ListAllExternalMetrics() []provider.ExternalMetricInfo {
	var out []provider.ExternalMetricInfo
	if !p.Policy.Apart() {
		for _, n := range p.Index.Names() {
			out = append(out, provider.ExternalMetricInfo{Metric: n})
		}
	}
	if p.KEDA != nil {
		for _, m := range p.KEDA.List() {
			if !slices.Contains(out, m) {
				out = append(out, m)
			}
		}
	}
	if len(out) == 0 {
		return []provider.ExternalMetricInfo{{Metric: placeholder}}
	}
	return out
}

// Quantity formats a value as Datadog's cluster agent does; the smallest step is
// one nano, rounded up.
func Quantity(v float64) (resource.Quantity, error) {
	if math.IsNaN(v) || math.IsInf(v, 0) {
		return resource.Quantity{}, errors.New("the value is not a finite number")
	}
	q, err := resource.ParseQuantity(strconv.FormatFloat(v, 'g', -1, 64))
	if err != nil {
		return resource.Quantity{}, fmt.Errorf("format %v as a quantity: %w", v, err)
	}
	return q, nil
}

// metricLabels returns the labels that a selector fixes.
func metricLabels(sel labels.Selector) map[string]string {
	reqs, _ := sel.Requirements()
	var out map[string]string
	for _, r := range reqs {
		switch r.Operator() {
		case selection.Equals, selection.DoubleEquals, selection.In:
			if values := r.ValuesUnsorted(); len(values) == 1 {
				if out == nil {
					out = map[string]string{}
				}
				out[r.Key()] = values[0]
			}
		default:
		}
	}
	return out
}

// Untranslatable is the reason of a metric name and selector of which err made no
// query.
func Untranslatable(err error) source.Reason {
	if no, ok := errors.AsType[*policy.Refusal](err); ok {
		return source.Reason(no.Reason)
	}
	switch {
	case errors.Is(err, reference.ErrName):
		return "InvalidMetricName"
	case errors.Is(err, reference.ErrOwnQuery):
		return "InvalidQueryAnnotation"
	case errors.Is(err, reference.ErrDisputed):
		return "DisputedQuery"
	}
	return "InvalidSelector"
}

// forbid counts a refusal and makes the answer of it.
func (p *Provider) forbid(no *policy.Refusal) error {
	p.tel.refused.WithLabelValues(no.Reason).Inc()
	return status(http.StatusForbidden, metav1.StatusReasonForbidden, no.Reason+": "+no.Message)
}

func notFound(format string, args ...any) error {
	return status(http.StatusNotFound, metav1.StatusReasonNotFound, fmt.Sprintf(format, args...))
}

// failure is the one place that knows which reason is which HTTP status: 503
// when the source may recover by itself, 422 when somebody must change something
// or data must come.
func failure(why *source.Error, query string) error {
	text := string(why.Reason) + ": " + why.Error()
	if query != "" {
		const longest = 300 // an event's message holds 1024 bytes
		if len(query) > longest {
			query = strings.ToValidUTF8(query[:longest], "") + "…"
		}
		text += " (query: " + query + ")"
	}
	if why.Reason.Own() {
		return status(http.StatusUnprocessableEntity, metav1.StatusReasonInvalid, text)
	}
	return status(http.StatusServiceUnavailable, metav1.StatusReasonServiceUnavailable, text)
}

func status(code int32, reason metav1.StatusReason, message string) error {
	return &apierrors.StatusError{ErrStatus: metav1.Status{Status: metav1.StatusFailure, Code: code, Reason: reason, Message: message}}
}
