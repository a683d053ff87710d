package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"sync"
	"time"

	bolt "go.etcd.io/bbolt"
)

// Errors of Store.Snapshot that a caller branches on, beside ErrClosed and ErrNoSpace.
var (
	ErrSnapshotName   = errors.New("a snapshot's name is letters, digits, '.', '_' and '-', 100 of them at most, and begins with a letter or a digit")
	ErrSnapshotExists = errors.New("there is a snapshot of that name")
	ErrSnapshotBusy   = errors.New("another snapshot is being made")
)

const (
	snapshotsDir  = "snapshots"     // below the data directory
	manifestFile  = "snapshot.json" // in a snapshot, written last
	unfinished    = ".unfinished-"  // before the name of a snapshot on its way
	formatVersion = 1
)

var snapshotName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$`)

// A Snapshot describes a copy of all that a store held at one moment.
type Snapshot struct {
	Name    string    `json:"name"`
	Dir     string    `json:"dir"`
	Created time.Time `json:"created"`
	Seconds float64   `json:"seconds"` // that it took
	Files   int       `json:"files"`
	Bytes   int64     `json:"bytes"`        // of all files
	Shared  int64     `json:"shared_bytes"` // of those that are the store's own until it drops them, and cost nothing until then
}

// manifest is a snapshot's list of its files, so that a torn copy is not restored.
type manifest struct {
	Version int              `json:"version"`
	Name    string           `json:"name"`
	Created time.Time        `json:"created"`
	Files   map[string]int64 `json:"files"` // size by path below the snapshot
}

// snapshots is what a Store keeps for making them.
type snapshots struct {
	making sync.Mutex // held by the one being made
	// gate is held for reading by every write to the TSDB, and for writing in the
	// moment that a snapshot shows: no batch is in it by half.
	gate sync.RWMutex

	mu        sync.Mutex // guards databases
	databases []*bolt.DB
}

// Include has every later snapshot hold db, a database of its own file in the
// data directory, under that file's name. It must stay open as long as the store.
func (s *Store) Include(db *bolt.DB) {
	s.snapshots.mu.Lock()
	defer s.snapshots.mu.Unlock()
	s.snapshots.databases = append(s.snapshots.databases, db)
}

// Snapshot copies the store into the directory snapshots/name below the data
// directory. All batches that were acknowledged before are in it, and each of
// those that come meanwhile is in it as a whole or not at all; they wait for
// milliseconds. Compaction waits for the end, and the snapshot for one that runs.
// Blocks and closed segments are hard links, so that it costs little until the
// store drops them; retention does not count or remove it. One that fails leaves
// nothing. Only one is made at a time.
func (s *Store) Snapshot(ctx context.Context, name string) (Snapshot, error) {
	if !snapshotName.MatchString(name) {
		return Snapshot{}, fmt.Errorf("snapshot %.120q: %w", name, ErrSnapshotName)
	}
	if !s.snapshots.making.TryLock() {
		return Snapshot{}, ErrSnapshotBusy
	}
	defer s.snapshots.making.Unlock()
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.db == nil {
		return Snapshot{}, ErrClosed
	}
	parent := filepath.Join(s.opts.Dir, snapshotsDir)
	final := filepath.Join(parent, name)
	if _, err := os.Lstat(final); err == nil {
		return Snapshot{}, fmt.Errorf("%s: %w", final, ErrSnapshotExists)
	}
	began := time.Now()
	c := &copying{ctx: ctx, root: filepath.Join(parent, unfinished+name), manifest: manifest{
		Version: formatVersion, Name: name, Created: s.opts.Now().UTC(), Files: make(map[string]int64),
	}}
	err := s.copyInto(c)
	if err == nil {
		err = os.Rename(c.root, final)
	}
	if err == nil {
		err = syncDir(parent)
	}
	if err != nil {
		return Snapshot{}, errors.Join(fmt.Errorf("make snapshot %s: %w", name, err), os.RemoveAll(c.root))
	}
	out := Snapshot{Name: name, Dir: final, Created: c.manifest.Created, Seconds: time.Since(began).Seconds(), Shared: c.shared, Files: len(c.manifest.Files)}
	for _, n := range c.manifest.Files {
		out.Bytes += n
	}
	s.log.Info("snapshot made", "dir", final, "bytes", out.Bytes, "shared_bytes", out.Shared, "took", time.Since(began))
	return out, nil
}

// copyInto fills c's directory. The caller holds mu for reading and making.
func (s *Store) copyInto(c *copying) error {
	if err := os.MkdirAll(filepath.Join(c.root, tsdbDir), 0o750); err != nil {
		return err
	}
	// From here on the TSDB only adds to its logs.
	s.db.DisableCompactions()
	defer s.db.EnableCompactions()
	if err := c.ctx.Err(); err != nil {
		return err
	}
	if err := s.db.Snapshot(filepath.Join(c.root, tsdbDir), false); err != nil {
		return err
	}
	if err := c.noteLinks(); err != nil {
		return err
	}
	defer c.closeOpen()
	s.snapshots.gate.Lock()
	err := c.take(s.opts.Dir)
	s.snapshots.gate.Unlock()
	if err != nil {
		return err
	}
	if err := s.roomFor(c); err != nil {
		return err
	}
	if err := c.copyOpen(); err != nil {
		return err
	}
	// The catalogs come after the series, so that no series lacks its name.
	if err := s.catalog.flush(); err != nil {
		return err
	}
	s.snapshots.mu.Lock()
	databases := append([]*bolt.DB{s.catalog.db}, s.snapshots.databases...)
	s.snapshots.mu.Unlock()
	for _, db := range databases {
		if err := c.copyDatabase(db); err != nil {
			return err
		}
	}
	return c.writeManifest()
}

// roomFor reports ErrNoSpace where what c has to copy would fill the disk.
func (s *Store) roomFor(c *copying) error {
	if s.opts.MinFree < 0 {
		return nil
	}
	free, err := freeBytes(s.opts.Dir)
	if err != nil {
		return err
	}
	var need int64
	for _, f := range c.open {
		need += f.size
	}
	if free-need < s.opts.MinFree {
		return fmt.Errorf("%w in %s: %d bytes are free, %d are copied, and KELPIE_MIN_FREE_BYTES keeps %d", ErrNoSpace, s.opts.Dir, free, need, s.opts.MinFree)
	}
	return nil
}

// removeUnfinished removes what snapshots left that a crash ended.
func removeUnfinished(dir string) error {
	left, err := filepath.Glob(filepath.Join(dir, snapshotsDir, unfinished+"*"))
	for _, path := range left {
		err = errors.Join(err, os.RemoveAll(path))
	}
	if err != nil {
		return fmt.Errorf("remove unfinished snapshots: %w", err)
	}
	return nil
}

// syncDir makes the names in dir survive a power failure.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// writeManifest ends a snapshot.
func (c *copying) writeManifest() error {
	text, err := json.MarshalIndent(c.manifest, "", "  ")
	if err != nil {
		return err
	}
	return c.create(manifestFile, func(w io.Writer) error {
		_, err := w.Write(append(text, '\n'))
		return err
	})
}
