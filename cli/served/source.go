package served

import (
	"fmt"
	"strings"
	"time"
)

// Lines says the source's health: the sentence first, what explains it below.
func (s *Source) Lines(now time.Time) []string {
	state := "up"
	switch {
	case s.PausedUntil.After(now):
		state = "PAUSED for " + short(s.PausedUntil.Sub(now)) + " by its own wish"
	case s.Failing():
		state = "FAILING"
	case s.LastSuccess.IsZero():
		state = "not asked yet"
	}
	how := fmt.Sprintf("polled every %gs", s.Period)
	if s.Streaming {
		how = "values are pushed, and otherwise " + how
	} else if s.StreamError != "" {
		how += ", as nothing is pushed: " + s.StreamError
	}
	name := s.URL
	if s.Name != "" {
		name = s.Name + " " + s.URL
	}
	out := []string{fmt.Sprintf("%s: %s, %d queries, %s", name, state, s.Queries, how)}
	if !s.LastSuccess.IsZero() {
		out = append(out, "last success "+short(now.Sub(s.LastSuccess))+" ago")
	}
	if s.LastError != "" {
		out = append(out, fmt.Sprintf("last error %s ago: %s", short(now.Sub(s.LastErrorAt)), s.LastError))
	}
	if l := s.RateLimit; l != nil {
		resets := "is reset by now"
		if l.Resets.After(now) {
			resets = "is reset in " + short(l.Resets.Sub(now))
		}
		out = append(out, fmt.Sprintf("rate limit: %d of %d requests left (of late at least %d), %s", l.Remaining, l.Limit, l.Least, resets))
	}
	for _, e := range s.Endpoints {
		out = append(out, e.line(now))
	}
	return out
}

func (e *Endpoint) line(now time.Time) string {
	ago := func(t time.Time) string {
		if t.IsZero() {
			return "never"
		}
		return short(now.Sub(t)) + " ago"
	}
	used := ""
	if e.Used {
		used = ", used now"
	}
	return fmt.Sprintf("endpoint %s: %s%s; last success %s, last failure %s", e.URL, e.Status, used, ago(e.LastSuccess), ago(e.LastFailure))
}

// Certificate says when the serving certificate ends, and what is wrong with it.
func Certificate(wrong string, ends, now time.Time) string {
	var parts []string
	if wrong != "" {
		parts = append(parts, wrong)
	}
	if !ends.IsZero() {
		parts = append(parts, fmt.Sprintf("ends %s, in %s", ends.UTC().Format(time.DateOnly), short(ends.Sub(now))))
	}
	return strings.Join(parts, "; ")
}
