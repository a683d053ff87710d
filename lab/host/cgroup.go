package host

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Cgroup is one control group of the lab's own, in every hierarchy that the
// machine has (many with version 1, one with version 2). All that the lab
// starts lives in it, so that the kernel itself knows what belongs to the lab.
type Cgroup struct {
	name    string
	unified string   // version 2's mount point; empty if version 1 has the controllers
	legacy  []string // version 1's mount points
	extra   []string // version 2's mount point beside version 1's: only cleaned
}

// NewCgroup finds the machine's hierarchies; it makes nothing yet.
func NewCgroup(name string) (*Cgroup, error) {
	info, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("list mounts: %w", err)
	}
	c := hierarchies(string(info))
	if c.unified == "" && len(c.legacy) == 0 {
		return nil, errors.New("no control groups are mounted: mount cgroup2 on /sys/fs/cgroup")
	}
	c.name = name
	return &c, nil
}

func hierarchies(info string) Cgroup {
	var v1, v2 []string
	for line := range strings.Lines(info) {
		before, after, ok := strings.Cut(line, " - ")
		fields, kind := strings.Fields(before), strings.Fields(after)
		const pointField = 4
		if !ok || len(fields) <= pointField || len(kind) == 0 {
			continue
		}
		switch point := unescape(fields[pointField]); kind[0] {
		case "cgroup":
			if !slices.Contains(v1, point) {
				v1 = append(v1, point)
			}
		case "cgroup2":
			if !slices.Contains(v2, point) {
				v2 = append(v2, point)
			}
		}
	}
	switch {
	case len(v1) > 0:
		return Cgroup{legacy: v1, extra: v2}
	case len(v2) > 0:
		return Cgroup{unified: v2[0]}
	}
	return Cgroup{}
}

// Path is the group's name as kubelet's cgroupRoot wants it.
func (c *Cgroup) Path() string { return "/" + c.name }

// Exists says whether the group is there in any hierarchy.
func (c *Cgroup) Exists() bool { return len(c.dirs()) > 0 }

// Create makes the group and, within it, the leaf for the lab's own processes.
func (c *Cgroup) Create() error {
	if c.unified != "" {
		if err := c.enableControllers(c.unified); err != nil {
			return err
		}
	}
	for _, root := range append(c.legacy, c.unified) {
		if root == "" {
			continue
		}
		if err := os.MkdirAll(filepath.Join(root, c.name), 0o755); err != nil {
			return fmt.Errorf("make control group: %w", err)
		}
	}
	for _, dir := range c.leaves() {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return fmt.Errorf("make control group: %w", err)
		}
	}
	return nil
}

// enableControllers hands down to the group what the root has; kubelet requires it.
func (c *Cgroup) enableControllers(root string) error {
	data, err := os.ReadFile(filepath.Join(root, "cgroup.controllers"))
	if err != nil {
		return fmt.Errorf("list cgroup controllers: %w", err)
	}
	for _, controller := range strings.Fields(string(data)) {
		if !slices.Contains([]string{"cpu", "cpuset", "memory", "pids", "io", "hugetlb"}, controller) {
			continue
		}
		path := filepath.Join(root, "cgroup.subtree_control")
		if err := os.WriteFile(path, []byte("+"+controller), 0o644); err != nil {
			return fmt.Errorf("enable cgroup controller %s: %w", controller, err)
		}
	}
	return nil
}

// leaves are the groups that hold the lab's own processes. With version 1 these
// are the hierarchies by which others count, freeze or end a login session.
func (c *Cgroup) leaves() []string {
	const leaf = "lab"
	if c.unified != "" {
		return []string{filepath.Join(c.unified, c.name, leaf)}
	}
	var dirs []string
	for _, root := range c.legacy {
		if slices.Contains([]string{"pids", "memory", "freezer", "systemd"}, filepath.Base(root)) {
			dirs = append(dirs, filepath.Join(root, c.name, leaf))
		}
	}
	return dirs
}

// Place moves a process, and so all that it will start, into the group.
func (c *Cgroup) Place(pid int) error {
	for _, dir := range c.leaves() {
		path := filepath.Join(dir, "cgroup.procs")
		if err := os.WriteFile(path, []byte(strconv.Itoa(pid)), 0o644); err != nil {
			return fmt.Errorf("move process %d to its control group: %w", pid, err)
		}
	}
	return nil
}

// Processes returns the ids of all processes in the group.
func (c *Cgroup) Processes() ([]int, error) {
	found := map[int]bool{}
	for _, dir := range c.dirs() {
		data, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENODEV) {
			continue // went away while we looked
		}
		if err != nil {
			return nil, fmt.Errorf("list processes of %s: %w", dir, err)
		}
		for _, word := range strings.Fields(string(data)) {
			if pid, err := strconv.Atoi(word); err == nil && pid != os.Getpid() {
				found[pid] = true
			}
		}
	}
	return sortedKeys(found), nil
}

// Kill ends every process in the group and returns once none is left or ctx ends.
func (c *Cgroup) Kill(ctx context.Context) error {
	for {
		pids, err := c.Processes()
		if err != nil {
			return err
		}
		if len(pids) == 0 {
			return nil
		}
		for _, pid := range pids {
			if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
				return fmt.Errorf("end process %d: %w", pid, err)
			}
		}
		if err := pause(ctx); err != nil {
			return fmt.Errorf("wait for %d processes of the lab to end: %w", len(pids), err)
		}
	}
}

// Remove deletes the group, which must hold no process, from every hierarchy.
func (c *Cgroup) Remove(ctx context.Context) error {
	for {
		var busy error
		for _, dir := range c.dirs() {
			if err := os.Remove(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
				busy = fmt.Errorf("remove control group: %w", err)
			}
		}
		if busy == nil {
			return nil
		}
		if err := pause(ctx); err != nil {
			return busy
		}
	}
}

// dirs lists the group's directories in all hierarchies, children first.
func (c *Cgroup) dirs() []string {
	var dirs []string
	for _, root := range slices.Concat(c.legacy, c.extra, []string{c.unified}) {
		if root == "" {
			continue
		}
		// Groups come and go while we walk; the caller looks again if it must.
		_ = filepath.WalkDir(filepath.Join(root, c.name), func(path string, d fs.DirEntry, err error) error {
			if err == nil && d.IsDir() {
				dirs = append(dirs, path)
			}
			return nil
		})
	}
	slices.Reverse(dirs)
	return dirs
}

// pause waits one polling step.
func pause(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(20 * time.Millisecond):
		return nil
	}
}
