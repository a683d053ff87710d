package aggregate

import (
	"cmp"
	"slices"
)

// originState is what one origin holds of the aggregator. Samples whose origin
// is not known share one; within is that, of a sender that can be told apart.
type originState struct {
	name     string
	within   *originState
	contexts int
	bytes    int
}

// origin returns the account of s.
func (a *Aggregator) origin(s *Sample) *originState {
	if s.Origin != "" || len(s.Sender) == 0 {
		return a.account(s.Origin, nil)
	}
	if o, ok := a.origins[string(s.Sender)]; ok {
		return o
	}
	return a.account(string(s.Sender), a.account("", nil))
}

func (a *Aggregator) account(name string, within *originState) *originState {
	o, ok := a.origins[name]
	if !ok {
		o = &originState{name: name, within: within}
		a.origins[name] = o
	}
	return o
}

// admits reports whether o may make one more context of size bytes. An origin
// may hold as much as is still free: one that makes contexts without end stops
// at half of the limit, a second one at a third, and whoever holds little is
// always let in. (Choudhury and Hahne, "Dynamic queue length thresholds for
// shared-memory packet switches", 1998, with alpha 1.) Senders within another
// account share in the same way what is free for that.
func (a *Aggregator) admits(o *originState, size int) bool {
	contexts, bytes := a.o.MaxContexts-len(a.contexts), a.o.MaxContextBytes-a.bytes
	if g := o.within; g != nil {
		contexts, bytes = contexts-g.contexts, bytes-g.bytes
	}
	return o.contexts < contexts && o.bytes+size <= bytes
}

// hold notes that c, which is new, is o's.
func (a *Aggregator) hold(c *Context, o *originState) {
	c.origin = o
	a.contexts[c.key] = c
	a.bytes += c.size
	for ; o != nil; o = o.within {
		o.contexts++
		o.bytes += c.size
	}
}

// release takes a context that is forgotten off its origin's account.
func (a *Aggregator) release(c *Context) {
	c.dead = true
	a.leaveFast(c)
	delete(a.contexts, c.key)
	a.bytes -= c.size
	for o := c.origin; o != nil; o = o.within {
		o.contexts--
		o.bytes -= c.size
		a.forget(o)
	}
}

// forget drops accounts that hold nothing.
func (a *Aggregator) forget(o *originState) {
	for ; o != nil && o.contexts == 0; o = o.within {
		delete(a.origins, o.name)
	}
}

// A Refusal is how many samples of a metric and an origin found no room for a
// context.
type Refusal struct {
	Metric  string `json:"metric"` // "" for all that came after MaxRefusals different ones
	Origin  string `json:"origin"` // namespace/pod, else the sender, or "" when that is not known
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
	Origin   string `json:"origin"` // namespace/pod, else the sender, or "" for all that is not known
	Contexts int    `json:"contexts"`
	Bytes    int    `json:"bytes"` // of names and tags
}

// Origins returns the n origins that hold most contexts, most first.
func (a *Aggregator) Origins(n int) []OriginStats {
	out := make([]OriginStats, 0, len(a.origins))
	unknown := OriginStats{}
	for _, o := range a.origins {
		switch {
		case o.name == "": // less what is told by sender
			unknown.Contexts += o.contexts
			unknown.Bytes += o.bytes
			continue
		case o.within != nil:
			unknown.Contexts -= o.contexts
			unknown.Bytes -= o.bytes
		}
		out = append(out, OriginStats{o.name, o.contexts, o.bytes})
	}
	if unknown.Contexts > 0 {
		out = append(out, unknown)
	}
	slices.SortFunc(out, func(x, y OriginStats) int {
		return cmp.Or(cmp.Compare(y.Contexts, x.Contexts), cmp.Compare(x.Origin, y.Origin))
	})
	return out[:min(n, len(out))]
}
