package source

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
)

// starved is a query without answer because its batch had none: some neighbour
// is slow, or the source is.
type starved struct {
	key   Key
	fault fault // of the batch
	at    time.Time
}

// relief asks starved queries again, each alone, once. It blames those that get
// no answer only if others do, and gives up on a source that answers nobody:
// that one is asked less than twice Options.Parallel times, and costs one timeout
// more.
type relief struct {
	p     *Poller
	start time.Time

	mu       sync.Mutex // guards what follows
	answered int
	stopped  bool
	failed   []starved // alone, with faults of their own
}

// relieve asks for what a cycle's batches left without answer.
func (p *Poller) relieve(ctx context.Context, rest []starved) {
	// In an order of their own each time: where many are slow, the time does not
	// reach to all, and not to the same ones.
	rand.Shuffle(len(rest), func(i, j int) { rest[i], rest[j] = rest[j], rest[i] })
	r := relief{p: p, start: time.Now()}
	g := errgroup.Group{}
	g.SetLimit(p.opts.Parallel)
	for _, s := range rest {
		g.Go(func() error { r.ask(ctx, s); return nil })
	}
	_ = g.Wait() // its functions return nil
	if r.answered > 0 && len(r.failed) == 0 && !r.stopped {
		p.tooSlow()
	}
	for _, s := range r.failed {
		if r.answered > 0 {
			s.fault.blames = true
			s.fault.err.Message = fmt.Sprintf("%s answers other queries but not this one (%s); narrow its scope or its time window",
				p.name(), s.fault.err.Message)
		}
		p.failed([]Key{s.key}, s.fault, s.at)
	}
}

func (r *relief) ask(ctx context.Context, s starved) {
	if !r.open() {
		r.p.failed([]Key{s.key}, s.fault, s.at)
		return
	}
	keys, now := []Key{s.key}, time.Now()
	out, err := r.p.request(ctx, keys, now)
	if ctx.Err() != nil {
		r.p.abandon(keys)
		return
	}
	if err == nil {
		r.heard()
		r.p.succeeded(keys, out, now)
		return
	}
	f := r.p.judge(err)
	r.p.tel.requests.WithLabelValues(f.class).Inc()
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case f.slow:
		r.failed = append(r.failed, starved{s.key, f, now})
	case f.blames:
		r.answered++
		r.p.failed(keys, f, now)
	default: // refused keys, a pause: true for all
		r.stopped = true
		r.p.failed(keys, f, now)
	}
}

func (r *relief) heard() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.answered++
}

// open reports whether another query may be asked.
func (r *relief) open() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return !r.stopped && !r.p.paused() && time.Since(r.start) < r.p.opts.Timeout && (r.answered > 0 || len(r.failed) < r.p.opts.Parallel)
}
