package source

import "time"

// Status is the source's own health.
type Status struct {
	Name        Name      `json:"name,omitempty"`
	URL         string    `json:"url"`
	Period      float64   `json:"period_seconds"` // between two polls of a query
	LastSuccess time.Time `json:"last_success,omitzero"`
	LastError   string    `json:"last_error,omitempty"`
	LastErrorAt time.Time `json:"last_error_at,omitzero"`
	Queries     int       `json:"queries"`
	Streaming   bool      `json:"streaming"` // values are pushed
	StreamError string    `json:"stream_error,omitempty"`

	Endpoints []EndpointStatus `json:"endpoints,omitempty"` // where there are several

	PausedUntil time.Time  `json:"paused_until,omitzero"` // it asked for a pause (HTTP 429)
	RateLimit   *RateLimit `json:"rate_limit,omitempty"`  // nil while no answer has named one
}

// Failing reports whether the newest request failed by the source's fault.
func (s *Status) Failing() bool { return s.LastError != "" && s.LastErrorAt.After(s.LastSuccess) }

// Status returns the source's own health.
func (p *Poller) Status() Status {
	p.mu.RLock()
	defer p.mu.RUnlock()
	s := p.status
	s.Queries, s.RateLimit = len(p.queries), p.budget.status()
	if time.Now().Before(p.pausedUntil) {
		s.PausedUntil = p.pausedUntil
	}
	if f, ok := p.opts.Querier.(*Failover); ok {
		s.Endpoints = f.Status()
	}
	return s
}

// ticks notes when the next cycle begins.
func (p *Poller) ticks(now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.tick = now.Add(p.opts.Period)
}

// An Attempt says when a query is asked next.
type Attempt struct {
	At      time.Time // zero when values are pushed, or the query is not in use
	Pushed  bool      // the source tells of itself
	BackOff bool      // later than the next cycle: the query fails, or the source asked for a pause
}

// Next returns when k is asked next, as far as is known now.
func (p *Poller) Next(k Key) Attempt {
	p.mu.RLock()
	defer p.mu.RUnlock()
	s := p.queries[k]
	switch {
	case s == nil:
		return Attempt{}
	case s.reading.Err != nil && s.reading.Err.RetryAt.After(p.tick):
		return Attempt{At: s.reading.Err.RetryAt, BackOff: true}
	case p.status.Streaming && !s.polled:
		return Attempt{Pushed: true}
	case p.pausedUntil.After(p.tick):
		return Attempt{At: p.pausedUntil, BackOff: true}
	}
	return Attempt{At: p.tick}
}

// Next returns when k is asked next, by the source that it names.
func (s *Set) Next(k Key) Attempt {
	if p, own := s.route(k); p != nil {
		return p.Next(own)
	}
	return Attempt{}
}

// Main is the name of the source of keys that name none.
func (s *Set) Main() Name { return s.main }

// RateLimit is what the source's newest answer said of its limit on requests.
type RateLimit struct {
	Limit     int       `json:"limit"`         // requests a period
	Remaining int       `json:"remaining"`     // in this period
	Least     int       `json:"remaining_min"` // of late
	Period    float64   `json:"period_seconds"`
	Resets    time.Time `json:"resets"`
}

// status returns nil while no limit is known.
func (b *budget) status() *RateLimit {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.seen.IsZero() {
		return nil
	}
	return &RateLimit{Limit: b.limit.Limit, Remaining: b.limit.Remaining, Least: min(b.lows[0], b.lows[1]),
		Period: b.limit.Period.Seconds(), Resets: b.seen.Add(b.limit.Reset)}
}
