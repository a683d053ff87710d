package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"kelpie.dev/kelpie/lab/host"
)

// Down ends everything that the node started and removes every trace of it but
// the logs and the built binaries. It works after any crash, and does nothing
// when nothing is left (stopped is false).
func (n *Node) Down(ctx context.Context) (stopped bool, err error) {
	unlock, err := n.lock()
	if err != nil {
		return false, err
	}
	defer unlock()
	if other, err := n.endDeadLab(ctx); other != "" || err != nil {
		return false, err
	}
	if !n.traces() {
		return false, nil
	}
	return true, n.clean(ctx)
}

// endDeadLab removes what a lab with another state directory has left on this
// machine, if nothing of it runs any more: whoever ended its processes, a reboot
// or the end of a login session, will not come back to take it down. It returns
// the state directory of another lab that lives.
func (n *Node) endDeadLab(ctx context.Context) (alive string, err error) {
	state := n.otherState()
	if state == "" {
		return "", nil
	}
	other, err := New(Options{State: state, Out: n.out})
	if err != nil {
		return "", err
	}
	unlock, err := other.lock()
	if err != nil {
		return "", err
	}
	defer unlock()
	records, err := other.table.List()
	if err != nil {
		return "", err
	}
	for _, r := range records {
		if other.table.Alive(r) {
			return state, nil
		}
	}
	n.say("cleaning up after a lab that has died, with its state in %s", state)
	return "", other.clean(ctx)
}

// traces says whether an earlier run has left anything.
func (n *Node) traces() bool {
	for _, path := range []string{n.layout.before(), n.layout.records(), n.layout.data()} {
		if _, err := os.Lstat(path); err == nil {
			return true
		}
	}
	return host.HasInterface(Bridge) || n.cgroup.Exists()
}

// otherState returns the state directory of another lab that has this machine's
// bridge; nothing if the bridge is free or its owner's state is lost.
func (n *Node) otherState() string {
	owner := host.BridgeOwner(Bridge)
	if owner == "" || owner == n.layout.state {
		return ""
	}
	if _, err := os.Stat(layout{state: owner}.before()); err != nil {
		return ""
	}
	return owner
}

// clean removes in the order in which things hold each other: processes, what
// they mounted, networks, then files.
func (n *Node) clean(ctx context.Context) error {
	before, err := host.Load(n.layout.before())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	sockets := n.shimSockets()
	if err := n.end(ctx); err != nil {
		return err
	}
	failed := errors.Join(
		host.Unmount(n.layout.state),
		host.DeleteBridge(ctx, Bridge),
		before.Restore(ctx),
		host.RemoveLinksInto("/var/log/containers", n.layout.data()),
		removeAll(append(sockets, cniResults()...)),
		n.cgroup.Remove(ctx),
	)
	if failed != nil {
		return failed // the state stays, so that the next attempt knows what to do
	}
	return removeAll([]string{n.layout.data(), n.layout.config(), n.layout.pki(), n.layout.records(), n.layout.kubeconfig(), n.layout.before()})
}

// end stops the recorded processes, then whatever else is in the control group:
// shims, containers and strays.
func (n *Node) end(ctx context.Context) error {
	const grace = 1500 * time.Millisecond
	records, err := n.table.List()
	if err != nil {
		return err
	}
	if err := n.table.Stop(ctx, records, grace); err != nil {
		return err
	}
	return n.cgroup.Kill(ctx)
}

// shimSockets lists the sockets of this node's shims: they are in a directory
// that all containerds of a machine share.
func (n *Node) shimSockets() []string {
	tasks := filepath.Join(n.layout.data(), "containerd", "state", "io.containerd.runtime.v2.task", "*", "*", "bootstrap.json")
	files, err := filepath.Glob(tasks)
	if err != nil {
		return nil // the pattern is constant and good
	}
	var sockets []string
	for _, file := range files {
		var bootstrap struct {
			Address string `json:"address"`
		}
		data, err := os.ReadFile(file)
		if err != nil || json.Unmarshal(data, &bootstrap) != nil {
			continue // a shim that had not got so far
		}
		if path, ok := strings.CutPrefix(bootstrap.Address, "unix://"); ok && strings.HasPrefix(path, "/run/containerd/s/") {
			sockets = append(sockets, path)
		}
	}
	return sockets
}

// cniResults lists what the CNI library remembers of the lab's pods.
func cniResults() []string {
	files, err := filepath.Glob(filepath.Join("/var/lib/cni/results", Network+"-*"))
	if err != nil {
		return nil // the pattern is constant and good
	}
	return files
}

func removeAll(paths []string) error {
	var failed error
	for _, path := range paths {
		if err := os.RemoveAll(path); err != nil {
			failed = errors.Join(failed, fmt.Errorf("remove %s: %w", path, err))
		}
	}
	return failed
}
