package aggregate

import (
	"bytes"
	"math/bits"
	"strings"

	"github.com/cespare/xxhash/v2"

	"kelpie.dev/kelpie/metric"
)

// kind is what a context's buckets hold: h and ms share one.
type kind uint8

const (
	kindNone kind = iota
	kindCounter
	kindGauge
	kindHistogram
	kindSet
	kindSketch
)

func kindOf(t Type) kind {
	switch t {
	case Counter:
		return kindCounter
	case Gauge:
		return kindGauge
	case Set:
		return kindSet
	case Distribution:
		return kindSketch
	default:
		return kindHistogram
	}
}

// A Context is a live metric name, host and tag set, with its open buckets. It
// stays the same one for as long as it is Live. What a sample touches comes
// first: it lies in one or two lines of the processor's cache.
type Context struct {
	current  bucket // the newest; its interval is 0 until there is one
	interval int64  // seconds a bucket is wide: 10, or 1 of a twin
	seen     int64  // second of the newest sample
	samples  uint64 // since the context was made
	counted  int64  // second of the newest bucketed counter sample: where zeros start to end
	kind     kind
	timer    bool // a ms sample was seen: values are milliseconds
	counting bool // counters: a bucketed sample was seen, zeros follow
	dead     bool
	twin     *Context // of one second, that leaves besides; nil for most

	next   int64 // when counting: start of the next bucket to emit
	older  []bucket
	key    uint64
	size   int // bytes that the sender gave to identify it
	origin *originState
	name   string
	host   string
	device string
	tags   metric.Tags // canonical; shared with every series emitted

	fast  *fastMetric // that c belongs to; nil for most
	since int64       // of a twin: the bucket from which on it has all that its context has

	by       string // who sent what SentBy was told last
	switched int64  // second at which that was another than before; 0 for never
}

// Live reports whether samples may still be added: a context that has been
// silent for too long is forgotten, and made anew by its next sample.
func (c *Context) Live() bool { return !c.dead }

// Touch reads of c what a sample will, so that it is in the processor's cache by
// then. The result means nothing.
func (c *Context) Touch() int64 { return c.current.start + int64(c.kind) }

// SentBy notes who sent a sample of c at second now. It returns who did before
// when several senders take turns: when the last change from one to another is
// within seconds ago. A sender that took another's place for good is one change.
func (c *Context) SentBy(name []byte, now, within int64) (other string) {
	if c.by == string(name) {
		return ""
	}
	if c.by != "" {
		if c.switched != 0 && now-c.switched <= within {
			other = c.by
		}
		c.switched = now
	}
	c.by = string(name)
	return other
}

// Samples returns how many lines c has taken in.
func (c *Context) Samples() uint64 { return c.samples }

// bucket is one interval of one context.
type bucket struct {
	start  int64
	value  float64 // counter's sum or gauge's last
	set    map[uint64]struct{}
	hist   *histogram
	sketch *metric.SketchBuilder
	open   bool
}

// hostHashSeed keeps "the agent's host" apart from "host given, empty".
const hostHashSeed = 0x9e3779b97f4a7c15

// sketchHashSeed keeps distributions apart from all other types, with which a
// name and its tags may then be shared, as upstream keeps them in a store of
// their own.
const sketchHashSeed = 0xd6e8feb86659fd93

// key is the identity of s: independent of the order and repetition of tags.
func (a *Aggregator) key(s *Sample, base *TagSet) uint64 {
	var sum uint64
	sum, a.scratch = base.sumWith(s.Tags, a.scratch)
	h := xxhash.Sum64(s.Name)
	h = (h ^ bits.RotateLeft64(sum, 31)) * 0xff51afd7ed558ccd
	h ^= h >> 32
	// A sender that names the agent's own host means the same series as one
	// that names none: two contexts would overwrite each other at the intake.
	if s.HasHost && string(s.Host) != a.o.Host {
		h = (h ^ xxhash.Sum64(s.Host) ^ hostHashSeed) * 0xc4ceb9fe1a85ec53
		h ^= h >> 29
	}
	if s.Type == Distribution {
		h ^= sketchHashSeed
	}
	return h
}

