package store

import (
	"encoding/json"
	"errors"
	"fmt"
	"sort"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	bolt "go.etcd.io/bbolt"

	"kelpie.dev/kelpie/metric"
)

const catalogFile = "catalog.db" // below the data directory

var (
	bucketNames   = []byte("metrics")
	bucketSeveral = []byte("several") // keys seen with several values or bare
)

// catalog holds what is known per metric name, and the tag keys that need a
// match instead of a look-up. All of it is in memory; the file is its copy. A
// name and a key are written before the first point that has them; changes of
// a known name are written by flush.
type catalog struct {
	db *bolt.DB

	mu      sync.RWMutex
	names   map[string]*name
	several map[string]bool
}

// name is one metric name. Its fields change without the catalog's lock.
type name struct {
	text  string
	kind  atomic.Uint64 // type in the low byte, interval above
	unit  atomic.Pointer[string]
	dist  atomic.Bool  // it has sketches, or had
	seen  atomic.Int64 // newest point, or when the name came; Unix seconds
	dirty atomic.Bool
	late  atomic.Uint64 // another number after each write of a settled time
	found atomic.Int64  // series of it, when all were selected last
}

// nameRecord is the stored form of a name.
type nameRecord struct {
	Type     metric.Type `json:"type"`
	Interval int64       `json:"interval,omitempty"`
	Unit     string      `json:"unit,omitempty"`
	Seen     int64       `json:"seen"`

	Distribution bool `json:"distribution,omitempty"` // it has sketches, or had
}

// openCatalog opens the catalog at path. A name of which no point is noted
// counts as seen at the Unix time now.
func openCatalog(path string, now int64) (*catalog, error) {
	db, err := bolt.Open(path, 0o640, &bolt.Options{Timeout: 5 * time.Second})
	if err != nil {
		return nil, fmt.Errorf("open metric catalog %s: %w (is another backend using this directory?)", path, err)
	}
	c := &catalog{db: db, names: make(map[string]*name), several: make(map[string]bool)}
	err = db.Update(func(tx *bolt.Tx) error {
		for _, b := range [][]byte{bucketNames, bucketSeveral} {
			if _, err := tx.CreateBucketIfNotExists(b); err != nil {
				return err
			}
		}
		return c.load(tx, now)
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("read metric catalog %s: %w", path, err), db.Close())
	}
	return c, nil
}

func (c *catalog) load(tx *bolt.Tx, now int64) error {
	err := tx.Bucket(bucketNames).ForEach(func(k, v []byte) error {
		var r nameRecord
		if err := json.Unmarshal(v, &r); err != nil {
			return fmt.Errorf("record of %q: %w", k, err)
		}
		n := &name{text: string(k)}
		n.set(r.Type, r.Interval, r.Unit)
		n.dist.Store(r.Distribution)
		n.seen.Store(r.Seen)
		n.dirty.Store(false)
		if r.Seen == 0 {
			n.seen.Store(now)
			n.dirty.Store(true)
		}
		c.names[n.text] = n
		return nil
	})
	if err != nil {
		return err
	}
	return tx.Bucket(bucketSeveral).ForEach(func(k, _ []byte) error {
		c.several[string(k)] = true
		return nil
	})
}

func (c *catalog) close() error { return errors.Join(c.flush(), c.db.Close()) }

// get returns the name, or nil when it was never written.
func (c *catalog) get(text string) *name {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.names[text]
}

// knows reports whether it's name was written, as a distribution if it is one.
func (c *catalog) knows(it item) bool {
	n := c.get(it.Name)
	return n != nil && (n.dist.Load() || !it.isDistribution)
}

// isSeveral reports whether some series has several values of the encoded key,
// or that key bare.
func (c *catalog) isSeveral(key string) bool {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.several[key]
}

// additions are what a batch brings that the catalog does not hold yet.
type additions struct {
	names   map[string]item
	several map[string]bool
}

