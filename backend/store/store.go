// Package store keeps series on disk: every context is one series of an
// embedded Prometheus TSDB, and what Datadog keeps per metric name (type,
// interval, unit, last activity) lies in a small catalog beside it.
//
// It owns durability (an Append that returned nil survives the death of the
// process), retention, the limits on cardinality and on the age of points, and
// the encoding of tags as labels. It does not parse or evaluate queries, speaks
// no HTTP, and expects names and tags already normalized. It is the only
// package that imports the TSDB.
//
// # Tags as labels
//
// A TSDB series maps label names to one value each; Datadog's tags are a set in
// which a key may have several values or none. The encoding is:
//
//	__name__        the metric name
//	<key>           the value of the tag key:value; for a key with several
//	                values, 0x1F before, between and after them, sorted
//	host, device    the host or device in lower case, with the tags of that key
//	__host__,       the own host (device) as sent, only where it has capitals
//	__device__      or tags of that key stand beside it
//
// A bare tag is the value 0x1E of its own text as key, and the tag "key:" is the
// value 0x1D. A key that is empty or begins with "__" gets the prefix
// "__tag__". None of these bytes occurs in a normalized tag. Because a
// single value, by far the most common, is stored as it is, an exact scope term
// is an index look-up; only for keys that were ever seen with several values or
// bare (the catalog remembers which) it is a match over that key's values.
//
// # Several writes of one second
//
// Datadog keeps the last value written for a context and a second. The TSDB
// refuses a second sample for a timestamp, but its timestamps are milliseconds:
// a rewrite goes to a later millisecond of the same second, and reading keeps
// the last of each second.
package store

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/util/compression"

	"kelpie.dev/kelpie/metric"
	"kelpie.dev/kelpie/metric/payload"
)

// Errors that a caller branches on. All of them mean that nothing of the batch
// was acknowledged and that the sender should keep it and try again.
var (
	// ErrClosed reports that the store is closed or closing.
	ErrClosed = errors.New("store is closed")
	// ErrNoSpace reports that the disk has less than Options.MinFree left.
	ErrNoSpace = errors.New("not enough free disk space")
	// ErrUnavailable reports that writing failed; the store reopens itself.
	ErrUnavailable = errors.New("store cannot write")
)

// Points farther from now than this are refused, as Datadog's intake does.
const (
	maxPast   = time.Hour
	maxFuture = 10 * time.Minute
)

// A live series with the tags of a pod takes some 3 KiB (labels, index, newest
// chunk, its context here), so that a million of them leave a process of 4 GiB
// room for intake and queries. A name costs far less, but names are kept for the
// whole retention and each is a write of its own.
const (
	defaultMaxSeries      = 1_000_000
	defaultMaxMetricNames = 200_000
)

// Options says where and how a Store keeps its data. Dir is required.
type Options struct {
	Dir              string        // data directory; made if missing
	Retention        time.Duration // 0 means 15 days
	RetentionBytes   int64         // of compacted blocks; 0 means no limit
	MaxMetricSeries  int           // live series per metric name, a distribution being three; 0 means 200 000
	MaxSeries        int           // live series in all, likewise; 0 means 1 000 000
	MaxMetricNames   int           // metric names within Retention; 0 means 200 000
	MaxSelectSeries  int           // series that one Select may return; 0 means 100 000
	MaxSelectPoints  int           // points that one Select may return; 0 means 20 000 000
	MinFree          int64         // bytes of disk kept free; 0 means 64 MiB, negative disables
	WALSegmentSize   int           // bytes, a multiple of 32 KiB; 0 means the TSDB's default
	OutOfOrderWindow time.Duration // 0 means 3 hours; never less than 2

	// Accepted is told what each Append has stored, once it is durable. contexts
	// has a number for each series, which no other context ever has in this
	// process; 0 for none. It keeps nothing of it and must be quick. Nil tells
	// nobody.
	Accepted func(series []metric.Series, contexts []uint64, distributions []metric.Distribution)

	Now        func() time.Time      // nil means time.Now
	Registerer prometheus.Registerer // nil registers nothing
	Log        *slog.Logger          // nil discards
}

