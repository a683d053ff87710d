package kubelet

import (
	"slices"
	"strings"

	"kelpie.dev/kelpie/agent/check"
	"kelpie.dev/kelpie/agent/origin"
	"kelpie.dev/kelpie/metric"
)

// The reasons of a container's state that are told; others would make one
// context for each of the runtime's words.
var (
	waitingReasons    = []string{"errimagepull", "imagepullbackoff", "crashloopbackoff", "containercreating", "createcontainererror", "invalidimagename"}
	terminatedReasons = []string{"oomkilled", "containercannotrun", "error"}
)

// resources are those whose requests and limits are told, in cores and bytes.
var resources = []struct{ name, metric string }{
	{"cpu", "kubernetes.cpu"}, {"memory", "kubernetes.memory"}, {"ephemeral-storage", "kubernetes.ephemeral_storage"},
}

// podMetrics submits what the pods' specifications and states say.
func podMetrics(s *check.Sender, n *node) {
	running := counts{}
	for _, p := range n.pods {
		phase := p.Status.Phase
		if phase == "Running" {
			running.add("kubernetes.pods.running", p.low)
		}
		for _, c := range p.containers {
			if phase == "Running" || phase == "Pending" {
				requests(s, c)
			}
			if c.status == nil {
				continue
			}
			if c.status.State.Running != nil {
				running.add("kubernetes.containers.running", c.low)
			}
			s.Gauge("kubernetes.containers.restarts", float64(c.status.RestartCount), c.orchestrator...)
			state(s, "kubernetes.containers.state", &c.status.State, c.orchestrator)
			state(s, "kubernetes.containers.last_state", &c.status.LastState, c.orchestrator)
		}
	}
	running.submit(s)
}

func requests(s *check.Sender, c *container) {
	for _, r := range resources {
		for _, kind := range []struct {
			suffix     string
			quantities map[string]string
		}{{".requests", c.spec.Resources.Requests}, {".limits", c.spec.Resources.Limits}} {
			text, ok := kind.quantities[r.name]
			if !ok {
				continue
			}
			if v, ok := quantity(text); ok {
				s.Gauge(r.metric+kind.suffix, v, c.high...)
			} else {
				s.Warnf("container %s: %s%s is %q, which is no quantity", c.spec.Name, r.metric, kind.suffix, text)
			}
		}
	}
}

func state(s *check.Sender, prefix string, st *origin.ContainerState, tags metric.Tags) {
	tell := func(suffix, reason string, told []string) {
		if reason = strings.ToLower(reason); slices.Contains(told, reason) {
			s.Gauge(prefix+suffix, 1, tags.Union("reason:"+reason)...)
		}
	}
	if st.Waiting != nil {
		tell(".waiting", st.Waiting.Reason, waitingReasons)
	}
	if st.Terminated != nil {
		tell(".terminated", st.Terminated.Reason, terminatedReasons)
	}
}

// counts are how many there are of each set of tags.
type counts map[string]*counted

type counted struct {
	name string
	tags metric.Tags
	n    float64
}

func (c counts) add(name string, tags metric.Tags) {
	key := name + "," + tags.String()
	if c[key] == nil {
		c[key] = &counted{name: name, tags: tags}
	}
	c[key].n++
}

func (c counts) submit(s *check.Sender) {
	for _, one := range c {
		s.Gauge(one.name, one.n, one.tags...)
	}
}
