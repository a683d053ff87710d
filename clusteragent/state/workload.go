package state

import (
	"context"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/rest"

	"kelpie.dev/kelpie/clusteragent/mirror"
)

// maxCounts is the most numbers that a kind has.
const maxCounts = 9

// absent marks a number that the object does not have.
const absent int32 = -1

// workload is all that is kept of an object of apps/v1.
type workload struct {
	counts     [maxCounts]int32 // in the order of its kind's metrics
	deployment string           // that a ReplicaSet belongs to; ""
	labels     []string         // tags that its labels give
}

// A kind says which numbers a kind of workload has, and what they are called.
type kind struct {
	name    string // in metric names
	tag     string // bears the object's name
	metrics []string
	counted bool // .count is known: all objects are kept
}

// The names are those of Datadog's kubernetes_state_core check.
var (
	deployments = kind{"deployment", "kube_deployment", []string{
		"deployment.replicas_desired", "deployment.replicas", "deployment.replicas_ready", "deployment.replicas_available",
		"deployment.replicas_unavailable", "deployment.replicas_updated", "deployment.paused",
		"deployment.rollingupdate.max_unavailable", "deployment.rollingupdate.max_surge"}, true}
	statefulSets = kind{"statefulset", "kube_stateful_set", []string{
		"statefulset.replicas_desired", "statefulset.replicas", "statefulset.replicas_current",
		"statefulset.replicas_ready", "statefulset.replicas_updated"}, true}
	daemonSets = kind{"daemonset", "kube_daemon_set", []string{
		"daemonset.desired", "daemonset.scheduled", "daemonset.misscheduled", "daemonset.ready",
		"daemonset.updated", "daemonset.daemons_available", "daemonset.daemons_unavailable"}, true}
	replicaSets = kind{"replicaset", "kube_replica_set", []string{
		"replicaset.replicas_desired", "replicaset.replicas", "replicaset.replicas_ready", "replicaset.fully_labeled_replicas"}, false}
)

func pickDeployment(d *appsv1.Deployment) (workload, bool) {
	desired, s := orAbsent(d.Spec.Replicas), d.Status
	unavailable, surge := absent, absent
	if u := d.Spec.Strategy.RollingUpdate; u != nil && desired != absent {
		unavailable = scaled(u.MaxUnavailable, desired, false)
		surge = scaled(u.MaxSurge, desired, true)
	}
	var paused int32
	if d.Spec.Paused {
		paused = 1
	}
	return workload{labels: labelTags(d.Labels), counts: [maxCounts]int32{desired, s.Replicas, s.ReadyReplicas, s.AvailableReplicas,
		s.UnavailableReplicas, s.UpdatedReplicas, paused, unavailable, surge}}, true
}

func pickStatefulSet(d *appsv1.StatefulSet) (workload, bool) {
	s := d.Status
	return workload{labels: labelTags(d.Labels), counts: [maxCounts]int32{orAbsent(d.Spec.Replicas), s.Replicas, s.CurrentReplicas,
		s.ReadyReplicas, s.UpdatedReplicas}}, true
}

func pickDaemonSet(d *appsv1.DaemonSet) (workload, bool) {
	s := d.Status
	return workload{labels: labelTags(d.Labels), counts: [maxCounts]int32{s.DesiredNumberScheduled, s.CurrentNumberScheduled,
		s.NumberMisscheduled, s.NumberReady, s.UpdatedNumberScheduled, s.NumberAvailable, s.NumberUnavailable}}, true
}

// pickReplicaSet leaves out the empty ones: each Deployment drags ten old
// revisions along, which have and want nothing.
func pickReplicaSet(d *appsv1.ReplicaSet) (workload, bool) {
	desired, s := orAbsent(d.Spec.Replicas), d.Status
	if desired <= 0 && s.Replicas == 0 {
		return workload{}, false
	}
	w := workload{labels: labelTags(d.Labels), counts: [maxCounts]int32{desired, s.Replicas, s.ReadyReplicas, s.FullyLabeledReplicas}}
	if c := metav1.GetControllerOfNoCopy(d); c != nil && c.Kind == "Deployment" {
		w.deployment = c.Name
	}
	return w, true
}

func orAbsent(n *int32) int32 {
	if n == nil {
		return absent
	}
	return *n
}

// scaled returns a count or a share of desired, rounded as the deployment
// controller rounds it.
func scaled(v *intstr.IntOrString, desired int32, up bool) int32 {
	if v == nil {
		return absent
	}
	n, err := intstr.GetScaledValueFromIntOrPercent(v, int(desired), up)
	if err != nil {
		return absent // the API server lets nothing else in
	}
	return int32(n)
}

// A source is the workloads of one kind.
type source struct {
	kind
	rows
	all func(yield func(mirror.Key, workload) bool)
}

// rows is the part of a mirror.Mirror that does not depend on its object.
type rows interface {
	Run(ctx context.Context)
	Synced() bool
	Len() int
}

// follow mirrors one kind. The pod's template is most of an object, and not read.
func follow[O mirror.Object](client rest.Interface, k kind, example O, pick func(O) (workload, bool), template func(O) *corev1.PodTemplateSpec) source {
	m := mirror.New(mirror.Options[O, workload]{Client: client, Resource: k.name + "s", Example: example, Pick: pick, Trim: func(o O) {
		o.SetAnnotations(nil)
		*template(o) = corev1.PodTemplateSpec{}
	}})
	return source{kind: k, rows: m, all: m.All()}
}

// sources mirrors all kinds.
func sources(client rest.Interface) []source {
	return []source{
		follow(client, deployments, &appsv1.Deployment{}, pickDeployment, func(d *appsv1.Deployment) *corev1.PodTemplateSpec { return &d.Spec.Template }),
		follow(client, statefulSets, &appsv1.StatefulSet{}, pickStatefulSet, func(d *appsv1.StatefulSet) *corev1.PodTemplateSpec { return &d.Spec.Template }),
		follow(client, daemonSets, &appsv1.DaemonSet{}, pickDaemonSet, func(d *appsv1.DaemonSet) *corev1.PodTemplateSpec { return &d.Spec.Template }),
		follow(client, replicaSets, &appsv1.ReplicaSet{}, pickReplicaSet, func(d *appsv1.ReplicaSet) *corev1.PodTemplateSpec { return &d.Spec.Template }),
	}
}
