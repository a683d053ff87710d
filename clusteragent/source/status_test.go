package source

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"kelpie.dev/kelpie/datadog"
	"kelpie.dev/kelpie/metric/payload"
)

type answerNone struct{}

func (answerNone) Query(context.Context, []string, time.Time, time.Time) (*payload.QueryResponse, error) {
	return payload.NewQueryResponse("", 0, 0), nil
}

func TestNextAttempt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, err := New(Options{Name: Kelpie, Querier: answerNone{}, Period: 30 * time.Second})
		if err != nil {
			t.Fatal(err)
		}
		set, err := NewSet(Kelpie, map[Name]*Poller{Kelpie: p})
		if err != nil {
			t.Fatal(err)
		}
		good, bad, unknown := Key{Query: "avg:x{*}", Window: time.Minute}, Key{Query: "avg:x{", Window: time.Minute}, Key{Query: "avg:y{*}"}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		start := time.Now()
		go func() { done <- set.Run(ctx) }()
		set.Use("o", good, bad)
		time.Sleep(31 * time.Second) // the bad one is asked after 50 ms, and again no sooner than 30 s later
		p.RateLimit(datadog.RateLimit{Limit: 100, Remaining: 40, Period: time.Hour, Reset: time.Minute})
		synctest.Wait()
		tick := start.Add(60 * time.Second)
		for key, want := range map[Key]Attempt{good: {At: tick}, bad: {At: tick}, unknown: {}, {Source: Datadog}: {}} {
			if diff := cmp.Diff(want, set.Next(key)); diff != "" {
				t.Errorf("next attempt of %+v (-want +got):\n%s", key, diff)
			}
		}
		time.Sleep(40 * time.Second) // at the second cycle it failed again and waits for a minute
		if got := set.Next(bad); !got.BackOff || !got.At.After(set.Next(good).At) {
			t.Errorf("a query that fails twice is asked at %+v, the good one at %+v; want it to back off", got, set.Next(good))
		}
		limit := set.Status().RateLimit
		if limit == nil || limit.Remaining != 40 || limit.Least != 40 || limit.Period != 3600 {
			t.Errorf("rate limit %+v", limit)
		}
		p.mu.Lock()
		p.status.Streaming = true
		p.mu.Unlock()
		if got := set.Next(good); !got.Pushed || !got.At.IsZero() {
			t.Errorf("while values are pushed: %+v", got)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}
