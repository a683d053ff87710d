package binaries

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/term"
)

// progress tells a person that a silent command is still at work. On a terminal
// one line counts the seconds; elsewhere a line comes now and then.
type progress struct {
	out      io.Writer
	what     string
	terminal bool
	every    time.Duration

	mu     sync.Mutex // guards what follows
	output bytes.Buffer
	last   string
}

func newProgress(out io.Writer, what string) *progress {
	p := &progress{out: out, what: what, every: 15 * time.Second}
	if f, ok := out.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		p.terminal, p.every = true, time.Second
	}
	return p
}

// Write takes the command's own output, kept for when it fails.
func (p *progress) Write(data []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	lines := strings.Split(strings.TrimSpace(string(data)), "\n")
	p.last = lines[len(lines)-1]
	return p.output.Write(data)
}

// during runs the command and reports until it returns.
func (p *progress) during(command func() error) error {
	done := make(chan error, 1)
	start := time.Now()
	go func() { done <- command() }()
	tick := time.NewTicker(p.every)
	defer tick.Stop()
	for {
		select {
		case err := <-done:
			if p.terminal {
				_, _ = fmt.Fprint(p.out, "\r\x1b[K") // only decoration
			}
			return err
		case <-tick.C:
			p.report(time.Since(start))
		}
	}
}

func (p *progress) report(elapsed time.Duration) {
	const width = 48
	p.mu.Lock()
	note := p.last
	p.mu.Unlock()
	if len(note) > width {
		note = note[:width-1] + "…"
	}
	line := strings.TrimSpace(fmt.Sprintf("  building %s: %.0f s  %s", p.what, elapsed.Seconds(), note))
	if p.terminal {
		_, _ = fmt.Fprintf(p.out, "\r\x1b[K  %s", line)
		return
	}
	say(p.out, "    %s", line)
}

// tail returns the end of the command's output.
func (p *progress) tail() string {
	const keep = 4000
	p.mu.Lock()
	defer p.mu.Unlock()
	text := strings.TrimSpace(p.output.String())
	if len(text) > keep {
		text = "…" + text[len(text)-keep:]
	}
	return text
}
