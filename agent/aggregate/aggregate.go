// Package aggregate turns samples into series: one bucket for each context and
// interval, with the meaning that Datadog's agent gives to every sample type.
//
// It owns contexts, buckets, counters' keep-alive zeros, the twins of contexts
// that are wanted every second, and the bounds on all of them, among origins too. It is a pure core: it starts no goroutine, reads
// no clock and does no input or output. It does not know where samples come
// from, how their origin is found, or where series go. An Aggregator has one
// owner at a time.
//
// A context is a metric name, a host and a set of tags; its key is a 64-bit
// hash of the three, as upstream's is, after names and tags were normalized as
// intakes do it (upstream leaves that to them). A point's time is the start of
// its bucket.
package aggregate

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"kelpie.dev/kelpie/metric"
)

// Defaults of Options, in seconds where they are times.
const (
	DefaultInterval      = 10
	DefaultCounterExpiry = 300
	DefaultContextExpiry = 20
	DefaultMaxContexts   = 500_000
	// DefaultMaxContextBytes leaves half a kilobyte to each of DefaultMaxContexts.
	DefaultMaxContextBytes = 256 << 20
	// MaxTimestamped is how many timestamped samples wait for a flush at most;
	// Due asks for a flush before that.
	MaxTimestamped = 8192
	// MaxSetMembers bounds the different members of one set in one bucket.
	MaxSetMembers = 1 << 18

	timestampedFlush = 2048 // pending timestamped samples that ask for a flush
	timestampedDelay = 2    // seconds after which they ask whatever their number
)

// Options configures an Aggregator. The zero value is usable.
type Options struct {
	Host          string // of series whose sample names none; may be empty
	CounterExpiry int64  // seconds a silent counter goes on as zeros; 0 means 300, negative none
	ContextExpiry int64  // seconds a silent context is remembered; 0 means 20, negative not at all
	MaxContexts   int    // live contexts at most; 0 means 500 000
	// MaxContextBytes bounds the names, hosts and tags that senders gave to the
	// live contexts, in bytes together; 0 means 256 MiB.
	MaxContextBytes int
	// FastContexts bounds the contexts that leave every second, besides: see
	// SetFast. 0 means none.
	FastContexts int
	// BucketTimestamps puts samples that carry a timestamp into the bucket of
	// that second, as all others are, instead of sending each as it is.
	BucketTimestamps bool
	Aggregates       []string  // of histograms: max, min, median, avg, sum, count; nil means max, median, avg, count
	Percentiles      []float64 // of histograms, within [0,1]; nil means 0.95
}

// Aggregator holds the open buckets. Make one with New.
type Aggregator struct {
	o           Options
	percentiles []percentile
	contexts    map[uint64]*Context
	slow        lane     // every context
	fast        fastLane // the twins of some
	origins     map[string]*originState
	refused     refusals
	names       names
	bytes       int // of the live contexts, as in Context.size
	scratch     []uint64
	normal      Sample   // scratch of normalize
	normalTags  [][]byte // likewise
	flushed     int64    // the newest Flush's now, in seconds
	pending     []metric.Series
	pendingFrom int64 // arrival of the oldest of pending
	free        []*histogram
	freeSketch  []*metric.SketchBuilder
	values      int // that the open histograms have room for
	notFinite   uint64
}

// lane is contexts of one interval, oldest first: the order of output.
type lane struct {
	due     int64 // second from which on a bucket may have ended
	order   []*Context
	emitted int // series at the last flush: histograms make several of a context
}

func (l *lane) add(c *Context) { l.order = append(l.order, c) }

// room is how many series a flush of l is likely to make.
func (l *lane) room() int { return max(len(l.order), min(l.emitted, maxSeries*len(l.order))) }

type percentile struct {
	p      int
	suffix string
}

// New returns an empty Aggregator.
func New(o Options) (*Aggregator, error) {
	o.CounterExpiry = cmp.Or(o.CounterExpiry, DefaultCounterExpiry)
	o.ContextExpiry = cmp.Or(o.ContextExpiry, DefaultContextExpiry)
	o.MaxContexts = cmp.Or(o.MaxContexts, DefaultMaxContexts)
	o.MaxContextBytes = cmp.Or(o.MaxContextBytes, DefaultMaxContextBytes)
	if o.Aggregates == nil {
		o.Aggregates = []string{"max", "median", "avg", "count"}
	}
	if o.Percentiles == nil {
		o.Percentiles = []float64{0.95}
	}
	for _, name := range o.Aggregates {
		if !slices.Contains([]string{"max", "min", "median", "avg", "sum", "count"}, name) {
			return nil, fmt.Errorf("histogram aggregate %q: expected max, min, median, avg, sum or count", name)
		}
	}
	a := &Aggregator{o: o, contexts: map[uint64]*Context{}, origins: map[string]*originState{}, refused: refusals{}, names: names{}}
	for _, p := range o.Percentiles {
		if !(p >= 0 && p <= 1) {
			return nil, fmt.Errorf("histogram percentile %v: expected a number from 0 to 1", p)
		}
		n := int(p*100 + 0.5)
		a.percentiles = append(a.percentiles, percentile{n, fmt.Sprintf(".%dpercentile", n)})
	}
	return a, nil
}

