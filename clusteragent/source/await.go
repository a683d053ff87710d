package source

import (
	"context"
	"maps"
	"slices"
)

// Await returns what is known of k. If k is in use and was never asked, it waits
// for the first attempt or ctx's end; it does not wait for anything else.
func (p *Poller) Await(ctx context.Context, k Key) Reading {
	p.mu.RLock()
	var settled chan struct{}
	if s := p.queries[k]; s != nil {
		settled = s.settled
	}
	p.mu.RUnlock()
	if settled != nil {
		select {
		case <-settled:
		case <-ctx.Done():
		}
	}
	return p.Read(k)
}

// AwaitAll waits until every query now in use was attempted once, or ctx's end.
func (p *Poller) AwaitAll(ctx context.Context) {
	p.mu.RLock()
	keys := slices.Collect(maps.Keys(p.queries))
	p.mu.RUnlock()
	for _, k := range keys {
		p.Await(ctx, k)
	}
}

// settle lets go whoever waits for the first attempt.
func (s *state) settle() {
	if s.settled != nil {
		close(s.settled)
		s.settled = nil
	}
}
