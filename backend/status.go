package backend

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"

	"kelpie.dev/kelpie/backend/queryapi"
	"kelpie.dev/kelpie/backend/store"
	"kelpie.dev/kelpie/backend/stream"
)

// Status is what `kelpie-backend status` shows.
type Status struct {
	Version          string               `json:"version"`
	Started          time.Time            `json:"started"`
	AcceptedPerSec   float64              `json:"points_accepted_per_second"` // over the last minute
	RefusedPerSecond map[string]float64   `json:"points_refused_per_second,omitempty"`
	Store            *store.Stats         `json:"store,omitempty"` // nil until it is open
	Stream           *stream.Stats        `json:"stream,omitempty"`
	Limits           *LimitsStatus        `json:"limits_file,omitempty"` // nil without one
	SlowestQueries   []queryapi.SlowQuery `json:"slowest_queries,omitempty"`
	Errors           []LogLine            `json:"last_errors,omitempty"`
}

// status collects Status from the parts.
type status struct {
	version string
	started time.Time
	errors  *recent
	limits  *limitsFile

	mu      sync.Mutex // guards what follows
	store   *store.Store
	api     *queryapi.API
	stream  *stream.Stream
	samples []counted // of the last minute, oldest first
}

// counted is the store's counts at an instant.
type counted struct {
	at       time.Time
	accepted uint64
	refused  map[string]uint64
}

func newStatus(version string, errs *recent, limits *limitsFile) *status {
	return &status{version: version, started: time.Now(), errors: errs, limits: limits}
}

// observe adds the parts once they are there.
func (s *status) observe(st *store.Store, api *queryapi.API, values *stream.Stream) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.store, s.api, s.stream = st, api, values
	s.sample(time.Now())
}

// meter samples the store's counts until ctx ends.
func (s *status) meter(ctx context.Context) error {
	tick := time.NewTicker(10 * time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case now := <-tick.C:
			s.mu.Lock()
			s.sample(now)
			s.mu.Unlock()
		}
	}
}

// sample notes the counts of now. The caller holds mu.
func (s *status) sample(now time.Time) {
	accepted, refused := s.store.Counts()
	s.samples = append(s.samples, counted{now, accepted, refused})
	s.samples = slices.DeleteFunc(s.samples, func(c counted) bool { return now.Sub(c.at) > time.Minute+time.Second })
}

// snapshot is the health server's Status.
func (s *status) snapshot() any {
	out := Status{Version: s.version, Started: s.started, Errors: s.errors.lines(), Limits: s.limits.snapshot()}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.store == nil {
		return out
	}
	stats := s.store.Stats()
	standing := s.stream.Stats()
	out.Store, out.Stream, out.SlowestQueries = &stats, &standing, s.api.Slowest()
	if len(s.samples) == 0 {
		return out
	}
	first := s.samples[0]
	span := time.Since(first.at).Seconds()
	if span <= 0 {
		return out
	}
	out.AcceptedPerSec = float64(stats.Accepted-first.accepted) / span
	out.RefusedPerSecond = make(map[string]float64)
	for reason, n := range stats.Refused {
		if d := n - first.refused[reason]; d > 0 {
			out.RefusedPerSecond[reason] = float64(d) / span
		}
	}
	return out
}

// A LogLine is a warning or an error that was logged.
type LogLine struct {
	At      time.Time         `json:"at"`
	Level   string            `json:"level"`
	Message string            `json:"message"`
	Attrs   map[string]string `json:"attributes,omitempty"`
}

// keptLines is how many log lines the status shows.
const keptLines = 20

// recent is a slog.Handler that passes everything on and remembers the last
// warnings and errors.
type recent struct {
	next  slog.Handler
	attrs []slog.Attr // of With
	kept  *keptLog
}

type keptLog struct {
	mu   sync.Mutex // guards list
	list []LogLine
}

func newRecent(next slog.Handler) *recent { return &recent{next: next, kept: &keptLog{}} }

// Enabled implements slog.Handler.
func (r *recent) Enabled(ctx context.Context, l slog.Level) bool {
	return l >= slog.LevelWarn || r.next.Enabled(ctx, l)
}

// Handle implements slog.Handler.
func (r *recent) Handle(ctx context.Context, rec slog.Record) error {
	if rec.Level >= slog.LevelWarn {
		line := LogLine{At: rec.Time, Level: rec.Level.String(), Message: rec.Message, Attrs: make(map[string]string)}
		note := func(a slog.Attr) bool {
			line.Attrs[a.Key] = a.Value.String()
			return true
		}
		for _, a := range r.attrs {
			note(a)
		}
		rec.Attrs(note)
		r.kept.mu.Lock()
		r.kept.list = append(r.kept.list, line)
		r.kept.list = r.kept.list[max(0, len(r.kept.list)-keptLines):]
		r.kept.mu.Unlock()
	}
	if !r.next.Enabled(ctx, rec.Level) {
		return nil
	}
	return r.next.Handle(ctx, rec)
}

// WithAttrs implements slog.Handler.
func (r *recent) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &recent{next: r.next.WithAttrs(attrs), attrs: slices.Concat(r.attrs, attrs), kept: r.kept}
}

// WithGroup implements slog.Handler. The remembered lines are flat.
func (r *recent) WithGroup(name string) slog.Handler {
	return &recent{next: r.next.WithGroup(name), attrs: r.attrs, kept: r.kept}
}

// lines returns the remembered lines, newest last.
func (r *recent) lines() []LogLine {
	r.kept.mu.Lock()
	defer r.kept.mu.Unlock()
	return slices.Clone(r.kept.list)
}
