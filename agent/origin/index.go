package origin

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"time"
)

// Index finds tags by entity. It is immutable once it is in use.
type Index struct {
	containers table // by container id
	pods       table // by pod uid
	named      map[podContainer]string
	addrs      map[netip.Addr]*Levels // nil for one that stands for no pod
	inodes     map[uint64]Entity
	problems   []string // mistakes in annotations
}

type podContainer struct{ uid, name string }

// NewIndex works out the tags of all pods and their containers.
func NewIndex(pods []Pod, o TagOptions) *Index { return newIndex(pods, &o, nil) }

func newIndex(pods []Pod, o *TagOptions, facts *clusterFacts) *Index {
	x := &Index{containers: newTable(), pods: newTable(), named: map[podContainer]string{}, addrs: map[netip.Addr]*Levels{}}
	b := builder{o: o, facts: facts}
	for i := range pods {
		p := &pods[i]
		base := b.pod(p)
		for _, list := range [][]ContainerStatus{
			p.Status.ContainerStatuses, p.Status.InitContainerStatuses, p.Status.EphemeralContainerStatuses,
		} {
			for j := range list {
				id := containerID(list[j].ContainerID)
				if id == "" {
					continue // not created yet
				}
				x.containers.levels[id] = b.container(base, p, &list[j])
				for _, uid := range p.uids() {
					x.named[podContainer{uid, list[j].Name}] = id
				}
			}
		}
		levels := b.podOnly(base, p)
		for _, uid := range p.uids() {
			x.pods.levels[uid] = levels
		}
		x.addAddrs(p, levels)
	}
	for i := range pods {
		if host, err := netip.ParseAddr(pods[i].Status.HostIP); err == nil {
			x.addrs[host.Unmap()] = nil
		}
	}
	x.problems = b.problems
	return x
}

// uids returns what the pod is known as: to the API by its uid; on this node a
// static pod by the hash of its configuration, its mirror having another uid.
func (p *Pod) uids() []string {
	uids := []string{p.Metadata.Annotations["kubernetes.io/config.hash"], p.Metadata.UID}
	return slices.DeleteFunc(slices.Compact(uids), func(uid string) bool { return uid == "" })
}

// addAddrs notes the addresses that stand for p: none when it shares the
// node's network, and none once it has ended, as they are given to others then.
// An address that two pods claim stands for neither.
func (x *Index) addAddrs(p *Pod, levels *Levels) {
	if p.Spec.HostNetwork || p.Status.Phase == "Succeeded" || p.Status.Phase == "Failed" {
		return
	}
	own := map[netip.Addr]bool{}
	for _, ip := range append([]PodIP{{IP: p.Status.PodIP}}, p.Status.PodIPs...) {
		addr, err := netip.ParseAddr(ip.IP)
		if addr = addr.Unmap(); err != nil || own[addr] {
			continue
		}
		own[addr] = true
		if _, taken := x.addrs[addr]; taken {
			x.addrs[addr] = nil
		} else {
			x.addrs[addr] = levels
		}
	}
}

// Lookup returns e's tags, or nil. exact is false when e may yet become known:
// nothing is known of it, or of a container only its pod.
func (x *Index) Lookup(e Entity) (levels *Levels, exact bool) {
	if e.Inode != 0 && e.ContainerID == "" {
		target, ok := x.inodes[e.Inode]
		if !ok {
			return nil, false
		}
		e = target
	}
	if e.Addr.IsValid() {
		levels, exact = x.addrs[e.Addr]
		return levels, exact
	}
	id := e.ContainerID
	if id == "" && e.ContainerName != "" {
		id = x.named[podContainer{e.PodUID, e.ContainerName}]
	}
	if l, ok := x.containers.levels[id]; ok {
		return l, true
	}
	levels = x.pods.levels[e.PodUID]
	return levels, levels != nil && e.ContainerID == "" && e.ContainerName == ""
}

// inherit takes over from the index before x what x does not list: the tags of
// entities that have ended, for a while, as their last samples may still come.
// It reports whether any Lookup may answer differently than before.
func (x *Index) inherit(old *Index, now time.Time) (changed bool) {
	changed = x.containers.inherit(&old.containers, now)
	changed = x.pods.inherit(&old.pods, now) || changed
	for key, id := range old.named {
		if _, ok := x.named[key]; !ok && x.containers.levels[id] != nil {
			x.named[key] = id
		}
	}
	return changed || !maps.Equal(x.named, old.named) || !maps.Equal(x.inodes, old.inodes) ||
		!maps.EqualFunc(x.addrs, old.addrs, (*Levels).equal)
}

// keepEnded is how long the tags of an entity outlive it.
const keepEnded = 5 * time.Minute

// table holds the tags of one kind of entity.
type table struct {
	levels map[string]*Levels
	ended  map[string]time.Time // when entities were found to be no longer listed
}

func newTable() table { return table{map[string]*Levels{}, map[string]time.Time{}} }

func (t *table) inherit(old *table, now time.Time) (changed bool) {
	for key, was := range old.levels {
		is, listed := t.levels[key]
		if listed {
			if is.equal(was) {
				t.levels[key] = was
			} else {
				changed = true
			}
			continue
		}
		since := cmp.Or(old.ended[key], now)
		if now.Sub(since) >= keepEnded {
			changed = true
			continue
		}
		t.levels[key], t.ended[key] = was, since
	}
	return changed || len(t.levels) != len(old.levels)
}
