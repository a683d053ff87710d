package aggregate

import (
	"iter"
	"slices"
	"strings"

	"kelpie.dev/kelpie/metric"
)

// Stats describes an Aggregator's content.
type Stats struct {
	Contexts  int    // live contexts
	NotFinite uint64 // points not emitted because their value overflowed
}

// ContextStats describes one live context.
type ContextStats struct {
	Name    string      `json:"name"`
	Tags    metric.Tags `json:"tags"`
	Samples uint64      `json:"samples"` // since the context was made
}

// Total is the sum over several live contexts.
type Total struct {
	Contexts int    `json:"contexts"`
	Samples  uint64 `json:"samples"` // since each context was made
}

// Stats returns how much a holds.
func (a *Aggregator) Stats() Stats { return Stats{Contexts: len(a.contexts), NotFinite: a.notFinite} }

// Top returns the n live contexts with the most samples, most first. Those
// whose name starts with without, if that is not empty, are summed up instead.
func (a *Aggregator) Top(n int, without string) (_ []ContextStats, left Total) {
	var top []*Context
	for c := range a.live() {
		if without != "" && strings.HasPrefix(c.name, without) {
			left.Contexts++
			left.Samples += c.samples
			continue
		}
		if len(top) == n && c.samples <= top[n-1].samples {
			continue
		}
		i, _ := slices.BinarySearchFunc(top, c, func(have, c *Context) int {
			if have.samples >= c.samples {
				return -1
			}
			return 1
		})
		top = slices.Insert(top, i, c)
		top = top[:min(len(top), n)]
	}
	out := make([]ContextStats, len(top))
	for i, c := range top {
		out[i] = ContextStats{Name: c.name, Tags: c.tags, Samples: c.samples}
	}
	return out, left
}

// live iterates over the live contexts.
func (a *Aggregator) live() iter.Seq[*Context] {
	return func(yield func(*Context) bool) {
		for _, c := range a.slow.order {
			if !yield(c) {
				return
			}
		}
	}
}

// FastStats describes one wanted metric that there are contexts of.
type FastStats struct {
	Metric   string `json:"metric"`
	Contexts int    `json:"contexts"`
	Fast     int    `json:"fast"` // of them that leave every second
}

// FastTotal returns how many contexts leave every second, and how many more are
// wanted so and found no room.
func (a *Aggregator) FastTotal() (fast, left int) {
	for _, m := range a.fast.metrics {
		left += m.contexts - m.twins
	}
	return a.fast.twins, left
}

// Fast describes the metrics of SetFast that there are contexts of, by name.
func (a *Aggregator) Fast() []FastStats {
	var out []FastStats
	for _, m := range a.fast.metrics {
		for _, suffix := range m.suffixes {
			if m.contexts > 0 {
				out = append(out, FastStats{m.name + suffix, m.contexts, m.twins})
			}
		}
	}
	slices.SortFunc(out, func(x, y FastStats) int { return strings.Compare(x.Metric, y.Metric) })
	return out
}