func (o *Options) validate() error {
	if o.Dir == "" {
		return errors.New("store: data directory is not set")
	}
	if o.Retention == 0 {
		o.Retention = 15 * 24 * time.Hour
	}
	if o.Retention < 2*time.Hour {
		return fmt.Errorf("store: retention %s is too short: expected at least 2h", o.Retention)
	}
	if o.RetentionBytes < 0 {
		return errors.New("store: limits must not be negative")
	}
	if o.MinFree == 0 {
		o.MinFree = 64 << 20
	}
	if o.OutOfOrderWindow == 0 {
		o.OutOfOrderWindow = 3 * time.Hour
	}
	o.OutOfOrderWindow = max(o.OutOfOrderWindow, 2*time.Hour)
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return nil
}

// Store is an open store. All methods may be called concurrently.
type Store struct {
	opts    Options
	log     *slog.Logger
	metrics *metrics
	catalog *catalog
	bounds  atomic.Pointer[Limits]
	limits  *cardinality
	refs    *contexts

	metadata   *notes[payload.MetricMetadata]
	tagConfigs *notes[payload.TagConfiguration]

	lateWrites atomic.Uint64 // gives name.late its numbers

	creating  sync.Mutex // held by a batch that has new contexts
	snapshots snapshots

	full   atomic.Bool // the disk is below MinFree
	broken atomic.Bool // a write failed; Run reopens the TSDB
	// crashed holds the panic of a TSDB that must not be touched again.
	crashed chan error
	closing sync.Once // closes the catalog

	// mu guards db and reg: held for reading by everything that uses the TSDB,
	// for writing by what closes or replaces it.
	mu  sync.RWMutex
	db  *tsdb.DB // nil once closed
	reg *unregisterer
}

// Open opens or creates the store in o.Dir. It replays the write-ahead log, so
// it may take a while after a crash. The caller must Close it, and should Run it.
func Open(o Options) (*Store, error) {
	if err := o.validate(); err != nil {
		return nil, err
	}
	limits := o.limits()
	if err := limits.validate(); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(o.Dir, 0o750); err != nil {
		return nil, fmt.Errorf("make data directory: %w (KELPIE_DATA_DIR must be writable by this user)", err)
	}
	catalog, err := openCatalog(filepath.Join(o.Dir, catalogFile), o.Now().Unix())
	if err != nil {
		return nil, err
	}
	// The catalog's lock is held: no restore begins from here on.
	if err := errors.Join(checkRestored(o.Dir), removeUnfinished(o.Dir)); err != nil {
		return nil, errors.Join(err, catalog.close())
	}
	s := &Store{
		opts:    o,
		log:     o.Log,
		catalog: catalog,
		refs:    newContexts(),
		crashed: make(chan error, 1),
	}
	s.bounds.Store(&limits)
	if err := s.openNotes(); err != nil {
		return nil, errors.Join(err, catalog.close())
	}
	s.limits = newCardinality(&s.bounds, o.Log, o.Now)
	s.metrics = newMetrics(o.Registerer, s)
	if err := s.openDB(); err != nil {
		return nil, errors.Join(err, catalog.close())
	}
	s.checkSpace()
	return s, nil
}

