package forward

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// sender is one endpoint's part of the forwarder: its queue, its spool and a
// lane for each kind. It shares nothing that can make it wait with another.
type sender struct {
	name    string // the endpoint in logs and the status
	base    string // of URLs
	key     *apiKey
	o       *Options
	client  *http.Client
	queue   *queue
	metrics *senderMetrics
	log     *slog.Logger
	dir     string                // of the spool; "" for none
	spool   atomic.Pointer[spool] // nil while there is none
	offer   offer                 // of a fast lane

	mu           sync.Mutex // guards all below
	status       senderStatus
	refusedSince time.Time // of the key; zero when the intake's last word on it was not no
	refusal      error     // nil until the key has been refused for refusedFor
}

func newSender(e Endpoint, o *Options, m *metrics) *sender {
	s := &sender{
		name: redactURL(e.URL), base: strings.TrimSuffix(e.URL, "/"), key: &apiKey{file: e.APIKeyFile, last: e.APIKey}, o: o,
		queue: newQueue(o.QueueBytes, o.SpoolBytes), log: cmp.Or(o.Log, slog.New(slog.DiscardHandler)),
		client: &http.Client{
			Transport: o.Transport,
			// A redirect would carry the key to a host nobody configured.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}
	if o.SpoolDir != "" {
		_, whole := e.directory()
		s.dir = filepath.Join(o.SpoolDir, whole)
	}
	s.metrics = m.sender(s, e.label())
	return s
}

// run delivers until the queue is closed and empty, or ctx ends. What is left
// then stays in the spool; without one it is lost.
func (s *sender) run(ctx context.Context) {
	var lanes, keeper sync.WaitGroup
	stop := make(chan struct{})
	if s.dir != "" {
		s.open() // what it holds goes first
		keeper.Go(func() { s.keep(stop) })
	}
	for k := range kind(kinds) {
		l := &lane{sender: s, kind: k}
		lanes.Go(func() { l.run(ctx) })
	}
	lanes.Wait()
	close(stop)
	keeper.Wait()
	for _, e := range s.queue.takeMemory() {
		s.drop(e.file, "shutdown")
	}
	if sp := s.spool.Load(); sp != nil {
		sp.close()
	}
}

// push queues p.
func (s *sender) push(p *payloadItem) {
	for _, old := range s.queue.push(p) {
		s.drop(old.file, "queue_full")
	}
}

func (s *sender) drop(f file, reason string) { s.dropped(f.kind, reason, f.points, 1) }

// dropped counts what will never be delivered. payloads is 0 for items that
// never were in one.
func (s *sender) dropped(k kind, reason string, points, payloads int) {
	s.metrics.dropped(k, reason, points, payloads)
	s.mu.Lock()
	defer s.mu.Unlock()
	st := &s.status.kinds[k]
	if st.DroppedPoints == nil {
		st.DroppedPoints = map[string]uint64{}
	}
	st.DroppedPoints[reason] += uint64(points)
}

// refusedFor is how long a key must be refused to count: a probe that asks
// whether the agent has started must see it start, whatever its key.
const refusedFor = 10 * time.Second

// keyGrace is how long a refused key that stands in a file may still be
// replaced before data is dropped: a changed Secret takes a minute or two to
// reach a pod, and the old key may be revoked first.
const keyGrace = 5 * time.Minute

// heardOfKey notes what a final answer says about the key. s.mu is held.
func (s *sender) heardOfKey(answer *requestError, now time.Time, mend string) {
	if !answer.refusesKey() {
		s.refusedSince, s.refusal = time.Time{}, nil
		return
	}
	if s.refusedSince.IsZero() {
		s.refusedSince = now
	}
	if now.Sub(s.refusedSince) >= refusedFor {
		s.refusal = fmt.Errorf("intake %s: %w; %s", s.name, answer, mend)
	}
}

// keyChanged reports whether the key is another than the one that was refused.
func (s *sender) keyChanged(refused string) bool {
	key, err := s.key.read()
	return err == nil && key != refused
}

// keyMayCome reports whether a refused key may be about to be replaced.
func (s *sender) keyMayCome() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.key.file != "" && (s.refusedSince.IsZero() || s.o.Now().Sub(s.refusedSince) < keyGrace)
}

// refused returns why the intake does not accept the key, or nil when it does
// or has not said.
func (s *sender) refused() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.refusal
}
