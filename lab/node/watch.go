package node

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"
)

// watch waits for conditions and notices components that end meanwhile.
type watch struct {
	logs    func(component string) string
	running []running
}

type running struct {
	name  string
	ended <-chan struct{}
}

func (w *watch) add(name string, ended <-chan struct{}) {
	w.running = append(w.running, running{name: name, ended: ended})
}

// until polls until check passes. It gives up when ctx ends or a component does,
// and then says what the component's log says last.
func (w *watch) until(ctx context.Context, what string, check func(context.Context) error) error {
	const step, patience = 100 * time.Millisecond, 2 * time.Second
	tick := time.NewTicker(step)
	defer tick.Stop()
	for {
		once, cancel := context.WithTimeout(ctx, patience)
		err := check(once)
		cancel()
		if err == nil {
			return nil
		}
		if failed := w.failed(); failed != nil {
			return failed
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("gave up waiting until %s: %w (last answer: %w); logs are in %s", what, ctx.Err(), err, w.logs("*"))
		case <-tick.C:
		}
	}
}

func (w *watch) failed() error {
	for _, r := range w.running {
		select {
		case <-r.ended:
			path := w.logs(r.name)
			return fmt.Errorf("%s ended right after its start; its log %s ends with:\n%s", r.name, path, tail(path))
		default:
		}
	}
	return nil
}

// tail returns the last lines of a log.
func tail(path string) string {
	const keep = 10
	data, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(data)), "\n")
	return strings.Join(lines[max(0, len(lines)-keep):], "\n")
}
