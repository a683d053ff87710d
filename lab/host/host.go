// Package host makes and removes the traces that a node leaves on the machine
// it runs on: the bridge, packet-filter chains, kernel settings, mounts, control
// groups and directories outside the lab's own.
//
// It owns the knowledge of what was there before, and refuses to touch that. It
// does not know which components run, nor how Kubernetes is configured.
package host

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
)

// run executes a system tool and returns its standard output. The error carries
// what the tool itself said.
func run(ctx context.Context, stdin, name string, args ...string) (string, error) {
	path, err := find(name)
	if err != nil {
		return "", err
	}
	cmd := exec.CommandContext(ctx, path, args...)
	if stdin != "" {
		cmd.Stdin = strings.NewReader(stdin)
	}
	var out, complaint bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &complaint
	if err := cmd.Run(); err != nil {
		said := strings.TrimSpace(complaint.String())
		if said == "" {
			return out.String(), fmt.Errorf("%s: %w", cmd, err)
		}
		return out.String(), fmt.Errorf("%s: %w: %s", cmd, err, said)
	}
	return out.String(), nil
}

// Tools are the system programs that a node needs, each with the Debian package
// that brings it.
func Tools() map[string]string {
	return map[string]string{
		"ip":                "iproute2",
		"iptables":          "iptables",
		"iptables-save":     "iptables",
		"iptables-restore":  "iptables",
		"ip6tables-save":    "iptables",
		"ip6tables-restore": "iptables",
		"mount":             "mount",
		"umount":            "mount",
	}
}

// MissingPackages returns the Debian packages whose tools are not installed, in
// order and once each.
func MissingPackages(tools map[string]string) []string {
	missing := map[string]bool{}
	for tool, pkg := range tools {
		if _, err := find(tool); err != nil {
			missing[pkg] = true
		}
	}
	return sorted(missing)
}

// find looks where administrators' tools are, too: root's PATH lacks those
// places after a plain su.
func find(tool string) (string, error) {
	path, err := exec.LookPath(tool)
	for _, dir := range []string{"/usr/local/sbin", "/usr/sbin", "/sbin"} {
		if err == nil {
			break
		}
		path, err = exec.LookPath(filepath.Join(dir, tool))
	}
	if err != nil {
		return "", fmt.Errorf("%s is not installed", tool)
	}
	return path, nil
}
