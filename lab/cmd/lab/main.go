// Command lab runs a real one-node Kubernetes on this machine, built from its Go
// modules, without Docker.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/spf13/cobra"

	"kelpie.dev/kelpie/lab/node"
)

// errUnhealthy ends the command with 1 without another word: the status said it.
var errUnhealthy = errors.New("the lab is not healthy")

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := newRoot().ExecuteContext(ctx); err != nil {
		if !errors.Is(err, errUnhealthy) {
			fmt.Fprintln(os.Stderr, "lab:", err)
		}
		stop()
		os.Exit(1) //nolint:gocritic // stop has run
	}
}

// places are the directories that several commands share.
type places struct {
	state string
	bin   string
	cache string
}

func newRoot() *cobra.Command {
	p := &places{}
	root := &cobra.Command{
		Use:   "lab",
		Short: "Run a real one-node Kubernetes on this machine",
		Long: `lab builds etcd, Kubernetes, containerd, runc, the CNI plug-ins and CoreDNS from
their Go modules and runs them as one node on this machine, as root. Nothing of
it but the host ports of your pods can be reached from another machine, and "lab
down" leaves nothing behind.`,
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	flags := root.PersistentFlags()
	flags.StringVar(&p.state, "state", envOr("KELPIE_LAB_STATE", "/var/lib/kelpie-lab"), "directory of the node's state (KELPIE_LAB_STATE)")
	flags.StringVar(&p.bin, "bin", "", "directory of links to the binaries (default STATE/bin)")
	flags.StringVar(&p.cache, "cache", envOr("KELPIE_LAB_CACHE", "/var/cache/kelpie-lab"), "directory of built binaries, one file a version (KELPIE_LAB_CACHE)")
	root.AddCommand(newUp(p), newDown(p), newStatus(p), newBuild(p), newLoadImage(p), newImage(), newEnv(p), newRegistry())
	return root
}

func (p *places) node(out io.Writer) (*node.Node, error) {
	state, err := filepath.Abs(p.state)
	if err != nil {
		return nil, fmt.Errorf("find the state directory: %w", err)
	}
	bin, err := p.binDir()
	if err != nil {
		return nil, err
	}
	return node.New(node.Options{State: state, Bin: bin, Out: out})
}

// binDir is absolute: a component's command line must hold wherever it is run.
func (p *places) binDir() (string, error) {
	bin := p.bin
	if bin == "" {
		bin = node.DefaultBin(p.state)
	}
	bin, err := filepath.Abs(bin)
	if err != nil {
		return "", fmt.Errorf("find the directory of binaries: %w", err)
	}
	return bin, nil
}

func envOr(key, otherwise string) string {
	if value := os.Getenv(key); value != "" {
		return value
	}
	return otherwise
}
