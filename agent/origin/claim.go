package origin

import (
	"net/netip"
	"strconv"
	"strings"
)

// An Entity is a container, a pod, or a container named within a pod. The most
// exact of what is set counts.
type Entity struct {
	ContainerID   string
	Inode         uint64 // of the container's cgroup
	PodUID        string
	ContainerName string     // within PodUID
	Addr          netip.Addr // of a pod that has a network of its own
}

// Known reports whether e names anything.
func (e Entity) Known() bool { return e != (Entity{}) }

// ParseLocalData reads the c: field: a container id, bare or with a prefix, or
// a list of ci-<container id> and in-<inode of its cgroup>.
func ParseLocalData(field string) Entity {
	var e Entity
	list := strings.Contains(field, ",")
	for item := range strings.SplitSeq(field, ",") {
		if id, ok := strings.CutPrefix(item, "ci-"); ok {
			e.ContainerID = id
		} else if inode, ok := strings.CutPrefix(item, "in-"); ok {
			if n, err := strconv.ParseUint(inode, 10, 64); err == nil {
				e.Inode = n
			}
		} else if !list {
			e.ContainerID = strings.TrimPrefix(item, "cid-")
		}
	}
	if e.ContainerID != "" {
		e.Inode = 0 // the id says as much, and is found faster
	}
	return e
}

// ParseExternalData reads the e: field, which names a container within a pod.
// Its it- item, whether that is an init container, tells nothing more: names
// are unique among all containers of a pod.
func ParseExternalData(field string) Entity {
	var e Entity
	for item := range strings.SplitSeq(field, ",") {
		if name, ok := strings.CutPrefix(item, "cn-"); ok {
			e.ContainerName = name
		} else if uid, ok := strings.CutPrefix(item, "pu-"); ok {
			e.PodUID = uid
		}
	}
	if e.PodUID == "" {
		return Entity{} // a container's name alone says nothing
	}
	return e
}