// add makes a durable. On error nothing was added. A new name counts as seen at
// the Unix time now: its first point is on its way, and a crash before the next
// flush must not make forget take it for idle.
func (c *catalog) add(a additions, now int64) error {
	if len(a.names) == 0 && len(a.several) == 0 {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	changed := make([]*name, 0, len(a.names))
	for text, it := range a.names {
		n := c.names[text]
		switch {
		case n == nil:
			n = &name{text: strings.Clone(text)}
			n.set(it.Type, it.Interval, it.Unit)
			n.seen.Store(now)
		case n.dist.Load() || !it.isDistribution:
			continue // another batch was first
		}
		n.dist.Store(it.isDistribution)
		changed = append(changed, n)
	}
	err := c.db.Update(func(tx *bolt.Tx) error {
		for _, n := range changed {
			if err := n.put(tx); err != nil {
				return err
			}
		}
		for key := range a.several {
			if err := tx.Bucket(bucketSeveral).Put([]byte(key), nil); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		for _, n := range changed {
			n.dist.Store(false)
		}
		return fmt.Errorf("write metric catalog: %w", err)
	}
	for _, n := range changed {
		c.names[n.text] = n
	}
	for key := range a.several {
		c.several[strings.Clone(key)] = true // not a part of a whole payload
	}
	return nil
}

// flush writes every name that changed since the last flush.
func (c *catalog) flush() error {
	c.mu.RLock()
	var changed []*name
	for _, n := range c.names {
		if n.dirty.Swap(false) {
			changed = append(changed, n)
		}
	}
	c.mu.RUnlock()
	if len(changed) == 0 {
		return nil
	}
	err := c.db.Update(func(tx *bolt.Tx) error {
		for _, n := range changed {
			if err := n.put(tx); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		for _, n := range changed {
			n.dirty.Store(true)
		}
		return fmt.Errorf("write metric catalog: %w", err)
	}
	return nil
}

// forget drops names without a point since the Unix time before from the
// listings. It must be longer ago than contexts are remembered, or a context
// could go on referring to a name that is gone. On error all of them stay, and
// the next call tries again. No batch may be creating contexts meanwhile.
func (c *catalog) forget(before int64) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	var gone []string
	for text, n := range c.names {
		if n.seen.Load() < before {
			gone = append(gone, text)
		}
	}
	if len(gone) == 0 {
		return nil
	}
	err := c.db.Update(func(tx *bolt.Tx) error {
		for _, text := range gone {
			if err := tx.Bucket(bucketNames).Delete([]byte(text)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("drop %d idle names from the metric catalog: %w", len(gone), err)
	}
	for _, text := range gone {
		delete(c.names, text)
	}
	return nil
}

// list returns the names for which keep holds, sorted.
func (c *catalog) list(keep func(*name) bool) []string {
	c.mu.RLock()
	out := make([]string, 0, 16)
	for text, n := range c.names {
		if keep(n) {
			out = append(out, text)
		}
	}
	c.mu.RUnlock()
	sort.Strings(out)
	return out
}

// touch notes a submission of n whose newest point is at sec. The last
// submission decides; one that says nothing of type, interval or unit leaves
// what is known.
func (n *name) touch(s *metric.Series, sec int64) {
	n.set(s.Type, s.Interval, s.Unit)
	for {
		seen := n.seen.Load()
		if sec <= seen {
			return
		}
		if n.seen.CompareAndSwap(seen, sec) {
			n.dirty.Store(true)
			return
		}
	}
}

func (n *name) set(t metric.Type, interval int64, unit string) {
	old := n.kind.Load()
	if interval > 1<<40 {
		interval = 0
	}
	k := metric.Kind{Type: metric.Type(old & 0xff), Interval: int64(old >> 8)}.After(metric.Kind{Type: t, Interval: interval})
	if packed := uint64(k.Interval)<<8 | uint64(k.Type); packed != old {
		n.kind.Store(packed)
		n.dirty.Store(true)
	}
	if known := n.unit.Load(); unit != "" && (known == nil || *known != unit) {
		unit = strings.Clone(unit)
		n.unit.Store(&unit)
		n.dirty.Store(true)
	}
}

// record returns the current values.
func (n *name) record() nameRecord {
	kind := n.kind.Load()
	r := nameRecord{Type: metric.Type(kind & 0xff), Interval: int64(kind >> 8), Seen: n.seen.Load(), Distribution: n.dist.Load()}
	if unit := n.unit.Load(); unit != nil {
		r.Unit = *unit
	}
	return r
}

func (n *name) put(tx *bolt.Tx) error {
	v, err := json.Marshal(n.record())
	if err != nil {
		return err
	}
	return tx.Bucket(bucketNames).Put([]byte(n.text), v)
}

// size is the number of names.
func (c *catalog) size() int {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return len(c.names)
}
