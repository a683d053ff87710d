// Command kelpie-cluster-agent makes queries' values available to Kubernetes'
// autoscalers: it serves external.metrics.k8s.io.
package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"
	_ "time/tzdata" // calendar_shift names zones, and an image has none

	"github.com/spf13/cobra"
	"k8s.io/klog/v2"

	"kelpie.dev/kelpie/clusteragent"
)

var version = "dev" // set by the linker

func main() {
	// What lives here lives long, and what reads leave behind is little: a smaller
	// heap costs a few hundredths of a core at ten thousand metrics.
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(50)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := command().ExecuteContext(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "kelpie-cluster-agent:", err)
		os.Exit(1)
	}
}

func command() *cobra.Command {
	var kubeconfig string
	run := &cobra.Command{
		Use: "run", Aliases: []string{"start"}, Args: cobra.NoArgs,
		Short: "Serve external metrics (the default)",
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := clusteragent.FromEnv(os.LookupEnv)
			if err != nil {
				return fmt.Errorf("configuration: %w", err)
			}
			cfg.Kubeconfig = kubeconfig
			var level slog.Level
			if err := level.UnmarshalText([]byte(cfg.LogLevel)); err != nil {
				level = slog.LevelInfo // Datadog knows more levels than slog: "trace", "critical", "off"
			}
			log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level}))
			klog.SetSlogLogger(log)
			log.Info("starting", "version", version, "replica", cfg.Identity)
			return clusteragent.Run(cmd.Context(), cfg, clusteragent.Process{Version: version, Log: log})
		},
	}
	root := &cobra.Command{
		Use: "kelpie-cluster-agent", Short: "Make queries' values available to Kubernetes' autoscalers",
		SilenceUsage: true, SilenceErrors: true, Args: cobra.NoArgs, RunE: run.RunE,
	}
	for _, c := range []*cobra.Command{root, run} {
		c.Flags().StringVar(&kubeconfig, "kubeconfig", "", "kubeconfig file; unset means the pod's own account")
	}
	root.AddCommand(run, statusCommand(), healthCommand(), shadowCommand(), &cobra.Command{
		Use: "version", Short: "Print the version", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := fmt.Fprintln(cmd.OutOrStdout(), version)
			return err
		},
	})
	return root
}
