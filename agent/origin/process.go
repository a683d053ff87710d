package origin

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// ParseCgroup reads the content of /proc/<pid>/cgroup, of either version, and
// returns the container and pod that its paths name. Both are empty for a
// process outside of a container.
func ParseCgroup(content string) Entity {
	var e Entity
	for line := range strings.Lines(content) {
		// hierarchy-ID:controllers:path
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(parts) != 3 {
			continue
		}
		for element := range strings.SplitSeq(parts[2], "/") {
			if id := containerOfElement(element); id != "" {
				e.ContainerID = id
			} else if uid := podOfElement(element); uid != "" {
				e.PodUID = uid
			}
		}
		if e.ContainerID != "" {
			break
		}
	}
	return e
}

// containerOfElement reads "<64 hex>" and "<runtime>-<64 hex>.scope".
func containerOfElement(s string) string {
	s = strings.TrimSuffix(s, ".scope")
	if i := strings.LastIndexByte(s, '-'); i >= 0 {
		s = s[i+1:]
	}
	if len(s) != 64 || !only(s, "0123456789abcdef") {
		return ""
	}
	return s
}

// podOfElement reads "pod<uid>" and "kubepods-…-pod<uid with underscores>.slice".
func podOfElement(s string) string {
	if name, ok := strings.CutSuffix(s, ".slice"); ok {
		i := strings.LastIndex(name, "-pod")
		if i < 0 {
			return ""
		}
		return strings.ReplaceAll(name[i+len("-pod"):], "_", "-")
	}
	uid, ok := strings.CutPrefix(s, "pod")
	if !ok {
		return ""
	}
	return uid
}

// maxCgroup bounds what is read of a cgroup file.
const maxCgroup = 64 << 10

// processEntity returns the container that process pid runs in.
func processEntity(procRoot string, pid int32) (Entity, error) {
	path := filepath.Join(procRoot, strconv.Itoa(int(pid)), "cgroup")
	b, err := os.ReadFile(path)
	if err != nil {
		return Entity{}, fmt.Errorf("find the sender's container: %w", err)
	}
	return ParseCgroup(string(b[:min(len(b), maxCgroup)])), nil
}
