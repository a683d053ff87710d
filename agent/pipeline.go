package agent

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"kelpie.dev/kelpie/agent/aggregate"
	"kelpie.dev/kelpie/agent/dogstatsd"
	"kelpie.dev/kelpie/agent/forward"
	"kelpie.dev/kelpie/agent/origin"
	"kelpie.dev/kelpie/metric"
)

// Bounds of lines that wait until their origin is known. At the start of a busy
// node all its pods' lines wait for the kubelet's first answer.
const (
	maxWaiting      = 8 << 20 // bytes together, some 50 000 lines
	waitingOverhead = 128     // bytes that a line takes besides its own
	waitRecheck     = 250 * time.Millisecond
)

// rememberLines is how long a line is taken for what it was: a process id, and
// with it a sender, may have become another's since.
const rememberLines = time.Minute

// pipeline takes batches of packets to batches of series: it is the one owner
// of parser, resolver and aggregator, so that none of them needs a lock.
type pipeline struct {
	parser     dogstatsd.Parser
	rewriter   *dogstatsd.Rewriter // nil: names stay as they are
	toSketch   string              // copy histograms to distributions of this prefix; see copies
	copies     bool                // DD_HISTOGRAM_COPY_TO_DISTRIBUTION
	resolver   *origin.Resolver
	aggregator *aggregate.Aggregator
	metrics    *metrics
	taps       *taps
	log        *slog.Logger
	now        func() time.Time
	manual     <-chan time.Time // replaces the timer when not nil
	running    metric.Series    // what the agent's own series have in common
	lastBeat   int64            // second of the last datadog.agent.running
	packets    int              // since then
	next       int64            // second at which the open buckets end
	fast       fastLane         // what leaves before
	problems   *problems
	zeroPID    sync.Once

	waiting    []waitingLine
	waitBytes  int    // of waiting, as maxWaiting counts them
	generation uint64 // of the resolver, when lines was emptied
	lines      *lines
	ahead      ahead
	forgetAt   time.Time // when lines is emptied next
	repeated   aggregate.Sample
	values     []float64
	sender     []byte // scratch of sentBy
	counts     counts
	unsent     forward.Batch // events and service checks since the last batch

	ticked atomic.Int64 // Unix nanoseconds of the loop's last turn

	mu   sync.Mutex // guards live, a copy for the status page
	live liveContexts
}

// clientTelemetry starts the names of what the official clients tell about
// themselves.
const clientTelemetry = "datadog.dogstatsd.client."

// liveContexts is the state of the aggregator at the last flush.
type liveContexts struct {
	n         int
	top       []aggregate.ContextStats // without clientTelemetry
	telemetry aggregate.Total
	origins   []aggregate.OriginStats
	refused   []aggregate.Refusal
	fast      int // contexts that leave every second
	fastLeft  int // that do not fit
	fastBy    []aggregate.FastStats
}

// run handles packets until in is closed; it then flushes what is left, the
// open buckets included, and closes out.
func (p *pipeline) run(ctx context.Context, in <-chan *dogstatsd.Batch, out chan<- forward.Batch) error {
	defer close(out)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case batch, ok := <-in:
			if !ok {
				return p.finish(ctx, out)
			}
			now := p.now()
			p.batch(batch, now)
			switch {
			case p.manual != nil:
			case !p.due(now).After(now) && !p.holds(now):
				p.flush(ctx, now, in, out) // enough timestamped samples wait
			case p.aggregator.FastDue(now):
				p.flushSeconds(ctx, now, false, out)
			}
		case <-p.resolver.Updated():
			p.recheck(p.now(), false)
		case now := <-p.manual:
			p.recheck(now, false)
			p.flush(ctx, now, in, out)
		case <-timer.C:
			now := p.now()
			p.ticked.Store(time.Now().UnixNano())
			p.recheck(now, false)
			if p.manual == nil && (p.bucketEnded(now) || !p.due(now).After(now)) && !p.holds(now) {
				p.flush(ctx, now, in, out)
			} else if p.manual == nil && p.aggregator.FastDue(now) {
				p.flushSeconds(ctx, now, false, out)
			}
			if len(p.unsent.Events)+len(p.unsent.Checks) > 0 {
				p.send(ctx, forward.Batch{}, out)
			}
			timer.Reset(p.pause(now))
		}
	}
}

// maxUnsent bounds the events and service checks that wait for the next second.
const maxUnsent = 1000

// due is when something has to leave.
func (p *pipeline) due(now time.Time) time.Time {
	if len(p.unsent.Events)+len(p.unsent.Checks) >= maxUnsent {
		return now
	}
	return p.aggregator.Due(now)
}

// bucketEnded reports whether the open buckets have ended: their end has come,
// or it is too far away because the clock was set back.
func (p *pipeline) bucketEnded(now time.Time) bool {
	return now.Unix() >= p.next || p.next-now.Unix() > aggregate.DefaultInterval
}

// holds reports whether a flush has to wait for the origin of a line that
// belongs into what it would close. It is never long: see origin.Patience.
func (p *pipeline) holds(now time.Time) bool {
	return len(p.waiting) > 0 && p.waiting[0].at.Unix() < p.next && now.Sub(p.waiting[0].at) < origin.Patience && !now.Before(p.waiting[0].at)
}

// pause is how long the loop may sleep without anything happening.
func (p *pipeline) pause(now time.Time) time.Duration {
	d := p.due(now).Sub(now)
	if len(p.waiting) > 0 {
		d = min(d, waitRecheck)
	}
	// Not later than a second, as a timestamped sample may have come since.
	return max(min(d, time.Second), time.Millisecond)
}

