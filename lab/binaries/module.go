package binaries

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/mod/modfile"
)

// FindModule returns the directory of the lab's module, looking in start and
// upwards, and in a folder named lab beside each step.
func FindModule(start string) (string, error) {
	dir, err := filepath.Abs(start)
	if err != nil {
		return "", fmt.Errorf("find the lab's source: %w", err)
	}
	for {
		for _, candidate := range []string{dir, filepath.Join(dir, "lab")} {
			data, err := os.ReadFile(filepath.Join(candidate, "go.mod"))
			if err == nil && modfile.ModulePath(data) == labModule {
				return candidate, nil
			}
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return "", fmt.Errorf("the lab's source (go.mod of %s) is not in %s or above: run from the repository or give --source", labModule, start)
		}
		dir = parent
	}
}

// moduleVersions reads the selected versions from a tidy go.mod: since Go 1.17
// it lists them all, so the go command need not be asked.
func moduleVersions(gomod []byte) (map[string]string, error) {
	file, err := modfile.Parse("go.mod", gomod, nil)
	if err != nil {
		return nil, fmt.Errorf("read go.mod: %w", err)
	}
	versions := map[string]string{}
	for _, r := range file.Require {
		versions[r.Mod.Path] = r.Mod.Version
	}
	for _, r := range file.Replace {
		if _, ok := versions[r.Old.Path]; ok && r.New.Version != "" {
			versions[r.Old.Path] = r.New.Version
		}
	}
	return versions, nil
}

// versionOf returns the version that names a binary in the cache. The lab's own
// binaries have none, so their source stands for it.
func versionOf(b Binary, module string) (string, error) {
	if b.Module == "" {
		return sourceHash(module)
	}
	path := filepath.Join(module, b.Pins, "go.mod")
	gomod, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("version of %s: %w", b.Name, err)
	}
	versions, err := moduleVersions(gomod)
	if err != nil {
		return "", fmt.Errorf("version of %s: %s: %w", b.Name, path, err)
	}
	v, ok := versions[b.Module]
	if !ok {
		return "", fmt.Errorf("version of %s: %s is not in %s", b.Name, b.Module, path)
	}
	return v, nil
}

// sourceHash covers every Go file of the lab that is not a test, and go.mod; not
// what is in a module of its own.
func sourceHash(module string) (string, error) {
	sum := sha256.New()
	err := filepath.WalkDir(module, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && path != module {
			if _, err := os.Stat(filepath.Join(path, "go.mod")); err == nil {
				return filepath.SkipDir
			}
		}
		name := d.Name()
		source := name == "go.mod" || strings.HasSuffix(name, ".go") && !strings.HasSuffix(name, "_test.go")
		if d.IsDir() || !source {
			return nil
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(module, path)
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(sum, "%s %d\n%s", rel, len(data), data)
		return err
	})
	if err != nil {
		return "", fmt.Errorf("read the lab's source: %w", err)
	}
	return "src" + hex.EncodeToString(sum.Sum(nil))[:12], nil
}

var errNoGo = errors.New("the go command is not installed: see https://go.dev/doc/install")
