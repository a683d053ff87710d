package host

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// outside lists the directories that Kubernetes and containerd write to although
// they are told to use others.
var outside = []string{
	"/etc/cni",
	"/opt/cni",
	"/opt/containerd",
	"/run/containerd",
	"/run/netns",
	"/run/nri",
	"/usr/libexec/kubernetes",
	"/var/lib/cni",
	"/var/lib/kubelet",
	"/var/log/containers",
	"/var/log/pods",
	"/var/run/kubernetes",
}

// Before is what the machine looked like when the lab came. What stands in it
// stays; the rest goes when the lab goes.
type Before struct {
	Sysctls map[string]string   `json:"sysctls"`
	Chains  map[string][]string `json:"chains,omitempty"` // by packet filter
	Absent  []string            `json:"absent,omitempty"` // directories
}

// Look takes the picture.
func Look(ctx context.Context) (Before, error) {
	sysctls, err := readSysctls()
	if err != nil {
		return Before{}, err
	}
	chains, err := nodeChains(ctx)
	if err != nil {
		return Before{}, err
	}
	b := Before{Sysctls: sysctls, Chains: chains}
	for _, dir := range outside {
		if _, err := os.Lstat(dir); errors.Is(err, fs.ErrNotExist) {
			b.Absent = append(b.Absent, dir)
		}
	}
	return b, nil
}

// OtherNode returns a packet filter chain that only a Kubernetes node makes, if
// there was one. Two nodes cannot share a machine's rules.
func (b Before) OtherNode() string {
	for _, family := range families {
		for _, chain := range b.Chains[family] {
			if strings.HasPrefix(chain, "KUBE-") {
				return chain
			}
		}
	}
	return ""
}

// Load reads a picture saved earlier; fs.ErrNotExist if there is none.
func Load(path string) (Before, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return Before{}, fmt.Errorf("read what the machine was before: %w", err)
	}
	var b Before
	if err := json.Unmarshal(data, &b); err != nil {
		return Before{}, fmt.Errorf("read what the machine was before (%s): %w", path, err)
	}
	return b, nil
}

// Save writes the picture, whole or not at all.
func (b Before) Save(path string) error {
	data, err := json.MarshalIndent(b, "", "  ")
	if err != nil {
		return fmt.Errorf("encode what the machine was before: %w", err)
	}
	partial := path + ".partial"
	if err := os.WriteFile(partial, append(data, '\n'), 0o644); err != nil {
		return fmt.Errorf("save what the machine was before: %w", err)
	}
	if err := os.Rename(partial, path); err != nil {
		return fmt.Errorf("save what the machine was before: %w", err)
	}
	return nil
}

// Restore removes chains and directories that came since and puts kernel
// settings back. The processes that made them must have ended. It goes on after
// a failure and reports them all.
func (b Before) Restore(ctx context.Context) error {
	failed := errors.Join(removeChains(ctx, b.Chains), restoreSysctls(b.Sysctls))
	for _, dir := range b.Absent {
		if !slices.Contains(outside, dir) {
			continue // a damaged record must not delete anything else
		}
		failed = errors.Join(failed, Unmount(dir))
		if err := os.RemoveAll(dir); err != nil {
			failed = errors.Join(failed, fmt.Errorf("remove %s: %w", dir, err))
		}
	}
	return failed
}

// RemoveLinksInto deletes the symbolic links in dir that point below target, for
// a directory that others use too.
func RemoveLinksInto(dir, target string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("list %s: %w", dir, err)
	}
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		to, err := os.Readlink(path)
		if err != nil || !below(to, target) {
			continue
		}
		if err := os.Remove(path); err != nil {
			return fmt.Errorf("remove the lab's link: %w", err)
		}
	}
	return nil
}

func below(path, dir string) bool {
	rel, err := filepath.Rel(dir, path)
	return err == nil && filepath.IsLocal(rel)
}

func sorted(set map[string]bool) []string { return slices.Sorted(maps.Keys(set)) }

func sortedKeys(set map[int]bool) []int { return slices.Sorted(maps.Keys(set)) }
