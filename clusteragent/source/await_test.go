package source

import (
	"context"
	"net/http"
	"testing"
	"time"
)

func TestAwaitOnlyTheFirstAttempt(t *testing.T) {
	release := make(chan struct{}, 1)
	p, _ := start(t, func(queries []string, w http.ResponseWriter) {
		<-release
		answer(queries, w)
	})
	ended, end := context.WithCancel(t.Context())
	end()

	p.Use("a", key(1))
	if r := p.Await(ended, key(1)); !r.Attempted.IsZero() {
		t.Errorf("after the request's end: %+v, want nothing known", r)
	}
	got := make(chan Reading, 1)
	go func() { got <- p.Await(t.Context(), key(1)) }()
	polled := make(chan struct{})
	go func() { p.poll(t.Context(), all); close(polled) }()
	select {
	case r := <-got:
		t.Errorf("before the first answer: %+v, want to wait", r)
	case <-time.After(50 * time.Millisecond):
	}
	release <- struct{}{}
	if r := <-got; r.Value != 1 || r.Err != nil {
		t.Errorf("after the first answer: %+v, want 1", r)
	}
	<-polled

	// Neither a query known nor one not in use is waited for.
	if r := p.Await(t.Context(), key(1)); r.Value != 1 {
		t.Errorf("second read = %+v, want 1", r)
	}
	if r := p.Await(t.Context(), key(2)); !r.Attempted.IsZero() {
		t.Errorf("a query not in use = %+v, want nothing", r)
	}

	// A query that goes out of use keeps nobody waiting.
	p.Use("b", key(3))
	done := make(chan struct{})
	go func() { p.AwaitAll(t.Context()); close(done) }()
	p.Use("b")
	select {
	case <-done:
	case <-time.After(5 * time.Second):
		t.Error("AwaitAll still waits for a query that nobody uses")
	}
}
