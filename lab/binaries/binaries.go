// Package binaries builds the programs that the lab runs from their Go modules
// and keeps them by version.
//
// It owns the list of programs, the flags they are built with and the cache. It
// does not know how the programs are configured or started.
package binaries

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"
)

// Options says where things are. All fields but Out and Only are required.
type Options struct {
	Module string    // directory of the lab's Go module
	Cache  string    // directory of built binaries, one file a version
	Bin    string    // directory of links with plain names
	Only   []string  // names to make; empty means all that a node needs
	Out    io.Writer // progress for a person; nil discards
}

// Path returns where a binary's link is below bin.
func Path(bin string, group Group, name string) string {
	return filepath.Join(bin, string(group), name)
}

// Ensure builds what the cache does not have and links all into o.Bin. It writes
// one line a binary, and keeps saying how long a build has been going on.
func Ensure(ctx context.Context, o Options) error {
	if o.Out == nil {
		o.Out = io.Discard
	}
	if err := os.MkdirAll(o.Cache, 0o755); err != nil {
		return fmt.Errorf("make the cache of binaries: %w", err)
	}
	for _, b := range Catalog() {
		if !o.wanted(b) {
			continue
		}
		version, err := versionOf(b, o.Module)
		if err != nil {
			return err
		}
		if err := o.ensure(ctx, build{Binary: b, version: version}); err != nil {
			return err
		}
	}
	return nil
}

func (o Options) wanted(b Binary) bool {
	if len(o.Only) == 0 {
		return b.Pins == ""
	}
	return slices.Contains(o.Only, b.Name)
}

// build is one binary at one version.
type build struct {
	Binary
	version string
}

func (o Options) ensure(ctx context.Context, b build) error {
	cached := filepath.Join(o.Cache, b.file())
	if _, err := os.Stat(cached); err == nil {
		say(o.Out, "  %-24s %-18s cached", b.Name, b.version)
		return link(cached, Path(o.Bin, b.Group, b.Name))
	} else if !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("look into the cache of binaries: %w", err)
	}
	if err := canBuild(ctx, b.Binary); err != nil {
		return err
	}
	start := time.Now()
	partial := cached + ".partial"
	if err := o.compile(ctx, b, partial); err != nil {
		_ = os.Remove(partial) // often never written
		return err
	}
	if err := os.Rename(partial, cached); err != nil {
		return fmt.Errorf("keep %s: %w", b.Name, err)
	}
	if err := o.prune(b); err != nil {
		return err
	}
	say(o.Out, "  %-24s %-18s built in %.1f s", b.Name, b.version, time.Since(start).Seconds())
	return link(cached, Path(o.Bin, b.Group, b.Name))
}

// prune forgets what the lab's own programs were before: their version changes
// with every edit. Fresh ones stay, another checkout may be using them.
func (o Options) prune(b build) error {
	const fresh = 24 * time.Hour
	if b.Module != "" {
		return nil
	}
	old, err := filepath.Glob(filepath.Join(o.Cache, b.Name+"-src*"))
	if err != nil {
		return fmt.Errorf("list old versions of %s: %w", b.Name, err)
	}
	for _, path := range old {
		info, err := os.Stat(path)
		if err != nil || time.Since(info.ModTime()) < fresh {
			continue
		}
		if err := os.Remove(path); err != nil {
			return fmt.Errorf("forget an old version of %s: %w", b.Name, err)
		}
	}
	return nil
}

func (o Options) compile(ctx context.Context, b build, out string) error {
	cmd := exec.CommandContext(ctx, "go", b.args(out)...)
	cmd.Dir = filepath.Join(o.Module, b.Pins)
	cmd.Env = append(os.Environ(), "CGO_ENABLED="+b.cgo())
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 10 * time.Second
	progress := newProgress(o.Out, b.Name+" "+b.version)
	cmd.Stdout, cmd.Stderr = progress, progress
	err := progress.during(cmd.Run)
	if ctx.Err() != nil {
		return fmt.Errorf("build %s: %w", b.Name, ctx.Err())
	}
	if err != nil {
		return fmt.Errorf("build %s %s: %w\n%s", b.Name, b.version, err, progress.tail())
	}
	return nil
}

func (b build) args(out string) []string {
	args := []string{"build", "-trimpath", "-buildvcs=false", "-ldflags", b.ldflags(), "-o", out}
	if b.Tags != "" {
		args = append(args, "-tags", b.Tags)
	}
	return append(args, b.Package)
}

func (b build) ldflags() string {
	flags := []string{"-s", "-w"}
	if b.Stamps != nil {
		for _, s := range b.Stamps(b.version) {
			flags = append(flags, "-X", s)
		}
	}
	return strings.Join(flags, " ")
}

func (b build) cgo() string {
	if b.CGO {
		return "1"
	}
	return "0"
}

// file names the binary in the cache by all that shapes it.
func (b build) file() string {
	shape := append(b.args(""), runtime.GOOS, runtime.GOARCH, b.cgo())
	sum := sha256.Sum256([]byte(strings.Join(shape, "\x00")))
	return fmt.Sprintf("%s-%s-%s", b.Name, strings.ReplaceAll(b.version, "/", "_"), hex.EncodeToString(sum[:4]))
}

// canBuild names the packages to install before a compiler's own, longer words do.
func canBuild(ctx context.Context, b Binary) error {
	if _, err := exec.LookPath("go"); err != nil {
		return errNoGo
	}
	if !b.CGO {
		return nil
	}
	for _, tool := range []string{"gcc", "pkg-config"} {
		if _, err := exec.LookPath(tool); err != nil {
			return fmt.Errorf("%s needs %s: apt-get install gcc libc6-dev pkg-config libseccomp-dev", b.Name, tool)
		}
	}
	if err := exec.CommandContext(ctx, "pkg-config", "--exists", "libseccomp").Run(); err != nil {
		return fmt.Errorf("%s needs libseccomp's headers: apt-get install libseccomp-dev", b.Name)
	}
	return nil
}

// link points path at the cached file, replacing what was there.
func link(cached, path string) error {
	if to, err := os.Readlink(path); err == nil && to == cached {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("make the directory of binaries: %w", err)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("replace %s: %w", path, err)
	}
	if err := os.Symlink(cached, path); err != nil {
		return fmt.Errorf("link %s: %w", path, err)
	}
	return nil
}

func say(w io.Writer, format string, args ...any) {
	_, _ = fmt.Fprintf(w, format+"\n", args...) // a reader that went away must not stop a build
}
