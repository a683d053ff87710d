package reference

import (
	"fmt"
	"maps"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/cache"
)

// Watermarks is the resource of Datadog's WatermarkPodAutoscalers. Their own
// controller scales; it reads external metrics as the stock one does.
var Watermarks = schema.GroupVersionResource{Group: "datadoghq.com", Version: "v1alpha1", Resource: "watermarkpodautoscalers"}

// An Autoscaler names a HorizontalPodAutoscaler or a WatermarkPodAutoscaler.
type Autoscaler struct {
	types.NamespacedName
	Watermark bool // a WatermarkPodAutoscaler
}

// String returns namespace/name, which of a WatermarkPodAutoscaler has "wpa:"
// before it.
func (a Autoscaler) String() string {
	if a.Watermark {
		return "wpa:" + a.NamespacedName.String()
	}
	return a.NamespacedName.String()
}

// Reference returns the autoscaler as a DatadogMetric's status names it.
func (a Autoscaler) Reference() string {
	if a.Watermark {
		return a.String()
	}
	return "hpa:" + a.NamespacedName.String()
}

func (a Autoscaler) compare(b Autoscaler) int {
	if a.Watermark != b.Watermark {
		if b.Watermark {
			return -1
		}
		return 1
	}
	return compareIDs(a.NamespacedName, b.NamespacedName)
}

// SetWatermark records what a WatermarkPodAutoscaler refers to now. Of what is
// not as its CRD has it nothing is recorded.
func (x *Index) SetWatermark(wpa *unstructured.Unstructured) {
	list, _, _ := unstructured.NestedSlice(wpa.Object, "spec", "metrics")
	var asks []ask
	for _, item := range list {
		m, ok := item.(map[string]any)
		if kind, _, _ := unstructured.NestedString(m, "type"); !ok || kind != "External" {
			continue
		}
		name, _, _ := unstructured.NestedString(m, "external", "metricName")
		if name == "" {
			continue
		}
		a := ask{name: name}
		if raw, found, err := unstructured.NestedMap(m, "external", "metricSelector"); err != nil {
			a.err = fmt.Errorf("metricSelector: %w", err)
		} else if found {
			a.selector = &metav1.LabelSelector{}
			a.err = runtime.DefaultUnstructuredConverter.FromUnstructured(raw, a.selector)
		}
		asks = append(asks, a)
	}
	x.replace(watermark(wpa), x.parse(wpa, asks))
}

func watermark(wpa metav1.Object) Autoscaler {
	return Autoscaler{NamespacedName: types.NamespacedName{Namespace: wpa.GetNamespace(), Name: wpa.GetName()}, Watermark: true}
}

// WatermarkHandler returns what an informer of WatermarkPodAutoscalers calls to
// keep the index.
func (x *Index) WatermarkHandler() cache.ResourceEventHandler {
	return cache.ResourceEventHandlerFuncs{
		AddFunc: func(obj any) {
			if wpa, ok := obj.(*unstructured.Unstructured); ok {
				x.SetWatermark(wpa)
			}
		},
		UpdateFunc: func(old, obj any) {
			before, ok1 := old.(*unstructured.Unstructured)
			wpa, ok2 := obj.(*unstructured.Unstructured)
			// Status changes every sync; the generation is that of the spec.
			if ok1 && ok2 && (before.GetUID() != wpa.GetUID() || before.GetGeneration() != wpa.GetGeneration() || !maps.Equal(before.GetLabels(), wpa.GetLabels()) ||
				before.GetAnnotations()[OwnQueries] != wpa.GetAnnotations()[OwnQueries]) {
				x.SetWatermark(wpa)
			}
		},
		DeleteFunc: func(obj any) {
			if gone, ok := obj.(cache.DeletedFinalStateUnknown); ok {
				obj = gone.Obj
			}
			if wpa, ok := obj.(*unstructured.Unstructured); ok {
				x.Delete(watermark(wpa))
			}
		},
	}
}

// TrimWatermark drops from a cached WatermarkPodAutoscaler what the index never
// reads. It is an informer's transform.
func TrimWatermark(obj any) (any, error) {
	if wpa, ok := obj.(*unstructured.Unstructured); ok {
		wpa.SetManagedFields(nil)
		wpa.SetAnnotations(ownAnnotation(wpa.GetAnnotations()))
		delete(wpa.Object, "status")
	}
	return obj, nil
}
