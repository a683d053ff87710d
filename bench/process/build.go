package process

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// A Builder makes the programs, into a cache outside the repository.
type Builder struct {
	Kelpie, Bench string // directories of the two modules
	bin           string
	progress      func(format string, args ...any)
}

// NewBuilder returns a Builder that tells progress what it builds.
func NewBuilder(ctx context.Context, progress func(format string, args ...any)) (*Builder, error) {
	out, err := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}", "kelpie.dev/kelpie", "kelpie.dev/kelpie/bench").Output()
	if err != nil {
		return nil, fmt.Errorf("find the source (run it in bench/): %w", withStderr(err))
	}
	dirs := strings.Fields(string(out))
	if len(dirs) != 2 {
		return nil, fmt.Errorf("find the source (run it in bench/): go list answered %q", out)
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return nil, fmt.Errorf("find the cache: %w", err)
	}
	b := &Builder{Kelpie: dirs[0], Bench: dirs[1], bin: filepath.Join(cache, "kelpie", "bench", "bin"), progress: progress}
	if err := os.MkdirAll(b.bin, 0o755); err != nil {
		return nil, fmt.Errorf("make the cache: %w", err)
	}
	return b, nil
}

// Build builds a package of the module in dir and returns the binary's path.
func (b *Builder) Build(ctx context.Context, name, dir, pkg string) (string, error) {
	return b.command(ctx, name, dir, "build", pkg)
}

// BuildTest builds a package's tests: its benchmarks are among them.
func (b *Builder) BuildTest(ctx context.Context, name, dir, pkg string) (string, error) {
	return b.command(ctx, name, dir, "test", "-c", pkg)
}

func (b *Builder) command(ctx context.Context, name, dir, verb string, args ...string) (string, error) {
	b.progress("build  %s", name)
	out := filepath.Join(b.bin, name)
	cmd := exec.CommandContext(ctx, "go", append([]string{verb, "-o", out, "-p=1", "-trimpath", "-buildvcs=false"}, args...)...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if text, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build %s in %s: %w\n%s", name, dir, err, tail(string(text), 10))
	}
	return out, nil
}

func tail(text string, n int) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

func withStderr(err error) error {
	var exit *exec.ExitError
	if errors.As(err, &exit) && len(exit.Stderr) > 0 {
		return fmt.Errorf("%w: %s", err, tail(string(exit.Stderr), 5))
	}
	return err
}
