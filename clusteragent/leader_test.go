package clusteragent

import (
	"context"
	"log/slog"
	"testing"
	"testing/synctest"

	"github.com/prometheus/client_golang/prometheus"
)

// The elector reports a won lease from a goroutine of its own, at any time.
func TestTermEndsWithTheLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLeader(Config{LeaseName: "lease"}, nil, prometheus.NewRegistry(), slog.New(slog.DiscardHandler))
		gained := 0
		l.gained = func() { gained++ }

		won, lost := make(chan struct{}), make(chan struct{})
		done := make(chan struct{})
		go func() {
			l.term(t.Context(), won, func(context.Context) { <-lost })
			close(done)
		}()
		synctest.Wait()
		if l.isLeader() {
			t.Error("leads before the lease is won")
		}
		close(won)
		synctest.Wait()
		if !l.isLeader() || gained != 1 {
			t.Errorf("with the lease: leader %v, told %d times; want true, once", l.isLeader(), gained)
		}
		close(lost)
		<-done
		if l.isLeader() {
			t.Error("leads after the lease is lost")
		}

		late := make(chan struct{})
		l.term(t.Context(), late, func(context.Context) {})
		close(late)
		synctest.Wait()
		if l.isLeader() || gained != 1 {
			t.Errorf("won after the end: leader %v, told %d times; want neither", l.isLeader(), gained)
		}
	})
}
