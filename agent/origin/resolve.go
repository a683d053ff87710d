// Package origin finds out which pod and container a sample comes from, and
// which tags these have.
//
// It owns the kubelet's list of pods, the rules that make tags of it, and the
// order in which a sender's claims and the kernel's credentials count. It does
// not know what a sample measures.
package origin

import (
	"net/netip"
	"time"

	"kelpie.dev/kelpie/agent/aggregate"
	"kelpie.dev/kelpie/metric"
)

// ResolverOptions configures a Resolver.
type ResolverOptions struct {
	Tagger *Tagger     // nil: no origin is ever found
	Base   metric.Tags // on every sample, whatever its origin
	Global metric.Tags // on every sample but those that opt out by card:none
	// Cardinality is for samples that do not ask for one; None means none.
	Cardinality Cardinality
	// GaugeCardinality is for gauges that do not ask for one, where it is more
	// than Cardinality: gauges of several pods with equal tags would overwrite
	// each other.
	GaugeCardinality Cardinality
	Unified          bool   // first hit only, instead of the older additive order
	NoOptOut         bool   // in the older order, ignore a sample's wish for cardinality none
	EntityIDFirst    bool   // in the older order, dd.internal.entity_id replaces the socket's container
	Addresses        bool   // a UDP sender that says nothing of itself is known by its pod's IP
	ProcRoot         string // where the senders' processes are; "" means /proc
}

// A Claim is what is known about a sample's sender. The byte slices are views.
type Claim struct {
	PID         int32      // from the socket's credentials; 0 means unknown
	Addr        netip.Addr // of a UDP sender
	PodUID      []byte     // dd.internal.entity_id
	ContainerID []byte     // c:
	External    []byte     // e:
	Cardinality []byte     // card:
	Gauge       bool       // the sample is a gauge
}

// A Resolution is what a claim comes to.
type Resolution struct {
	Set    *aggregate.TagSet // what the agent adds to the sample
	Origin string            // namespace/pod of the most exact origin that is known, or ""
	// Until is how long it may be remembered, unless the generation changes
	// before: process ids are used again. Zero means not at all.
	Until time.Time
}

// Resolver turns claims into tag sets. It has one owner at a time.
type Resolver struct {
	o          ResolverOptions
	base       *aggregate.TagSet // of samples that opt out
	all        *aggregate.TagSet // of other samples without an origin
	allTags    metric.Tags
	cache      map[claimKey]resolved
	processes  map[int32]process
	generation uint64
}

type claimKey struct {
	pid                         int32
	gauge                       bool
	addr                        netip.Addr
	pod, container, ext, levels string
}

type resolved struct {
	Resolution
	outcome Outcome
}

type process struct {
	entity  Entity
	expires time.Time
}

// Bounds of what a Resolver remembers. PIDs are reused, hence the minute.
const (
	rememberProcess = time.Minute
	rememberUnknown = 5 * time.Second
	maxRemembered   = 20_000
	maxHint         = 512 // bytes of one field of a claim; longer ones name nothing
)

// NewResolver returns a Resolver.
func NewResolver(o ResolverOptions) *Resolver {
	if o.ProcRoot == "" {
		o.ProcRoot = "/proc"
	}
	o.GaugeCardinality = max(o.GaugeCardinality, o.Cardinality)
	r := &Resolver{
		o: o, base: aggregate.NewTagSet(o.Base), allTags: o.Base.Union(o.Global...),
		cache: map[claimKey]resolved{}, processes: map[int32]process{},
	}
	r.all = aggregate.NewTagSet(r.allTags)
	return r
}

// Updated signals that a pending claim may now be resolved; nil never does.
func (r *Resolver) Updated() <-chan struct{} {
	if r.o.Tagger == nil {
		return nil
	}
	return r.o.Tagger.Updated()
}

// Generation changes when a claim may be resolved differently than before.
// Asking for it keeps the tags fresh.
func (r *Resolver) Generation() uint64 {
	if r.o.Tagger == nil {
		return 0
	}
	return r.o.Tagger.Generation()
}

// An Outcome says how a claim was resolved.
type Outcome uint8

// The outcomes.
const (
	NoOrigin   Outcome = iota // the sample claims none, or wants no tags of it
	Resolved                  // tagged
	Unresolved                // it has an origin that nobody knows
	// Waiting says to ask again after Updated: the origin may be very new. The
	// Resolution is what is known by now, for who cannot wait.
	Waiting
)

