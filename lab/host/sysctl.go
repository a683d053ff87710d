package host

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

const sysctlRoot = "/proc/sys"

// changed lists the kernel settings that the lab, kubelet, kube-proxy or the CNI
// plug-ins set. Settings of an interface of the lab's own go with the interface.
var changed = []string{
	"kernel/keys/root_maxbytes",
	"kernel/keys/root_maxkeys",
	"kernel/panic",
	"kernel/panic_on_oops",
	"net/bridge/bridge-nf-call-iptables",
	"net/ipv4/conf/all/route_localnet",
	"net/ipv4/ip_forward",
	"net/ipv4/vs/conntrack",
	"net/netfilter/nf_conntrack_max",
	"net/netfilter/nf_conntrack_tcp_be_liberal",
	"net/netfilter/nf_conntrack_tcp_timeout_close_wait",
	"net/netfilter/nf_conntrack_tcp_timeout_established",
	"vm/overcommit_memory",
	"vm/panic_on_oom",
}

// ForwardPackets turns on what pods need to reach each other, services and the
// world. A missing bridge filter is loaded: without it, packets between two pods
// of the node would miss the rules of services.
func ForwardPackets(ctx context.Context) error {
	if _, err := os.Stat(filepath.Join(sysctlRoot, "net/bridge")); errors.Is(err, fs.ErrNotExist) {
		if _, err := run(ctx, "", "modprobe", "br_netfilter"); err != nil {
			return fmt.Errorf("load the kernel's bridge filter (apt-get install kmod, or a kernel with br_netfilter): %w", err)
		}
	}
	for _, key := range []string{"net/bridge/bridge-nf-call-iptables", "net/ipv4/ip_forward"} {
		if err := writeSysctl(key, "1"); err != nil {
			return err
		}
	}
	return nil
}

func readSysctls() (map[string]string, error) {
	values := map[string]string{}
	for _, key := range changed {
		data, err := os.ReadFile(filepath.Join(sysctlRoot, key))
		if errors.Is(err, fs.ErrNotExist) {
			continue // this kernel does not have it
		}
		if err != nil {
			return nil, fmt.Errorf("read kernel setting %s: %w", key, err)
		}
		values[key] = strings.TrimSpace(string(data))
	}
	return values, nil
}

func restoreSysctls(before map[string]string) error {
	now, err := readSysctls()
	if err != nil {
		return err
	}
	var failed error
	for key, value := range before {
		if current, ok := now[key]; ok && current != value {
			failed = errors.Join(failed, writeSysctl(key, value))
		}
	}
	return failed
}

func writeSysctl(key, value string) error {
	if err := os.WriteFile(filepath.Join(sysctlRoot, key), []byte(value), 0o644); err != nil {
		return fmt.Errorf("set kernel setting %s to %s: %w", key, value, err)
	}
	return nil
}
