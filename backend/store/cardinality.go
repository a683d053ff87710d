package store

import (
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/chunks"
)

// What the TSDB passes back for a series beyond a limit.
var (
	errCardinality = errors.New("metric has too many series")
	errTotal       = errors.New("store has too many series")
)

// maxRefusedNames bounds how many metric names the status lists as refused.
const maxRefusedNames = 100

// cardinality counts the live series of every metric name as the TSDB creates
// and drops them, and refuses those beyond the limits. It is the TSDB's
// SeriesLifecycleCallback.
type cardinality struct {
	limit     int // of one metric name
	total     int // of all
	log       *slog.Logger
	now       func() time.Time
	enforcing atomic.Bool // off while the log is replayed: what was accepted stays

	mu      sync.Mutex // guards what follows
	live    map[string]int
	sum     int // of live
	refused map[string]*refusal

	saidTotal, saidNames time.Time // when the log had it last
}

type refusal struct {
	count  uint64
	logged time.Time
}

func newCardinality(limit, total int, log *slog.Logger, now func() time.Time) *cardinality {
	c := &cardinality{limit: limit, total: total, log: log, now: now}
	c.refused = make(map[string]*refusal)
	c.reset()
	return c
}

// reset forgets the live series, before a TSDB is opened.
func (c *cardinality) reset() {
	c.enforcing.Store(false)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.live, c.sum = make(map[string]int), 0
}

func (c *cardinality) enforce() { c.enforcing.Store(true) }

// PreCreation implements tsdb.SeriesLifecycleCallback.
func (c *cardinality) PreCreation(l labels.Labels) error {
	if !c.enforcing.Load() {
		return nil
	}
	name, need := l.Get(nameLabel), 1
	switch l.Get(partLabel) {
	case partBins:
		need = partsPerDistribution
	case partMin, partMax:
		return nil // there was room for them when the first part came
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.live[name]+need <= c.limit {
		return c.room(need)
	}
	r := c.refused[name]
	if r == nil {
		if len(c.refused) >= maxRefusedNames {
			return errCardinality
		}
		r = &refusal{}
		c.refused[name] = r
	}
	r.count++
	if c.due(&r.logged) {
		c.log.Error("metric has reached its series limit, new series are refused",
			"metric", name, "limit", c.limit, "refused", decodeLabels(l).Tags.String(), "host", l.Get(keyHost),
			"mend", "remove a tag with many values, or raise KELPIE_MAX_SERIES_PER_METRIC")
	}
	return errCardinality
}

// room returns errTotal when there may not be n further series. The caller holds mu.
func (c *cardinality) room(n int) error {
	if c.sum+n <= c.total {
		return nil
	}
	if c.due(&c.saidTotal) {
		c.log.Error("the store has reached its series limit, new series of all metrics are refused",
			"limit", c.total, "mend", "remove a tag with many values, or raise KELPIE_MAX_SERIES and the memory limit with it")
	}
	return errTotal
}

// full reports whether there may be no further series.
func (c *cardinality) full() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.room(1) != nil
}

// refuseName notes that a metric name is one too many.
func (c *cardinality) refuseName(name string, limit int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.due(&c.saidNames) {
		c.log.Error("the store has reached its limit of metric names, new metrics are refused",
			"limit", limit, "refused", name, "mend", "find what builds metric names from values, or raise KELPIE_MAX_METRIC_NAMES")
	}
}

// due reports whether a message of which *last is the newest may be logged
// again, and notes that it is. The caller holds mu.
func (c *cardinality) due(last *time.Time) bool {
	now := c.now()
	if now.Sub(*last) < time.Minute {
		return false
	}
	*last = now
	return true
}

// PostCreation implements tsdb.SeriesLifecycleCallback.
func (c *cardinality) PostCreation(l labels.Labels) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.live[l.Get(nameLabel)]++
	c.sum++
}

// PostDeletion implements tsdb.SeriesLifecycleCallback.
func (c *cardinality) PostDeletion(gone map[chunks.HeadSeriesRef]labels.Labels) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, l := range gone {
		name := l.Get(nameLabel)
		c.sum--
		if c.live[name]--; c.live[name] <= 0 {
			delete(c.live, name)
		}
	}
}

// refusals returns how many creations were refused, by metric name.
func (c *cardinality) refusals() map[string]uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := make(map[string]uint64, len(c.refused))
	for name, r := range c.refused {
		out[name] = r.count
	}
	return out
}