// Resolve returns the tags that the agent adds to a sample with claim c, and
// where it came from.
func (r *Resolver) Resolve(c *Claim, now time.Time) (Resolution, Outcome) {
	if max(len(c.PodUID), len(c.ContainerID), len(c.External), len(c.Cardinality)) > maxHint {
		return Resolution{Set: r.all}, Unresolved // not remembered: memory is bounded, too
	}
	gauge, addr := c.Gauge && r.o.GaugeCardinality > r.o.Cardinality, netip.Addr{}
	if r.o.Addresses && c.Addr.IsValid() {
		addr = senderAddr(c.Addr)
	}
	if r.o.Tagger != nil {
		if g := r.o.Tagger.Generation(); g != r.generation {
			clear(r.cache)
			r.generation = g
		}
	}
	if hit, ok := r.cache[claimKey{c.PID, gauge, addr, string(c.PodUID), string(c.ContainerID), string(c.External), string(c.Cardinality)}]; ok && now.Before(hit.Until) {
		return hit.Resolution, hit.outcome
	}
	entry := r.resolve(c, addr, now)
	if entry.outcome != Waiting {
		if len(r.cache) > maxRemembered {
			clear(r.cache)
		}
		r.cache[claimKey{c.PID, gauge, addr, string(c.PodUID), string(c.ContainerID), string(c.External), string(c.Cardinality)}] = entry
	}
	return entry.Resolution, entry.outcome
}

// senderAddr returns addr as pods' addresses are known, or the zero Addr for
// one that is no pod's: this node's own.
func senderAddr(addr netip.Addr) netip.Addr {
	addr = addr.Unmap().WithZone("")
	if addr.IsLoopback() || addr.IsUnspecified() {
		return netip.Addr{}
	}
	return addr
}

func (r *Resolver) resolve(c *Claim, addr netip.Addr, now time.Time) resolved {
	level, optOut := r.level(c)
	entry := resolved{Resolution: Resolution{Set: r.all, Until: now.Add(rememberUnknown)}}
	if optOut {
		entry.Set = r.base
	}
	if r.o.Tagger == nil {
		return entry
	}
	tags, waiting := r.allTags, false
	for _, e := range r.entities(c, addr, now) {
		if e.Addr.IsValid() && entry.Origin != "" {
			break // an address speaks only for who is not known otherwise
		}
		// All are asked for at once, so that none is waited for after another.
		levels, result := r.o.Tagger.Lookup(e, now)
		waiting = waiting || result == Pending && level != None
		if levels == nil || e.ContainerName != "" && result != Found {
			if entry.outcome == NoOrigin && !e.Addr.IsValid() {
				entry.outcome = Unresolved
			}
			continue // its pod comes later in the order
		}
		if entry.Origin == "" {
			entry.Origin = levels.Origin()
		}
		tags, entry.outcome = tags.Union(levels.At(level)...), Resolved
		if r.o.Unified {
			break
		}
	}
	switch {
	case level == None:
		entry.outcome = NoOrigin
	case entry.outcome == Resolved:
		entry.Set, entry.Until = aggregate.NewTagSet(tags), now.Add(rememberProcess)
	}
	if waiting {
		entry.Until, entry.outcome = time.Time{}, Waiting
	}
	return entry
}

// level returns the cardinality for c: its own wish, else the default. optOut
// reports that the sample wants neither the tags of its origin nor global ones.
func (r *Resolver) level(c *Claim) (level Cardinality, optOut bool) {
	level, ok := ParseCardinality(string(c.Cardinality))
	switch {
	case ok && level == None && (r.o.Unified || !r.o.NoOptOut):
		return None, true
	case ok && level != None:
		return level, false
	case c.Gauge:
		return r.o.GaugeCardinality, false
	default:
		return r.o.Cardinality, false
	}
}

// noEntity is what a sender writes for its pod to be left alone.
const noEntity = "none"

// entities returns what c names, in the order in which it counts. The older
// order adds the tags of the socket's container to those of one claim; the
// unified one takes the first that is known. Rules: reference metrics-pipeline
// A1b. The address comes last, which is Kelpie's own.
func (r *Resolver) entities(c *Claim, addr netip.Addr, now time.Time) []Entity {
	var out []Entity
	add := func(e Entity) {
		if e.Known() {
			out = append(out, e)
		}
	}
	given := len(c.PodUID) > 0
	local, pod := ParseLocalData(string(c.ContainerID)), Entity{PodUID: string(c.PodUID)}
	if pod.PodUID == noEntity {
		pod, addr = Entity{}, netip.Addr{}
	}
	switch {
	case r.o.Unified:
		external := ParseExternalData(string(c.External))
		add(r.process(c.PID, now))
		add(local)
		if external.ContainerName != "" {
			add(external)
		}
		add(pod)
		add(Entity{PodUID: external.PodUID})
	default:
		if !given || !r.o.EntityIDFirst {
			add(r.process(c.PID, now))
		}
		if pod.Known() {
			add(pod)
		} else {
			add(local)
		}
	}
	add(Entity{Addr: addr})
	return out
}

// process returns the container of a process.
func (r *Resolver) process(pid int32, now time.Time) Entity {
	if pid <= 0 {
		return Entity{}
	}
	if p, ok := r.processes[pid]; ok && now.Before(p.expires) {
		return p.entity
	}
	if len(r.processes) > maxRemembered {
		clear(r.processes)
	}
	entity, err := processEntity(r.o.ProcRoot, pid)
	expires := now.Add(rememberProcess)
	if err != nil {
		expires = now.Add(rememberUnknown) // it has ended: its PID may soon be another's
	}
	r.processes[pid] = process{entity, expires}
	return entity
}