// Add takes s into the bucket that at falls in, or says why not: the error is
// always a Drop. A sample older than the newest flush goes into the first
// bucket that is still open.
func (a *Aggregator) Add(s *Sample, at time.Time) error {
	c, err := a.Context(s)
	if err != nil {
		return err
	}
	return a.AddTo(c, s, at.Unix())
}

// AddTo adds s, of which it reads what is no part of a context's identity, to
// c, which must be Live and of the sample's identity. now is in Unix seconds.
// It does not allocate at steady state.
func (a *Aggregator) AddTo(c *Context, s *Sample, now int64) error {
	c.seen = max(c.seen, now)
	stamped := s.Time > 0
	if stamped {
		if !a.o.BucketTimestamps {
			return a.addTimestamped(c, s, now)
		}
		// A bucket of the future would wait for it.
		now = min(s.Time, now)
	} else {
		now = max(now, a.flushed)
	}
	if err := a.put(c, s, now); err != nil {
		return err
	}
	c.samples++
	if c.twin == nil || !c.twin.covers(now) {
		return nil
	}
	if !stamped {
		now = max(now, a.fast.flushed)
	}
	// It is refused where the twin still holds a late sample of another type;
	// what counts is that c has it.
	_ = a.put(c.twin, s, now)
	return nil
}

// put adds s to c's bucket of second now.
func (a *Aggregator) put(c *Context, s *Sample, now int64) error {
	k := kindOf(s.Type)
	if c.kind != k {
		if !c.idle() {
			return DropTypeConflict
		}
		c.kind, c.counting = k, false
		if c.fast != nil && !c.fast.has(k) {
			a.leaveFast(c)
		}
	}
	b := c.bucket(now)
	switch k {
	case kindCounter:
		c.count(b, s, now)
	case kindGauge:
		b.value = s.Values[len(s.Values)-1]
	case kindSet:
		if err := b.addMember(s.Member); err != nil {
			return err
		}
	case kindSketch:
		a.addToSketch(b, s)
	case kindHistogram:
		c.timer = s.Type == Timer
		a.addValues(b, s)
	}
	return nil
}

func (c *Context) count(b *bucket, s *Sample, now int64) {
	if s.Rate > 0 && s.Rate < 1 {
		for _, v := range s.Values {
			b.value += v / s.Rate
		}
	} else {
		for _, v := range s.Values {
			b.value += v
		}
	}
	if !c.counting {
		c.counting, c.next, c.counted = true, b.start, now
	}
	c.counted = max(c.counted, now)
}

func (s *Sample) rate() float64 {
	if s.Rate > 0 && s.Rate <= 1 {
		return s.Rate
	}
	return 1
}

// maxValues bounds the values that all open histograms together keep at 16
// bytes each. Beyond it a histogram that grows merges neighbours first.
const maxValues = 4 << 20

func (a *Aggregator) addValues(b *bucket, s *Sample) {
	if b.hist == nil {
		b.hist = a.newHistogram()
	}
	weight := 1 / s.rate()
	for _, v := range s.Values {
		if b.hist.full() {
			a.values += b.hist.grow(a.values >= maxValues)
		}
		b.hist.add(v, weight)
	}
}

func (a *Aggregator) newHistogram() *histogram {
	if n := len(a.free); n > 0 {
		h := a.free[n-1]
		a.free = a.free[:n-1]
		return h
	}
	return &histogram{}
}

func (a *Aggregator) addToSketch(b *bucket, s *Sample) {
	if b.sketch == nil {
		if n := len(a.freeSketch); n > 0 {
			b.sketch, a.freeSketch = a.freeSketch[n-1], a.freeSketch[:n-1]
		} else {
			b.sketch = new(metric.SketchBuilder)
		}
	}
	for _, v := range s.Values {
		b.sketch.Add(v, s.rate())
	}
}

// addTimestamped makes each value a series with a single point at the sender's
// own second; nothing is merged, and the intake keeps the last of a second.
// Unlike upstream the sample rate of a counter is honoured.
func (a *Aggregator) addTimestamped(c *Context, s *Sample, now int64) error {
	if s.Type != Gauge && s.Type != Counter {
		return DropTimestampType
	}
	if len(a.pending)+len(s.Values) > MaxTimestamped {
		return DropTimestampLimit
	}
	if len(a.pending) == 0 {
		a.pendingFrom = now
	}
	for _, v := range s.Values {
		t := metric.Gauge
		if s.Type == Counter {
			t = metric.Rate
			v = v / s.rate() / float64(c.interval)
		}
		if !finite(v) {
			return DropNotFinite
		}
		series := c.series("", t)
		series.Points = []metric.Point{{Time: s.Time, Value: v}}
		a.pending = append(a.pending, series)
	}
	c.samples++
	return nil
}
