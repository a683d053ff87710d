package lab_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// machine is what a lab may change on the machine it runs on.
type machine struct {
	Rules   []string // packet filter rules and chains that are not built in
	Links   []string
	Routes  []string
	Mounts  []string
	Netns   []string
	Cgroups []string
	Dirs    []string
	Sysctls map[string]string
}

func picture(t *testing.T) machine {
	t.Helper()
	m := machine{Sysctls: map[string]string{}}
	for _, filter := range []string{"iptables-save", "ip6tables-save"} {
		for _, line := range output(t, filter) {
			if strings.HasPrefix(line, "-A") || strings.HasPrefix(line, ":") && strings.Contains(line, " - ") {
				m.Rules = append(m.Rules, filter+" "+line)
			}
		}
	}
	for _, line := range output(t, "ip", "-o", "link") {
		m.Links = append(m.Links, strings.Fields(line)[1])
	}
	m.Routes = output(t, "ip", "route")
	m.Netns = output(t, "ip", "netns")
	for _, line := range lines(t, "/proc/self/mountinfo") {
		m.Mounts = append(m.Mounts, strings.Fields(line)[4])
	}
	for _, pattern := range []string{"/sys/fs/cgroup/kelpie*", "/sys/fs/cgroup/*/kelpie*", "/sys/fs/cgroup/*/kubepods*"} {
		m.Cgroups = append(m.Cgroups, glob(t, pattern)...)
	}
	for _, pattern := range []string{
		"/etc/cni", "/opt/cni", "/opt/containerd", "/run/containerd", "/run/netns/*", "/run/nri", "/usr/libexec/kubernetes",
		"/var/lib/cni", "/var/lib/kubelet", "/var/lib/containerd", "/var/lib/etcd", "/var/log/containers", "/var/log/pods", "/var/run/kubernetes",
	} {
		m.Dirs = append(m.Dirs, glob(t, pattern)...)
	}
	for _, pattern := range []string{
		"kernel/panic*", "kernel/keys/*", "vm/overcommit*", "vm/panic*", "net/bridge/*", "net/ipv4/ip_*",
		"net/ipv4/conf/all/*", "net/ipv4/conf/default/*", "net/ipv6/conf/all/*", "net/netfilter/nf_conntrack_max", "net/netfilter/nf_conntrack_tcp_*",
	} {
		for _, path := range glob(t, filepath.Join("/proc/sys", pattern)) {
			if data, err := os.ReadFile(path); err == nil { // a few can only be written
				m.Sysctls[path] = strings.TrimSpace(string(data))
			}
		}
	}
	return m
}

// processesNaming lists the processes whose command line names dir.
func processesNaming(t *testing.T, dir string) []string {
	t.Helper()
	var found []string
	for _, path := range glob(t, "/proc/[0-9]*/cmdline") {
		data, err := os.ReadFile(path)
		line := strings.ReplaceAll(string(data), "\x00", " ")
		if err == nil && strings.Contains(line, dir) {
			found = append(found, line)
		}
	}
	return found
}

func output(t *testing.T, name string, args ...string) []string {
	t.Helper()
	out, err := exec.Command(name, args...).Output()
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return split(string(out))
}

func lines(t *testing.T, path string) []string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return split(string(data))
}

func split(text string) []string {
	return slices.DeleteFunc(strings.Split(text, "\n"), func(s string) bool { return s == "" })
}

func glob(t *testing.T, pattern string) []string {
	t.Helper()
	found, err := filepath.Glob(pattern)
	if err != nil {
		t.Fatal(err)
	}
	return found
}
