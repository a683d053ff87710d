package doctor

import (
	"context"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"kelpie.dev/kelpie/cli/release"
)

// maxAgents bounds how many agents are asked for their status.
const maxAgents = 10

// recent is how old a line that an agent refused may be, to be of interest.
const recent = 10 * time.Minute

// agentPods returns the agents that matter: those on the nodes of the target's
// pods, or all.
func (e *exam) agentPods(ctx context.Context) ([]corev1.Pod, error) {
	pods, err := e.rel.Pods(ctx, e.Objects, e.rel.Agents.Spec.Selector)
	if err != nil || len(e.targetPods) == 0 {
		return pods, err
	}
	return slices.DeleteFunc(pods, func(p corev1.Pod) bool { return !e.runsOn(p.Spec.NodeName) }), nil
}

// runsOn reports whether a pod of the target is on node.
func (e *exam) runsOn(node string) bool {
	return slices.ContainsFunc(e.targetPods, func(p corev1.Pod) bool { return p.Spec.NodeName == node })
}

func (e *exam) agentsReady(ctx context.Context) finding {
	ds := e.rel.Agents
	if ds == nil {
		return skipped("the installation has no node agents (agents.enabled)")
	}
	name := fmt.Sprintf("DaemonSet %s/%s", ds.Namespace, ds.Name)
	all, err := e.rel.Pods(ctx, e.Objects, ds.Spec.Selector)
	if err != nil {
		return skipped("%s: %v", name, err)
	}
	pods, err := e.agentPods(ctx)
	if err != nil {
		return skipped("%s: %v", name, err)
	}
	seen := fmt.Sprintf("%s, %d of %d pods ready", name, readyCount(all), ds.Status.DesiredNumberScheduled)
	if len(e.targetPods) > 0 {
		for i := range e.targetPods {
			node := e.targetPods[i].Spec.NodeName
			if node != "" && !slices.ContainsFunc(pods, func(p corev1.Pod) bool { return p.Spec.NodeName == node }) {
				return broken(fmt.Sprintf("%s; node %s, where %s runs, has none", seen, node, e.targetPods[i].Name), "the application's node has no agent to send to",
					"let the agent onto the node: agents.tolerations, agents.nodeSelector in the values; "+lookAt(ds.Namespace, "daemonset", ds.Name, ""))
			}
		}
	}
	if text, pod := troubles(pods); text != "" {
		return broken(seen+"; "+text, "an agent does not run, so its node's metrics are lost", lookAt(ds.Namespace, "daemonset", ds.Name, pod))
	}
	if len(all) == 0 && ds.Status.DesiredNumberScheduled > 0 {
		return broken(seen, "no agent pod was created", lookAt(ds.Namespace, "daemonset", ds.Name, ""))
	}
	return ok("%s", seen)
}

// statuses asks the agents that matter, maxAgents at most, how they are.
func (e *exam) statuses(ctx context.Context) (map[string]*release.AgentStatus, error) {
	pods, err := e.agentPods(ctx)
	if err != nil {
		return nil, err
	}
	out := make(map[string]*release.AgentStatus)
	for i := range pods[:min(len(pods), maxAgents)] {
		var s release.AgentStatus
		if err = release.Status(ctx, e.Access, &pods[i], release.AgentHealthPort, &s); err == nil {
			out[pods[i].Name] = &s
		}
	}
	if len(out) == 0 && err != nil {
		return nil, fmt.Errorf("ask the agents for their status: %w", err)
	}
	return out, nil
}

func (e *exam) agentLines(ctx context.Context) finding {
	if e.rel.Agents == nil {
		return skipped("the installation has no node agents")
	}
	all, err := e.statuses(ctx)
	if err != nil {
		return skipped("%v", err)
	}
	var packets uint64
	var contexts int
	var bad []string
	var fresh bool
	for pod, s := range all {
		packets += s.Packets()
		contexts += s.Contexts
		for _, p := range s.Problems {
			if e.now.Sub(p.At) <= recent {
				fresh = true
				bad = append(bad, fmt.Sprintf("%s refused %d lines (%s), the last: %q", pod, p.Count, p.Meaning, p.Line))
			}
		}
	}
	slices.Sort(bad)
	seen := fmt.Sprintf("%d agents received %d datagrams", len(all), packets)
	if len(bad) > 0 {
		seen += "; " + join(bad, "; ", 3)
	}
	// Metrics without timestamps make contexts: refused lines and not one
	// context means that nothing of what arrives can be read.
	if fresh && contexts == 0 {
		return broken(seen, "the agents cannot read what the application sends",
			"correct the lines that the application sends; DogStatsD's form is name:value|type|#tag:value,…")
	}
	return ok("%s", seen)
}

// forwarding asks the agents whether they can deliver.
func (e *exam) forwarding(ctx context.Context) finding {
	if e.rel.Agents == nil {
		return skipped("the installation has no node agents")
	}
	all, err := e.statuses(ctx)
	if err != nil {
		return skipped("%v", err)
	}
	var points uint64
	ds := e.rel.Agents
	for pod, s := range all {
		for _, f := range s.Forwarding {
			points += f.Delivered
			if !f.Failing || !e.isIntake(f.URL) {
				continue
			}
			seen := fmt.Sprintf("pod %s to %s: %s", pod, f.URL, f.LastError)
			if strings.Contains(f.LastError, "403") {
				return broken(seen, "the intake refuses the API key that the running agents were started with; their Secret holds another one now",
					fmt.Sprintf("kubectl -n %s rollout restart daemonset %s", ds.Namespace, ds.Name))
			}
			return broken(seen, "the agents cannot deliver to the intake",
				fmt.Sprintf("check NetworkPolicies and DNS between the agents and %s; kubectl -n %s logs %s", f.URL, ds.Namespace, pod))
		}
	}
	return ok("%d agents delivered %d points", len(all), points)
}

// isIntake reports whether autoscaling depends on the intake at address: a copy
// that goes to Datadog as well may fail without harm.
func (e *exam) isIntake(address string) bool {
	if e.rel.Backend == nil {
		return true
	}
	u, err := url.Parse(address)
	return err != nil || strings.Contains(u.Hostname(), e.rel.Backend.Spec.ServiceName)
}
