package store

import (
	"testing"
	"time"

	"kelpie.dev/kelpie/metric"
)

// TestSettledStateFollowsLatePoints holds that what is settled changes its state
// with a point that comes late, also one that was not when its batch began to wait.
func TestSettledStateFollowsLatePoints(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	var waits time.Duration // between the next look at the clock and all others
	s, err := Open(Options{Dir: t.TempDir(), MinFree: -1, Now: func() time.Time {
		at := now
		now, waits = now.Add(waits), 0
		return at
	}})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	write := func(tag string, age int64) {
		t.Helper()
		at := now.Unix() - age
		m := metric.Series{Name: "m", Type: metric.Gauge, Interval: 10, Tags: metric.NewTags(tag), Points: []metric.Point{{Time: at, Value: 1}}}
		if err := s.Append(t.Context(), []metric.Series{m}); err != nil {
			t.Error(err)
		}
	}
	write("a:1", 5)
	before, state := s.Settled("m")
	if before != now.Unix()-settleAfter {
		t.Errorf("settled before %d, want %d", before, now.Unix()-settleAfter)
	}
	write("a:1", settleAfter-1)
	if _, same := s.Settled("m"); same != state {
		t.Errorf("%v after a point that is not late, want %v", same, state)
	}
	write("a:1", settleAfter+1)
	_, late := s.Settled("m")
	if late == state {
		t.Error("a late point leaves the state")
	}
	// A batch that waits meanwhile: its point is late once it is written.
	now = now.Add(time.Hour)
	write("a:1", 5)
	_, state = s.Settled("m")
	waits = 10 * time.Second
	write("a:1", settleAfter-1)
	if _, same := s.Settled("m"); same == state {
		t.Error("a point that was late once its batch was written leaves the state")
	}
}
