package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	bolt "go.etcd.io/bbolt"
)

const tsdbDir = "tsdb" // below the data directory

// The TSDB's logs, and the chunks that these refer to. Each is a directory of
// numbered files to the last of which is written; all others stay as they are,
// and so does all within directories, which are checkpoints.
var logDirs = []string{"wal", "wbl", "chunks_head"}

// copying is a snapshot on its way.
type copying struct {
	ctx      context.Context
	root     string // where it goes
	manifest manifest
	shared   int64      // bytes of linked files
	open     []openFile // that have yet to be copied
}

// openFile is the beginning of a file to which the store writes.
type openFile struct {
	*os.File
	path string // below the root
	size int64
}

// noteLinks puts the files that are there, which the TSDB linked, on the list.
func (c *copying) noteLinks() error {
	return filepath.WalkDir(c.root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		return c.note(path, info.Size(), true)
	})
}

// note puts a file of the snapshot on its list.
func (c *copying) note(path string, size int64, shared bool) error {
	rel, err := filepath.Rel(c.root, path)
	if err != nil {
		return err
	}
	c.manifest.Files[filepath.ToSlash(rel)] = size
	if shared {
		c.shared += size
	}
	return nil
}

// take links the closed files of the logs below the data directory, and opens
// the others at their size of now. Nothing may write to the logs meanwhile.
func (c *copying) take(data string) error {
	for _, name := range logDirs {
		dir := filepath.Join(tsdbDir, name)
		entries, err := os.ReadDir(filepath.Join(data, dir))
		if errors.Is(err, fs.ErrNotExist) {
			continue // nothing came late yet
		}
		if err != nil {
			return err
		}
		if err := os.MkdirAll(filepath.Join(c.root, dir), 0o750); err != nil {
			return err
		}
		newest := ""
		for _, e := range entries {
			if !e.IsDir() {
				newest = max(newest, e.Name())
			}
		}
		for _, e := range entries {
			path := filepath.Join(dir, e.Name())
			switch {
			case strings.HasSuffix(e.Name(), ".tmp"):
			case e.IsDir():
				err = c.linkAll(data, path)
			case e.Name() == newest:
				err = c.hold(data, path)
			default:
				err = c.link(data, path)
			}
			if err != nil {
				return err
			}
		}
	}
	return nil
}

func (c *copying) linkAll(data, dir string) error {
	entries, err := os.ReadDir(filepath.Join(data, dir))
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Join(c.root, dir), 0o750); err != nil {
		return err
	}
	for _, e := range entries {
		if err := c.link(data, filepath.Join(dir, e.Name())); err != nil {
			return err
		}
	}
	return nil
}

func (c *copying) link(data, path string) error {
	to := filepath.Join(c.root, path)
	if err := os.Link(filepath.Join(data, path), to); err != nil {
		return err
	}
	info, err := os.Stat(to)
	if err != nil {
		return err
	}
	return c.note(to, info.Size(), true)
}

// hold opens a file to which the store writes.
func (c *copying) hold(data, path string) error {
	f, err := os.Open(filepath.Join(data, path))
	if err != nil {
		return err
	}
	info, err := f.Stat()
	if err != nil {
		return errors.Join(err, f.Close())
	}
	c.open = append(c.open, openFile{f, path, info.Size()})
	return nil
}

// copyOpen copies what take opened. These files only grow.
func (c *copying) copyOpen() error {
	for _, f := range c.open {
		err := c.create(f.path, func(w io.Writer) error {
			return copyWithoutTail(c.ctx, w, io.LimitReader(f, f.size))
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func (c *copying) closeOpen() {
	for _, f := range c.open {
		_ = f.Close() // it was only read
	}
}

// copyDatabase copies db as it is in one transaction.
func (c *copying) copyDatabase(db *bolt.DB) error {
	err := db.View(func(tx *bolt.Tx) error {
		return c.create(filepath.Base(db.Path()), func(w io.Writer) error {
			_, err := tx.WriteTo(w)
			return err
		})
	})
	if err != nil {
		return fmt.Errorf("copy database %s: %w", db.Path(), err)
	}
	return nil
}

// create makes a file of the snapshot that survives a power failure.
func (c *copying) create(path string, write func(io.Writer) error) error {
	if err := c.ctx.Err(); err != nil {
		return err
	}
	to := filepath.Join(c.root, path)
	size, err := writeFile(to, write)
	if err != nil || path == manifestFile {
		return err
	}
	return c.note(to, size, false)
}

// writeFile makes a new file, whose content is on the disk once it returns its size.
func writeFile(path string, write func(io.Writer) error) (size int64, err error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o640)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if err := write(f); err != nil {
		return 0, err
	}
	if err := f.Sync(); err != nil {
		return 0, err
	}
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

// copyWithoutTail copies r to w but for blocks of zeros at its end: the TSDB
// reserves 128 MiB for chunks before it has any.
func copyWithoutTail(ctx context.Context, w io.Writer, r io.Reader) error {
	block, zeros, skipped := make([]byte, 64<<10), make([]byte, 64<<10), 0
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		n, err := io.ReadFull(r, block)
		if bytes.Equal(block[:n], zeros[:n]) {
			skipped += n
		} else {
			for ; skipped > 0; skipped -= min(skipped, len(zeros)) {
				if _, err := w.Write(zeros[:min(skipped, len(zeros))]); err != nil {
					return err
				}
			}
			if _, err := w.Write(block[:n]); err != nil {
				return err
			}
		}
		switch {
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
			return nil
		case err != nil:
			return err
		}
	}
}
