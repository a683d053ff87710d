package store

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// restoring is a directory below the data directory while a snapshot is put in
// place. A store does not open beside it, and Restore does not begin beside a
// store: whoever comes second sees the other's file.
const restoring = ".restoring"

// Restore puts the snapshot in the directory from in place of an empty data
// directory, in which may only be snapshots. It fails, and changes nothing, where
// the directory holds data, a store is open on it, or the snapshot lacks a file.
func Restore(data, from string) (Snapshot, error) {
	began := time.Now()
	m, err := readManifest(from)
	if err != nil {
		return Snapshot{}, err
	}
	if err := os.MkdirAll(data, 0o750); err != nil {
		return Snapshot{}, fmt.Errorf("make data directory: %w (KELPIE_DATA_DIR must be writable by this user)", err)
	}
	mark := filepath.Join(data, restoring)
	if err := os.Mkdir(mark, 0o750); err != nil {
		return Snapshot{}, fmt.Errorf("begin to restore: %w (if no other restore runs, one was killed: remove everything in %s but %s, and repeat it)", err, data, snapshotsDir)
	}
	if err := checkEmpty(data); err != nil {
		return Snapshot{}, errors.Join(err, os.Remove(mark))
	}
	out := Snapshot{Name: m.Name, Dir: data, Created: m.Created, Files: len(m.Files)}
	err = place(m, from, mark, &out)
	if err == nil {
		err = moveUp(mark, data)
	}
	if err != nil {
		return Snapshot{}, errors.Join(fmt.Errorf("restore %s: %w", from, err), os.RemoveAll(mark))
	}
	out.Seconds = time.Since(began).Seconds()
	return out, nil
}

// readManifest reads a snapshot's list and compares it with what is there.
func readManifest(from string) (*manifest, error) {
	text, err := os.ReadFile(filepath.Join(from, manifestFile))
	if err != nil {
		return nil, fmt.Errorf("read snapshot: %w (a snapshot is a directory with a file %s)", err, manifestFile)
	}
	var m manifest
	if err := json.Unmarshal(text, &m); err != nil {
		return nil, fmt.Errorf("read %s of snapshot %s: %w", manifestFile, from, err)
	}
	if m.Version != formatVersion {
		return nil, fmt.Errorf("snapshot %s is of version %d: this program reads version %d", from, m.Version, formatVersion)
	}
	for path, size := range m.Files {
		if !filepath.IsLocal(path) {
			return nil, fmt.Errorf("snapshot %s lists %q: expected a path below it", from, path)
		}
		info, err := os.Stat(filepath.Join(from, path))
		if err != nil {
			return nil, fmt.Errorf("snapshot %s is not whole: %w", from, err)
		}
		if info.Size() != size {
			return nil, fmt.Errorf("snapshot %s is not whole: %s has %d bytes, expected %d", from, path, info.Size(), size)
		}
	}
	return &m, nil
}

// checkEmpty reports what data holds beside snapshots.
func checkEmpty(data string) error {
	entries, err := os.ReadDir(data)
	if err != nil {
		return fmt.Errorf("read data directory: %w", err)
	}
	for _, e := range entries {
		switch e.Name() {
		case snapshotsDir, restoring, "lost+found":
			continue
		case catalogFile:
			if inUse(filepath.Join(data, catalogFile)) {
				return fmt.Errorf("a backend is running on %s: stop it first", data)
			}
		}
		return fmt.Errorf("data directory %s is not empty, it has %s: move all but %s out of the way", data, e.Name(), snapshotsDir)
	}
	return nil
}

// inUse reports whether a process holds the database at path.
func inUse(path string) bool {
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer func() { _ = f.Close() }()
	return errors.Is(unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB), unix.EWOULDBLOCK)
}

// place copies the snapshot's files to the directory to. Blocks never change, so
// that on one file system they are linked.
func place(m *manifest, from, to string, out *Snapshot) error {
	for _, path := range slices.Sorted(maps.Keys(m.Files)) {
		source, target := filepath.Join(from, path), filepath.Join(to, path)
		if err := os.MkdirAll(filepath.Dir(target), 0o750); err != nil {
			return err
		}
		out.Bytes += m.Files[path]
		if isBlock(path) && os.Link(source, target) == nil {
			out.Shared += m.Files[path]
			continue
		}
		if err := copyFile(source, target); err != nil {
			return err
		}
	}
	return nil
}

// isBlock reports whether a path of a snapshot lies in a block of the TSDB.
func isBlock(path string) bool {
	parts := strings.Split(path, "/")
	return len(parts) > 2 && parts[0] == tsdbDir && !slices.Contains(logDirs, parts[1])
}

func copyFile(source, target string) (err error) {
	r, err := os.Open(source)
	if err != nil {
		return err
	}
	defer func() { _ = r.Close() }()
	_, err = writeFile(target, func(w io.Writer) error {
		_, err := io.Copy(w, r)
		return err
	})
	return err
}

// moveUp moves what is in mark to data, then removes it. Until then no store
// opens.
func moveUp(mark, data string) error {
	entries, err := os.ReadDir(mark)
	if err != nil {
		return err
	}
	for i, e := range entries {
		if err := os.Rename(filepath.Join(mark, e.Name()), filepath.Join(data, e.Name())); err != nil {
			for _, moved := range entries[:i] {
				err = errors.Join(err, os.RemoveAll(filepath.Join(data, moved.Name())))
			}
			return err
		}
	}
	return errors.Join(syncDir(data), os.Remove(mark))
}

// checkRestored reports a restore that has not ended.
func checkRestored(data string) error {
	_, err := os.Lstat(filepath.Join(data, restoring))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return errors.Join(err, fmt.Errorf("data directory %s has %s: a snapshot is being restored; if none is, remove everything there but %s and restore it again", data, restoring, snapshotsDir))
}
