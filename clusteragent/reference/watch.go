package reference

import (
	"maps"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/cache"
)

// Handler returns what an informer of HorizontalPodAutoscalers calls to keep the
// index.
func (x *Index) Handler() cache.ResourceEventHandler {
	return cache.ResourceEventHandlerFuncs{
		AddFunc: func(obj any) {
			if hpa, ok := obj.(*autoscalingv2.HorizontalPodAutoscaler); ok {
				x.Set(hpa)
			}
		},
		UpdateFunc: func(old, obj any) {
			before, ok1 := old.(*autoscalingv2.HorizontalPodAutoscaler)
			hpa, ok2 := obj.(*autoscalingv2.HorizontalPodAutoscaler)
			// Status changes every sync; what the autoscaler asks for does not.
			if ok1 && ok2 && !sameAsk(before, hpa) {
				x.Set(hpa)
			}
		},
		DeleteFunc: func(obj any) {
			if gone, ok := obj.(cache.DeletedFinalStateUnknown); ok {
				obj = gone.Obj
			}
			if hpa, ok := obj.(*autoscalingv2.HorizontalPodAutoscaler); ok {
				x.Delete(Autoscaler{NamespacedName: types.NamespacedName{Namespace: hpa.Namespace, Name: hpa.Name}})
			}
		},
	}
}

func sameAsk(a, b *autoscalingv2.HorizontalPodAutoscaler) bool {
	return a.UID == b.UID && maps.Equal(a.Labels, b.Labels) && a.Annotations[OwnQueries] == b.Annotations[OwnQueries] &&
		equality.Semantic.DeepEqual(a.Spec.Metrics, b.Spec.Metrics)
}

// Trim drops from a cached autoscaler what the index never reads; most of its
// size is managed fields and status. It is an informer's transform.
func Trim(obj any) (any, error) {
	if hpa, ok := obj.(*autoscalingv2.HorizontalPodAutoscaler); ok {
		hpa.ManagedFields, hpa.Annotations = nil, ownAnnotation(hpa.Annotations)
		hpa.Status = autoscalingv2.HorizontalPodAutoscalerStatus{}
	}
	return obj, nil
}
