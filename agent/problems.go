package agent

import (
	"cmp"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"
)

// Problem is the newest line that something is wrong with, by reason.
type Problem struct {
	Reason  string    `json:"reason"`
	Taken   bool      `json:"taken"` // false: it was refused or dropped
	Meaning string    `json:"meaning"`
	Line    string    `json:"line"` // shortened
	At      time.Time `json:"at"`
	Count   uint64    `json:"count"` // lines since the start
}

// problems remembers what was wrong with lines, for status and log.
type problems struct {
	log     *slog.Logger
	wantPID bool // credentials are asked for, so that a PID of 0 is a problem

	mu       sync.Mutex // guards all below
	byReason map[string]*problem
}

type problem struct {
	Problem
	logged time.Time
}

const (
	problemEvery = time.Minute // how often one reason is logged
	problemLine  = 120         // bytes of a line that are shown
)

func (p *problems) note(reason, meaning string, line []byte, at time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	have := p.byReason[reason]
	if have == nil {
		have = &problem{}
		p.byReason[reason] = have
	}
	have.Count++
	// A flood of bad lines must not cost more than good ones do.
	if have.Count > 1 && at.Sub(have.At) < time.Second && at.Sub(have.logged) < problemEvery {
		return
	}
	have.Reason, have.Taken, have.Meaning, have.Line, have.At = reason, reason == sharedGauge || reason == ignoredField, meaning, shortLine(line), at
	if have.logged.IsZero() || at.Sub(have.logged) >= problemEvery {
		have.logged = at
		p.log.Warn("something is wrong with a DogStatsD line", "taken", have.Taken, "reason", reason, "meaning", meaning, "line", have.Line, "count", have.Count)
	}
}

// list returns a copy, newest first.
func (p *problems) list() []Problem {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := make([]Problem, 0, len(p.byReason))
	for _, have := range p.byReason {
		out = append(out, have.Problem)
	}
	slices.SortFunc(out, func(a, b Problem) int {
		return cmp.Or(b.At.Compare(a.At), strings.Compare(a.Reason, b.Reason))
	})
	return out
}

func shortLine(line []byte) string {
	s := string(line[:min(len(line), problemLine)])
	s = strings.ToValidUTF8(s, "?")
	if len(line) > problemLine {
		s += "…"
	}
	return s
}
