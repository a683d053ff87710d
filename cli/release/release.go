// Package release finds an installation of Kelpie in a cluster and reaches its
// parts: their objects, their keys, their status and the query API.
//
// It works with the rights of the person who asks, through the API server. It
// does not judge what it finds: doctor does.
package release

import (
	"context"
	"fmt"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// DefaultNamespace is where Kelpie is looked for when the cluster may not be searched.
const DefaultNamespace = "datadog"

// Labels that the chart gives to its objects.
const (
	nameLabel      = "app.kubernetes.io/name"
	instanceLabel  = "app.kubernetes.io/instance"
	componentLabel = "app.kubernetes.io/component"
	chartName      = "kelpie"
)

// APIServiceName is the object by which Kubernetes finds the provider.
const APIServiceName = "v1beta1.external.metrics.k8s.io"

// A Release is one installation.
type Release struct {
	Namespace    string
	Instance     string // the Helm release's name
	ClusterAgent *appsv1.Deployment
	Agents       *appsv1.DaemonSet   // nil when the chart installed none
	Backend      *appsv1.StatefulSet // nil when metrics live at Datadog
}

// NotFoundError says that there is no Kelpie where it was looked for.
type NotFoundError struct {
	Namespace string   // "" means all
	Foreign   []string // cluster agents that are not Kelpie's, as namespace/name
}

func (e *NotFoundError) Error() string {
	where := "in any namespace"
	if e.Namespace != "" {
		where = "in namespace " + e.Namespace
	}
	s := "no Kelpie cluster agent " + where
	if len(e.Foreign) > 0 {
		s += "; " + strings.Join(e.Foreign, ", ") + " is a cluster agent that Kelpie's chart did not install"
	}
	return s
}

// AmbiguousError says that there are several installations to choose from.
type AmbiguousError struct{ Namespaces []string }

func (e *AmbiguousError) Error() string {
	return "several installations of Kelpie, in the namespaces " + strings.Join(e.Namespaces, ", ") + ": choose one with --kelpie-namespace"
}

// Find returns the installation in namespace, or the only one in the cluster
// when namespace is empty.
func Find(ctx context.Context, r client.Reader, namespace string) (*Release, error) {
	var found appsv1.DeploymentList
	labels := client.MatchingLabels{componentLabel: "cluster-agent"}
	err := r.List(ctx, &found, labels, client.InNamespace(namespace))
	if apierrors.IsForbidden(err) && namespace == "" {
		namespace = DefaultNamespace
		err = r.List(ctx, &found, labels, client.InNamespace(namespace))
	}
	if err != nil {
		return nil, fmt.Errorf("look for Kelpie's cluster agent: %w", err)
	}
	var foreign []string
	var own []*appsv1.Deployment
	for i := range found.Items {
		d := &found.Items[i]
		if d.Labels[nameLabel] == chartName {
			own = append(own, d)
		} else {
			foreign = append(foreign, d.Namespace+"/"+d.Name)
		}
	}
	switch {
	case len(own) == 0:
		return nil, &NotFoundError{Namespace: namespace, Foreign: foreign}
	case len(own) > 1:
		namespaces := make([]string, len(own))
		for i, d := range own {
			namespaces[i] = d.Namespace
		}
		return nil, &AmbiguousError{Namespaces: namespaces}
	}
	rel := &Release{Namespace: own[0].Namespace, Instance: own[0].Labels[instanceLabel], ClusterAgent: own[0]}
	return rel, rel.findRoles(ctx, r)
}

func (r *Release) findRoles(ctx context.Context, reader client.Reader) error {
	labelled := func(component string) []client.ListOption {
		return []client.ListOption{client.InNamespace(r.Namespace), client.MatchingLabels{
			nameLabel: chartName, instanceLabel: r.Instance, componentLabel: component}}
	}
	var agents appsv1.DaemonSetList
	if err := reader.List(ctx, &agents, labelled("agent")...); err != nil {
		return fmt.Errorf("look for Kelpie's agents in namespace %s: %w", r.Namespace, err)
	}
	if len(agents.Items) > 0 {
		r.Agents = &agents.Items[0]
	}
	var backends appsv1.StatefulSetList
	if err := reader.List(ctx, &backends, labelled("backend")...); err != nil {
		return fmt.Errorf("look for Kelpie's backend in namespace %s: %w", r.Namespace, err)
	}
	if len(backends.Items) > 0 {
		r.Backend = &backends.Items[0]
	}
	return nil
}

// Pods returns the pods that sel selects in the release's namespace.
func (r *Release) Pods(ctx context.Context, reader client.Reader, sel *metav1.LabelSelector) ([]corev1.Pod, error) {
	return PodsOf(ctx, reader, r.Namespace, sel)
}

// PodsOf returns the pods of a workload: those in namespace that sel selects.
func PodsOf(ctx context.Context, reader client.Reader, namespace string, sel *metav1.LabelSelector) ([]corev1.Pod, error) {
	s, err := metav1.LabelSelectorAsSelector(sel)
	if err != nil {
		return nil, fmt.Errorf("read a selector in namespace %s: %w", namespace, err)
	}
	var pods corev1.PodList
	if err := reader.List(ctx, &pods, client.InNamespace(namespace), client.MatchingLabelsSelector{Selector: s}); err != nil {
		return nil, fmt.Errorf("list pods in namespace %s: %w", namespace, err)
	}
	return pods.Items, nil
}

// Ready reports whether a pod is ready to serve.
func Ready(pod *corev1.Pod) bool {
	if pod.DeletionTimestamp != nil {
		return false
	}
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.PodReady {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}

// HealthPort returns the port at which a role's pod serves its status.
func HealthPort(pod *corev1.Pod, def int32) int32 {
	for _, c := range pod.Spec.Containers {
		for _, p := range c.Ports {
			if p.Name == "health" {
				return p.ContainerPort
			}
		}
	}
	return def
}

// Env returns the literal value of an environment variable of a role's
// containers. The first of names that is set wins.
func Env(pod *corev1.PodSpec, names ...string) string {
	for _, name := range names {
		if v := envVar(pod, name); v != nil && v.Value != "" {
			return v.Value
		}
	}
	return ""
}

func envVar(pod *corev1.PodSpec, name string) *corev1.EnvVar {
	for i := range pod.Containers {
		env := pod.Containers[i].Env
		// Of a name that stands twice, Kubernetes takes the last.
		for j := len(env) - 1; j >= 0; j-- {
			if env[j].Name == name {
				return &env[j]
			}
		}
	}
	return nil
}
