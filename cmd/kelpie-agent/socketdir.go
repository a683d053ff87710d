package main

import (
	"fmt"
	"os"
	"strconv"

	"github.com/spf13/cobra"
)

// prepareSocketDir gives a folder of the node to the user that the agent runs
// as. A hostPath volume belongs to root and ignores fsGroup, and the image has
// no shell: so an init container with only CAP_CHOWN runs this, and the agent
// itself needs no privilege.
func prepareSocketDir() *cobra.Command {
	return &cobra.Command{
		Use:   "prepare-socket-dir DIR UID",
		Short: "Give the DogStatsD socket's folder to a user; for an init container",
		Args:  cobra.ExactArgs(2),
		RunE: func(_ *cobra.Command, args []string) error {
			dir := args[0]
			uid, err := strconv.ParseUint(args[1], 10, 31)
			if err != nil {
				return fmt.Errorf("prepare %s: user id %q: expected a number such as 65532", dir, args[1])
			}
			// Others enter the folder to reach the socket in it.
			if err := os.MkdirAll(dir, 0o755); err != nil {
				return fmt.Errorf("prepare the socket's folder: %w", err)
			}
			if err := os.Chown(dir, int(uid), int(uid)); err != nil {
				return fmt.Errorf("give the socket's folder to user %d: %w (this needs root with CAP_CHOWN)", uid, err)
			}
			return nil
		},
	}
}
