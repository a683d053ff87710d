package agent

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"kelpie.dev/kelpie/agent/aggregate"
	"kelpie.dev/kelpie/agent/dogstatsd"
)

// StreamedSample is one parsed line as the stream command shows it, with the
// tags that its origin has added.
type StreamedSample struct {
	Time   time.Time `json:"time"`
	Name   string    `json:"name"` // as sent
	Type   string    `json:"type"` // c, g, h, ms, d or s
	Values []float64 `json:"values,omitempty"`
	Member string    `json:"member,omitempty"` // of a set
	Rate   float64   `json:"rate,omitempty"`   // when less than 1
	Tags   []string  `json:"tags"`             // as sent, then the agent's
	Origin string    `json:"origin,omitempty"` // namespace/pod
	// Missed counts the samples before this one that came too fast to be shown.
	Missed uint64 `json:"missed,omitempty"`
}

// taps are those who watch samples go by. While there are none they cost one
// atomic load for each datagram.
type taps struct {
	n  atomic.Int32
	mu sync.Mutex // guards all below
	by map[*tap]struct{}
}

type tap struct {
	pattern string // of path.Match
	out     chan StreamedSample
	missed  uint64
}

// Bounds of the stream: of those who watch, and of what waits for each.
const (
	maxTaps    = 4
	tapBacklog = 1024
)

func (t *taps) any() bool { return t != nil && t.n.Load() > 0 }

// open starts to watch the metrics that pattern matches.
func (t *taps) open(pattern string) (*tap, error) {
	if _, err := path.Match(pattern, ""); err != nil {
		return nil, fmt.Errorf("metric pattern %q: %w (it is a name in which * and ? stand for anything)", pattern, err)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.by) == maxTaps {
		return nil, errTooManyTaps
	}
	if t.by == nil {
		t.by = map[*tap]struct{}{}
	}
	w := &tap{pattern: oneElement(pattern), out: make(chan StreamedSample, tapBacklog)}
	t.by[w] = struct{}{}
	t.n.Add(1)
	return w, nil
}

var errTooManyTaps = errors.New("the samples are being watched by " + strconv.Itoa(maxTaps) + " already: end one of these first")

// oneElement hides slashes from path.Match, in which * does not match one.
func oneElement(name string) string { return strings.ReplaceAll(name, "/", "|") }

func (t *taps) close(w *tap) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.by, w)
	t.n.Add(-1)
}

// offer shows m to those who watch its name. It never waits.
func (t *taps) offer(m *dogstatsd.Metric, at time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for w := range t.by {
		if ok, _ := path.Match(w.pattern, oneElement(string(m.Name))); !ok {
			continue
		}
		s := streamed(m, at)
		s.Missed = w.missed
		select {
		case w.out <- s:
			w.missed = 0
		default:
			w.missed++
		}
	}
}

func streamed(m *dogstatsd.Metric, at time.Time) StreamedSample {
	s := StreamedSample{Time: at, Name: string(m.Name), Type: m.Type.String(), Origin: m.Origin, Tags: []string{}}
	if m.Rate < 1 {
		s.Rate = m.Rate
	}
	if m.Type == aggregate.Set {
		s.Member = string(m.Member)
	} else {
		s.Values = slices.Clone(m.Values)
	}
	for _, tag := range m.Tags {
		s.Tags = append(s.Tags, string(tag))
	}
	s.Tags = append(s.Tags, m.Base.Tags()...)
	return s
}

// ServeHTTP streams samples as lines of JSON until the client goes. It answers
// this machine only: samples may hold what other pods should not read.
func (t *taps) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if host, _, err := net.SplitHostPort(r.RemoteAddr); err != nil || !net.ParseIP(host).IsLoopback() {
		http.Error(w, "the stream of samples is for this machine only: kubectl exec into the agent's pod, and run: agent stream", http.StatusForbidden)
		return
	}
	pattern := r.URL.Query().Get("metric")
	if pattern == "" {
		pattern = "*"
	}
	watch, err := t.open(pattern)
	switch {
	case errors.Is(err, errTooManyTaps):
		http.Error(w, err.Error(), http.StatusTooManyRequests)
		return
	case err != nil:
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	defer t.close(watch)
	control := http.NewResponseController(w)
	if err := control.SetReadDeadline(time.Time{}); err != nil { // the server's is for requests that end soon
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/x-ndjson")
	w.WriteHeader(http.StatusOK)
	out := json.NewEncoder(w)
	for err == nil {
		// The server's own limit is for answers that end.
		if err = control.SetWriteDeadline(time.Now().Add(10 * time.Second)); err == nil {
			err = control.Flush()
		}
		if err != nil {
			return
		}
		select {
		case s := <-watch.out:
			err = out.Encode(s)
			for len(watch.out) > 0 && err == nil {
				err = out.Encode(<-watch.out)
			}
		case <-r.Context().Done():
			return
		}
	}
}

// Stream prints the samples that the agent at url (http://host:port) takes in
// and whose metric matches pattern, until ctx ends; as JSON when asked for.
func Stream(ctx context.Context, url, pattern string, asJSON bool, to io.Writer) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url+"/stream", nil)
	if err != nil {
		return fmt.Errorf("ask the agent for its samples: %w", err)
	}
	q := req.URL.Query()
	q.Set("metric", pattern)
	req.URL.RawQuery = q.Encode()
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return fmt.Errorf("ask the agent for its samples (does it run here? DD_HEALTH_PORT is its port): %w", err)
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		said, _ := io.ReadAll(io.LimitReader(resp.Body, 4096))
		return fmt.Errorf("ask the agent for its samples: HTTP %s: %s", resp.Status, said)
	}
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		if err := printSample(to, lines.Bytes(), asJSON); err != nil {
			return err
		}
	}
	if ctx.Err() != nil {
		return nil // the user has seen enough
	}
	return fmt.Errorf("read the agent's samples: %w", cmp.Or(lines.Err(), io.ErrUnexpectedEOF))
}

func printSample(to io.Writer, line []byte, asJSON bool) error {
	if asJSON {
		_, err := fmt.Fprintf(to, "%s\n", line)
		return err
	}
	var s StreamedSample
	if err := json.Unmarshal(line, &s); err != nil {
		return fmt.Errorf("decode the agent's sample: %w", err)
	}
	if s.Missed > 0 {
		if _, err := fmt.Fprintf(to, "… %d samples came too fast to be shown\n", s.Missed); err != nil {
			return err
		}
	}
	what := s.Member
	for i, v := range s.Values {
		if i > 0 {
			what += ":"
		}
		what += strconv.FormatFloat(v, 'g', -1, 64)
	}
	rate := ""
	if s.Rate > 0 {
		rate = "|@" + strconv.FormatFloat(s.Rate, 'g', -1, 64)
	}
	from := ""
	if s.Origin != "" {
		from = "  from " + s.Origin
	}
	_, err := fmt.Fprintf(to, "%s  %s:%s|%s%s  %v%s\n", s.Time.UTC().Format("15:04:05.000"), s.Name, what, s.Type, rate, s.Tags, from)
	return err
}
