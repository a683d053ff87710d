package doctor

import (
	"context"
	"fmt"
	"slices"
	"strings"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// condition returns a condition of an autoscaler, or nil.
func condition(hpa *autoscalingv2.HorizontalPodAutoscaler, kind autoscalingv2.HorizontalPodAutoscalerConditionType) *autoscalingv2.HorizontalPodAutoscalerCondition {
	for i := range hpa.Status.Conditions {
		if hpa.Status.Conditions[i].Type == kind {
			return &hpa.Status.Conditions[i]
		}
	}
	return nil
}

// hpaCondition is the last link: the values are there, so what remains is the
// HPA controller's own trouble, or none.
func (e *exam) hpaCondition(ctx context.Context) finding {
	// The object was read at the beginning; the controller may have moved on.
	var hpa autoscalingv2.HorizontalPodAutoscaler
	if err := e.Objects.Get(ctx, client.ObjectKeyFromObject(e.hpa), &hpa); err != nil {
		return skipped("the HPA cannot be read again: %v", err)
	}
	describe := fmt.Sprintf("kubectl -n %s describe hpa %s", hpa.Namespace, hpa.Name)
	if c := condition(&hpa, autoscalingv2.AbleToScale); c != nil && c.Status == corev1.ConditionFalse {
		return broken(c.Reason+": "+c.Message, "the HPA controller cannot scale the target", describe)
	}
	c := condition(&hpa, autoscalingv2.ScalingActive)
	switch {
	case c == nil:
		return broken("the HPA has no condition ScalingActive", "the HPA controller has not looked at it",
			"wait its 15 seconds; if nothing comes, kube-controller-manager does not run its HPA controller")
	case c.Status == corev1.ConditionTrue:
	case strings.Contains(c.Message, "forbidden"):
		return broken(c.Reason+": "+c.Message, "the HPA controller may not read external metrics",
			"helm upgrade with clusterAgent.metricsProvider.createReaderRbac=true")
	case strings.Contains(c.Reason, "ExternalMetric"):
		return broken(c.Reason+": "+c.Message, "the HPA controller could not read the metric the last time, though it can be read now",
			"wait its 15 seconds and ask again")
	default:
		return broken(c.Reason+": "+c.Message, "the HPA controller lacks something that is not Kelpie's", describe)
	}
	seen := fmt.Sprintf("%d replicas, %d wanted", hpa.Status.CurrentReplicas, hpa.Status.DesiredReplicas)
	if c := condition(&hpa, autoscalingv2.ScalingLimited); c != nil && c.Status == corev1.ConditionTrue {
		seen += "; limited: " + c.Message
	}
	return ok("%s", seen)
}

// autoscalers looks at every HPA that uses external metrics.
func (e *exam) autoscalers(ctx context.Context) finding {
	var list autoscalingv2.HorizontalPodAutoscalerList
	if err := e.Objects.List(ctx, &list); err != nil {
		return skipped("the HPAs cannot be listed: %v", err)
	}
	using := 0
	var bad []string
	var first *autoscalingv2.HorizontalPodAutoscaler
	for i := range list.Items {
		h := &list.Items[i]
		if !slices.ContainsFunc(h.Spec.Metrics, func(m autoscalingv2.MetricSpec) bool { return m.Type == autoscalingv2.ExternalMetricSourceType }) {
			continue
		}
		using++
		if c := condition(h, autoscalingv2.ScalingActive); c != nil && c.Status == corev1.ConditionFalse {
			bad = append(bad, fmt.Sprintf("%s/%s: %s: %s", h.Namespace, h.Name, c.Reason, c.Message))
			if first == nil {
				first = h
			}
		}
	}
	if first != nil {
		return broken(join(bad, "; ", 3), fmt.Sprintf("the installation is well; %d of %d HPAs with external metrics are not", len(bad), using),
			fmt.Sprintf("kelpie doctor hpa/%s -n %s", first.Name, first.Namespace))
	}
	return ok("%d HPAs use external metrics, none of them reports a fault", using)
}
