package origin

import (
	"fmt"
	"os"
	"path/filepath"
)

// Bounds of one walk through the cgroup file system. A node of 500 pods has
// some 3,000 groups, at most ten deep.
const (
	maxCgroups     = 30_000
	maxCgroupDepth = 16
)

// containersByInode returns the container of each cgroup below root, the mount
// point of the cgroup file system, by its inode. A process in a cgroup
// namespace of its own knows no other name of its container. Of version 1 it
// reads the memory controller's tree, as the official clients do. What was
// found stands also when there is an error.
func containersByInode(root string) (map[uint64]Entity, error) {
	if memory := filepath.Join(root, "memory"); isDir(memory) {
		root = memory
	}
	w := cgroupWalk{found: map[uint64]Entity{}}
	if err := w.dir(root, Entity{}, 0); err != nil {
		return w.found, fmt.Errorf("find containers by the inodes of their cgroups: %w", err)
	}
	return w.found, nil
}

type cgroupWalk struct {
	found   map[uint64]Entity
	visited int
}

func (w *cgroupWalk) dir(path string, e Entity, depth int) error {
	if w.visited++; w.visited > maxCgroups {
		return fmt.Errorf("more than %d cgroups", maxCgroups)
	}
	entries, err := os.ReadDir(path)
	if err != nil {
		if depth > 0 {
			return nil // it has just ended
		}
		return err
	}
	for _, entry := range entries {
		if !entry.IsDir() {
			continue
		}
		child := e
		if id := containerOfElement(entry.Name()); id != "" {
			child.ContainerID = id
		} else if uid := podOfElement(entry.Name()); uid != "" {
			child.PodUID = uid
		}
		if child.ContainerID != "" {
			if info, err := entry.Info(); err == nil {
				if inode, ok := inodeOf(info); ok {
					w.found[inode] = child
				}
			}
		}
		if depth < maxCgroupDepth {
			if err := w.dir(filepath.Join(path, entry.Name()), child, depth+1); err != nil {
				return err
			}
		}
	}
	return nil
}

func isDir(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}
