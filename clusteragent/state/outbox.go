package state

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"sync"
	"time"

	"kelpie.dev/kelpie/datadog"
)

// Bounds of what waits for an intake that does not answer. State is sampled
// anew in each period, so that an old sample is worth little.
const (
	maxQueued  = 4 << 20 // bytes
	maxAge     = 10 * time.Minute
	minBackoff = time.Second
	maxBackoff = 30 * time.Second
	logEvery   = time.Minute // of a lasting failure
)

// An outbox sends bodies in order, and again where that can help.
type outbox struct {
	intake Intake
	tel    *telemetry
	log    *slog.Logger
	wake   chan struct{} // holds a token when there may be something to send

	mu      sync.Mutex // guards what follows
	queue   []item
	bytes   int // of queue
	success time.Time
	failure string // "" once a body was delivered
	failed  time.Time
	logged  time.Time
}

// item is a body and when it was made.
type item struct {
	body datadog.SeriesBody
	at   time.Time
}

func newOutbox(intake Intake, tel *telemetry, log *slog.Logger) *outbox {
	return &outbox{intake: intake, tel: tel, log: log, wake: make(chan struct{}, 1)}
}

// put queues bodies; where there is no room the oldest go.
func (b *outbox) put(now time.Time, bodies []datadog.SeriesBody) {
	b.mu.Lock()
	for _, body := range bodies {
		b.queue = append(b.queue, item{body, now})
		b.bytes += len(body.Data)
	}
	for b.bytes > maxQueued {
		b.tel.drop("queue_full", b.pop().body.Points)
	}
	b.mu.Unlock()
	select {
	case b.wake <- struct{}{}:
	default:
	}
}

// pop takes the oldest item. b.mu is held and the queue is not empty.
func (b *outbox) pop() item {
	it := b.queue[0]
	b.queue[0] = item{}
	b.queue = b.queue[1:]
	b.bytes -= len(it.body.Data)
	return it
}

func (b *outbox) next() (item, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.queue) == 0 {
		return item{}, false
	}
	return b.pop(), true
}

// run sends until ctx ends; what is left then is dropped.
func (b *outbox) run(ctx context.Context) {
	for {
		it, ok := b.next()
		if !ok {
			select {
			case <-ctx.Done():
				return
			case <-b.wake:
			}
			continue
		}
		if reason := b.deliver(ctx, it); reason != "" {
			b.tel.drop(reason, it.body.Points)
		}
	}
}

// deliver sends one body until it is taken. It returns why it never will be, or "".
func (b *outbox) deliver(ctx context.Context, it item) (reason string) {
	for wait := minBackoff; ; wait = min(2*wait, maxBackoff) {
		err := b.intake.Submit(ctx, it.body)
		switch {
		case err == nil:
			b.delivered(it)
			return ""
		case ctx.Err() != nil:
			return "shutdown"
		}
		b.fail(err)
		pause := wait/2 + rand.N(wait/2)
		if api := (*datadog.APIError)(nil); errors.As(err, &api) {
			switch api.Status {
			case http.StatusBadRequest, http.StatusUnauthorized, http.StatusForbidden, http.StatusRequestEntityTooLarge:
				return "refused"
			}
			pause = max(pause, min(api.RetryAfter, maxBackoff))
		}
		select {
		case <-ctx.Done():
			return "shutdown"
		case <-time.After(pause):
		}
		if time.Since(it.at) > maxAge {
			return "too_old"
		}
	}
}

func (b *outbox) delivered(it item) {
	b.tel.delivered.Add(float64(it.body.Points))
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.failure != "" {
		b.log.Info("delivering Kubernetes state metrics again")
	}
	b.success, b.failure, b.logged = time.Now(), "", time.Time{}
}

func (b *outbox) fail(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.failed, b.failure = time.Now(), err.Error()
	if b.failed.Sub(b.logged) >= logEvery {
		b.logged = b.failed
		b.log.Warn("cannot deliver Kubernetes state metrics (DD_DD_URL or DD_SITE, and DD_API_KEY, of the cluster agent)", "error", err)
	}
}

// tell fills in the outbox's part of s.
func (b *outbox) tell(s *Status) {
	b.mu.Lock()
	defer b.mu.Unlock()
	s.Queued, s.LastSuccess, s.LastError = b.bytes, b.success, b.failure
	if b.failure != "" {
		s.LastErrorAt = b.failed
	}
	s.Dropped = b.tel.droppedPoints.Load()
}
