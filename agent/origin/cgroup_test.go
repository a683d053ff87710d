package origin

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// makeCgroup makes the folder of a cgroup and returns its inode.
func makeCgroup(t testing.TB, elements ...string) string {
	t.Helper()
	path := filepath.Join(elements...)
	if err := os.MkdirAll(path, 0o700); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	inode, ok := inodeOf(info)
	if !ok {
		t.Skip("this system has no inodes")
	}
	return strconv.FormatUint(inode, 10)
}

// TestContainersByInode finds real folders by their real inodes, in the layouts
// of both versions and both drivers.
func TestContainersByInode(t *testing.T) {
	v2, v1 := t.TempDir(), t.TempDir()
	slice := "kubepods-burstable-pod" + strings.ReplaceAll(appPod, "-", "_") + ".slice"
	for about, tt := range map[string]struct {
		root, inode string
		want        Entity
	}{
		"v2, systemd":  {v2, makeCgroup(t, v2, "kubepods.slice", "kubepods-burstable.slice", slice, "cri-containerd-"+appID+".scope"), Entity{ContainerID: appID, PodUID: appPod}},
		"v2, cgroupfs": {v2, makeCgroup(t, v2, "kubepods", "besteffort", "pod"+appPod, sidecarID), Entity{ContainerID: sidecarID, PodUID: appPod}},
		"v2, below":    {v2, makeCgroup(t, v2, "kubepods", "besteffort", "pod"+appPod, sidecarID, "init.scope"), Entity{ContainerID: sidecarID, PodUID: appPod}},
		"v2, nested":   {v2, makeCgroup(t, v2, "docker", sidecarID, "kubelet", "kubepods", "pod"+appPod, appID), Entity{ContainerID: appID, PodUID: appPod}},
		"v2, the pod":  {v2, makeCgroup(t, v2, "kubepods", "besteffort", "pod"+appPod), Entity{}},
		"v2, the node": {v2, makeCgroup(t, v2, "system.slice", "sshd.service"), Entity{}},
		"v1":           {v1, makeCgroup(t, v1, "memory", "kubepods", "pod"+appPod, appID), Entity{ContainerID: appID, PodUID: appPod}},
		"v1, another":  {v1, makeCgroup(t, v1, "cpu", "kubepods", "pod"+appPod, appID), Entity{}},
	} {
		found, err := containersByInode(tt.root)
		if err != nil {
			t.Errorf("%s: %v", about, err)
		}
		inode, _ := strconv.ParseUint(tt.inode, 10, 64)
		if got := found[inode]; got != tt.want {
			t.Errorf("%s: inode %s is %+v, want %+v", about, tt.inode, got, tt.want)
		}
	}
	if _, err := containersByInode(filepath.Join(v2, "absent")); err == nil {
		t.Error("a root that is not there is no error")
	}
}

// TestCgroupBounds holds that the walk ends, and keeps what it has found.
func TestCgroupBounds(t *testing.T) {
	root := t.TempDir()
	deep := []string{root, "pod" + appPod, appID}
	for range maxCgroupDepth + 5 {
		deep = append(deep, "x")
	}
	makeCgroup(t, deep...)
	w := cgroupWalk{found: map[uint64]Entity{}}
	if err := w.dir(root, Entity{}, 0); err != nil || w.visited != maxCgroupDepth+1 {
		t.Errorf("%d folders of a deep tree were read, %v; want %d", w.visited, err, maxCgroupDepth+1)
	}
	w = cgroupWalk{found: map[uint64]Entity{}, visited: maxCgroups - 3}
	if err := w.dir(root, Entity{}, 0); err == nil || len(w.found) == 0 {
		t.Errorf("at the limit: %d found, error %v", len(w.found), err)
	}
}
