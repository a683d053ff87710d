package kubelet

import (
	"slices"
	"strings"

	"kelpie.dev/kelpie/agent/origin"
	"kelpie.dev/kelpie/metric"
)

// node finds the pods and containers of this node by the names that the
// kubelet's answers have for them.
type node struct {
	pods       []*pod
	byName     map[podName]*pod
	containers map[containerName]*container
	byID       map[string]*container // those that have been created
}

// find returns the container that l is about, or nil. A kubelet whose cAdvisor
// cannot ask the container runtime names the control group only; its last
// element holds the container's id.
func (n *node) find(l *labels) *container {
	if l.container == "" && l.pod == "" {
		return n.byID[origin.ParseCgroup("0::"+l.id).ContainerID]
	}
	return n.containers[containerName{podName{l.namespace, l.pod}, l.container}]
}

func (n *node) add(name podName, c *container) {
	n.containers[containerName{name, c.spec.Name}] = c
	if c.id != "" {
		n.byID[c.id] = c
	}
}

type (
	podName       struct{ namespace, name string }
	containerName struct {
		podName
		container string
	}
)

// pod is a pod with its tags.
type pod struct {
	*origin.Pod
	low, orchestrator metric.Tags
	containers        []*container
}

// container is a container of the pod's specification, with its state and tags.
type container struct {
	spec                    *origin.Container
	status                  *origin.ContainerStatus // nil before the kubelet has told
	id                      string                  // "" before it is created
	low, orchestrator, high metric.Tags
}

// newNode ties pods to their tags. A pod whose tags are not known has those of
// its names.
func newNode(pods []origin.Pod, tags func(origin.Entity) *origin.Levels) *node {
	n := &node{byName: map[podName]*pod{}, containers: map[containerName]*container{}, byID: map[string]*container{}}
	for i := range pods {
		p := &pod{Pod: &pods[i]}
		meta := &p.Metadata
		if l := tags(origin.Entity{PodUID: podUID(p.Pod)}); l != nil {
			p.low, p.orchestrator = l.At(origin.Low), l.At(origin.Orchestrator)
		} else {
			p.low = metric.NewTags("kube_namespace:" + meta.Namespace)
			p.orchestrator = p.low.Union("pod_name:" + meta.Name)
		}
		name := podName{meta.Namespace, meta.Name}
		n.pods = append(n.pods, p)
		n.byName[name] = p
		for j := range p.Spec.Containers {
			c := newContainer(p, &p.Spec.Containers[j], tags)
			p.containers = append(p.containers, c)
			n.add(name, c)
		}
		for j := range p.Spec.InitContainers {
			n.add(name, newContainer(p, &p.Spec.InitContainers[j], tags))
		}
	}
	return n
}

func newContainer(p *pod, spec *origin.Container, tags func(origin.Entity) *origin.Levels) *container {
	c := &container{spec: spec}
	for _, list := range [][]origin.ContainerStatus{p.Status.ContainerStatuses, p.Status.InitContainerStatuses} {
		if i := slices.IndexFunc(list, func(s origin.ContainerStatus) bool { return s.Name == spec.Name }); i >= 0 {
			c.status = &list[i]
			_, id, found := strings.Cut(c.status.ContainerID, "://")
			if c.id = id; !found {
				c.id = c.status.ContainerID
			}
		}
	}
	var l *origin.Levels
	if c.id != "" {
		l = tags(origin.Entity{ContainerID: c.id})
	}
	if l != nil {
		c.low, c.orchestrator, c.high = l.At(origin.Low), l.At(origin.Orchestrator), l.At(origin.High)
		return c
	}
	name := "kube_container_name:" + spec.Name
	c.low, c.orchestrator = p.low.Union(name), p.orchestrator.Union(name)
	c.high = c.orchestrator
	return c
}

// podUID returns what the pod is known as on this node: of a static pod, the
// hash of its configuration.
func podUID(p *origin.Pod) string {
	if hash := p.Metadata.Annotations["kubernetes.io/config.hash"]; hash != "" {
		return hash
	}
	return p.Metadata.UID
}
