// Package datadogmetric keeps DatadogMetric objects and the source in step: what
// the objects ask for is polled, and what came of it is written to their status.
//
// It owns decoding the objects tolerantly, their conditions, and the life of the
// objects generated for autoscalers' plain metric names. It does not query
// anything itself, and it does not serve values.
package datadogmetric

import (
	"fmt"
	"math"
	"strconv"
	"time"

	"github.com/DataDog/datadog-operator/api/datadoghq/v1alpha1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"kelpie.dev/kelpie/clusteragent/policy"
	"kelpie.dev/kelpie/clusteragent/reference"
	"kelpie.dev/kelpie/clusteragent/source"
)

// Resource is the DatadogMetric resource.
var Resource = schema.GroupVersionResource{Group: "datadoghq.com", Version: "v1alpha1", Resource: "datadogmetrics"}

// alwaysActive is the annotation that keeps a metric polled without autoscaler.
const alwaysActive = "external-metrics.datadoghq.com/always-active"

// sourceOf is the annotation that names the source of a metric's query: kelpie,
// datadog or prometheus. Without it the cluster's own is asked.
const sourceOf = "kelpie.dev/source"

// maxAgeOf is the annotation that has a metric's max age follow how late its
// points are seen to come: "auto".
const maxAgeOf = "kelpie.dev/max-age"

// lateWindow is what such a metric is asked for, and the oldest that it is served.
const lateWindow = time.Hour

// Reasons of objects that cannot be asked for.
const (
	invalidSpec   source.Reason = "InvalidSpec"
	templateError source.Reason = "TemplateError"
	notReferenced source.Reason = "NotReferenced"
)

// object is a decoded DatadogMetric: what the informer keeps of it, a tenth of
// the whole.
type object struct {
	metav1.ObjectMeta // what a write of its status needs, and annotations
	spec              any

	id           types.NamespacedName
	source       source.Name
	allowed      string // annotation policy.AllowedNamespaces
	query        string // as written, templates unresolved
	maxAge       time.Duration
	timeWindow   time.Duration
	alwaysActive bool
	followsLag   bool // annotation maxAgeOf
	generated    bool // made for an autoscaler's plain metric name
	status       v1alpha1.DatadogMetricStatus
	noData       noData        // what to serve while there are no data
	problem      *source.Error // what is wrong with the spec; nil if nothing
}

// decode reads an object. A spec that cannot be used is a problem of the object
// and shown in its conditions, instead of an object that is silently missing:
// the CRD's schema says only "string" for durations. Generated objects of ours
// live in namespace own.
func decode(u *unstructured.Unstructured, own string) *object {
	o := &object{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: u.GetNamespace(), Name: u.GetName(), UID: u.GetUID(), ResourceVersion: u.GetResourceVersion(),
			CreationTimestamp: u.GetCreationTimestamp(), DeletionTimestamp: u.GetDeletionTimestamp(), Annotations: u.GetAnnotations(),
		},
		spec: u.Object["spec"],
		id:   types.NamespacedName{Namespace: u.GetNamespace(), Name: u.GetName()},
	}
	delete(o.Annotations, corev1.LastAppliedConfigAnnotation) // it is the whole object once more
	o.allowed = o.Annotations[policy.AllowedNamespaces]
	if v, ok := o.Annotations[alwaysActive]; ok {
		o.alwaysActive, _ = strconv.ParseBool(v) // compat: unparsable means false
	}
	name, _, _ := unstructured.NestedString(u.Object, "spec", "externalMetricName")
	// The field alone marks an object as generated for Datadog's cluster agent,
	// which then also deletes a user's own, or those of another cluster agent; the
	// name and the namespace must agree here.
	o.generated = name != "" && reference.IsAutogenName(o.id.Name) && o.id.Namespace == own

	// What came of the last writer is a hint: unreadable status is no status.
	if status, ok := u.Object["status"].(map[string]any); ok && runtime.DefaultUnstructuredConverter.FromUnstructured(status, &o.status) != nil {
		o.status = v1alpha1.DatadogMetricStatus{}
	}

	var err error
	if o.query, _, err = unstructured.NestedString(u.Object, "spec", "query"); err != nil {
		o.fault("spec.query must be a string")
	}
	o.maxAge = o.duration(u, "maxAge")
	o.timeWindow = o.duration(u, "timeWindow")
	if o.source, err = source.ParseName(o.Annotations[sourceOf]); err != nil {
		o.fault("annotation %s is %v", sourceOf, err)
	}
	switch v := o.Annotations[maxAgeOf]; {
	case v == "auto" && o.maxAge > 0:
		o.fault("annotation %s is auto and spec.maxAge is set: remove one of them", maxAgeOf)
	case v == "auto":
		o.followsLag = true
	case v != "":
		o.fault("annotation %s is %.50q: write auto, or set spec.maxAge", maxAgeOf, v)
	}
	if o.noData, err = parseNoData(o.Annotations[onNoData]); err != nil {
		o.fault("annotation %s is %v", onNoData, err)
	}
	if o.problem == nil && o.query == "" {
		o.fault("spec.query is empty: write a query such as avg:nginx.requests{kube_deployment:web}")
	}
	return o
}

// withStatus returns the object as its status is written: the API server takes
// nothing else of it but the version.
func (o *object) withStatus(s v1alpha1.DatadogMetricStatus) *unstructured.Unstructured {
	u := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": Resource.GroupVersion().String(), "kind": "DatadogMetric", "metadata": map[string]any{}, "status": encode(s),
	}}
	if o.spec != nil {
		u.Object["spec"] = o.spec
	}
	u.SetNamespace(o.Namespace)
	u.SetName(o.Name)
	u.SetUID(o.UID)
	u.SetResourceVersion(o.ResourceVersion)
	u.SetAnnotations(o.Annotations)
	u.SetCreationTimestamp(o.CreationTimestamp)
	return u
}

func (o *object) fault(format string, args ...any) {
	if o.problem == nil {
		o.problem = &source.Error{Reason: invalidSpec, Message: fmt.Sprintf(format, args...)}
	}
}

// duration reads a duration of the spec: Go's syntax, or bare seconds.
func (o *object) duration(u *unstructured.Unstructured, field string) time.Duration {
	v, found, err := unstructured.NestedFieldNoCopy(u.Object, "spec", field)
	if err != nil || !found || v == nil {
		return 0
	}
	text := fmt.Sprint(v)
	d, err := time.ParseDuration(text)
	if n, nerr := strconv.ParseFloat(text, 64); nerr == nil {
		// Out of range, and for NaN, the conversion is another on each processor.
		if d, err = -1, nil; n >= 0 && n < math.MaxInt64/float64(time.Second) {
			d = time.Duration(n * float64(time.Second))
		}
	}
	if err != nil || d < 0 {
		o.fault("spec.%s is %q: write a duration such as 90s, 5m or 1h, or whole seconds", field, text)
		return 0
	}
	return d
}