func (p *pipeline) finish(ctx context.Context, out chan<- forward.Batch) error {
	now := p.now()
	p.recheck(now, true)
	// The lane in force goes on to the end, so that what leaves by seconds and by
	// tens is the same; no second after now leaves.
	p.sendSeconds(ctx, forward.Batch{Fast: p.aggregator.FlushLast(now)}, out)
	p.flushBuckets(ctx, now.Add(aggregate.DefaultInterval*time.Second), nil, out)
	return nil
}

// batch handles the lines of what a listener has read; a bad line harms no
// other.
func (p *pipeline) batch(b *dogstatsd.Batch, at time.Time) {
	// Tags may be others now, and what waits came before: it must not overtake,
	// nor be overtaken by, what this batch holds.
	if g := p.resolver.Generation(); g != p.generation || !at.Before(p.forgetAt) {
		p.generation, p.forgetAt = g, at.Add(rememberLines)
		p.lines.forget()
		p.recheck(at, false)
	}
	p.packets += len(b.Packets)
	for i := range b.Packets {
		p.packet(&b.Packets[i], b.Transport, at)
	}
	b.Release()
	p.counts.addTo(p.metrics)
}

// recheck handles waiting lines whose origin is known by now, or all of them.
func (p *pipeline) recheck(now time.Time, all bool) {
	if len(p.waiting) == 0 {
		return
	}
	lines := p.waiting
	p.waiting, p.waitBytes = lines[:0], 0 // what has to wait on is put back behind what is read
	for _, w := range lines {
		p.line(w.line, w.sender, now, !all && now.Sub(w.at) < origin.Patience)
	}
	if clear(lines[len(p.waiting):]); len(p.waiting) == 0 {
		p.waiting = nil
	}
	p.counts.addTo(p.metrics)
}

// flush hands what all seconds and buckets that have ended hold to out.
func (p *pipeline) flush(ctx context.Context, now time.Time, in <-chan *dogstatsd.Batch, out chan<- forward.Batch) {
	ended := p.bucketEnded(now)
	p.flushSeconds(ctx, now, ended, out)
	p.flushBuckets(ctx, now, in, out)
	if ended {
		p.changeLane()
		p.flushSeconds(ctx, now, false, out)
	}
}

func (p *pipeline) flushBuckets(ctx context.Context, now time.Time, in <-chan *dogstatsd.Batch, out chan<- forward.Batch) {
	start := time.Now()
	p.next = bucketStart(now) + aggregate.DefaultInterval
	flushing := p.aggregator.StartFlush(now)
	var between time.Duration
	for flushing.Step() {
		between += p.between(in)
	}
	flushed := flushing.End()
	p.metrics.flush.Observe((time.Since(start) - between).Seconds())
	batch := forward.Batch{Series: flushed.Series, Distributions: flushed.Distributions, Doubled: flushed.Doubled, Fast: flushed.Fast}
	if beat := bucketStart(now); beat != p.lastBeat { // smaller after the clock was set back
		p.lastBeat = beat
		p.look()
		batch.Series = append(batch.Series, p.own("datadog.agent.running", beat, 1), p.own("datadog.dogstatsd.packet.count", beat, float64(p.packets)))
		p.packets = 0
		p.unsent.Checks = append(p.unsent.Checks, p.up(beat))
	}
	p.metrics.series.Add(float64(len(batch.Fast) + len(batch.Series) + len(batch.Doubled) + len(batch.Distributions)))
	p.send(ctx, batch, out)
}

// maxBetween is how many batches are handled between two steps of a flush: a
// flood must not hold it up without end.
const maxBetween = 8

// between handles what has come while a flush goes on, as a socket does not wait
// for its end, and returns how long that took. A closed in is the loop's to see.
func (p *pipeline) between(in <-chan *dogstatsd.Batch) time.Duration {
	start := time.Now()
	for range min(len(in), maxBetween) {
		batch, ok := <-in
		if !ok {
			break
		}
		p.batch(batch, p.now())
	}
	return time.Since(start)
}

// own is a point about the agent itself, by the names that Datadog's agents have
// for it.
func (p *pipeline) own(name string, at int64, value float64) metric.Series {
	s := p.running
	s.Name, s.Points = name, []metric.Point{{Time: at, Value: value}}
	return s
}

// send hands batch, with the events and service checks that wait, to out.
func (p *pipeline) send(ctx context.Context, batch forward.Batch, out chan<- forward.Batch) {
	batch.Events, batch.Checks, batch.Lane = p.unsent.Events, p.unsent.Checks, p.fast.lane
	p.unsent = forward.Batch{}
	if len(batch.Fast)+len(batch.Doubled)+len(batch.Series)+len(batch.Distributions)+len(batch.Events)+len(batch.Checks) == 0 {
		return
	}
	select {
	case out <- batch:
	case <-ctx.Done():
	}
}

// look copies the aggregator's state for those who ask between flushes.
func (p *pipeline) look() {
	stats := p.aggregator.Stats()
	top, telemetry := p.aggregator.Top(10, clientTelemetry)
	p.metrics.contexts.Set(float64(stats.Contexts))
	p.metrics.notFinite.Set(float64(stats.NotFinite))
	fast, left := p.aggregator.FastTotal()
	p.metrics.fast.Set(float64(fast))
	p.metrics.fastLeft.Set(float64(left))
	p.mu.Lock()
	defer p.mu.Unlock()
	p.live = liveContexts{stats.Contexts, top, telemetry, p.aggregator.Origins(10), p.aggregator.Refused(), fast, left, p.aggregator.Fast()}
}

func (p *pipeline) contexts() liveContexts {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.live
}
