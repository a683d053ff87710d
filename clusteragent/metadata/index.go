package metadata

import (
	"context"
	"maps"
	"slices"
	"sync"
	"unique"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/client-go/kubernetes"

	"kelpie.dev/kelpie/clusteragent/mirror"
)

// An Index answers from memory what node agents ask. Its methods may be called
// concurrently; Run once.
type Index struct {
	slices     *mirror.Mirror[*discoveryv1.EndpointSlice, slice]
	nodes      *mirror.Mirror[*corev1.Node, node]
	namespaces *mirror.Mirror[*corev1.Namespace, namespace]

	mu     sync.RWMutex // guards what follows
	byPod  postings[mirror.Key]
	byNode postings[string]
}

// slice is what is kept of an EndpointSlice.
type slice struct {
	service string
	pods    []pod
}

// pod is a pod behind a service, in the service's namespace.
type pod struct{ name, node string }

// node is what is kept of a Node.
type node struct {
	uid         string
	labels      map[string]string
	annotations map[string]string // of aliasAnnotation
}

// namespace is what is kept of a Namespace.
type namespace struct {
	uid    string
	labels map[string]string
}

// aliasAnnotation is the one annotation of nodes that Datadog's agents ask for by
// default (kubernetes_node_annotations_as_host_aliases).
const aliasAnnotation = "cluster.k8s.io/machine"

// NewIndex returns an Index that knows nothing until Run.
func NewIndex(client kubernetes.Interface) *Index {
	x := &Index{byPod: postings[mirror.Key]{}, byNode: postings[string]{}}
	x.slices = mirror.New(mirror.Options[*discoveryv1.EndpointSlice, slice]{
		Client: client.DiscoveryV1().RESTClient(), Resource: "endpointslices", Example: &discoveryv1.EndpointSlice{}, Pick: pickSlice, Changed: x.changed,
	})
	x.nodes = mirror.New(mirror.Options[*corev1.Node, node]{
		Client: client.CoreV1().RESTClient(), Resource: "nodes", Example: &corev1.Node{},
		Pick: func(n *corev1.Node) (node, bool) {
			kept := node{uid: string(n.UID), labels: n.Labels}
			if v, ok := n.Annotations[aliasAnnotation]; ok {
				kept.annotations = map[string]string{aliasAnnotation: v}
			}
			return kept, true
		},
		Trim: func(n *corev1.Node) { n.Status.Images = nil },
	})
	x.namespaces = mirror.New(mirror.Options[*corev1.Namespace, namespace]{
		Client: client.CoreV1().RESTClient(), Resource: "namespaces", Example: &corev1.Namespace{},
		Pick: func(n *corev1.Namespace) (namespace, bool) {
			return namespace{uid: string(n.UID), labels: n.Labels}, true
		},
	})
	return x
}

// Run follows the API server until ctx ends, and then returns nil.
func (x *Index) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { x.slices.Run(ctx); return nil })
	g.Go(func() error { x.nodes.Run(ctx); return nil })
	g.Go(func() error { x.namespaces.Run(ctx); return nil })
	return g.Wait()
}

// pickSlice keeps the pods that a service selects, ready or not: a pod is tagged
// from its first sample, and a failing probe does not change its tags.
func pickSlice(s *discoveryv1.EndpointSlice) (slice, bool) {
	service := s.Labels[discoveryv1.LabelServiceName]
	if service == "" {
		return slice{}, false
	}
	kept := slice{service: service}
	for i := range s.Endpoints {
		e := &s.Endpoints[i]
		if e.TargetRef == nil || e.TargetRef.Kind != "Pod" {
			continue
		}
		p := pod{name: e.TargetRef.Name}
		if e.NodeName != nil {
			p.node = unique.Make(*e.NodeName).Value() // one string for all pods of a node
		}
		kept.pods = append(kept.pods, p)
	}
	kept.pods = slices.Clip(kept.pods)
	return kept, len(kept.pods) > 0
}

