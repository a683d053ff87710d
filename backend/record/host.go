package record

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	bolt "go.etcd.io/bbolt"

	"kelpie.dev/kelpie/metric"
)

// A Host is what is known of a machine.
type Host struct {
	Name  string // as its agent writes it
	Agent string // version of its agent; may be empty
	OS    string // may be empty
	Tags  metric.Tags
	Seen  int64 // Unix seconds; its agent tells of it every half hour
}

// maxHostTags bounds the tags of one host.
const maxHostTags = 500

// SetHost keeps what is told of a host, its tags in place of those it had. Tags
// must be normalized. It returns a *LimitError for a host beyond the limit, and
// any other error where nothing could be kept.
func (b *Book) SetHost(ctx context.Context, h Host) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := b.writable(); err != nil {
		return err
	}
	h.Agent, h.OS = cut(h.Agent, maxShort), cut(h.OS, maxShort)
	if len(h.Tags) > maxHostTags {
		h.Tags = h.Tags[:maxHostTags]
		b.metrics.cut.WithLabelValues(kindHost).Inc()
	}
	h.Seen = b.opts.Now().Unix()
	key := strings.ToLower(h.Name)
	if !b.hosts.room(key, b.opts.MaxHosts) {
		b.metrics.refused.WithLabelValues(kindHost, reasonLimit).Inc()
		return &LimitError{What: "hosts", Limit: b.opts.MaxHosts, Setting: "KELPIE_MAX_HOSTS"}
	}
	v, err := json.Marshal(h)
	if err != nil {
		return fmt.Errorf("keep host %.60q: %w", h.Name, err)
	}
	err = b.db.Batch(func(tx *bolt.Tx) error {
		// Memory follows the file also where two tell of one host at a time.
		tx.OnCommit(func() { b.hosts.set(key, h) })
		return tx.Bucket(bucketHosts).Put([]byte(key), v)
	})
	if err != nil {
		return fmt.Errorf("keep host %.60q: %w", h.Name, err)
	}
	b.metrics.kept.WithLabelValues(kindHost).Inc()
	return nil
}

// A LimitError reports something that is one too many.
type LimitError struct {
	What    string
	Limit   int
	Setting string // the variable that raises the limit
}

func (e *LimitError) Error() string {
	return fmt.Sprintf("there are %d %s, which is the limit (%s)", e.Limit, e.What, e.Setting)
}

// Hosts returns all hosts, sorted by name.
func (b *Book) Hosts() []Host { return b.hosts.list() }

// HostTags returns the canonical tags of a host, by its name in any case. The
// caller must not change them.
func (b *Book) HostTags(host string) metric.Tags { return b.hosts.view().of(host) }

func (b *Book) forgetHosts(tx *bolt.Tx, before int64) (more bool, err error) {
	old := b.hosts.unseen(before)
	for _, key := range old {
		if err := tx.Bucket(bucketHosts).Delete([]byte(key)); err != nil {
			return false, err
		}
	}
	tx.OnCommit(func() { b.hosts.drop(old) })
	return false, nil
}

// hosts are the hosts in memory; the file is their copy.
type hosts struct {
	mu   sync.RWMutex // guards what follows
	all  map[string]Host
	seen *tagged // nil after a change of tags
}

// tagged is an unchanging view of hosts' tags. Nil stands for no host with tags.
type tagged struct {
	tags  map[string]metric.Tags // by host in lower case; only hosts with tags
	hosts map[string][]string    // by tag, sorted
}

func (h *hosts) load(tx *bolt.Tx) error {
	h.all = make(map[string]Host)
	return tx.Bucket(bucketHosts).ForEach(func(k, v []byte) error {
		var one Host
		if err := json.Unmarshal(v, &one); err != nil {
			return fmt.Errorf("host %q: %w", k, err)
		}
		h.all[string(k)] = one
		return nil
	})
}

func (h *hosts) count() int {
	h.mu.RLock()
	defer h.mu.RUnlock()
	return len(h.all)
}

func (h *hosts) room(key string, limit int) bool {
	h.mu.RLock()
	defer h.mu.RUnlock()
	_, known := h.all[key]
	return known || len(h.all) < limit
}

func (h *hosts) set(key string, one Host) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !slices.Equal(h.all[key].Tags, one.Tags) {
		h.seen = nil
	}
	h.all[key] = one
}

func (h *hosts) drop(keys []string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, key := range keys {
		delete(h.all, key)
		h.seen = nil
	}
}

func (h *hosts) unseen(before int64) []string {
	h.mu.RLock()
	defer h.mu.RUnlock()
	var out []string
	for key, one := range h.all {
		if one.Seen < before {
			out = append(out, key)
		}
	}
	return out
}

func (h *hosts) list() []Host {
	h.mu.RLock()
	defer h.mu.RUnlock()
	return slices.SortedFunc(maps.Values(h.all), func(a, b Host) int { return strings.Compare(a.Name, b.Name) })
}

// view returns the current tags. It is made anew after a change, which is rare:
// agents mostly tell what is known.
func (h *hosts) view() *tagged {
	h.mu.RLock()
	v := h.seen
	h.mu.RUnlock()
	if v != nil {
		return v
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.seen != nil {
		return h.seen
	}
	v = &tagged{tags: make(map[string]metric.Tags), hosts: make(map[string][]string)}
	for key, one := range h.all {
		if len(one.Tags) == 0 {
			continue
		}
		v.tags[key] = one.Tags
		for _, tag := range one.Tags {
			v.hosts[tag] = append(v.hosts[tag], key)
		}
	}
	for _, list := range v.hosts {
		slices.Sort(list)
	}
	h.seen = v
	return v
}

// of returns the tags of a host.
func (v *tagged) of(host string) metric.Tags {
	if host == "" || len(v.tags) == 0 {
		return nil
	}
	return v.tags[strings.ToLower(host)]
}
