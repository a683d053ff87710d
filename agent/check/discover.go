package check

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"kelpie.dev/kelpie/agent/check/fetch"
	"kelpie.dev/kelpie/agent/origin"
)

// Pods knows the pods of this node.
type Pods interface {
	// Snapshot returns the pods, which may not be modified, and a number that
	// changes when they may have.
	Snapshot() (pods []origin.Pod, generation uint64)
	// Use says that somebody looks at the pods, so that they are kept fresh.
	Use()
	// Lookup returns the tags of an entity, or nil.
	Lookup(e origin.Entity, now time.Time) (*origin.Levels, origin.Result)
}

// maxDiscovered bounds the instances that all pods of a node have together.
const maxDiscovered = 1000

// discovery finds the instances that the pods of this node ask for, in their
// annotations or by their images.
type discovery struct {
	templates []*document // of files, with identifiers
	anyTarget bool
	fileEnv   func(string) (string, bool)
	podEnv    func(string) (string, bool)

	found    []*Instance
	problems []Problem
}

// instances returns what should run now for these pods.
func (d *discovery) instances(pods []origin.Pod) ([]*Instance, []Problem) {
	d.found, d.problems = nil, nil
	for i := range pods {
		d.pod(&pods[i])
	}
	return d.found, d.problems
}

func (d *discovery) pod(p *origin.Pod) {
	where := "pod " + p.Metadata.Namespace + "/" + p.Metadata.Name
	before := len(d.found)
	names := annotatedContainers(p.Metadata.Annotations)
	used := map[string]bool{}
	for _, list := range [][]origin.Container{p.Spec.InitContainers, p.Spec.Containers} {
		for i := range list {
			c := &list[i]
			name := c.Name
			if id := p.Metadata.Annotations[annotationPrefix+c.Name+keyIdentifier]; id != "" {
				name = id
			}
			used[name] = true
			w := watched{pod: p, container: c, source: where + " container " + c.Name, id: runningID(p, c.Name)}
			if w.id == "" {
				continue
			}
			if slices.Contains(names, name) {
				d.annotated(w, name)
			}
			d.byImage(w)
		}
	}
	for _, name := range names {
		if !used[name] {
			d.problem(where, "", fmt.Errorf("annotation %s%s.*: the pod has no container %q: the name in the annotation must be the container's", annotationPrefix, shorten(name), shorten(name)))
		}
	}
	if n := len(d.found) - before; n > maxPodInstances {
		d.problem(where, "", fmt.Errorf("the pod asks for %d instances of checks: expected at most %d, the others do not run", n, maxPodInstances))
		d.found = d.found[:before+maxPodInstances]
	}
	if len(d.found) > maxDiscovered {
		d.problem(where, "", fmt.Errorf("the pods of this node ask for more than %d instances of checks: those of this pod do not run", maxDiscovered))
		d.found = d.found[:before]
	}
}

// watched is a running container that a configuration may be for.
type watched struct {
	pod       *origin.Pod
	container *origin.Container
	source    string
	id        string
}

// runningID returns the id of a container that runs, or "".
func runningID(p *origin.Pod, name string) string {
	for _, list := range [][]origin.ContainerStatus{p.Status.ContainerStatuses, p.Status.InitContainerStatuses} {
		for i := range list {
			if s := &list[i]; s.Name == name && s.State.Running != nil {
				_, id, found := strings.Cut(s.ContainerID, "://")
				if !found {
					id = s.ContainerID
				}
				return id
			}
		}
	}
	return ""
}

func (d *discovery) annotated(w watched, name string) {
	docs, err := readAnnotations(w.pod.Metadata.Annotations, name)
	if err != nil {
		d.problem(w.source, "", err)
		return
	}
	access := fetch.Access{Pod: addresses(w.pod), Any: d.anyTarget}
	for _, doc := range docs {
		d.add(w, doc, w.source, d.podEnv, access)
	}
}

func (d *discovery) byImage(w watched) {
	for _, doc := range d.templates {
		if doc.watches(w.container.Image) {
			d.add(w, doc, doc.source+" for "+w.source, d.fileEnv, fetch.Access{File: true})
		}
	}
}

func (d *discovery) add(w watched, doc *document, source string, env func(string) (string, bool), access fetch.Access) {
	resolved, err := doc.resolve(&variables{pod: w.pod, ports: w.container.Ports, env: env}, access)
	if err != nil {
		d.problem(source, doc.check, err)
		return
	}
	for _, i := range resolved {
		i.Source = source
		i.Entity = origin.Entity{ContainerID: w.id}
		d.found = append(d.found, i)
	}
}

func (d *discovery) problem(source, check string, err error) {
	d.problems = append(d.problems, Problem{Source: source, Check: shorten(check), Error: err.Error()})
}

// addresses returns the pod's own addresses.
func addresses(p *origin.Pod) []netip.Addr {
	var out []netip.Addr
	texts := []string{p.Status.PodIP}
	for _, ip := range p.Status.PodIPs {
		texts = append(texts, ip.IP)
	}
	for _, text := range texts {
		if ip, err := netip.ParseAddr(text); err == nil && !slices.Contains(out, ip.Unmap()) {
			out = append(out, ip.Unmap())
		}
	}
	return out
}