// changed keeps the postings in step with the slices.
func (x *Index) changed(k mirror.Key, before, after *slice) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if before != nil {
		for _, p := range before.pods {
			x.byPod.remove(mirror.Key{Namespace: k.Namespace, Name: p.name}, k)
			x.byNode.remove(p.node, k)
		}
	}
	if after != nil {
		for _, p := range after.pods {
			x.byPod.add(mirror.Key{Namespace: k.Namespace, Name: p.name}, k)
			x.byNode.add(p.node, k)
		}
	}
}

// Services returns the names of the services that select a pod, sorted.
func (x *Index) Services(ns, podName string) []string {
	names := []string{}
	for _, k := range x.find(func() []mirror.Key { return x.byPod[mirror.Key{Namespace: ns, Name: podName}] }) {
		if s, ok := x.slices.Get(k); ok {
			names = append(names, s.service)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// Pods is namespace → pod → services, as a set.
type Pods map[string]map[string]map[string]struct{}

// OnNode returns the pods of a node that services select.
func (x *Index) OnNode(name string) Pods {
	pods := Pods{}
	for _, k := range x.find(func() []mirror.Key { return x.byNode[name] }) {
		s, _ := x.slices.Get(k)
		for _, p := range s.pods {
			if p.node != name {
				continue
			}
			if pods[k.Namespace] == nil {
				pods[k.Namespace] = map[string]map[string]struct{}{}
			}
			if pods[k.Namespace][p.name] == nil {
				pods[k.Namespace][p.name] = map[string]struct{}{}
			}
			pods[k.Namespace][p.name][s.service] = struct{}{}
		}
	}
	return pods
}

// find reads postings.
func (x *Index) find(read func() []mirror.Key) []mirror.Key {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return slices.Clone(read())
}

// NodeLabels returns all labels of a node, or false when there is none of that name.
func (x *Index) NodeLabels(name string) (map[string]string, bool) {
	n, ok := x.nodes.Get(mirror.Key{Name: name})
	return notNil(n.labels), ok
}

// NodeAnnotations returns the annotations of a node that name it elsewhere.
func (x *Index) NodeAnnotations(name string) (map[string]string, bool) {
	n, ok := x.nodes.Get(mirror.Key{Name: name})
	return notNil(n.annotations), ok
}

// NodeUID returns the UID of a node.
func (x *Index) NodeUID(name string) (string, bool) {
	n, ok := x.nodes.Get(mirror.Key{Name: name})
	return n.uid, ok
}

// NamespaceLabels returns all labels of a namespace.
func (x *Index) NamespaceLabels(name string) (map[string]string, bool) {
	n, ok := x.namespaces.Get(mirror.Key{Name: name})
	return notNil(n.labels), ok
}

// ClusterID returns what Datadog tells clusters apart by: the UID of the
// namespace kube-system.
func (x *Index) ClusterID() (string, bool) {
	n, ok := x.namespaces.Get(mirror.Key{Name: "kube-system"})
	return n.uid, ok
}

// notNil makes of no labels an object without any, in JSON.
func notNil(m map[string]string) map[string]string {
	if m == nil {
		return map[string]string{}
	}
	return maps.Clone(m)
}

// Status is what an Index tells of itself.
type Status struct {
	Slices     int  `json:"endpoint_slices"`
	Nodes      int  `json:"nodes"`
	Namespaces int  `json:"namespaces"`
	Complete   bool `json:"complete"` // all first lists are
}

// Status returns what is known now.
func (x *Index) Status() Status {
	return Status{
		Slices: x.slices.Len(), Nodes: x.nodes.Len(), Namespaces: x.namespaces.Len(),
		Complete: x.slices.Synced() && x.nodes.Synced() && x.namespaces.Synced(),
	}
}

// postings lists, by pod or node, the slices that it is in; a slice as often as
// it is there.
type postings[K comparable] map[K][]mirror.Key

func (p postings[K]) add(k K, in mirror.Key) { p[k] = append(p[k], in) }

func (p postings[K]) remove(k K, in mirror.Key) {
	list := p[k]
	i := slices.Index(list, in)
	if i < 0 {
		return
	}
	if len(list) == 1 {
		delete(p, k)
		return
	}
	list[i] = list[len(list)-1]
	list[len(list)-1] = mirror.Key{}
	p[k] = list[:len(list)-1]
}
