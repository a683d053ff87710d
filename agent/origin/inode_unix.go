//go:build unix

package origin

import (
	"io/fs"
	"syscall"
)

// inodeOf returns the inode that info tells of.
func inodeOf(info fs.FileInfo) (uint64, bool) {
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return 0, false
	}
	return stat.Ino, true
}
