package store

import (
	"context"
	"fmt"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"golang.org/x/sys/unix"

	"kelpie.dev/kelpie/metric"
	"kelpie.dev/kelpie/query"
)

// Describe returns the metric's type, interval and unit in a series without
// points, whether it is a distribution, and whether it is known at all.
func (s *Store) Describe(name string) (m metric.Series, isDistribution, ok bool) {
	n := s.catalog.get(name)
	if n == nil {
		return metric.Series{}, false, false
	}
	r := s.record(n)
	return metric.Series{Name: name, Type: r.Type, Interval: r.Interval, Unit: r.Unit}, r.Distribution, true
}

// Hosts returns the sorted hosts, in lower case, that contain text and have data
// about or after since.
func (s *Store) Hosts(ctx context.Context, text string, since time.Time) ([]string, error) {
	stored, err := s.labelValues(ctx, since, keyHost)
	if err != nil {
		return nil, err
	}
	text = strings.ToLower(text)
	hosts := []string{}
	for _, values := range stored {
		for _, v := range splitValues(values) {
			if v != markBare && strings.Contains(v, text) {
				hosts = append(hosts, decodeValue(v))
			}
		}
	}
	slices.Sort(hosts)
	return slices.Compact(hosts), nil
}

// labelValues returns the sorted values of a label as they are stored.
func (s *Store) labelValues(ctx context.Context, since time.Time, label string, ms ...*labels.Matcher) ([]string, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.db == nil {
		return nil, ErrClosed
	}
	q, err := s.db.Querier(since.UnixMilli(), s.opts.Now().Add(maxFuture).UnixMilli())
	if err != nil {
		return nil, fmt.Errorf("list values of label %s: %w", label, err)
	}
	defer func() { _ = q.Close() }()
	values, _, err := q.LabelValues(ctx, label, nil, ms...)
	if err != nil {
		return nil, fmt.Errorf("list values of label %s: %w", label, err)
	}
	// The strings belong to the index until the querier is closed.
	out := make([]string, len(values))
	for i, v := range values {
		out[i] = strings.Clone(v)
	}
	slices.Sort(out)
	return out, nil
}

// Search returns the sorted names of metrics that contain text, in any case.
func (s *Store) Search(text string) []string {
	text = strings.ToLower(text)
	return s.catalog.list(func(n *name) bool { return strings.Contains(strings.ToLower(n.text), text) })
}

// Tags returns the canonical tags of all contexts of the metric that have data
// about or after since, hosts and devices among them.
func (s *Store) Tags(ctx context.Context, name string, since time.Time) (metric.Tags, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.db == nil {
		return nil, ErrClosed
	}
	q, err := s.db.Querier(since.UnixMilli(), s.opts.Now().Add(maxFuture).UnixMilli())
	if err != nil {
		return nil, fmt.Errorf("list tags of %s: %w", name, err)
	}
	defer func() { _ = q.Close() }()
	set := q.Select(ctx, false, nil, labels.MustNewMatcher(labels.MatchEqual, nameLabel, name))
	seen := make(map[string]bool)
	for set.Next() {
		for _, tag := range query.TagsOf(decodeLabels(set.At().Labels())) {
			seen[tag] = true
		}
		if limit := s.bounds.Load().MaxSelectSeries; len(seen) > limit {
			return nil, &LimitError{What: "tags", Limit: limit}
		}
	}
	if err := set.Err(); err != nil {
		return nil, fmt.Errorf("list tags of %s: %w", name, err)
	}
	tags := make([]string, 0, len(seen))
	for tag := range seen {
		tags = append(tags, tag)
	}
	slices.Sort(tags)
	return tags, nil
}