// Context returns the live context of s, making it when it is new. The error is
// DropContextLimit when no more may be made for the sample's origin, and
// DropName when an intake could not make a name of the sample's.
func (a *Aggregator) Context(s *Sample) (*Context, error) {
	base := s.Base
	if base == nil {
		base = emptyTagSet
	}
	key := a.key(s, base)
	if c, ok := a.contexts[key]; ok {
		return c, nil
	}
	if changed, err := a.normalize(&s); err != nil {
		return nil, err
	} else if changed {
		key = a.key(s, base)
		if c, ok := a.contexts[key]; ok {
			return c, nil
		}
	}
	size := s.identitySize()
	o := a.origin(s)
	if !a.admits(o, size) {
		a.refused.count(o.name, s.Name)
		a.forget(o)
		return nil, DropContextLimit
	}
	c := a.newContext(key, s, base)
	c.size = size
	a.hold(c, o)
	a.slow.add(c)
	a.enterFast(c, kindOf(s.Type))
	return c, nil
}

// device starts the tag that becomes a series' device.
const device = "device:"

// normalize makes s a sample whose name and tags are as an intake stores them,
// which it reports when they were not: contexts that differ for the agent alone
// would overwrite each other there. The sample that was given is left as it is.
func (a *Aggregator) normalize(s **Sample) (changed bool, err error) {
	n := &a.normal
	*n = **s
	n.Tags = a.normalTags[:0]
	name, ok := metric.NormalizeName(string(n.Name))
	if !ok {
		return false, DropName
	}
	if name != string(n.Name) {
		n.Name, changed = []byte(name), true
	}
	for _, tag := range (*s).Tags {
		if normal := metric.NormalizeTag(string(tag)); normal != string(tag) && !bytes.HasPrefix(tag, []byte(device)) {
			tag, changed = []byte(normal), true
		}
		n.Tags = append(n.Tags, tag)
	}
	a.normalTags = n.Tags
	if changed {
		*s = n
	}
	return changed, nil
}

// identitySize is how many bytes a context of s keeps. Base is shared.
func (s *Sample) identitySize() int {
	n := len(s.Name) + len(s.Host)
	for _, tag := range s.Tags {
		n += len(tag)
	}
	return n
}

func (a *Aggregator) newContext(key uint64, s *Sample, base *TagSet) *Context {
	c := &Context{key: key, name: a.names.valid(s.Name), host: a.o.Host, interval: DefaultInterval}
	if s.HasHost {
		c.host = a.names.valid(s.Host)
	}
	sent := make([]string, 0, len(s.Tags))
	for _, tag := range s.Tags {
		text := a.names.valid(tag)
		if name, ok := strings.CutPrefix(text, device); ok {
			c.device = name
			continue
		}
		sent = append(sent, text)
	}
	c.tags = base.tags
	if len(sent) > 0 {
		c.tags = base.tags.Union(sent...)
	}
	return c
}

// names keeps one copy of texts that many contexts share, such as tags.
type names map[string]string

// maxNames bounds the texts that are remembered, not those in use.
const maxNames = 1 << 15

// valid copies b as valid UTF-8: one sender's stray byte must not make the
// whole payload undecodable for the intake.
func (n names) valid(b []byte) string {
	if s, ok := n[string(b)]; ok {
		return s
	}
	s := strings.ToValidUTF8(string(b), "\uFFFD")
	if len(n) >= maxNames {
		clear(n)
	}
	n[string(b)] = s
	return s
}

// bucket returns c's bucket for second t, opening it when it is new. Buckets
// stay in ascending order.
func (c *Context) bucket(t int64) *bucket {
	if uint64(t-c.current.start) < uint64(c.interval) && c.current.open {
		return &c.current
	}
	start := t - t%c.interval
	if !c.current.open || start > c.current.start {
		if c.current.open {
			c.older = append(c.older, c.current)
		}
		c.current = bucket{start: start, open: true}
		return &c.current
	}
	i := len(c.older) // only when the clock went back
	for i > 0 && c.older[i-1].start >= start {
		i--
		if c.older[i].start == start {
			return &c.older[i]
		}
	}
	c.older = append(c.older, bucket{})
	copy(c.older[i+1:], c.older[i:])
	c.older[i] = bucket{start: start, open: true}
	return &c.older[i]
}

// take removes the buckets that have ended by now, or all of them, and appends
// them to dst in ascending order.
func (c *Context) take(dst []bucket, now int64, all bool) []bucket {
	n := 0
	for n < len(c.older) && (all || c.older[n].start+c.interval <= now) {
		n++
	}
	dst = append(dst, c.older[:n]...)
	if n > 0 {
		rest := copy(c.older, c.older[n:])
		clear(c.older[rest:])
		c.older = c.older[:rest]
	}
	if len(c.older) == 0 && c.current.open && (all || c.current.start+c.interval <= now) {
		dst = append(dst, c.current)
		c.current = bucket{}
	}
	return dst
}

// idle reports whether c has no open bucket.
func (c *Context) idle() bool { return !c.current.open && len(c.older) == 0 }
