package host

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
)

const netClass = "/sys/class/net"

// CreateBridge makes an Ethernet bridge that bears the address, given with its
// prefix length, and remembers its owner. It is an error if an interface of that
// name exists.
func CreateBridge(ctx context.Context, name, address, owner string) error {
	for _, args := range [][]string{
		{"link", "add", "name", name, "type", "bridge"},
		{"link", "set", "dev", name, "alias", owner},
		{"address", "add", address, "dev", name},
		{"link", "set", "dev", name, "up"},
	} {
		if _, err := run(ctx, "", "ip", args...); err != nil {
			return fmt.Errorf("make bridge %s: %w", name, err)
		}
	}
	return nil
}

// Route sends packets for a network to the bridge; the route goes with it.
func Route(ctx context.Context, network, bridge string) error {
	if _, err := run(ctx, "", "ip", "route", "add", network, "dev", bridge); err != nil {
		return fmt.Errorf("route %s to %s: %w", network, bridge, err)
	}
	return nil
}

// HasInterface says whether a network interface of that name exists.
func HasInterface(name string) bool {
	_, err := os.Stat(filepath.Join(netClass, name))
	return err == nil
}

// BridgeOwner returns the owner that CreateBridge was told; nothing if there is
// no such bridge.
func BridgeOwner(name string) string {
	data, err := os.ReadFile(filepath.Join(netClass, name, "ifalias"))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(data))
}

// DeleteBridge removes the bridge, the interfaces plugged into it and, with
// them, its routes. A bridge that is not there is fine.
func DeleteBridge(ctx context.Context, name string) error {
	ports, err := filepath.Glob(filepath.Join(netClass, name, "brif", "*"))
	if err != nil {
		return fmt.Errorf("list the ports of bridge %s: %w", name, err)
	}
	var failed error
	for _, path := range append(ports, filepath.Join(netClass, name)) {
		link := filepath.Base(path)
		if !HasInterface(link) {
			continue
		}
		// A port vanishes by itself when its pod's network namespace ends, perhaps right now.
		if _, err := run(ctx, "", "ip", "link", "delete", "dev", link); err != nil && HasInterface(link) {
			failed = errors.Join(failed, fmt.Errorf("remove interface %s: %w", link, err))
		}
	}
	return failed
}

// AddressInUse returns the name of an interface other than except whose network
// overlaps the given one, or nothing.
func AddressInUse(network *net.IPNet, except string) (string, error) {
	links, err := net.Interfaces()
	if err != nil {
		return "", fmt.Errorf("list network interfaces: %w", err)
	}
	for _, link := range links {
		if link.Name == except {
			continue
		}
		addresses, err := link.Addrs()
		if err != nil {
			return "", fmt.Errorf("list the addresses of %s: %w", link.Name, err)
		}
		for _, a := range addresses {
			other, ok := a.(*net.IPNet)
			if ok && (other.Contains(network.IP) || network.Contains(other.IP)) {
				return link.Name, nil
			}
		}
	}
	return "", nil
}
