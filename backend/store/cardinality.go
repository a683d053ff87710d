package store

import (
	"errors"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/chunks"

	"kelpie.dev/kelpie/metric"
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
	bounds    *atomic.Pointer[Limits]
	log       *slog.Logger
	now       func() time.Time
	enforcing atomic.Bool // off while the log is replayed: what was accepted stays

	mu      sync.Mutex // guards what follows
	live    map[string]int
	sum     int                                                // of live
	refused struct{ series, total, names map[string]*refusal } // by metric name and the limit

	saidTotal, saidNames time.Time // when the log had it last
}

type refusal struct {
	count  uint64
	logged time.Time
}

func newCardinality(bounds *atomic.Pointer[Limits], log *slog.Logger, now func() time.Time) *cardinality {
	c := &cardinality{bounds: bounds, log: log, now: now}
	c.refused.series, c.refused.total, c.refused.names = make(map[string]*refusal), make(map[string]*refusal), make(map[string]*refusal)
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
	limits := c.bounds.Load()
	if c.live[name]+need <= limits.MaxMetricSeries {
		if c.sum+need <= limits.MaxSeries {
			return nil
		}
		m := decodeLabels(l)
		c.refuseAny(name, m.Tags, m.Host, limits.MaxSeries)
		return errTotal
	}
	if r := refusalOf(c.refused.series, name); r != nil && c.due(&r.logged) {
		c.log.Error("metric has reached its series limit, new series are refused",
			"metric", name, "limit", limits.MaxMetricSeries, "refused", decodeLabels(l).Tags.String(), "host", l.Get(keyHost),
			"mend", "remove a tag with many values, or raise KELPIE_MAX_SERIES_PER_METRIC")
	}
	return errCardinality
}

// refusalOf counts a refusal of name in list. It returns nil when the list is full.
func refusalOf(list map[string]*refusal, name string) *refusal {
	r := list[name]
	if r == nil {
		if len(list) >= maxRefusedNames {
			return nil
		}
		r = &refusal{}
		list[strings.Clone(name)] = r // not a part of a whole payload
	}
	r.count++
	return r
}

// refuseAny notes that a series is one too many for the store. The caller holds mu.
func (c *cardinality) refuseAny(name string, tags metric.Tags, host string, limit int) {
	refusalOf(c.refused.total, name)
	if c.due(&c.saidTotal) {
		c.log.Error("the store has reached its series limit, new series of all metrics are refused",
			"limit", limit, "metric", name, "refused", tags.String(), "host", host,
			"mend", "remove a tag with many values, or raise KELPIE_MAX_SERIES and the memory limit with it")
	}
}

// full reports whether there may be no further series, it's to begin with.
func (c *cardinality) full(it *item) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	limit := c.bounds.Load().MaxSeries
	if c.sum < limit {
		return false
	}
	c.refuseAny(it.Name, it.Tags, it.Host, limit)
	return true
}

// refuseName notes that a metric name is one too many.
func (c *cardinality) refuseName(name string, limit int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	refusalOf(c.refused.names, name)
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

// refusals returns how often which metric names were refused: at the limit of
// their series, at that of all series, and at that of names.
func (c *cardinality) refusals() (series, total, names map[string]uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	counts := func(list map[string]*refusal) map[string]uint64 {
		out := make(map[string]uint64, len(list))
		for name, r := range list {
			out[name] = r.count
		}
		return out
	}
	return counts(c.refused.series), counts(c.refused.total), counts(c.refused.names)
}
