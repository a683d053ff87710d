package forward

import (
	"context"
	"math"
	"math/rand/v2"
	"time"
)

// backoff is uniformly random in [b/2, b] with b = base × 2ⁿ, capped.
func (l *lane) backoff() time.Duration {
	b := min(float64(l.o.BackoffBase)*math.Pow(2, float64(min(l.errors, 30))), float64(l.o.BackoffMax))
	return time.Duration(b/2 + rand.Float64()*b/2)
}

// countError raises the backoff, until it is as long as it gets: of a long
// outage no more is remembered than a few deliveries make up for.
func (l *lane) countError() {
	if math.Ldexp(float64(l.o.BackoffBase), l.errors) < float64(l.o.BackoffMax) {
		l.errors++
	}
}

func (l *lane) forgetErrors() { l.errors = max(0, l.errors-2) }

// closingPause is the longest wait between attempts once the queue is closed.
const closingPause = 100 * time.Millisecond

// sleep waits for d. When the queue is closed meanwhile it returns at once, and
// from then on it waits for closingPause at most: little time is left.
func (l *lane) sleep(ctx context.Context, d time.Duration) {
	closing := l.queue.closing
	select {
	case <-closing:
		closing, d = nil, min(d, closingPause)
	default:
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-closing:
	case <-t.C:
	}
}
