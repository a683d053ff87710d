package store

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"kelpie.dev/kelpie/metric"
	"kelpie.dev/kelpie/query"
)

// HostTags returns the hosts, in lower case, that have data about or after since,
// and the tags that all contexts of a host bear: those that its agent puts on
// everything it sends.
func (s *Store) HostTags(ctx context.Context, since time.Time) (map[string]metric.Tags, error) {
	hosts := make(map[string]metric.Tags)
	to := s.opts.Now().Add(maxFuture).Unix()
	err := s.survey(ctx, query.Selector{Scope: query.All{}}, since.Unix(), to, func(l labels.Labels) bool {
		if l.Get(keyHost) == "" {
			return true
		}
		m := decodeLabels(l)
		for _, host := range query.TagsOf(m).Values(keyHost) {
			common, seen := hosts[host]
			if !seen {
				hosts[host] = slices.Clone(m.Tags)
				continue
			}
			if len(common) > 0 {
				hosts[host] = slices.DeleteFunc(common, func(tag string) bool {
					_, borne := slices.BinarySearch(m.Tags, tag)
					return !borne
				})
			}
		}
		return true
	})
	return hosts, err
}

// upToDate is how recent a host's point must be for LastReported to look no further.
const upToDate = time.Minute

// LastReported returns the Unix time of the newest point of the host since then,
// or 0: exact for a host that was silent for a minute, else within that minute.
func (s *Store) LastReported(ctx context.Context, host string, since time.Time) (int64, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.db == nil {
		return 0, ErrClosed
	}
	ms, err := s.bears(nil, keyHost, []string{host})
	if err != nil {
		return 0, err
	}
	now := s.opts.Now()
	q, err := s.db.Querier(since.UnixMilli(), now.Add(maxFuture).UnixMilli())
	if err != nil {
		return 0, fmt.Errorf("read points of host %s: %w", host, err)
	}
	defer func() { _ = q.Close() }()
	newest := int64(0)
	var it chunkenc.Iterator
	set := q.Select(ctx, false, nil, ms...)
	for set.Next() && newest < now.Add(-upToDate).UnixMilli() {
		it = set.At().Iterator(it)
		// What is not newer than what is known need not be decoded.
		for kind := it.Seek(newest + 1); kind != chunkenc.ValNone; kind = it.Next() {
			newest = max(newest, it.AtT())
		}
		if err := it.Err(); err != nil {
			return 0, fmt.Errorf("read points of host %s: %w", host, err)
		}
	}
	if err := set.Err(); err != nil {
		return 0, fmt.Errorf("read points of host %s: %w", host, err)
	}
	return newest / 1000, nil
}
