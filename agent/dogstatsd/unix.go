package dogstatsd

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
)

// socketMode lets every local user write to a socket.
const socketMode = 0o722

var errNoCredentials = errors.New("origin detection by socket credentials needs Linux; set DD_DOGSTATSD_ORIGIN_DETECTION=false")

// openUnix makes the Unix socket at path by listen, in the place of one that an
// earlier run has left behind. variable names the setting of path.
func openUnix(path, variable string, listen func(*net.UnixAddr) error) error {
	if err := removeStale(path, variable); err != nil {
		return err
	}
	if err := listen(&net.UnixAddr{Name: path}); err != nil {
		return fmt.Errorf("listen for DogStatsD on socket %s (its directory must exist and be writable for this user; %s chooses another path): %w", path, variable, err)
	}
	if err := os.Chmod(path, socketMode); err != nil {
		return fmt.Errorf("open DogStatsD socket to every user: %w", err)
	}
	return nil
}

func removeStale(path, variable string) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return fmt.Errorf("look for a stale DogStatsD socket: %w", err)
	case info.Mode().Type() != fs.ModeSocket:
		return fmt.Errorf("DogStatsD socket %s: a %s is in the way; remove it, or choose another path with %s", path, describe(info.Mode()), variable)
	}
	if err := os.Remove(path); err != nil {
		return fmt.Errorf("remove stale DogStatsD socket: %w", err)
	}
	return nil
}

func describe(m fs.FileMode) string {
	switch {
	case m.IsDir():
		return "directory"
	case m.IsRegular():
		return "regular file"
	default:
		return "file of mode " + m.String()
	}
}
