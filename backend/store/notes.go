package store

import (
	"encoding/json"
	"fmt"
	"maps"
	"sync"

	bolt "go.etcd.io/bbolt"

	"kelpie.dev/kelpie/metric"
	"kelpie.dev/kelpie/metric/payload"
)

var (
	bucketMetadata = []byte("metadata")
	bucketTags     = []byte("tag_configurations")
)

// notes is what people say of metrics, by name: a map in memory and its copy in
// the catalog's file, written before a change counts. It outlives submissions,
// and also the time in which the metric is idle.
type notes[T any] struct {
	db     *bolt.DB
	bucket []byte
	limit  int

	mu sync.RWMutex // guards m
	m  map[string]T
}

func openNotes[T any](db *bolt.DB, bucket []byte, limit int) (*notes[T], error) {
	n := &notes[T]{db: db, bucket: bucket, limit: limit, m: make(map[string]T)}
	err := db.Update(func(tx *bolt.Tx) error {
		b, err := tx.CreateBucketIfNotExists(bucket)
		if err != nil {
			return err
		}
		return b.ForEach(func(k, v []byte) error {
			var note T
			if err := json.Unmarshal(v, &note); err != nil {
				return fmt.Errorf("record of %q: %w", k, err)
			}
			n.m[string(k)] = note
			return nil
		})
	})
	if err != nil {
		return nil, fmt.Errorf("read %s of the metric catalog: %w", bucket, err)
	}
	return n, nil
}

func (n *notes[T]) get(name string) (T, bool) {
	n.mu.RLock()
	defer n.mu.RUnlock()
	note, ok := n.m[name]
	return note, ok
}

func (n *notes[T]) all() map[string]T {
	n.mu.RLock()
	defer n.mu.RUnlock()
	return maps.Clone(n.m)
}

// change makes durable what edit returns for the note of name, which ok says is
// there; keep false removes it. An error of edit changes nothing.
func (n *notes[T]) change(name string, edit func(note T, ok bool) (changed T, keep bool, err error)) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	old, ok := n.m[name]
	note, keep, err := edit(old, ok)
	if err != nil {
		return err
	}
	if keep && !ok && len(n.m) >= n.limit {
		return &LimitError{What: "described metrics", Limit: n.limit}
	}
	err = n.db.Update(func(tx *bolt.Tx) error {
		if !keep {
			return tx.Bucket(n.bucket).Delete([]byte(name))
		}
		v, err := json.Marshal(note)
		if err != nil {
			return err
		}
		return tx.Bucket(n.bucket).Put([]byte(name), v)
	})
	switch {
	case err != nil:
		return fmt.Errorf("write %s of %s: %w", n.bucket, name, err)
	case keep:
		n.m[name] = note
	default:
		delete(n.m, name)
	}
	return nil
}

func (s *Store) openNotes() (err error) {
	if s.metadata, err = openNotes[payload.MetricMetadata](s.catalog.db, bucketMetadata, s.bounds.Load().MaxMetricNames); err != nil {
		return err
	}
	s.tagConfigs, err = openNotes[payload.TagConfiguration](s.catalog.db, bucketTags, s.bounds.Load().MaxMetricNames)
	return err
}

// Metadata returns what people set of the metric; all else is nil.
func (s *Store) Metadata(name string) payload.MetricMetadata {
	m, _ := s.metadata.get(name)
	return m
}

// EditMetadata replaces what people set of the metric by what edit makes of it.
// It is durable when EditMetadata returns. It counts more than what is submitted:
// for Describe, and for the type, interval and unit that queries go by.
func (s *Store) EditMetadata(name string, edit func(payload.MetricMetadata) (payload.MetricMetadata, error)) error {
	return s.metadata.change(name, func(m payload.MetricMetadata, _ bool) (payload.MetricMetadata, bool, error) {
		m, err := edit(m)
		return m, m != payload.MetricMetadata{}, err
	})
}

// TagConfigurations returns the tag configurations by metric name.
func (s *Store) TagConfigurations() map[string]payload.TagConfiguration { return s.tagConfigs.all() }

// EditTagConfiguration replaces the metric's tag configuration, which is nil when
// there is none, by what edit returns; nil removes it. It is durable when
// EditTagConfiguration returns, and changes nothing of what queries see.
func (s *Store) EditTagConfiguration(name string, edit func(*payload.TagConfiguration) (*payload.TagConfiguration, error)) error {
	return s.tagConfigs.change(name, func(c payload.TagConfiguration, ok bool) (payload.TagConfiguration, bool, error) {
		var old *payload.TagConfiguration
		if ok {
			old = &c
		}
		changed, err := edit(old)
		if err != nil || changed == nil {
			return payload.TagConfiguration{}, false, err
		}
		return *changed, true, nil
	})
}

// record is n as it was submitted, under what people set.
func (s *Store) record(n *name) nameRecord {
	r := n.record()
	m, ok := s.metadata.get(n.text)
	if !ok {
		return r
	}
	if m.Type != nil && !r.Distribution {
		if t, err := metric.ParseType(*m.Type); err == nil {
			r.Type = t
		}
	}
	if m.StatsdInterval != nil {
		r.Interval = *m.StatsdInterval
	}
	if m.Unit != nil {
		r.Unit = *m.Unit
	}
	return r
}

// rated is record for queries, which give a unit per something as "byte/second".
func (s *Store) rated(n *name) nameRecord {
	r := s.record(n)
	if m, ok := s.metadata.get(n.text); ok && m.PerUnit != nil && r.Unit != "" {
		r.Unit += "/" + *m.PerUnit
	}
	return r
}
