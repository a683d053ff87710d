package main

import (
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"

	"kelpie.dev/kelpie/backend"
)

func snapshotCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "snapshot DIR",
		Short: "Have the running backend copy all of its data at one moment into a directory",
		Long: `Has the running backend copy all that it holds at one moment into the directory
snapshots/DIR below its data directory, while it goes on. The keys are those of
the environment. Most of it are links to files that the backend would otherwise
delete some day, so remove snapshots that are not needed, or move them away.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			cfg, err := backend.FromEnv(os.LookupEnv)
			if err != nil {
				return err
			}
			made, err := cfg.Snapshot(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "snapshot  %s\ndirectory %s\nsize      %s in %d files, %s of it shared with the store\ntook      %s\n",
				made.Name, made.Dir, backend.Size(made.Bytes), made.Files, backend.Size(made.Shared), seconds(made.Seconds))
			return err
		},
	}
}

func restoreCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "restore DIR",
		Short: "Put a snapshot in place of an empty data directory; no backend may run on it",
		Long: `Puts a snapshot in place of an empty data directory (KELPIE_DATA_DIR), in which
may be only the directory snapshots. DIR is the name of a snapshot in there, or a
path with a slash. It changes nothing where the directory holds data or a backend
runs on it. Set the data that is there aside first, and stop the backend.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			cfg, err := backend.FromEnv(os.LookupEnv)
			if err != nil {
				return err
			}
			back, err := cfg.Restore(args[0])
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "restored  %s of %s\ndirectory %s\nsize      %s in %d files\ntook      %s\n",
				back.Name, back.Created.Format(time.RFC3339), back.Dir, backend.Size(back.Bytes), back.Files, seconds(back.Seconds))
			return err
		},
	}
}

func seconds(s float64) time.Duration {
	return time.Duration(s * float64(time.Second)).Round(time.Millisecond)
}
