package doctor

import (
	"context"
	"fmt"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"kelpie.dev/kelpie/cli/nearest"
	"kelpie.dev/kelpie/cli/release"
)

func (e *exam) hpaExists(ctx context.Context) finding {
	var hpa autoscalingv2.HorizontalPodAutoscaler
	err := e.Objects.Get(ctx, client.ObjectKey{Namespace: e.Namespace, Name: e.HPA}, &hpa)
	switch {
	case apierrors.IsNotFound(err):
		var list autoscalingv2.HorizontalPodAutoscalerList
		var names []string
		if e.Objects.List(ctx, &list, client.InNamespace(e.Namespace)) == nil {
			for _, h := range list.Items {
				names = append(names, h.Name)
			}
		}
		mend := "give the right namespace with -n; kubectl get hpa -A lists all"
		if near := nearest.To(e.HPA, names, 3); len(near) > 0 {
			mend = fmt.Sprintf("did you mean hpa/%s?", near[0])
		} else if len(names) > 0 {
			mend = fmt.Sprintf("the namespace has hpa/%s", join(names, ", hpa/", 5))
		}
		return broken(fmt.Sprintf("there is no HPA %s in namespace %s", e.HPA, e.Namespace), "the autoscaler does not exist", mend)
	case err != nil:
		return broken(err.Error(), "the autoscaler cannot be read", "get the right to read horizontalpodautoscalers in namespace "+e.Namespace)
	}
	e.hpa = &hpa
	return ok("HPA %s/%s, %d to %d replicas, now %d, wanted %d", hpa.Namespace, hpa.Name, minReplicas(&hpa), hpa.Spec.MaxReplicas, hpa.Status.CurrentReplicas, hpa.Status.DesiredReplicas)
}

func minReplicas(hpa *autoscalingv2.HorizontalPodAutoscaler) int32 {
	if hpa.Spec.MinReplicas == nil {
		return 1
	}
	return *hpa.Spec.MinReplicas
}

// scaleTarget is what all scalable objects have in common.
type scaleTarget struct {
	Spec struct {
		Replicas *int32                `json:"replicas"`
		Selector *metav1.LabelSelector `json:"selector"`
	} `json:"spec"`
}

func (e *exam) targetExists(ctx context.Context) finding {
	ref := e.hpa.Spec.ScaleTargetRef
	name := fmt.Sprintf("%s %s/%s", ref.Kind, e.Namespace, ref.Name)
	var obj unstructured.Unstructured
	obj.SetGroupVersionKind(schema.FromAPIVersionAndKind(ref.APIVersion, ref.Kind))
	err := e.Objects.Get(ctx, client.ObjectKey{Namespace: e.Namespace, Name: ref.Name}, &obj)
	switch {
	case apierrors.IsNotFound(err):
		return broken(name+" does not exist", "the HPA's scaleTargetRef names nothing", fmt.Sprintf("correct spec.scaleTargetRef, or create it: kubectl -n %s get %s", e.Namespace, ref.Kind))
	case meta.IsNoMatchError(err):
		return broken(err.Error(), "the HPA's scaleTargetRef names a kind that this cluster does not have", "correct apiVersion and kind in spec.scaleTargetRef")
	case err != nil:
		return skipped("%s cannot be read: %v", name, err)
	}
	var target scaleTarget
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(obj.Object, &target); err != nil || target.Spec.Selector == nil {
		return ok("%s exists; its pods cannot be told from its spec", name)
	}
	replicas := int32(1)
	if target.Spec.Replicas != nil {
		replicas = *target.Spec.Replicas
	}
	if replicas == 0 && minReplicas(e.hpa) > 0 {
		return broken(name+" has spec.replicas 0", "Kubernetes leaves an HPA idle while its target is scaled to 0",
			fmt.Sprintf("kubectl -n %s scale %s %s --replicas=%d", e.Namespace, ref.Kind, ref.Name, minReplicas(e.hpa)))
	}
	if e.targetPods, err = release.PodsOf(ctx, e.Objects, e.Namespace, target.Spec.Selector); err != nil {
		return ok("%s wants %d replicas; its pods cannot be listed: %v", name, replicas, err)
	}
	ready := readyCount(e.targetPods)
	if ready == 0 && replicas > 0 {
		text, pod := troubles(e.targetPods)
		if text == "" {
			text = "no pod was created"
		}
		return broken(fmt.Sprintf("%s: none of %d replicas is ready; %s", name, replicas, text),
			"the application does not run, so it sends no metrics", lookAt(e.Namespace, ref.Kind, ref.Name, pod))
	}
	return ok("%s, %d of %d replicas ready", name, ready, replicas)
}
