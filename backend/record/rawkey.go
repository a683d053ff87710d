package record

import (
	"context"
	"fmt"
	"strings"
	"sync"

	bolt "go.etcd.io/bbolt"

	"kelpie.dev/kelpie/metric"
)

// maxRawKeys bounds the tag keys that may bear values as they were sent.
const maxRawKeys = 10_000

// rawKeys are the tag keys with values that are not as Datadog normalizes them,
// such as Prometheus' labels. A scope names the normalized value, which the
// store's index does not know.
type rawKeys struct {
	mu  sync.RWMutex    // guards what follows
	all map[string]bool // as they are stored
	// as holds them as a scope names them, and whether all are stored so.
	as map[string]bool
}

func (r *rawKeys) load(tx *bolt.Tx) error {
	r.all, r.as = make(map[string]bool), make(map[string]bool)
	return tx.Bucket(bucketRaw).ForEach(func(k, _ []byte) error {
		r.add(string(k))
		return nil
	})
}

func (r *rawKeys) add(key string) {
	r.all[key] = true
	as, _, _ := strings.Cut(metric.NormalizeTag(key+":x"), ":")
	same, known := r.as[as]
	r.as[as] = as == key && (same || !known)
}

func (r *rawKeys) has(key string) bool {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.all[key]
}

// named reports whether a scope that names key may mean a raw one, and whether
// it is stored by that very name.
func (r *rawKeys) named(key string) (raw, same bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	same, raw = r.as[key]
	return raw, same
}

func (r *rawKeys) any() bool {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return len(r.all) > 0
}

// AddRawKeys notes keys of tags that are about to be stored as they were sent,
// not normalized. It returns a *LimitError where there are too many.
func (b *Book) AddRawKeys(ctx context.Context, keys map[string]bool) error {
	fresh := make(map[string]bool)
	for key := range keys {
		if !b.raw.has(key) {
			fresh[key] = true
		}
	}
	if len(fresh) == 0 {
		return nil
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := b.writable(); err != nil {
		return err
	}
	b.raw.mu.RLock()
	known := len(b.raw.all)
	b.raw.mu.RUnlock()
	if known+len(fresh) > maxRawKeys {
		return &LimitError{What: "label names with values that are not tags", Limit: maxRawKeys, Setting: "fixed"}
	}
	err := b.db.Update(func(tx *bolt.Tx) error {
		for key := range fresh {
			if err := tx.Bucket(bucketRaw).Put([]byte(key), nil); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("note tag keys: %w", err)
	}
	b.raw.mu.Lock()
	defer b.raw.mu.Unlock()
	for key := range fresh {
		b.raw.add(key)
	}
	return nil
}
