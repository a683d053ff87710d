//go:build !unix

package forward

import "os"

// lockFile opens path. Without flock two agents must not share a directory.
func lockFile(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
}
