package datadogmetric

import (
	"sync"
	"time"

	"golang.org/x/time/rate"
	"k8s.io/apimachinery/pkg/types"
)

// A pace gives turns to statuses that tell no news: ten thousand values may
// change each second, and each write is work for the API server, its database
// and everybody who watches. It may be used concurrently.
type pace struct {
	limiter *rate.Limiter
	mu      sync.Mutex // guards turns
	turns   map[types.NamespacedName]time.Time
}

// newPace returns a pace of so many turns a second, of which one second's may be
// taken at once.
func newPace(perSecond float64) *pace {
	return &pace{limiter: rate.NewLimiter(rate.Limit(perSecond), max(1, int(perSecond))), turns: map[types.NamespacedName]time.Time{}}
}

// turn takes id's turn if it has come, and returns 0; else how long it is until
// then. Who waits holds a place, so that turns go round.
func (p *pace) turn(id types.NamespacedName, now time.Time) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	at, waits := p.turns[id]
	if !waits {
		at = now.Add(p.limiter.ReserveN(now, 1).DelayFrom(now))
	}
	if at.After(now) {
		p.turns[id] = at
		return at.Sub(now)
	}
	delete(p.turns, id)
	return 0
}

// forget gives up id's place.
func (p *pace) forget(id types.NamespacedName) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.turns, id)
}
