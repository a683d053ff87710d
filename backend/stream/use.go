package stream

import (
	"context"
	"time"

	"kelpie.dev/kelpie/metric"
	"kelpie.dev/kelpie/query"
)

// use adds sub to q's users; it gets what q is worth now. The caller holds mu.
func (s *Stream) use(sub *subscriber, id uint64, text string) ([]query.Missing, error) {
	now := s.opts.Now()
	if s.standing.Size() >= s.opts.MaxQueries && !s.standing.Stands(text) {
		return nil, errTooMany(s.opts.MaxQueries)
	}
	q, missing, err := s.standing.Add(text, now.Unix())
	if err != nil {
		return nil, err
	}
	if s.uses[q] == nil {
		s.uses[q] = map[*subscriber]uint64{}
	}
	if old, twice := s.uses[q][sub]; twice {
		s.standing.Remove(q)
		return nil, errTwice(old)
	}
	s.uses[q][sub] = id
	sub.queries[id] = q
	if _, known := q.Last(); known {
		sub.note(id, q, now, time.Time{})
	}
	s.active.Store(true)
	s.updateLane()
	return missing, nil
}

// release ends sub's use of its query id; the query itself lingers. The caller
// holds mu.
func (s *Stream) release(sub *subscriber, id uint64) {
	q := sub.queries[id]
	if q == nil {
		return
	}
	delete(sub.queries, id)
	delete(sub.dirty, id)
	if delete(s.uses[q], sub); len(s.uses[q]) == 0 {
		delete(s.uses, q)
	}
	s.idle = append(s.idle, idleUse{q, s.opts.Now().Add(linger)})
}

// retire ends the uses whose time has come. The caller holds mu.
func (s *Stream) retire(now time.Time) {
	n := 0
	for n < len(s.idle) && !s.idle[n].until.After(now) {
		s.standing.Remove(s.idle[n].q)
		n++
	}
	if n > 0 {
		s.idle = append(s.idle[:0], s.idle[n:]...)
		s.active.Store(s.standing.Size() > 0)
		s.updateLane()
	}
}

// load reads what a new query has missed.
func (s *Stream) load(ctx context.Context, missing []query.Missing) {
	for _, m := range missing {
		series, distributions, err := s.read(ctx, m)
		s.mu.Lock()
		s.standing.Fill(m, series, distributions, err, s.opts.Now().Unix())
		if err != nil {
			s.again = append(s.again, missed{m, s.opts.Now().Add(retryLoad)})
		}
		s.mu.Unlock()
		s.nudge()
	}
}

func (s *Stream) read(ctx context.Context, m query.Missing) ([]metric.Series, []metric.Distribution, error) {
	ctx, cancel := context.WithTimeout(ctx, s.opts.Timeout)
	defer cancel()
	series, err := s.opts.Source.Select(ctx, m.Selector, m.From, m.To)
	if err != nil {
		return nil, nil, err
	}
	src, ok := s.opts.Source.(query.DistributionSource)
	if !ok {
		return series, nil, nil
	}
	var distributions []metric.Distribution
	for d, err := range src.Distributions(ctx, m.Selector, m.From, m.To) {
		if err != nil {
			return nil, nil, err
		}
		distributions = append(distributions, d.Clone())
	}
	return series, distributions, nil
}
