package stream

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"maps"
	"slices"
	"strings"
)

// fastLane is the metrics that agents are to send every second, as queries that
// stand read them.
type fastLane struct {
	etag    string
	metrics []string // sorted
}

func newFastLane(metrics []string) *fastLane {
	sum := sha256.Sum256([]byte(strings.Join(metrics, "\n")))
	return &fastLane{etag: hex.EncodeToString(sum[:8]), metrics: metrics}
}

// FastMetrics returns the list as it is now, sorted and not to be modified, and
// its name: another list has another.
func (s *Stream) FastMetrics() (etag string, metrics []string) {
	l := s.lane.Load()
	return l.etag, l.metrics
}

// SetMaxMetrics changes Options.MaxMetrics of a running Stream.
func (s *Stream) SetMaxMetrics(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.maxMetrics, s.known = cmp.Or(n, defaultMaxMetrics), nil
	s.updateLane()
}

// updateLane makes the list anew if the metrics that are read are others. The
// caller holds mu.
func (s *Stream) updateLane() {
	metrics := map[string]struct{}{}
	if s.maxMetrics < 0 {
		s.lane.Store(newFastLane(nil))
		return
	}
	for name := range s.standing.Metrics {
		metrics[name] = struct{}{}
	}
	if maps.Equal(metrics, s.known) {
		return
	}
	s.known = metrics
	list := slices.Sorted(maps.Keys(metrics))
	if len(list) > s.maxMetrics {
		s.opts.Log.Warn("more metrics are read than the fast lane takes; the others come every ten seconds",
			"metrics", len(list), "taken", s.maxMetrics)
		list = list[:s.maxMetrics]
	}
	s.lane.Store(newFastLane(list))
}
