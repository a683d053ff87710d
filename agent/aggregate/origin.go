package aggregate

import (
	"cmp"
	"slices"
)

// originState is what one origin holds of the aggregator. Samples whose origin
// is not known share one.
type originState struct {
	name     string
	contexts int
	bytes    int
}

func (a *Aggregator) origin(name string) *originState {
	o, ok := a.origins[name]
	if !ok {
		o = &originState{name: name}
		a.origins[name] = o
	}
	return o
}

// admits reports whether o may make one more context of size bytes. An origin
// may hold as much as is still free: one that makes contexts without end stops
// at half of the limit, a second one at a third, and whoever holds little is
// always let in. (Choudhury and Hahne, "Dynamic queue length thresholds for
// shared-memory packet switches", 1998, with alpha 1.)
func (a *Aggregator) admits(o *originState, size int) bool {
	return o.contexts < a.o.MaxContexts-len(a.contexts) && o.bytes+size <= a.o.MaxContextBytes-a.bytes
}

// release takes a context that is forgotten off its origin's account.
func (a *Aggregator) release(c *Context) {
	c.dead = true
	delete(a.contexts, c.key)
	a.bytes -= c.size
	c.origin.bytes -= c.size
	if c.origin.contexts--; c.origin.contexts == 0 {
		delete(a.origins, c.origin.name)
	}
}

// A Refusal is how many samples of a metric and an origin found no room for a
// context.
type Refusal struct {
	Metric  string `json:"metric"` // "" for all that came after MaxRefusals different ones
	Origin  string `json:"origin"` // namespace/pod, or "" when it is not known
	Samples uint64 `json:"samples"`
}

// MaxRefusals bounds the different metrics and origins that are told apart.
const MaxRefusals = 100

type refusalKey struct{ origin, metric string }

// refusals counts by metric and origin.
type refusals map[refusalKey]uint64

func (r refusals) count(origin string, metric []byte) {
	key := refusalKey{origin, string(metric[:min(len(metric), 200)])}
	if _, ok := r[key]; !ok && len(r) >= MaxRefusals {
		key = refusalKey{}
	}
	r[key]++
}

// Refused returns what the limit on contexts has refused, most first.
func (a *Aggregator) Refused() []Refusal {
	out := make([]Refusal, 0, len(a.refused))
	for k, n := range a.refused {
		out = append(out, Refusal{Metric: k.metric, Origin: k.origin, Samples: n})
	}
	slices.SortFunc(out, func(x, y Refusal) int {
		return cmp.Or(cmp.Compare(y.Samples, x.Samples), cmp.Compare(x.Origin, y.Origin), cmp.Compare(x.Metric, y.Metric))
	})
	return out
}

// OriginStats is what one origin holds.
type OriginStats struct {
	Origin   string `json:"origin"` // namespace/pod, or "" for all that is not known
	Contexts int    `json:"contexts"`
	Bytes    int    `json:"bytes"` // of names and tags
}

// Origins returns the n origins that hold most contexts, most first.
func (a *Aggregator) Origins(n int) []OriginStats {
	out := make([]OriginStats, 0, len(a.origins))
	for _, o := range a.origins {
		out = append(out, OriginStats{o.name, o.contexts, o.bytes})
	}
	slices.SortFunc(out, func(x, y OriginStats) int {
		return cmp.Or(cmp.Compare(y.Contexts, x.Contexts), cmp.Compare(x.Origin, y.Origin))
	})
	return out[:min(n, len(out))]
}
