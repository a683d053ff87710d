// Command kelpie-backend runs the backend and shows how it is doing.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"
	_ "time/tzdata" // calendar_shift names zones, and an image has none

	"github.com/spf13/cobra"

	"kelpie.dev/kelpie/backend"
	"kelpie.dev/kelpie/env"
	"kelpie.dev/kelpie/health"
)

var version = "dev" // stamped by the build

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := command().ExecuteContext(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "kelpie-backend:", err)
		os.Exit(1)
	}
}

func command() *cobra.Command {
	root := &cobra.Command{
		Use:   "kelpie-backend",
		Short: "Kelpie's backend: takes in metrics as Datadog does, keeps them, and answers queries",
		Long: `Kelpie's backend takes in what Datadog's agents and clients send, keeps it on
disk, and answers Datadog's query API. It is configured by environment variables:
DD_API_KEY and DD_APP_KEY (or KELPIE_API_KEYS_FILE, KELPIE_APP_KEYS_FILE) are
required; KELPIE_DATA_DIR, KELPIE_LISTEN and DD_HEALTH_PORT say where.`,
		Version:       version,
		Args:          cobra.NoArgs,
		SilenceUsage:  true,
		SilenceErrors: true,
		RunE:          run,
	}
	root.AddCommand(
		&cobra.Command{Use: "run", Short: "Run the backend (the default); settings come from the environment", Args: cobra.NoArgs, RunE: run},
		statusCommand(),
		snapshotCommand(),
		restoreCommand(),
		&cobra.Command{Use: "health", Short: "Tell whether the running backend is healthy; exit status 1 when it is not", Args: cobra.NoArgs, RunE: showHealth},
		&cobra.Command{Use: "version", Short: "Print the version", Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := fmt.Fprintln(cmd.OutOrStdout(), version)
			return err
		}},
	)
	return root
}

func run(cmd *cobra.Command, _ []string) error {
	cfg, err := backend.FromEnv(os.LookupEnv)
	if err != nil {
		return err
	}
	log, err := newLog(os.Stderr)
	if err != nil {
		return err
	}
	reload := make(chan os.Signal, 1)
	signal.Notify(reload, syscall.SIGHUP)
	defer signal.Stop(reload)
	return backend.Run(cmd.Context(), cfg, backend.Deps{Version: version, Log: log, Reload: reload})
}

// newLog returns the log at the level of DD_LOG_LEVEL: debug, info, warn, error.
func newLog(w io.Writer) (*slog.Logger, error) {
	r := env.New(os.LookupEnv)
	var level slog.Level
	if err := level.UnmarshalText([]byte(r.String("info", "DD_LOG_LEVEL"))); err != nil {
		return nil, fmt.Errorf("environment variable DD_LOG_LEVEL: expected debug, info, warn or error")
	}
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: level})), nil
}

func statusCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "status", Short: "Show series, rates, disk use, last errors and slowest queries of the running backend", Args: cobra.NoArgs}
	asJSON := cmd.Flags().BoolP("json", "j", false, "print JSON")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		var status backend.Status
		if err := fetch(cmd.Context(), "/status", &status); err != nil {
			return err
		}
		if !*asJSON {
			return status.Print(cmd.OutOrStdout())
		}
		enc := json.NewEncoder(cmd.OutOrStdout())
		enc.SetIndent("", "  ")
		return enc.Encode(status)
	}
	return cmd
}

func showHealth(cmd *cobra.Command, _ []string) error {
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

// fetch asks the backend of this machine, at its health port.
func fetch(ctx context.Context, path string, into any) error {
	r := env.New(os.LookupEnv)
	port := r.Int(8081, "DD_HEALTH_PORT")
	if err := r.Err(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	return health.Fetch(ctx, net.JoinHostPort("localhost", strconv.Itoa(port)), path, into)
}
