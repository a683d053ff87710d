package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"path/filepath"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"kelpie.dev/kelpie/lab/binaries"
	"kelpie.dev/kelpie/lab/node"
)

func newUp(p *places) *cobra.Command {
	var timeout time.Duration
	var source string
	cmd := &cobra.Command{
		Use:   "up",
		Short: "Build what is missing and start the node",
		Long: `Build what is missing and start the node; return once it is Ready and resolves
names. The first build takes about seven minutes on two cores, later starts take
seconds. A node that already runs is left alone; what a crash left behind is
cleaned away first, and the cluster starts empty.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			n, err := p.node(cmd.OutOrStdout())
			if err != nil {
				return err
			}
			if err := p.build(cmd.Context(), source, cmd.OutOrStdout()); err != nil {
				return err
			}
			return up(cmd.Context(), n, timeout, cmd.OutOrStdout())
		},
	}
	cmd.Flags().DurationVar(&timeout, "timeout", 2*time.Minute, "how long the start may take, builds not counted")
	cmd.Flags().StringVar(&source, "source", ".", "where to look for the lab's Go module, upwards from here")
	return cmd
}

func up(ctx context.Context, n *node.Node, timeout time.Duration, out io.Writer) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	begin := time.Now()
	say(out, "starting the node")
	started, err := n.Up(ctx)
	if err != nil {
		return err
	}
	if started {
		say(out, "the lab is up after %.1f s", time.Since(begin).Seconds())
	} else {
		say(out, "the lab is already up")
	}
	say(out, `
  export KUBECONFIG=%s
  export PATH=%s:$PATH
  kubectl get nodes
  lab load-image NAME:TAG=ARCHIVE   # pods then use %s/NAME:TAG
  lab down`, n.Kubeconfig(), n.Bin(), node.RegistryHost)
	return nil
}

func newDown(p *places) *cobra.Command {
	var timeout time.Duration
	cmd := &cobra.Command{
		Use:   "down",
		Short: "End the node and remove every trace of it",
		Long: `End every process of the node, its pods included, and remove its mounts, bridge,
routes, packet filter rules and control groups; put kernel settings back. What
was there before the lab stays. Logs and built binaries are kept. Works after a
crash, and may be run twice.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			n, err := p.node(cmd.OutOrStdout())
			if err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), timeout)
			defer cancel()
			begin := time.Now()
			stopped, err := n.Down(ctx)
			if err != nil {
				return err
			}
			if stopped {
				say(cmd.OutOrStdout(), "the lab is down after %.1f s", time.Since(begin).Seconds())
			} else {
				say(cmd.OutOrStdout(), "the lab is not up: nothing to do")
			}
			return nil
		},
	}
	cmd.Flags().DurationVar(&timeout, "timeout", time.Minute, "how long it may take")
	return cmd
}

func newStatus(p *places) *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Say which parts run; exit 1 unless all is well",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if output != "text" && output != "json" {
				return fmt.Errorf("output %q: want text or json", output)
			}
			n, err := p.node(nil)
			if err != nil {
				return err
			}
			status, err := n.Status(cmd.Context())
			if err != nil {
				return err
			}
			write := writeText
			if output == "json" {
				write = writeJSON
			}
			if err := write(cmd.OutOrStdout(), status); err != nil {
				return err
			}
			if !status.Healthy {
				return errUnhealthy
			}
			return nil
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "text", "text or json")
	return cmd
}

func writeJSON(out io.Writer, s node.Status) error {
	encoder := json.NewEncoder(out)
	encoder.SetIndent("", "  ")
	return encoder.Encode(s)
}

func writeText(out io.Writer, s node.Status) error {
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, c := range s.Components {
		state := "not running"
		if c.Running {
			state = fmt.Sprintf("running, pid %d", c.PID)
		}
		say(table, "%s\t%s\t%s", c.Name, state, c.Log)
	}
	say(table, "node %s\t%s\t", node.NodeName, s.Node)
	say(table, "registry\t%s\t", s.Registry)
	say(table, "kubeconfig\t%s\t", s.Kubeconfig)
	return table.Flush()
}

func newBuild(p *places) *cobra.Command {
	var source string
	cmd := &cobra.Command{
		Use:   "build [NAME...]",
		Short: "Build the binaries that are missing, start nothing",
		RunE: func(cmd *cobra.Command, names []string) error {
			return p.build(cmd.Context(), source, cmd.OutOrStdout(), names...)
		},
	}
	cmd.Flags().StringVar(&source, "source", ".", "where to look for the lab's Go module, upwards from here")
	return cmd
}

func (p *places) build(ctx context.Context, source string, out io.Writer, names ...string) error {
	module, err := binaries.FindModule(source)
	if err != nil {
		return err
	}
	cache, err := filepath.Abs(p.cache)
	if err != nil {
		return fmt.Errorf("find the cache: %w", err)
	}
	bin, err := p.binDir()
	if err != nil {
		return err
	}
	say(out, "binaries (%s)", cache)
	return binaries.Ensure(ctx, binaries.Options{Module: module, Cache: cache, Bin: bin, Only: names, Out: out})
}

func newEnv(p *places) *cobra.Command {
	var kubeconfig, bin, registry bool
	cmd := &cobra.Command{
		Use:   "env",
		Short: `Print the shell's settings for the lab: eval "$(lab env)"`,
		Long: `Print the shell's settings for the lab: eval "$(lab env)". With a flag, print that
one value alone, for scripts.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			// Only paths: this works without root, and before there is a node.
			state, err := filepath.Abs(p.state)
			if err != nil {
				return fmt.Errorf("find the state directory: %w", err)
			}
			dir, err := p.binDir()
			if err != nil {
				return err
			}
			out := cmd.OutOrStdout()
			switch {
			case kubeconfig:
				say(out, "%s", node.KubeconfigIn(state))
			case bin:
				say(out, "%s", dir)
			case registry:
				say(out, "%s", node.RegistryHost)
			default:
				say(out, "export KUBECONFIG=%s\nexport PATH=%s:$PATH", node.KubeconfigIn(state), dir)
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&kubeconfig, "kubeconfig", false, "only the path of the kubeconfig")
	cmd.Flags().BoolVar(&bin, "bin", false, "only the directory of kubectl, helm and hey")
	cmd.Flags().BoolVar(&registry, "registry", false, "only the registry's address")
	cmd.MarkFlagsMutuallyExclusive("kubeconfig", "bin", "registry")
	return cmd
}

func say(w io.Writer, format string, args ...any) {
	_, _ = fmt.Fprintf(w, format+"\n", args...) // nothing can be said about a closed output
}
