package doctor

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"kelpie.dev/kelpie/cli/release"
)

// troubles says, for at most three pods that are not ready, why. lead is the
// first of them.
func troubles(pods []corev1.Pod) (text, lead string) {
	var parts []string
	more := 0
	for i := range pods {
		switch {
		case release.Ready(&pods[i]):
		case len(parts) == 3:
			more++
		default:
			if lead == "" {
				lead = pods[i].Name
			}
			parts = append(parts, trouble(&pods[i]))
		}
	}
	text = strings.Join(parts, "; ")
	if more > 0 {
		text += fmt.Sprintf("; and %d more", more)
	}
	return text, lead
}

// trouble says in one line why a pod is not ready.
func trouble(pod *corev1.Pod) string {
	name := "pod " + pod.Name
	if pod.Spec.NodeName != "" {
		name += " on node " + pod.Spec.NodeName
	}
	if pod.DeletionTimestamp != nil {
		return name + " is being deleted"
	}
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.PodScheduled && c.Status == corev1.ConditionFalse {
			return name + " is not scheduled: " + c.Message
		}
	}
	for _, c := range append(pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses...) {
		if w := c.State.Waiting; w != nil && w.Reason != "PodInitializing" {
			return fmt.Sprintf("%s waits: %s %s", name, w.Reason, w.Message)
		}
		if d := c.State.Terminated; d != nil && d.ExitCode != 0 {
			return fmt.Sprintf("%s has ended: %s, exit code %d", name, d.Reason, d.ExitCode)
		}
	}
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.PodReady && c.Message != "" {
			return name + " is not ready: " + c.Message
		}
	}
	return fmt.Sprintf("%s is %s and not ready", name, pod.Status.Phase)
}

func readyCount(pods []corev1.Pod) int {
	n := 0
	for i := range pods {
		if release.Ready(&pods[i]) {
			n++
		}
	}
	return n
}

// lookAt is the command that shows more about the pods of a workload.
func lookAt(namespace, kind, name, pod string) string {
	if pod == "" {
		return fmt.Sprintf("kubectl -n %s describe %s %s", namespace, kind, name)
	}
	return fmt.Sprintf("kubectl -n %s describe pod %s; kubectl -n %s logs %s --all-containers --previous", namespace, pod, namespace, pod)
}
