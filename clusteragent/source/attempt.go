package source

import (
	"context"
	"fmt"
	"time"
)

// ask gets an answer for each of keys, which share a window, and records it. A
// batch that fails by some query's fault is halved until the fault stands alone.
// Of one that may have failed by a slow query it records nothing and returns
// what is left to ask, as another attempt may cost another timeout.
func (p *Poller) ask(ctx context.Context, keys []Key) []starved {
	keys = p.checked(keys, false)
	if len(keys) == 0 {
		return nil
	}
	now := time.Now()
	out, err := p.request(ctx, keys, now)
	if ctx.Err() != nil {
		p.abandon(keys)
		return nil
	}
	if err == nil {
		p.succeeded(keys, out, now)
		return nil
	}
	f := p.judge(err)
	p.tel.requests.WithLabelValues(f.class).Inc()
	switch {
	case f.blames && len(keys) > 1:
		half := len(keys) / 2
		return append(p.ask(ctx, keys[:half]), p.ask(ctx, keys[half:])...)
	case f.slow && len(keys) > 1:
		var rest []starved
		for _, k := range keys {
			rest = append(rest, starved{k, f, now})
		}
		return rest
	}
	if f.slow && p.opts.PromQL != nil && p.answeredSince(now) {
		f.blames = true
		f.err.Message = fmt.Sprintf("%s answers other queries but not this one (%s); make it cheaper, as by a recording rule", p.name(), f.err.Message)
	}
	p.failed(keys, f, now)
	return nil
}

// answeredSince reports whether the source has answered some query since then.
func (p *Poller) answeredSince(then time.Time) bool {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return !p.status.LastSuccess.Before(then)
}

// checked returns the keys that may be sent, and records why the others may not.
// Unasked are those that no attempt is under way for, as a stream's.
func (p *Poller) checked(keys []Key, unasked bool) []Key {
	ok := keys[:0:0]
	for _, k := range keys {
		f := fault{blames: true, unasked: unasked}
		if tooLong(k.Query) {
			f.err = Error{Reason: QueryTooLong, Message: "the query is too long for one request: shorten its scope"}
		} else if err := p.opts.Check(k.Query); err != nil {
			f.err = Error{Reason: SyntaxError, Message: "the query does not parse: " + err.Error()}
		} else {
			ok = append(ok, k)
			continue
		}
		p.failed([]Key{k}, f, time.Now())
	}
	return ok
}

// abandon returns keys whose attempt was cut short by the process's own end.
func (p *Poller) abandon(keys []Key) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, k := range keys {
		if s := p.queries[k]; s != nil {
			s.inFlight = false
		}
	}
}

func (p *Poller) succeeded(keys []Key, out []outcome, now time.Time) {
	p.tel.requests.WithLabelValues("success").Inc()
	p.mu.Lock()
	p.status.LastSuccess = time.Now()
	p.pausedUntil = time.Time{}
	p.mu.Unlock()
	for i, k := range keys {
		p.record(k, out[i], now)
	}
}

func (p *Poller) failed(keys []Key, f fault, now time.Time) {
	if !f.err.Reason.Own() {
		p.mu.Lock()
		p.status.LastError, p.status.LastErrorAt = f.err.Message, now
		if f.pause > 0 {
			p.pausedUntil = now.Add(min(f.pause, maxBackoff))
		}
		p.mu.Unlock()
	}
	for _, k := range keys {
		e := f.err
		p.record(k, outcome{err: &e, blamed: f.slow && f.blames, unasked: f.unasked}, now)
	}
}

// record stores what an attempt of k brought and tells k's owners.
func (p *Poller) record(k Key, o outcome, now time.Time) {
	p.mu.Lock()
	s := p.queries[k]
	if s == nil || !o.pushed && !o.unasked && !s.inFlight { // no longer in use, or since then answered
		p.mu.Unlock()
		return
	}
	s.inFlight = false
	before := s.reading.Err
	s.reading.Attempted = now
	s.reading.Err = o.err
	if o.err != nil && o.err.Reason == NoData && !o.pushed {
		o.err.Message += s.reading.Late.missing(now)
	}
	switch {
	case o.err == nil:
		s.reading.Value, s.reading.At, s.reading.Length, s.reading.Fetched = o.value, o.at, o.length, now
		if !o.pushed {
			s.reading.Late.saw(o, p.opts.Period, now)
		}
		s.failures = 0
		p.tel.show(&s.series, o, now)
	case o.blamed && p.opts.PromQL != nil:
		s.failures++
		o.err.RetryAt = now.Add(min(p.opts.Period<<min(s.failures, 10), maxSlowBackoff))
	case o.blamed:
		s.failures = max(s.failures, 1) // it travels alone, without backoff
	case backsOff(o.err.Reason):
		s.failures++
		o.err.RetryAt = now.Add(backoff(s.failures))
	case o.err.Reason.Own(): // such as NoData: the query itself is accepted
		s.failures = 0
	}
	s.settle()
	s.pushed = o.pushed
	var owners []string
	if o.pushed && (before == nil) == (o.err == nil) && now.Sub(s.told) < p.opts.Period {
		s.quiet = true // a value may change many times a second; confirm tells them
	} else {
		owners = s.tell(now)
	}
	notify := p.notify
	p.mu.Unlock()

	p.report(k, before, o.err)
	for _, owner := range owners {
		notify(owner)
	}
}

// backsOff reports whether the query must change before another attempt makes
// sense. Missing data may come at any time.
func backsOff(r Reason) bool {
	return r == SyntaxError || r == QueryTooLong || r == QueryRejected
}

func backoff(failures int) time.Duration {
	return min(minBackoff<<min(failures-1, 10), maxBackoff)
}

// report counts an attempt's failure and logs when its reason changes.
func (p *Poller) report(k Key, before, after *Error) {
	if after != nil {
		p.tel.failures.WithLabelValues(string(after.Reason)).Inc()
	}
	switch {
	case after != nil && (before == nil || before.Reason != after.Reason):
		p.opts.Log.Warn("query has no new value", "query", k.Query, "reason", string(after.Reason), "error", after.Error())
	case after == nil && before != nil:
		p.opts.Log.Info("query has a value again", "query", k.Query, "after", string(before.Reason))
	}
}