// Stats is a snapshot of the store for people.
type Stats struct {
	Series        uint64            `json:"series"`
	MetricNames   int               `json:"metric_names"`
	Accepted      uint64            `json:"points_accepted"`
	Refused       map[string]uint64 `json:"points_refused,omitempty"`
	RefusedSeries map[string]uint64 `json:"metrics_at_series_limit,omitempty"` // refused series by metric name
	RefusedTotal  map[string]uint64 `json:"metrics_at_total_limit,omitempty"`  // those that the limit of the whole store refused
	RefusedNames  map[string]uint64 `json:"metrics_at_name_limit,omitempty"`   // refused metric names
	WALBytes      int64             `json:"wal_bytes"`
	DiskBytes     int64             `json:"disk_bytes"`               // without snapshots
	SnapshotBytes int64             `json:"snapshot_bytes,omitempty"` // that snapshots hold alone
	FreeBytes     int64             `json:"disk_free_bytes"`
}

// Stats returns the current numbers. It walks the data directory.
func (s *Store) Stats() Stats {
	st := Stats{
		Series: s.liveSeries(), MetricNames: s.catalog.size(),
	}
	st.RefusedSeries, st.RefusedTotal, st.RefusedNames = s.limits.refusals()
	st.Accepted, st.Refused = s.Counts()
	logs := []string{filepath.Join(s.opts.Dir, "tsdb", "wal"), filepath.Join(s.opts.Dir, "tsdb", "wbl")}
	shared := make(map[uint64]bool) // inodes of files that may be in a snapshot, too
	// Files come and go while it walks: what is gone does not count.
	_ = filepath.WalkDir(s.opts.Dir, func(path string, d fs.DirEntry, err error) error {
		if d != nil && d.IsDir() && path == filepath.Join(s.opts.Dir, snapshotsDir) {
			return fs.SkipDir // largely links to what is counted
		}
		size, inode := fileSize(d, err)
		st.DiskBytes += size
		shared[inode] = true
		for _, dir := range logs {
			if strings.HasPrefix(path, dir) {
				st.WALBytes += size
			}
		}
		return nil
	})
	_ = filepath.WalkDir(filepath.Join(s.opts.Dir, snapshotsDir), func(_ string, d fs.DirEntry, err error) error {
		if size, inode := fileSize(d, err); !shared[inode] {
			st.SnapshotBytes += size
			shared[inode] = true // also where two snapshots have it
		}
		return nil
	})
	if free, err := freeBytes(s.opts.Dir); err == nil {
		st.FreeBytes = free
	}
	return st
}

// fileSize is the size of a walked file, and what all links to it have in common;
// 0 for one that is gone.
func fileSize(d fs.DirEntry, err error) (size int64, inode uint64) {
	if err != nil || d.IsDir() {
		return 0, 0
	}
	info, err := d.Info()
	if err != nil {
		return 0, 0
	}
	if sys, ok := info.Sys().(*syscall.Stat_t); ok {
		inode = sys.Ino
	}
	return info.Size(), inode
}

// Counts returns how many points were accepted since the store was opened, and
// how many were refused, by reason.
func (s *Store) Counts() (accepted uint64, refused map[string]uint64) {
	s.metrics.mu.Lock()
	defer s.metrics.mu.Unlock()
	return s.metrics.taken, maps.Clone(s.metrics.byReason)
}

func (s *Store) liveSeries() uint64 {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.db == nil {
		return 0
	}
	return s.db.Head().NumSeries()
}

// checkSpace notes whether the disk has room. A TSDB that runs into a full disk
// cannot compact, and may tear the end of its log: stopping before that costs
// nothing, as the senders keep what is refused.
func (s *Store) checkSpace() {
	if s.opts.MinFree < 0 {
		return
	}
	free, err := freeBytes(s.opts.Dir)
	if err != nil {
		s.log.Warn("cannot tell how much disk space is free", "dir", s.opts.Dir, "error", err)
		return
	}
	full := free < s.opts.MinFree
	if s.full.Swap(full) == full {
		return
	}
	if full {
		s.log.Error("disk is nearly full, new points are refused", "dir", s.opts.Dir, "free", free, "needed", s.opts.MinFree)
		return
	}
	s.log.Info("disk has room again, points are accepted", "dir", s.opts.Dir, "free", free)
}

func freeBytes(dir string) (int64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, fmt.Errorf("statfs %s: %w", dir, err)
	}
	return int64(st.Bavail) * st.Bsize, nil
}
