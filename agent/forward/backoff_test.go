package forward

import (
	"net/http"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestBackoff(t *testing.T) {
	s := &lane{sender: &sender{o: &Options{BackoffBase: 2 * time.Second, BackoffMax: 64 * time.Second}}}
	for n, limit := range []time.Duration{2, 4, 8, 16, 32, 64, 64, 64} {
		s.errors = n
		for range 100 {
			if got := s.backoff(); got < limit*time.Second/2 || got > limit*time.Second {
				t.Fatalf("after %d errors: %s, want within [%ds, %ds]", n, got, limit/2, limit)
			}
		}
	}
}

// TestDrainTriesAgain holds that a sender in a long backoff still uses the time
// that is left at the end.
func TestDrainTriesAgain(t *testing.T) {
	in := newIntake(t, func(request int) (int, string) {
		if request <= 2 { // before the end, and at it
			return http.StatusServiceUnavailable, ""
		}
		return 0, ""
	})
	o := options(in.URL)
	o.BackoffBase, o.BackoffMax = time.Hour, time.Hour
	f, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	c, end := run(t, f)
	c <- batch(0)
	c <- batch(1)
	eventually(t, "the failure", func() bool { return f.Status()[0].Retries == 1 })
	end()
	if diff := cmp.Diff(sequence(2), in.got()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestBackoffAfterALongOutage holds that a few deliveries make an outage
// forgotten, however long it was.
func TestBackoffAfterALongOutage(t *testing.T) {
	s := &lane{sender: &sender{o: &Options{BackoffBase: 2 * time.Second, BackoffMax: 64 * time.Second}}}
	for range 300 {
		s.countError()
	}
	if got := s.backoff(); got < 32*time.Second {
		t.Errorf("in the outage: %s, want at least 32s", got)
	}
	for range 3 {
		s.forgetErrors()
	}
	s.countError()
	if got := s.backoff(); got > 4*time.Second {
		t.Errorf("three deliveries after the outage: %s, want at most 4s", got)
	}
}
