package source

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"kelpie.dev/kelpie/datadog"
	"kelpie.dev/kelpie/metric/payload"
)

// scripted answers with what its script says; a nil error is an answer.
type scripted struct {
	err   error
	hangs bool
	asked int
}

func (s *scripted) Query(ctx context.Context, _ []string, _, _ time.Time) (*payload.QueryResponse, error) {
	s.asked++
	if s.hangs {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return &payload.QueryResponse{}, s.err
}

func twoEndpoints(t *testing.T) (a, b *scripted, f *Failover) {
	t.Helper()
	a, b = &scripted{}, &scripted{}
	f, err := NewFailover(10*time.Second, slog.New(slog.DiscardHandler), Endpoint{"http://a", a}, Endpoint{"http://b", b})
	if err != nil {
		t.Fatal(err)
	}
	return a, b, f
}

func statuses(f *Failover) string {
	var out []string
	for _, s := range f.Status() {
		out = append(out, fmt.Sprintf("%s %s %gs used=%v", s.URL, s.Status, s.Retry, s.Used))
	}
	return strings.Join(out, ", ")
}

// TestFailoverOnlyOnFaultsOfTheEndpoint: what another would answer in the same
// way is the answer.
func TestFailoverOnlyOnFaultsOfTheEndpoint(t *testing.T) {
	for name, c := range map[string]struct {
		err     error
		another bool
	}{
		"network":        {errors.New("connection refused"), true},
		"500":            {&datadog.APIError{Status: 500}, true},
		"503":            {fmt.Errorf("query: %w", &datadog.APIError{Status: 503}), true},
		"429":            {&datadog.APIError{Status: 429}, true},
		"400":            {&datadog.APIError{Status: 400}, false},
		"403":            {&datadog.APIError{Status: 403}, false},
		"422":            {&datadog.APIError{Status: 422}, false},
		"error in a 200": {&datadog.APIError{Status: 200}, false},
	} {
		a, b, f := twoEndpoints(t)
		a.err = c.err
		_, err := f.Query(t.Context(), nil, time.Time{}, time.Time{})
		if got := b.asked == 1; got != c.another || (err == nil) != c.another {
			t.Errorf("%s: the other endpoint asked: %v, error %v; want %v", name, got, err, c.another)
		}
	}
}

// TestFailoverAndBack goes through an endpoint's death and return on a fake clock.
func TestFailoverAndBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b, f := twoEndpoints(t)
		step := func(what string, askedA, askedB int, want string) {
			t.Helper()
			if _, err := f.Query(t.Context(), nil, time.Time{}, time.Time{}); err != nil {
				t.Errorf("%s: %v", what, err)
			}
			if a.asked != askedA || b.asked != askedB || statuses(f) != want {
				t.Errorf("%s: a %d, b %d times; %s\nwant a %d, b %d; %s", what, a.asked, b.asked, statuses(f), askedA, askedB, want)
			}
			a.asked, b.asked = 0, 0
		}
		if got := statuses(f); got != "http://a Unknown 30s used=false, http://b Unknown 30s used=false" {
			t.Errorf("before the first request: %s", got)
		}
		step("both well", 1, 0, "http://a OK 30s used=true, http://b Unknown 30s used=false")
		a.hangs = true
		step("a hangs", 1, 1, "http://a Failed 60s used=false, http://b OK 30s used=true")
		step("a is left alone", 0, 1, "http://a Failed 60s used=false, http://b OK 30s used=true")
		time.Sleep(31 * time.Second)
		step("a is tried again", 1, 1, "http://a Failed 120s used=false, http://b OK 30s used=true")
		a.hangs = false
		time.Sleep(61 * time.Second)
		step("a is back", 1, 0, "http://a OK 60s used=true, http://b OK 30s used=false")
	})
}

// TestSlowQueryFailsNoEndpoint: where all fail on a request, nobody knows that the
// endpoints are at fault, and none is left alone.
func TestSlowQueryFailsNoEndpoint(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b, f := twoEndpoints(t)
		a.hangs, b.hangs = true, true
		if _, err := f.Query(t.Context(), nil, time.Time{}, time.Time{}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("both hang: %v, want the deadline", err)
		}
		a.hangs, b.hangs, a.asked, b.asked = false, false, 0, 0
		if _, err := f.Query(t.Context(), nil, time.Time{}, time.Time{}); err != nil || a.asked != 1 || b.asked != 0 {
			t.Errorf("the next request: %v, a %d, b %d times; want a at once", err, a.asked, b.asked)
		}
		a.err, b.err = &datadog.APIError{Status: 429}, errors.New("down")
		var api *datadog.APIError
		if _, err := f.Query(t.Context(), nil, time.Time{}, time.Time{}); !errors.As(err, &api) || api.Status != 429 {
			t.Errorf("both fail: %v, want the first one's error", err)
		}
	})
}
