// Package dialect turns metrics that are told in another system's words into
// Datadog's: those of OpenTelemetry (OTLP) and of Prometheus (remote write).
//
// It owns what their values and names mean, and the state that takes: a value
// that counts from the start of a process becomes what was added since the last
// one. It does no HTTP, reads no clock, and does not normalize names and tags of
// OTLP: whoever receives them does.
package dialect

import (
	"errors"
	"fmt"
	"hash/maphash"
	"math"
	"sync"
	"time"

	"github.com/cespare/xxhash/v2"

	"kelpie.dev/kelpie/metric"
)

// ErrTooMuch reports a body that would take far more memory than it has bytes.
var ErrTooMuch = errors.New("too many values in one body: send them in several")

// Bounds of one body. A message of two bytes takes a hundred times that in memory.
const (
	maxMessages  = 500_000   // of a protobuf body, at every depth, and objects of a JSON one
	maxPoints    = 100_000   // as payload.MaxSeries
	maxBins      = 4_000_000 // of all sketches, 8 bytes each
	maxBuckets   = 4096      // of one histogram
	maxToldLines = 20
)

// Options bound a Translator's state. The zero value is usable.
type Options struct {
	// MaxCells bounds the remembered values of cumulative streams, some 32 bytes
	// each: one a sum, one a bucket of a histogram. 0 means 1 000 000.
	MaxCells int
	// Expiry is how long a stream without points is remembered; 0 means an hour.
	Expiry time.Duration
	// Began is when this process began to listen: a stream that began later is
	// known from its beginning.
	Began time.Time
}

// Translator translates bodies. Its methods may be called concurrently.
type Translator struct {
	opts Options
	seed maphash.Seed

	mu    sync.Mutex // guards what follows
	known map[streamKey]*stream
	cells int
	swept time.Time
}

// New returns a Translator that knows no stream.
func New(o Options) *Translator {
	if o.MaxCells == 0 {
		o.MaxCells = 1_000_000
	}
	if o.Expiry == 0 {
		o.Expiry = time.Hour
	}
	return &Translator{opts: o, seed: maphash.MakeSeed(), known: make(map[streamKey]*stream)}
}

// Streams returns how many cumulative streams are remembered.
func (t *Translator) Streams() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.known)
}

// A Batch is what a body says.
type Batch struct {
	Series        []metric.Series
	Distributions []metric.Distribution

	Points  int      // data points in the body
	Refused int      // of them
	Lines   []string // why, for the first of them
	First   int      // points of cumulative streams that tell no difference yet
	Again   int      // points that are not newer than one of their stream, as a repeated body has
	Stale   int      // points that say that there is none

	// Of remote write: keys of tags that are to be stored as they are, and how
	// many samples and histograms were taken.
	Raw                 map[string]bool
	Samples, Histograms int

	t    *Translator
	now  time.Time
	bins int
	undo []undo
}

// Undo takes back what the batch taught its Translator, for one that could not
// be stored and will come again.
func (b *Batch) Undo() {
	b.t.mu.Lock()
	defer b.t.mu.Unlock()
	for i := len(b.undo) - 1; i >= 0; i-- {
		b.t.restore(b.undo[i])
	}
	b.undo = nil
}

// refuse notes points of a metric that are not taken.
func (b *Batch) refuse(n int, name, format string, args ...any) {
	b.Refused += n
	if len(b.Lines) < maxToldLines {
		b.Lines = append(b.Lines, fmt.Sprintf("metric %.60q: %s", name, fmt.Sprintf(format, args...)))
	}
}

// Refuse notes points that somebody else does not take, with lines that say why.
func (b *Batch) Refuse(n int, lines ...string) {
	b.Refused += n
	b.Lines = append(b.Lines, lines[:min(len(lines), max(0, maxToldLines-len(b.Lines)))]...)
}

// streamKey is 128 bits of two independent hashes, so that two streams never
// meet in practice.
type streamKey struct{ a, b uint64 }

func (t *Translator) key(parts ...string) streamKey {
	var buf []byte
	for _, p := range parts {
		buf = append(append(buf, p...), 0)
	}
	return streamKey{xxhash.Sum64(buf), maphash.Bytes(t.seed, buf)}
}

// A stream is the newest point of a cumulative stream.
type stream struct {
	start, at int64 // Unix nanoseconds; start is 0 when it is not known
	value     float64
	histogram *histogram // instead of value
	seen      time.Time
}

func (s *stream) cells() int {
	if s.histogram == nil {
		return 1
	}
	return 1 + s.histogram.size()
}

type undo struct {
	key streamKey
	was *stream // nil: it was not known
	at  int64   // of the point that replaced it
}

// restore undoes u, unless a newer point came since. The caller holds t.mu.
func (t *Translator) restore(u undo) {
	s := t.known[u.key]
	if s == nil || s.at != u.at {
		return
	}
	t.cells -= s.cells()
	if u.was == nil {
		delete(t.known, u.key)
		return
	}
	t.known[u.key] = u.was
	t.cells += u.was.cells()
}

// sweep forgets streams without points, every minute. The caller holds t.mu.
func (t *Translator) sweep(now time.Time) {
	if now.Sub(t.swept) < time.Minute {
		return
	}
	t.swept = now
	for k, s := range t.known {
		if now.Sub(s.seen) > t.opts.Expiry {
			t.cells -= s.cells()
			delete(t.known, k)
		}
	}
}

// advance notes a point of a cumulative stream and returns what was added since
// the one before, and over how many seconds. ok is false when the point tells no
// difference; the batch then counts why.
//
// A stream that is not known counts from its start if that is after this process
// began, and else from its first point: what was before was counted by another.
// A value below the one before, or a start after it, is a new count from zero.
func (b *Batch) advance(key streamKey, name string, p stream) (added stream, seconds int64, ok bool) {
	t := b.t
	t.mu.Lock()
	defer t.mu.Unlock()
	p.seen = b.now
	was := t.known[key]
	if was == nil && t.cells+p.cells() > t.opts.MaxCells {
		b.refuse(1, name, "too many cumulative streams are being followed: send it with delta temporality, or with fewer attributes")
		return stream{}, 0, false
	}
	if was != nil && p.at <= was.at {
		b.Again++
		return stream{}, 0, false
	}
	t.known[key] = &p
	t.cells += p.cells()
	b.undo = append(b.undo, undo{key: key, was: was, at: p.at})
	from := p.start
	switch {
	case was == nil && (p.start == 0 || p.start >= p.at || !time.Unix(0, p.start).After(t.opts.Began)):
		b.First++
		return stream{}, 0, false
	case was == nil:
		added = p
	default:
		t.cells -= was.cells()
		var reset bool
		if added, reset = p.since(was); !reset {
			from = was.at
		}
	}
	if from > 0 && from < p.at {
		seconds = int64(math.Round(float64(p.at-from) / 1e9))
	}
	return added, seconds, true
}

// since returns what s added to was, all of it after a reset.
func (s *stream) since(was *stream) (added stream, reset bool) {
	if s.start != was.start && s.start >= was.at || s.value < was.value {
		return *s, true
	}
	added = stream{start: s.start, at: s.at, value: s.value - was.value}
	if s.histogram != nil {
		added.histogram = s.histogram.minus(was.histogram)
		if added.histogram == nil {
			return *s, true
		}
	}
	return added, false
}
