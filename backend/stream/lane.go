package stream

import (
	"crypto/sha256"
	"encoding/hex"
	"maps"
	"slices"
	"strings"
)

// A FastLane is the metrics that agents are to send every second, as queries
// that stand read them.
type FastLane struct {
	ETag    string   // names the list; another list has another
	Metrics []string // sorted
}

func newFastLane(metrics []string) *FastLane {
	sum := sha256.Sum256([]byte(strings.Join(metrics, "\n")))
	return &FastLane{ETag: hex.EncodeToString(sum[:8]), Metrics: metrics}
}

// FastLane returns the list as it is now. It is not to be modified.
func (s *Stream) FastLane() *FastLane { return s.lane.Load() }

// updateLane makes the list anew if the metrics that are read are others. The
// caller holds mu.
func (s *Stream) updateLane() {
	if s.opts.MaxMetrics < 0 {
		return
	}
	metrics := map[string]struct{}{}
	for name := range s.standing.Metrics {
		metrics[name] = struct{}{}
	}
	if maps.Equal(metrics, s.known) {
		return
	}
	s.known = metrics
	list := slices.Sorted(maps.Keys(metrics))
	if len(list) > s.opts.MaxMetrics {
		s.opts.Log.Warn("more metrics are read than the fast lane takes; the others come every ten seconds",
			"metrics", len(list), "taken", s.opts.MaxMetrics)
		list = list[:s.opts.MaxMetrics]
	}
	s.lane.Store(newFastLane(list))
}
