// Package reference knows what HorizontalPodAutoscalers ask for: which of their
// external metrics name a DatadogMetric object, and which query the others mean.
//
// It owns the grammar of metric names, the translation of label selectors into
// queries, and the index from metrics to the autoscalers that use them. It does
// not fetch or serve values, and it writes nothing to Kubernetes.
package reference

import (
	"fmt"
	"regexp"
	"strings"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation"
)

// Prefix marks a metric name that refers to a DatadogMetric object.
const Prefix = "datadogmetric@"

// IsObject reports whether a metric name refers to a DatadogMetric object, well
// formed or not.
func IsObject(metric string) bool {
	return len(metric) >= len(Prefix) && strings.EqualFold(metric[:len(Prefix)], Prefix)
}

// ParseObject returns the object that metric refers to: "datadogmetric@ns:name",
// or "datadogmetric@name" in the asker's own namespace. Case does not matter;
// any legal object name is accepted, dots included.
func ParseObject(metric, ownNamespace string) (types.NamespacedName, error) {
	if !IsObject(metric) {
		return types.NamespacedName{}, fmt.Errorf("metric name %q does not start with %s", metric, Prefix)
	}
	ref := strings.ToLower(metric[len(Prefix):])
	ns, name, ok := strings.Cut(ref, ":")
	if !ok {
		ns, name = ownNamespace, ref
	}
	if isLabel(ns) && isLabel(name) { // as nearly all are; the library's way is many times longer
		return types.NamespacedName{Namespace: ns, Name: name}, nil
	}
	if errs := validation.IsDNS1123Label(ns); len(errs) > 0 {
		return types.NamespacedName{}, fmt.Errorf("metric name %q: %q is no namespace: write %s<namespace>:<name>", metric, ns, Prefix)
	}
	if errs := validation.IsDNS1123Subdomain(name); len(errs) > 0 {
		return types.NamespacedName{}, fmt.Errorf("metric name %q: %q is no object name: write %s<namespace>:<name>", metric, name, Prefix)
	}
	return types.NamespacedName{Namespace: ns, Name: name}, nil
}

// isLabel reports whether s is a DNS label, in lower case.
func isLabel(s string) bool {
	if s == "" || len(s) > validation.DNS1123LabelMaxLength || s[0] == '-' || s[len(s)-1] == '-' {
		return false
	}
	for i := range len(s) {
		if c := s[i]; c != '-' && (c < '0' || c > '9') && (c < 'a' || c > 'z') {
			return false
		}
	}
	return true
}

// ObjectMetric returns the metric name by which an autoscaler refers to id.
func ObjectMetric(id types.NamespacedName) string { return Prefix + id.Namespace + ":" + id.Name }

// datadogName is what Datadog accepts as a metric's name.
var datadogName = regexp.MustCompile(`^[a-zA-Z][a-zA-Z0-9_.]{0,199}$`)
