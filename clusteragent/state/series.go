package state

import (
	"cmp"
	"slices"
	"strings"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"

	"kelpie.dev/kelpie/clusteragent/mirror"
	"kelpie.dev/kelpie/metric"
)

// prefix of all names, as Datadog's kubernetes_state_core check has it.
const prefix = "kubernetes_state."

// A run collects the series of one moment.
type run struct {
	tags     metric.Tags // on every series
	at       int64       // Unix seconds
	interval int64       // seconds
	emit     func(metric.Series)
}

// object returns the tags of one object.
func (r *run) object(k mirror.Key, tag string, more ...string) metric.Tags {
	return r.tags.Union(append([]string{"kube_namespace:" + k.Namespace, tag + ":" + k.Name}, more...)...)
}

func (r *run) gauge(name string, value float64, tags metric.Tags) {
	r.emit(metric.Series{Name: prefix + name, Tags: tags, Type: metric.Gauge, Interval: r.interval, Points: []metric.Point{{Time: r.at, Value: value}}})
}

// workload emits the counts of one object of kind.
func (r *run) workload(kind kind, k mirror.Key, w workload) {
	tags := r.object(k, kind.tag, w.labels...)
	if w.deployment != "" {
		tags = tags.Union("kube_deployment:" + w.deployment)
	}
	for i, name := range kind.metrics {
		if w.counts[i] != absent {
			r.gauge(name, float64(w.counts[i]), tags)
		}
	}
}

// count emits how many objects each namespace has.
func (r *run) count(kind string, byNamespace map[string]int) {
	for ns, n := range byNamespace {
		r.gauge(kind+".count", float64(n), r.tags.Union("kube_namespace:"+ns))
	}
}

// autoscaler emits what one HorizontalPodAutoscaler asks for and says of itself.
func (r *run) autoscaler(hpa *autoscalingv2.HorizontalPodAutoscaler) {
	tags := r.object(mirror.Key{Namespace: hpa.Namespace, Name: hpa.Name}, "horizontalpodautoscaler", labelTags(hpa.Labels)...)
	if hpa.Spec.MinReplicas != nil {
		r.gauge("hpa.min_replicas", float64(*hpa.Spec.MinReplicas), tags)
	}
	r.gauge("hpa.max_replicas", float64(hpa.Spec.MaxReplicas), tags)
	r.gauge("hpa.desired_replicas", float64(hpa.Status.DesiredReplicas), tags)
	r.gauge("hpa.current_replicas", float64(hpa.Status.CurrentReplicas), tags)
	for _, c := range hpa.Status.Conditions {
		for _, status := range []corev1.ConditionStatus{corev1.ConditionTrue, corev1.ConditionFalse, corev1.ConditionUnknown} {
			value := 0.0
			if c.Status == status {
				value = 1
			}
			r.gauge("hpa.condition", value, tags.Union("condition:"+string(c.Type), "status:"+strings.ToLower(string(status))))
		}
	}
	// Two metrics of one name, told apart only by their selectors, are one
	// context: the first is it.
	seen := map[string]bool{}
	each := func(name string, t target) {
		for _, v := range t.values {
			more := append([]string{"metric_name:" + t.metric, "metric_target_type:" + v.kind}, t.more...)
			all := tags.Union(more...)
			if id := name + "," + all.String(); !seen[id] {
				seen[id] = true
				r.gauge(name, v.value, all)
			}
		}
	}
	for i := range hpa.Spec.Metrics {
		each("hpa.spec_target_metric", specTarget(&hpa.Spec.Metrics[i]))
	}
	for i := range hpa.Status.CurrentMetrics {
		each("hpa.status_target_metric", statusTarget(&hpa.Status.CurrentMetrics[i]))
	}
}

// standardLabels are the labels that become tags of an object's own series:
// unified service tags, and what kubernetes_state_core joins by default.
var standardLabels = map[string]string{
	"tags.datadoghq.com/env":       "env",
	"tags.datadoghq.com/service":   "service",
	"tags.datadoghq.com/version":   "version",
	"app.kubernetes.io/name":       "kube_app_name",
	"app.kubernetes.io/instance":   "kube_app_instance",
	"app.kubernetes.io/version":    "kube_app_version",
	"app.kubernetes.io/component":  "kube_app_component",
	"app.kubernetes.io/part-of":    "kube_app_part_of",
	"app.kubernetes.io/managed-by": "kube_app_managed_by",
	"helm.sh/chart":                "helm_chart",
}

// labelTags returns the tags that labels give, or nil.
func labelTags(labels map[string]string) []string {
	var tags []string
	for label, value := range labels {
		if key := standardLabels[label]; key != "" && value != "" {
			tags = append(tags, key+":"+value)
		}
	}
	slices.SortFunc(tags, cmp.Compare[string])
	return slices.Clip(tags)
}
