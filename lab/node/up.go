package node

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"kelpie.dev/kelpie/lab/host"
)

// Up starts the node and returns once it is Ready and resolves names. A node
// that already runs is left alone (started is false); what a crash left behind,
// be it of a lab with another state directory, is cleaned away first. If the start fails, everything is taken down again but
// the logs.
func (n *Node) Up(ctx context.Context) (started bool, err error) {
	unlock, err := n.lock()
	if err != nil {
		return false, err
	}
	defer unlock()
	if other, err := n.endDeadLab(ctx); err != nil {
		return false, err
	} else if other != "" {
		return false, fmt.Errorf("another lab runs on this machine with its state in %s: lab down --state %s", other, other)
	}
	status, err := n.Status(ctx)
	if err != nil {
		return false, err
	}
	if status.Healthy {
		return false, nil
	}
	if n.traces() {
		n.say("cleaning up after an earlier run")
		if err := n.clean(ctx); err != nil {
			return false, err
		}
	}
	if err := n.start(ctx); err != nil {
		// Not ctx: it may be what ended the start.
		cleanup, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
		defer cancel()
		return false, errors.Join(err, n.clean(cleanup))
	}
	return true, nil
}

func (n *Node) start(ctx context.Context) error {
	begin := time.Now()
	if err := n.prepare(ctx); err != nil {
		return err
	}
	w := &watch{logs: n.layout.log}
	if err := n.launch(w, first); err != nil {
		return err
	}
	api, err := newAPI(n.layout)
	if err != nil {
		return err
	}
	if err := w.until(ctx, "kube-apiserver answers", api.ready); err != nil {
		return err
	}
	n.say("  %-32s %4.1f s", "control plane answers", time.Since(begin).Seconds())
	if err := n.launch(w, afterAPI); err != nil {
		return err
	}
	if err := w.until(ctx, "the image registry answers", answers(RegistryHost)); err != nil {
		return err
	}
	if err := n.pushPause(ctx); err != nil {
		return err
	}
	if err := n.apply(ctx, filepath.Join(n.layout.config(), "volumes.yaml")); err != nil {
		return err
	}
	if err := w.until(ctx, "node "+NodeName+" is Ready", api.nodeReady); err != nil {
		return err
	}
	n.say("  %-32s %4.1f s", "node "+NodeName+" is Ready", time.Since(begin).Seconds())
	if err := w.until(ctx, "cluster DNS answers", resolves); err != nil {
		return err
	}
	n.say("  %-32s %4.1f s", "cluster DNS answers", time.Since(begin).Seconds())
	return nil
}

// prepare writes the configuration and changes the machine; before.json comes
// first, so that a crash at any later point can be undone.
func (n *Node) prepare(ctx context.Context) error {
	before, err := host.Look(ctx)
	if err != nil {
		return err
	}
	if err := n.vacant(before); err != nil {
		return err
	}
	if err := before.Save(n.layout.before()); err != nil {
		return err
	}
	if err := n.freshLogs(); err != nil {
		return err
	}
	if err := n.layout.configure(n.cgroup.Path(), time.Now()); err != nil {
		return err
	}
	if err := n.cgroup.Create(); err != nil {
		return err
	}
	if err := host.CreateBridge(ctx, Bridge, address+"/24", n.layout.state); err != nil {
		return err
	}
	// A service's address that kube-proxy does not know yet, or no longer, must not
	// be looked for beyond this machine; and a machine without a default route
	// could not reach services at all.
	if err := host.Route(ctx, serviceCIDR, Bridge); err != nil {
		return err
	}
	if err := host.ForwardPackets(ctx); err != nil {
		return err
	}
	return host.AllowBridge(ctx, Bridge)
}

// vacant says who is already where the node wants to be.
func (n *Node) vacant(before host.Before) error {
	if chain := before.OtherNode(); chain != "" {
		return fmt.Errorf("another Kubernetes node uses this machine's packet filter (chain %s): stop it, or use its cluster with KUBECONFIG=path", chain)
	}
	for _, cidr := range []string{podCIDR, serviceCIDR} {
		_, network, err := net.ParseCIDR(cidr)
		if err != nil {
			return fmt.Errorf("read network %s: %w", cidr, err)
		}
		link, err := host.AddressInUse(network, Bridge)
		if err != nil {
			return err
		}
		if link != "" {
			return fmt.Errorf("interface %s has an address in %s, which the lab needs: take it down first", link, cidr)
		}
	}
	return host.CheckPorts(ports())
}

// freshLogs keeps the logs of one earlier run.
func (n *Node) freshLogs() error {
	previous := n.layout.logs() + ".previous"
	if err := os.RemoveAll(previous); err != nil {
		return fmt.Errorf("forget old logs: %w", err)
	}
	if err := os.Rename(n.layout.logs(), previous); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("keep the logs of the earlier run: %w", err)
	}
	if err := os.MkdirAll(n.layout.logs(), 0o755); err != nil {
		return fmt.Errorf("make the directory of logs: %w", err)
	}
	return nil
}

func (n *Node) launch(w *watch, s stage) error {
	for _, c := range n.layout.components() {
		if c.stage != s {
			continue
		}
		command := n.layout.command(c)
		command.Placed = n.cgroup.Place
		_, ended, err := n.table.Start(command)
		if err != nil {
			return err
		}
		w.add(c.name, ended)
	}
	return nil
}

// apply sends a manifest to the API server.
func (n *Node) apply(ctx context.Context, file string) error {
	cmd := exec.CommandContext(ctx, n.layout.tool("kubectl"), "--kubeconfig", n.Kubeconfig(), "apply", "-f", file)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("apply %s: %w: %s", filepath.Base(file), err, strings.TrimSpace(string(out)))
	}
	return nil
}

// resolves asks the cluster's name server for the API server's service.
func resolves(ctx context.Context) error {
	resolver := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, network, fmt.Sprintf("%s:%d", address, dnsPort))
	}}
	found, err := resolver.LookupHost(ctx, "kubernetes.default.svc.cluster.local.")
	if err != nil {
		return err
	}
	if len(found) != 1 || found[0] != apiService {
		return fmt.Errorf("kubernetes.default resolves to %v, want %s", found, apiService)
	}
	return nil
}

// answers checks that a TCP port accepts.
func answers(hostPort string) func(context.Context) error {
	return func(ctx context.Context) error {
		conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", hostPort)
		if err != nil {
			return err
		}
		return conn.Close()
	}
}
