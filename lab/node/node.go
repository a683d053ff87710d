// Package node runs one real Kubernetes node, control plane included, on this
// machine.
//
// It owns the parts list, their configuration, the order in which they start and
// end, and the state directory. It does not build the programs, and leaves it to
// package host to know which traces they leave on the machine.
package node

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"

	"kelpie.dev/kelpie/lab/host"
	"kelpie.dev/kelpie/lab/process"
)

// Options says where the node lives.
type Options struct {
	State string    // directory of all that the node writes; required
	Bin   string    // directory of binaries, as package binaries links them; empty means State/bin
	Out   io.Writer // progress for a person; nil discards
}

// Node is the one node of the lab, running or not.
type Node struct {
	layout layout
	out    io.Writer
	table  *process.Table
	cgroup *host.Cgroup
}

// maxState leaves room for the names of sockets below the state directory: the
// kernel allows 107 bytes for a socket's path.
const maxState = 70

// New makes the state directory if need be and returns the node that lives
// there. It starts nothing.
func New(o Options) (*Node, error) {
	if err := Supported(); err != nil {
		return nil, err
	}
	if !filepath.IsAbs(o.State) {
		return nil, fmt.Errorf("state directory %q: an absolute path is needed", o.State)
	}
	if err := os.MkdirAll(o.State, 0o755); err != nil {
		return nil, fmt.Errorf("make the state directory: %w", err)
	}
	// Mounts are listed by their true path.
	state, err := filepath.EvalSymlinks(o.State)
	if err != nil {
		return nil, fmt.Errorf("find the state directory: %w", err)
	}
	if len(state) > maxState || strings.ContainsAny(state, " \t\n\"'") {
		return nil, fmt.Errorf("state directory %q: choose one of at most %d characters without blanks or quotes", state, maxState)
	}
	if o.Bin == "" {
		o.Bin = DefaultBin(state)
	}
	if o.Out == nil {
		o.Out = io.Discard
	}
	group, err := host.NewCgroup(Network)
	if err != nil {
		return nil, err
	}
	l := layout{state: state, bin: o.Bin}
	return &Node{layout: l, out: o.Out, table: process.NewTable(l.records()), cgroup: group}, nil
}

// DefaultBin returns where binaries are linked when nothing else is said.
func DefaultBin(state string) string { return filepath.Join(state, "bin") }

// KubeconfigIn returns the path of the administrator's kubeconfig of the node
// that lives, or will live, in state.
func KubeconfigIn(state string) string { return layout{state: state}.kubeconfig() }

// Supported says in one line why the lab cannot run here, or nothing.
func Supported() error {
	if runtime.GOOS != "linux" || (runtime.GOARCH != "amd64" && runtime.GOARCH != "arm64") {
		return fmt.Errorf("the lab runs on Linux on amd64 or arm64, this is %s on %s: use a cluster of yours with KUBECONFIG=path", runtime.GOOS, runtime.GOARCH)
	}
	if os.Geteuid() != 0 {
		return errors.New("the lab starts a real node and needs root: run it with sudo")
	}
	if missing := host.MissingPackages(host.Tools()); len(missing) > 0 {
		return fmt.Errorf("system tools are missing: apt-get install %s", strings.Join(missing, " "))
	}
	return nil
}

// Kubeconfig returns the path of the administrator's kubeconfig.
func (n *Node) Kubeconfig() string { return n.layout.kubeconfig() }

// Bin returns the directory that holds kubectl, helm, hey and lab.
func (n *Node) Bin() string { return n.layout.bin }

// lock keeps two commands from changing the node at once.
func (n *Node) lock() (unlock func(), err error) {
	file, err := os.OpenFile(n.layout.at("lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, fmt.Errorf("lock the state directory: %w", err)
	}
	err = syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if err != nil {
		_ = file.Close() // nothing was written
		return nil, fmt.Errorf("another lab command is at work in %s: wait for it (%w)", n.layout.state, err)
	}
	return func() { _ = file.Close() }, nil // closing unlocks
}

func (n *Node) say(format string, args ...any) {
	_, _ = fmt.Fprintf(n.out, format+"\n", args...) // a reader that went away must not stop the node
}
