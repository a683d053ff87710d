// Package record keeps what senders tell in words rather than in numbers:
// events, service checks, and the hosts that they come from with their tags.
//
// It owns durability (what an Add or Set returned without an error survives the
// death of the process), retention and the bounds on number and size, and it
// lends hosts' tags to the series that queries read (see Joined). It speaks no
// HTTP, and does not know what is done about an event or a check.
package record

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	bolt "go.etcd.io/bbolt"
)

var (
	bucketEvents = []byte("events")   // identifier → Event
	bucketChecks = []byte("checks")   // name, 0, hash of the context → Check
	bucketHosts  = []byte("hosts")    // lower-case name → Host
	bucketRaw    = []byte("raw_keys") // tag key → nothing
)

// Options says where and how much a Book keeps. Dir is required.
type Options struct {
	Dir           string        // made if missing
	Retention     time.Duration // 0 means 15 days
	MaxEvents     int           // the oldest make room; 0 means 100 000
	MaxEventBytes int64         // of all events, likewise; 0 means 256 MiB
	MaxChecks     int           // contexts of service checks; new ones beyond are refused; 0 means 100 000
	MaxHosts      int           // with tags, likewise; 0 means 20 000
	// Writable reports why nothing may be written now, such as a full disk. Nil
	// means always.
	Writable func() error

	Now        func() time.Time      // nil means time.Now
	Registerer prometheus.Registerer // nil registers nothing
	Log        *slog.Logger          // nil discards
}

func (o *Options) validate() error {
	if o.Dir == "" {
		return errors.New("record: data directory is not set")
	}
	if o.MaxEvents < 0 || o.MaxEventBytes < 0 || o.MaxChecks < 0 || o.MaxHosts < 0 || o.Retention < 0 {
		return errors.New("record: limits must not be negative")
	}
	setDefault(&o.Retention, 15*24*time.Hour)
	setDefault(&o.MaxEvents, 100_000)
	setDefault(&o.MaxEventBytes, 256<<20)
	setDefault(&o.MaxChecks, 100_000)
	setDefault(&o.MaxHosts, 20_000)
	if o.Writable == nil {
		o.Writable = func() error { return nil }
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return nil
}

func setDefault[T comparable](v *T, to T) {
	var zero T
	if *v == zero {
		*v = to
	}
}

// Book is an open book of records. All methods may be called concurrently.
type Book struct {
	opts    Options
	db      *bolt.DB
	metrics *metrics

	// Changed in write transactions only, of which there is one at a time.
	events, eventBytes, checks atomic.Int64

	hosts hosts
	raw   rawKeys
}

// Open opens or creates the book in o.Dir. The caller must Close it, and should
// Run it.
func Open(o Options) (*Book, error) {
	if err := o.validate(); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(o.Dir, 0o750); err != nil {
		return nil, fmt.Errorf("make data directory: %w (KELPIE_DATA_DIR must be writable by this user)", err)
	}
	path := filepath.Join(o.Dir, "record.db")
	db, err := bolt.Open(path, 0o640, &bolt.Options{Timeout: 5 * time.Second})
	if err != nil {
		return nil, fmt.Errorf("open records %s: %w (is another backend using this directory?)", path, err)
	}
	b := &Book{opts: o, db: db}
	b.metrics = newMetrics(o.Registerer, b)
	if err := db.Update(b.load); err != nil {
		return nil, errors.Join(fmt.Errorf("read records %s: %w", path, err), db.Close())
	}
	return b, nil
}

// load makes the buckets, and reads what is kept in memory.
func (b *Book) load(tx *bolt.Tx) error {
	for _, name := range [][]byte{bucketEvents, bucketChecks, bucketHosts, bucketRaw} {
		if _, err := tx.CreateBucketIfNotExists(name); err != nil {
			return err
		}
	}
	err := tx.Bucket(bucketEvents).ForEach(func(k, v []byte) error {
		b.events.Add(1)
		b.eventBytes.Add(int64(len(k) + len(v)))
		return nil
	})
	if err != nil {
		return err
	}
	b.checks.Store(int64(tx.Bucket(bucketChecks).Stats().KeyN))
	if err := b.raw.load(tx); err != nil {
		return err
	}
	return b.hosts.load(tx)
}

// Close closes the file. No other call may run or follow.
func (b *Book) Close() error {
	if err := b.db.Close(); err != nil {
		return fmt.Errorf("close records: %w", err)
	}
	return nil
}

// Run forgets what is older than the retention, until ctx ends.
func (b *Book) Run(ctx context.Context) error {
	tick := time.NewTicker(10 * time.Minute)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			if err := b.Forget(ctx); err != nil && ctx.Err() == nil {
				b.opts.Log.Error("cannot forget old records, will retry", "error", err)
			}
		}
	}
}

// Forget drops what is older than the retention.
func (b *Book) Forget(ctx context.Context) error {
	before := b.opts.Now().Add(-b.opts.Retention).Unix()
	for _, forget := range [...]func(*bolt.Tx, int64) (more bool, err error){b.forgetEvents, b.forgetChecks, b.forgetHosts} {
		for more := true; more && ctx.Err() == nil; {
			err := b.db.Update(func(tx *bolt.Tx) (err error) {
				more, err = forget(tx, before)
				return err
			})
			if err != nil {
				return fmt.Errorf("forget records: %w", err)
			}
		}
	}
	return ctx.Err()
}

// forgetAtOnce bounds one transaction of Forget, which holds up all writing.
const forgetAtOnce = 1000

// writable is Options.Writable with its place.
func (b *Book) writable() error {
	if err := b.opts.Writable(); err != nil {
		return fmt.Errorf("write records: %w", err)
	}
	return nil
}

// Database returns the file of the records, for snapshots. It is b's to close.
func (b *Book) Database() *bolt.DB { return b.db }
