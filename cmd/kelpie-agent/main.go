// Command kelpie-agent is the node agent: DogStatsD in, Datadog series out.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"runtime"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/spf13/cobra"

	"kelpie.dev/kelpie/agent"
	"kelpie.dev/kelpie/env"
	"kelpie.dev/kelpie/health"
)

var version = "dev"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := command().ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "kelpie-agent:", err)
		os.Exit(1)
	}
}

func command() *cobra.Command {
	root := &cobra.Command{
		Use:   "kelpie-agent",
		Short: "Kelpie's node agent: takes DogStatsD metrics, sends them to a Datadog-compatible intake",
		Long: `Kelpie's node agent takes DogStatsD metrics over UDP and a Unix socket, aggregates
them in buckets of 10 seconds, adds the tags of the pod they come from, and sends
them to Kelpie's backend or to Datadog. It is configured by Datadog's own
environment variables (DD_API_KEY, DD_SITE, DD_DD_URL, DD_TAGS, DD_DOGSTATSD_…).`,
		Args: cobra.NoArgs, RunE: run, SilenceUsage: true, SilenceErrors: true, Version: version,
	}
	root.AddCommand(
		&cobra.Command{Use: "run", Aliases: []string{"start"}, Short: "Run the agent (the default)", Args: cobra.NoArgs, RunE: run},
		statusCommand(),
		streamCommand(),
		prepareSocketDir(),
		&cobra.Command{Use: "health", Short: "Tell whether the running agent is healthy; exit status 1 when it is not", Args: cobra.NoArgs, RunE: runHealth},
		&cobra.Command{Use: "version", Short: "Print the version", Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := fmt.Fprintln(cmd.OutOrStdout(), version)
			return err
		}},
	)
	return root
}

// minThreads is how many threads run Go code at least. On a single core a flush
// or a collection of garbage would hold the readers up for milliseconds, in which
// a full socket loses what comes; with threads of their own the kernel lets them
// in between.
const minThreads = 3

func run(cmd *cobra.Command, _ []string) error {
	runtime.GOMAXPROCS(max(minThreads, runtime.GOMAXPROCS(0)))
	config, err := agent.ConfigFromEnv(os.LookupEnv)
	if err != nil {
		return fmt.Errorf("read the configuration:\n%w", err)
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: config.LogLevel}))
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	log.Info("starting the agent", "version", version, "hostname", config.Hostname)
	if err := agent.Run(cmd.Context(), config, agent.Deps{Version: version, Log: log, Registry: registry}); err != nil {
		return err
	}
	log.Info("agent stopped")
	return nil
}

func statusCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{Use: "status", Short: "Tell what the running agent receives, drops and delivers", Args: cobra.NoArgs}
	cmd.Flags().BoolVarP(&asJSON, "json", "j", false, "print JSON")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		var status agent.Status
		if err := fetch(cmd.Context(), "/status", &status); err != nil {
			return err
		}
		if asJSON {
			e := json.NewEncoder(cmd.OutOrStdout())
			e.SetIndent("", "  ")
			return e.Encode(status)
		}
		return status.Print(cmd.OutOrStdout())
	}
	return cmd
}

func streamCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use: "stream [METRIC]", Args: cobra.MaximumNArgs(1),
		Short: "Show the samples that the running agent takes in, as they come",
		Long: `Show the samples that the running agent takes in, as they come, with the tags
that it adds and the pod that they come from. METRIC is a name in which * and ?
stand for anything; without it all samples are shown. Ends with Ctrl-C.`,
		Example: "  kelpie-agent stream 'shop.orders.*'",
	}
	cmd.Flags().BoolVarP(&asJSON, "json", "j", false, "print a JSON object a line")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		pattern := "*"
		if len(args) == 1 {
			pattern = args[0]
		}
		return agent.Stream(cmd.Context(), "http://"+healthAddr(), pattern, asJSON, cmd.OutOrStdout())
	}
	return cmd
}

func healthAddr() string {
	return net.JoinHostPort("localhost", env.New(os.LookupEnv).String("5555", "DD_HEALTH_PORT"))
}

func runHealth(cmd *cobra.Command, _ []string) error {
	var h health.Health
	err := fetch(cmd.Context(), "/health", &h)
	if err != nil && !errors.Is(err, health.ErrUnhealthy) {
		return err
	}
	if _, werr := fmt.Fprintf(cmd.OutOrStdout(), "live: %s\nready: %s\n", h.Live, h.Ready); werr != nil {
		return werr
	}
	return err
}

// fetch asks the agent of this machine, at its health port.
func fetch(ctx context.Context, path string, into any) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	return health.Fetch(ctx, healthAddr(), path, into)
}
