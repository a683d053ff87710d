// Package shadow asks a second source the queries that the cluster's own answers,
// and says where the two differ: evidence for who moves from one to the other.
//
// It owns what a fair comparison is, the record of each query, and its report.
// It reads the main source's values as anybody may and asks the shadow by a
// poller of its own, so that nothing that is served waits for it or fails by it.
// It does not know who uses a query.
package shadow

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"kelpie.dev/kelpie/clusteragent/source"
)

// Main has the values that are served; *source.Set is one.
type Main interface {
	Keys() []source.Key // of the queries in use, in no order
	Read(source.Key) source.Reading
}

// Other answers the same queries; *source.Poller is one.
type Other interface {
	Use(owner string, keys ...source.Key)
	Read(source.Key) source.Reading
	Run(context.Context) error
}

// Options configures a Shadow. Main and Other are required.
type Options struct {
	Main      Main
	Other     Other
	MainName  source.Name
	OtherName source.Name
	Period    time.Duration // between two comparisons of a query; 0 means 30 s
	Tolerance Tolerance
	// Registerer takes the metrics; nil registers nowhere.
	Registerer prometheus.Registerer
	Log        *slog.Logger // nil discards
}

// sample is how often values are looked at: a pushed one changes each second.
const sample = time.Second

// A Shadow compares two sources. Its methods may be called concurrently.
type Shadow struct {
	opts Options
	tel  *telemetry

	mu     sync.Mutex // guards what follows
	since  time.Time
	tracks map[source.Key]*track
	due    map[source.Key]time.Time // next comparison
}

// New returns a Shadow that asks nothing until Run.
func New(o Options) (*Shadow, error) {
	if o.Main == nil || o.Other == nil {
		return nil, errors.New("new shadow: Main and Other are required")
	}
	o.Period = cmp.Or(o.Period, 30*time.Second)
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	s := &Shadow{opts: o, since: time.Now(), tracks: map[source.Key]*track{}, due: map[source.Key]time.Time{}}
	s.tel = newTelemetry(o.Registerer, s)
	return s, nil
}

// Run compares until ctx ends, and then returns nil.
func (s *Shadow) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return s.opts.Other.Run(ctx) })
	g.Go(func() error {
		tick := time.NewTicker(sample)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return nil
			case <-tick.C:
				s.step(time.Now())
			}
		}
	})
	return g.Wait()
}

// step follows the queries in use, looks at their values, and compares what is
// due.
func (s *Shadow) step(now time.Time) {
	keys := s.opts.Main.Keys()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.follow(keys, now)
	for k, t := range s.tracks {
		t.main.observe(s.opts.Main.Read(k), now)
		t.shadow.observe(s.opts.Other.Read(k), now)
		if now.Before(s.due[k]) {
			continue
		}
		s.due[k] = now.Add(s.opts.Period)
		o := t.judge(s.opts.Tolerance, s.opts.Period)
		s.tel.count(o, t.last)
		if was := t.verdict; t.settle(o, now) {
			s.tell(k, t, was)
		}
	}
}

// follow asks the shadow for what the main source is asked for, and for no more.
func (s *Shadow) follow(keys []source.Key, now time.Time) {
	used := make(map[source.Key]struct{}, len(keys))
	for _, k := range keys {
		used[k] = struct{}{}
		if s.tracks[k] == nil {
			s.tracks[k], s.due[k] = newTrack(now), now.Add(s.opts.Period)
			s.opts.Other.Use(owner(k), k)
		}
	}
	for k := range s.tracks {
		if _, ok := used[k]; !ok {
			s.opts.Other.Use(owner(k))
			delete(s.tracks, k)
			delete(s.due, k)
		}
	}
}

// owner is who uses a query at the shadow.
func owner(k source.Key) string { return k.Window.String() + " " + k.Query }

// tell logs that a query begins to differ, or ceases to. What a source says of
// its own failures stands in the log already.
func (s *Shadow) tell(k source.Key, t *track, was Outcome) {
	log := s.opts.Log.With("query", k.Query, "main", string(s.opts.MainName), "shadow", string(s.opts.OtherName))
	switch {
	case t.verdict == Differ:
		log.Warn("shadow differs from the main source", "main_value", t.last.Main, "shadow_value", t.last.Shadow, "difference", t.last.Difference)
	case t.verdict == OnlyMain:
		log.Warn("shadow has no data that the main source has")
	case t.verdict == OnlyShadow:
		log.Warn("shadow has data that the main source has not")
	case t.verdict == Agree && was.bad():
		log.Info("shadow agrees with the main source again", "after", string(was))
	}
}
