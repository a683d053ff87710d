package host

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// Unmount detaches everything mounted at or below dir.
func Unmount(dir string) error {
	const passes = 5 // a mount may cover another at the same place
	var failed error
	for pass := 0; ; pass++ {
		info, err := os.ReadFile("/proc/self/mountinfo")
		if err != nil {
			return fmt.Errorf("list mounts: %w", err)
		}
		points := mountsBelow(string(info), dir)
		if len(points) == 0 {
			return nil
		}
		if pass == passes {
			return errors.Join(failed, fmt.Errorf("unmount %s: %s comes back", dir, points[0]))
		}
		failed = nil
		for _, point := range points {
			err := syscall.Unmount(point, syscall.MNT_DETACH)
			if err != nil && !errors.Is(err, syscall.EINVAL) && !errors.Is(err, syscall.ENOENT) {
				failed = errors.Join(failed, fmt.Errorf("unmount %s: %w", point, err))
			}
		}
	}
}

// mountsBelow returns the mount points at or below dir, the latest first.
func mountsBelow(info, dir string) []string {
	var points []string
	for line := range strings.Lines(info) {
		const pointField = 4
		fields := strings.Fields(line)
		if len(fields) <= pointField {
			continue
		}
		point := unescape(fields[pointField])
		if point == dir || strings.HasPrefix(point, strings.TrimSuffix(dir, "/")+"/") {
			points = append(points, point)
		}
	}
	slices.Reverse(points)
	return points
}

// unescape resolves the octal escapes by which the kernel writes blanks in paths.
func unescape(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if code, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(code))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}
