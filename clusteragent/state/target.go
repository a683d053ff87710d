package state

import (
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	"k8s.io/apimachinery/pkg/api/resource"
)

// A target is what an autoscaler compares a metric with, or what it last read.
type target struct {
	metric string
	more   []string // tags
	values []targetValue
}

// targetValue is one number of a target; kind is value, utilization or average,
// as kube-state-metrics calls them.
type targetValue struct {
	kind  string
	value float64
}

func (t *target) quantity(kind string, q *resource.Quantity) {
	if q != nil {
		t.values = append(t.values, targetValue{kind, q.AsApproximateFloat64()})
	}
}

func (t *target) numbers(value, average *resource.Quantity, utilization *int32) {
	t.quantity("value", value)
	if utilization != nil {
		t.values = append(t.values, targetValue{"utilization", float64(*utilization)})
	}
	t.quantity("average", average)
}

func specTarget(m *autoscalingv2.MetricSpec) target {
	var t target
	var of autoscalingv2.MetricTarget
	switch {
	case m.Object != nil:
		t.metric, of = m.Object.Metric.Name, m.Object.Target
	case m.Pods != nil:
		t.metric, of = m.Pods.Metric.Name, m.Pods.Target
	case m.Resource != nil:
		t.metric, of = string(m.Resource.Name), m.Resource.Target
	case m.ContainerResource != nil:
		t.metric, of = string(m.ContainerResource.Name), m.ContainerResource.Target
		t.more = []string{"kube_container_name:" + m.ContainerResource.Container}
	case m.External != nil:
		t.metric, of = m.External.Metric.Name, m.External.Target
	}
	t.numbers(of.Value, of.AverageValue, of.AverageUtilization)
	return t
}

func statusTarget(m *autoscalingv2.MetricStatus) target {
	var t target
	var of autoscalingv2.MetricValueStatus
	switch {
	case m.Object != nil:
		t.metric, of = m.Object.Metric.Name, m.Object.Current
	case m.Pods != nil:
		t.metric, of = m.Pods.Metric.Name, m.Pods.Current
	case m.Resource != nil:
		t.metric, of = string(m.Resource.Name), m.Resource.Current
	case m.ContainerResource != nil:
		t.metric, of = string(m.ContainerResource.Name), m.ContainerResource.Current
		t.more = []string{"kube_container_name:" + m.ContainerResource.Container}
	case m.External != nil:
		t.metric, of = m.External.Metric.Name, m.External.Current
	}
	t.numbers(of.Value, of.AverageValue, of.AverageUtilization)
	return t
}

// TrimAutoscaler drops from a cached autoscaler what neither this package nor
// clusteragent/reference reads. It is an informer's transform.
func TrimAutoscaler(obj any) (any, error) {
	hpa, ok := obj.(*autoscalingv2.HorizontalPodAutoscaler)
	if !ok {
		return obj, nil
	}
	hpa.ManagedFields, hpa.Annotations, hpa.OwnerReferences = nil, nil, nil
	hpa.Spec.Behavior = nil
	for i := range hpa.Status.Conditions {
		hpa.Status.Conditions[i].Reason, hpa.Status.Conditions[i].Message = "", ""
	}
	return hpa, nil
}