// openDB opens the TSDB. The caller holds mu, or is the only one to know s.
func (s *Store) openDB() error {
	opts := tsdb.DefaultOptions()
	opts.RetentionDuration = s.opts.Retention.Milliseconds()
	opts.MaxBytes = s.opts.RetentionBytes
	opts.OutOfOrderTimeWindow = s.opts.OutOfOrderWindow.Milliseconds()
	opts.WALCompression = compression.Snappy
	opts.SeriesLifecycleCallback = s.limits
	if s.opts.WALSegmentSize > 0 {
		opts.WALSegmentSize = s.opts.WALSegmentSize
	}
	// Blocks may grow to a tenth of the retention, so that retention by time
	// drops data in steps that are small beside it.
	for opts.MaxBlockDuration*3 <= opts.RetentionDuration/10 {
		opts.MaxBlockDuration *= 3
	}
	s.limits.reset()
	reg := &unregisterer{inner: s.opts.Registerer}
	dir := filepath.Join(s.opts.Dir, tsdbDir)
	db, err := tsdb.Open(dir, s.log.With("part", "tsdb"), reg, opts, nil)
	if err != nil {
		reg.unregisterAll()
		return fmt.Errorf("open time series database in %s: %w", dir, err)
	}
	s.limits.enforce()
	s.refs.reset(s.opts.Now().Unix())
	s.db, s.reg = db, reg
	return nil
}

// closeDB closes the TSDB. The caller holds mu.
func (s *Store) closeDB() error {
	if s.db == nil {
		return nil
	}
	err := s.db.Close()
	s.reg.unregisterAll()
	s.db = nil
	return err
}

// Close waits for running calls, then closes the files. Later calls fail with
// ErrClosed. Closing twice is allowed.
func (s *Store) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.crashed) > 0 {
		// Closing could wait for ever; the log holds all that was acknowledged.
		s.db = nil
	}
	err := s.closeDB()
	// The catalog is open also where the TSDB could not be reopened.
	s.closing.Do(func() { err = errors.Join(err, s.catalog.close()) })
	if err != nil {
		return fmt.Errorf("close store: %w", err)
	}
	return nil
}

// Run does the store's housekeeping until ctx ends: it writes the catalog's
// changes, watches the disk, forgets idle contexts, and reopens the TSDB after
// a failed write. The store works without it, except for the last. It returns
// an error when the TSDB failed in a way that only a new process mends.
func (s *Store) Run(ctx context.Context) error {
	watch := time.NewTicker(5 * time.Second)
	defer watch.Stop()
	flush := time.NewTicker(time.Minute)
	defer flush.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-s.crashed:
			s.crashed <- err // Close must know
			return err
		case <-watch.C:
			s.checkSpace()
			s.heal()
		case <-flush.C:
			s.tidy(s.opts.Now())
		}
	}
}

// tidy writes the catalog's changes and forgets what is idle.
func (s *Store) tidy(now time.Time) {
	if err := s.catalog.flush(); err != nil {
		s.log.Error("cannot write the metric catalog, will retry", "error", err)
	}
	s.refs.forget(now.Add(-maxPast).Unix())
	// A batch that creates contexts has looked names up that it is about to use.
	s.creating.Lock()
	defer s.creating.Unlock()
	if err := s.catalog.forget(now.Add(-s.opts.Retention).Unix()); err != nil {
		s.log.Error("cannot forget idle metric names, will retry", "error", err)
	}
}

// heal replaces a TSDB whose write-ahead log failed. A series whose record did
// not reach the log would otherwise stay in memory, take acknowledged points,
// and lose them at the next start; replaying the log makes memory and disk one
// again.
func (s *Store) heal() {
	if !s.broken.Load() || s.full.Load() || len(s.crashed) > 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.db == nil {
		return
	}
	if err := s.closeDB(); err != nil {
		s.log.Warn("closing the failed time series database", "error", err)
	}
	if err := s.openDB(); err != nil {
		// Without a TSDB there is nothing to read either: the next tick cannot
		// mend that, a restart of the process may.
		_ = s.crash(err) // Run returns it
		return
	}
	s.broken.Store(false)
	s.log.Info("time series database reopened after a failed write")
}

// Ready reports nil while the store accepts points.
func (s *Store) Ready() error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	switch {
	case s.db == nil:
		return ErrClosed
	case s.full.Load():
		return fmt.Errorf("%w in %s", ErrNoSpace, s.opts.Dir)
	case s.broken.Load():
		return ErrUnavailable
	}
	return nil
}
