package clusteragent

import (
	"context"
	"errors"
	"log/slog"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/tools/record"

	"kelpie.dev/kelpie/clusteragent/policy"
	"kelpie.dev/kelpie/clusteragent/reference"
)

// events tells a person who describes an autoscaler what only we know of it.
type events struct {
	broadcaster record.EventBroadcaster
	recorder    record.EventRecorder
	sink        typedcorev1.EventSinkImpl
	isLeader    func() bool
	refused     *prometheus.CounterVec // untranslatable
	policy      *prometheus.CounterVec
	log         *slog.Logger
}

func newEvents(client kubernetes.Interface, isLeader func() bool, reg prometheus.Registerer, log *slog.Logger) *events {
	e := &events{
		broadcaster: record.NewBroadcaster(), sink: typedcorev1.EventSinkImpl{Interface: client.CoreV1().Events("")},
		isLeader: isLeader, log: log,
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "kelpie_external_metrics_untranslatable_total",
			Help: "Times that an autoscaler's metric name and selector could not be made a query."}, []string{"namespace"}),
		policy: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "kelpie_policy_refusals_total",
			Help: "DatadogMetrics and autoscalers that the policy began to refuse, as told by this replica."}, []string{"of", "reason"}),
	}
	e.recorder = e.broadcaster.NewRecorder(scheme.Scheme, corev1.EventSource{Component: "kelpie-cluster-agent"})
	reg.MustRegister(e.refused, e.policy)
	return e
}

// untranslatable reports the metrics of c that have no query. The leader tells
// the autoscaler; every replica logs.
func (e *events) untranslatable(c reference.Change) {
	for _, in := range c.Inline {
		if in.Err == nil {
			continue
		}
		reason := "MetricNotTranslated"
		if no, ok := errors.AsType[*policy.Refusal](in.Err); ok {
			reason = no.Reason
			e.policy.WithLabelValues("autoscaler", reason).Inc()
			e.log.Warn("the policy refuses an autoscaler's metric", "autoscaler", c.By.String(), "metric", in.Metric, "reason", reason, "error", in.Err)
		} else {
			e.refused.WithLabelValues(c.By.Namespace).Inc()
			e.log.Warn("autoscaler's metric cannot be translated", "autoscaler", c.By.String(), "metric", in.Metric, "error", in.Err)
		}
		e.warn(autoscaler(c.By, c.UID), reason, in.Err.Error())
	}
}

func autoscaler(id reference.Autoscaler, uid types.UID) corev1.ObjectReference {
	by := corev1.ObjectReference{APIVersion: "autoscaling/v2", Kind: "HorizontalPodAutoscaler", Namespace: id.Namespace, Name: id.Name, UID: uid}
	if id.Watermark {
		by.APIVersion, by.Kind = reference.Watermarks.GroupVersion().String(), "WatermarkPodAutoscaler"
	}
	return by
}

// warn tells an object of the installation what is wrong with it, if this
// replica leads: all of them see it.
func (e *events) warn(object corev1.ObjectReference, reason, message string) {
	e.lead(object, corev1.EventTypeWarning, reason, message)
}

// lead tells an object something of a kind, if this replica leads.
func (e *events) lead(object corev1.ObjectReference, kind, reason, message string) {
	if e.isLeader() {
		e.send(object, kind, reason, message)
	}
}

// tell tells an object what this replica knows. Of one that belongs to no
// namespace it is told in "default".
func (e *events) tell(object corev1.ObjectReference, reason, message string) {
	e.send(object, corev1.EventTypeWarning, reason, message)
}

func (e *events) send(object corev1.ObjectReference, kind, reason, message string) {
	const most = 1024 // bytes of an event's message
	if len(message) > most {
		message = strings.ToValidUTF8(message[:most-len("…")], "") + "…"
	}
	e.recorder.Event(&object, kind, reason, message)
}

// run sends events until ctx ends, and then returns nil.
func (e *events) run(ctx context.Context) error {
	watch := e.broadcaster.StartRecordingToSink(&e.sink)
	<-ctx.Done()
	watch.Stop()
	e.broadcaster.Shutdown()
	return nil
}
