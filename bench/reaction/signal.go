package main

import (
	"context"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"
)

// idle is the requests a second of an app that is not loaded.
const idle = 2

// sender is the apps: each counts its requests, and says what time it is.
type sender struct {
	conn   net.Conn
	began  time.Time
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu   sync.Mutex
	rate []int // requests a second, by app
	err  error // the first
	owed []float64
}

func (c *cluster) newSender(ctx context.Context) (*sender, error) {
	ip, err := c.shell(ctx, `kubectl get nodes -o jsonpath='{.items[0].status.addresses[?(@.type=="InternalIP")].address}'`)
	if err != nil {
		return nil, err
	}
	conn, err := (&net.Dialer{}).DialContext(ctx, "udp", net.JoinHostPort(ip, "8125"))
	if err != nil {
		return nil, fmt.Errorf("reach the node's agent: %w", err)
	}
	ctx, cancel := context.WithCancel(ctx)
	s := &sender{conn: conn, began: time.Now(), cancel: cancel, rate: make([]int, c.apps), owed: make([]float64, c.apps)}
	for i := range s.rate {
		s.rate[i] = idle
	}
	s.wg.Go(func() { s.run(ctx) })
	return s, nil
}

func (s *sender) close() {
	s.cancel()
	s.wg.Wait()
	_ = s.conn.Close()
}

// now is the time that the clock says, in seconds.
func (s *sender) now() float64 { return time.Since(s.began).Seconds() }

// failure is the first of the sends since it was last asked: while the agent is
// replaced there are some.
func (s *sender) failure() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	err := s.err
	s.err = nil
	return err
}

func (s *sender) load(app, rate int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rate[app] = rate
}

func (s *sender) run(ctx context.Context) {
	const period = 50 * time.Millisecond
	tick := time.NewTicker(period)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		s.mu.Lock()
		for i, rate := range s.rate {
			s.owed[i] += float64(rate) * period.Seconds()
			var b strings.Builder
			for ; s.owed[i] >= 1; s.owed[i]-- {
				fmt.Fprintf(&b, "reaction.requests:1|c|#app:%s\n", app(i))
			}
			fmt.Fprintf(&b, "reaction.clock:%.3f|g|#app:%s\n", s.now(), app(i))
			if _, err := s.conn.Write([]byte(b.String())); err != nil && s.err == nil {
				s.err = fmt.Errorf("send to the node's agent: %w", err)
			}
		}
		s.mu.Unlock()
	}
}
