package source

import (
	"context"
	"fmt"

	"golang.org/x/sync/errgroup"
)

// NotConfigured is the reason of a query for a source that the cluster agent
// was told nothing about.
const NotConfigured Reason = "SourceNotConfigured"

// A Set is the cluster's sources behind one face: a key goes to the source that
// it names. Each has its own polls, pauses and backoff, so that none waits for
// another. Its methods may be called concurrently.
type Set struct {
	main    Name
	members map[Name]*Poller // not changed once made
}

// NewSet returns the set of members, of which main is the cluster's own.
func NewSet(main Name, members map[Name]*Poller) (*Set, error) {
	if members[main] == nil {
		return nil, fmt.Errorf("the cluster's source is %q and it is not configured: set %s", main, main.settings())
	}
	return &Set{main: main, members: members}, nil
}

// route returns who answers k, and k as that source knows it.
func (s *Set) route(k Key) (*Poller, Key) {
	n := k.Source
	if n == "" {
		n = s.main
	}
	p := s.members[n]
	k.Source = ""
	if p != nil && p.opts.PromQL != nil {
		k.Window = 0 // PromQL carries its own
	}
	return p, k
}

// Use replaces the queries that owner uses, each at its source; none ends its use.
func (s *Set) Use(owner string, keys ...Key) {
	split := map[*Poller][]Key{}
	for _, k := range keys {
		if p, own := s.route(k); p != nil {
			split[p] = append(split[p], own)
		}
	}
	for _, p := range s.members {
		p.Use(owner, split[p]...)
	}
}

// Keys returns the queries in use of the cluster's own source, in no order.
func (s *Set) Keys() []Key { return s.members[s.main].Keys() }

// Read returns what is known of k, without asking anyone.
func (s *Set) Read(k Key) Reading {
	p, own := s.route(k)
	if p == nil {
		return notConfigured(k.Source)
	}
	return p.Read(own)
}

// Await returns what is known of k, and waits for its first attempt; see Poller.
func (s *Set) Await(ctx context.Context, k Key) Reading {
	p, own := s.route(k)
	if p == nil {
		return notConfigured(k.Source)
	}
	return p.Await(ctx, own)
}

func notConfigured(n Name) Reading {
	return Reading{Err: &Error{Reason: NotConfigured,
		Message: fmt.Sprintf("the cluster agent has no source %q: set %s there, or name another source", n, n.settings())}}
}

// AwaitAll waits until every query now in use was attempted once, or ctx's end.
func (s *Set) AwaitAll(ctx context.Context) {
	for _, p := range s.members {
		p.AwaitAll(ctx)
	}
}

// Subscribe sets the function that is told an owner's name after each attempt
// of a query it uses. It must be called before Run and must not block.
func (s *Set) Subscribe(notify func(owner string)) {
	for _, p := range s.members {
		p.Subscribe(notify)
	}
}

// Status returns the health of the cluster's own source.
func (s *Set) Status() Status { return s.members[s.main].Status() }

// Others returns the health of the other sources, in the order of their names.
func (s *Set) Others() []Status {
	var out []Status
	for _, n := range names {
		if p := s.members[n]; p != nil && n != s.main {
			out = append(out, p.Status())
		}
	}
	return out
}

// Run runs all sources until ctx ends, and then returns nil.
func (s *Set) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	for n, p := range s.members {
		g.Go(func() error {
			if err := p.Run(ctx); err != nil {
				return fmt.Errorf("source %s: %w", n, err)
			}
			return nil
		})
	}
	return g.Wait()
}
