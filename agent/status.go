package agent

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"kelpie.dev/kelpie/agent/aggregate"
	"kelpie.dev/kelpie/agent/check"
	"kelpie.dev/kelpie/agent/dogstatsd"
	"kelpie.dev/kelpie/agent/forward"
	"kelpie.dev/kelpie/agent/origin"
)

// Status is what the agent tells about itself, at /status and by the status
// command.
type Status struct {
	Version    string                   `json:"version"`
	Hostname   string                   `json:"hostname"`
	Started    time.Time                `json:"started"`
	Now        time.Time                `json:"now"`
	Tags       []string                 `json:"host_tags"`
	Listeners  []ListenerStatus         `json:"listeners"`
	Taken      Taken                    `json:"taken"`
	Problems   []Problem                `json:"problems"`         // newest first
	Contexts   int                      `json:"contexts"`         // at the last flush
	Top        []aggregate.ContextStats `json:"top_contexts"`     // without Telemetry
	Telemetry  aggregate.Total          `json:"client_telemetry"` // of the official clients, about themselves
	Senders    []aggregate.OriginStats  `json:"senders"`          // who holds most contexts
	Refused    []aggregate.Refusal      `json:"refused"`          // by the limit on contexts
	FastLane   FastLaneStatus           `json:"fast_lane"`        // at the last flush
	Origin     OriginStatus             `json:"origin"`
	Checks     check.Status             `json:"checks"`
	Forwarding []forward.Status         `json:"forwarding"`
}

// ListenerStatus is one socket's.
type ListenerStatus struct {
	Transport dogstatsd.Transport `json:"transport"`
	Address   string              `json:"address"`
	Readers   int                 `json:"readers,omitempty"` // of a datagram socket
	dogstatsd.Counts
}

// OriginStatus is about the tags of pods.
type OriginStatus struct {
	Enabled bool   `json:"enabled"` // there is a kubelet to ask
	Pods    int    `json:"pods"`
	Error   string `json:"error,omitempty"` // of the last request
	// Lines are all metric lines, by what became of their origin: resolved,
	// unresolved (nobody knows the pod that they name) or none (they name none).
	// Those that waited for it count as waiting, too.
	Lines map[string]uint64 `json:"lines,omitempty"`
	// Problems are mistakes in pods' annotations, which cost their tags.
	Problems []string `json:"problems,omitempty"`
}

// Taken is what has come in since the start, and what was dropped of it.
type Taken struct {
	Samples       map[string]uint64 `json:"samples"` // by DogStatsD type, those included that were dropped once they were read
	Events        uint64            `json:"events"`
	ServiceChecks uint64            `json:"service_checks"`
	Dropped       map[string]uint64 `json:"dropped,omitempty"` // lines by reason, those that cannot be read included
}

// reporter collects a Status.
type reporter struct {
	started   time.Time
	config    Config
	version   string
	listeners []*dogstatsd.Listener
	tagger    *origin.Tagger
	pipeline  *pipeline
	forwarder *forward.Forwarder
	checks    *check.Runner
}

func (r *reporter) report(now time.Time) Status {
	s := Status{
		Version: r.version, Hostname: r.config.Hostname, Started: r.started, Now: now,
		Tags: r.config.Tags, Problems: r.pipeline.problems.list(), Forwarding: r.forwarder.Status(), Checks: r.checks.Status(),
	}
	for _, l := range r.listeners {
		s.Listeners = append(s.Listeners, ListenerStatus{l.Transport(), l.Addr(), l.Readers(), l.Counts()})
	}
	s.Taken, s.Origin.Lines = r.pipeline.metrics.totals()
	live := r.pipeline.contexts()
	s.Contexts, s.Top, s.Telemetry, s.Senders, s.Refused = live.n, live.top, live.telemetry, live.origins, live.refused
	s.FastLane = FastLaneStatus{r.config.Aggregate.FastContexts, live.fast, live.fastLeft, live.fastBy}
	if r.tagger != nil {
		pods, err := r.tagger.Pods()
		s.Origin.Enabled, s.Origin.Pods, s.Origin.Problems = true, pods, r.tagger.Problems()
		if err != nil {
			s.Origin.Error = err.Error()
		}
	}
	return s
}

// Print writes s for people.
func (s *Status) Print(w io.Writer) error {
	p := &printer{w: w}
	p.line("Kelpie agent %s on %s", s.Version, s.Hostname)
	p.line("  up        %s (since %s)", s.Now.Sub(s.Started).Round(time.Second), s.Started.UTC().Format(time.RFC3339))
	if len(s.Tags) > 0 {
		p.line("  host tags %s", strings.Join(s.Tags, ", "))
	}
	p.line("\nDogStatsD")
	if len(s.Listeners) == 0 {
		p.line("  no listener: DD_USE_DOGSTATSD or DD_DOGSTATSD_PORT and DD_DOGSTATSD_SOCKET turn them off")
	}
	for _, l := range s.Listeners {
		p.line("  %-4s %s: %d datagrams, %d bytes", l.Transport, l.Address, l.Packets, l.Bytes)
		if l.Transport == dogstatsd.UnixStream {
			p.line("       %d connections open, %d refused; %d frames too long, %d cut short", l.Connections, l.ConnectionsRefused, l.FramesTooLong, l.FramesCutShort)
		}
		if l.Unterminated > 0 {
			p.line("       %d last lines dropped for want of a line feed (DD_DOGSTATSD_EOL_REQUIRED)", l.Unterminated)
		}
		if l.Truncated+l.KernelDrops+l.ReadErrors > 0 {
			p.line("       lost: %d truncated (DD_DOGSTATSD_BUFFER_SIZE), %d dropped by the kernel (DD_DOGSTATSD_SO_RCVBUF), %d read errors", l.Truncated, l.KernelDrops, l.ReadErrors)
		}
	}
	s.Taken.print(p)
	s.printContexts(p)
	s.printOrigin(p)
	s.printChecks(p)
	s.printForwarding(p)
	return p.err
}

func (t *Taken) print(p *printer) {
	samples, by := sumOf(t.Samples)
	p.line("  came in: %d samples%s, %d events, %d service checks", samples, by, t.Events, t.ServiceChecks)
	if dropped, by := sumOf(t.Dropped); dropped > 0 {
		p.line("  dropped: %d lines%s", dropped, by)
	}
}

// sumOf adds up counts, and lists them when there are any.
func sumOf(counts map[string]uint64) (sum uint64, list string) {
	for _, name := range slices.Sorted(maps.Keys(counts)) {
		sum += counts[name]
		list += fmt.Sprintf(", %s %d", name, counts[name])
	}
	if list == "" {
		return 0, ""
	}
	return sum, " (" + list[2:] + ")"
}

func (s *Status) printContexts(p *printer) {
	p.line("  contexts: %d at the last flush", s.Contexts)
	for _, c := range s.Top {
		p.line("    %9d samples  %s{%s}", c.Samples, c.Name, c.Tags)
	}
	if s.Telemetry.Contexts > 0 {
		p.line("    not listed: %d samples of %d contexts %s*, the clients' own telemetry", s.Telemetry.Samples, s.Telemetry.Contexts, clientTelemetry)
	}
	for _, o := range s.Senders {
		p.line("    %9d contexts from %s", o.Contexts, nameOrigin(o.Origin))
	}
	for _, r := range s.Refused {
		p.line("    refused %d samples of %s from %s: its share of the contexts is used up (DD_DOGSTATSD_CONTEXT_LIMITER_LIMIT)", r.Samples, cmp.Or(r.Metric, "other metrics"), nameOrigin(r.Origin))
	}
	s.printFastLane(p)
	if len(s.Problems) == 0 {
		p.line("  every line so far was taken")
		return
	}
	p.line("  what was wrong with lines, newest first:")
	for _, e := range s.Problems {
		taken := "not taken"
		if e.Taken {
			taken = "taken, but"
		}
		p.line("    %s ×%d (%s), last %s ago: %s", e.Reason, e.Count, taken, s.Now.Sub(e.At).Round(time.Second), e.Meaning)
		p.line("      %q", e.Line)
	}
}

func (s *Status) printOrigin(p *printer) {
	p.line("\nOrigin of samples")
	switch {
	case !s.Origin.Enabled:
		p.line("  not looked for: DD_KUBERNETES_KUBELET_HOST is not set")
	case s.Origin.Error != "":
		p.line("  %d pods known, but: %s", s.Origin.Pods, s.Origin.Error)
	default:
		p.line("  %d pods known (asked for when a sample needs it)", s.Origin.Pods)
	}
	if s.Origin.Enabled {
		l := s.Origin.Lines
		p.line("  metric lines: %d of pods that are known, %d of pods that are not (untagged), %d that name none; %d waited for theirs", l["resolved"], l["unresolved"], l["none"], l["waiting"])
	}
	for _, problem := range s.Origin.Problems {
		p.line("  no tags of %s", problem)
	}
}

func (s *Status) printChecks(p *printer) {
	p.line("\nChecks")
	if len(s.Checks.Instances)+len(s.Checks.Problems) == 0 {
		p.line("  none: no file in DD_CONFD_PATH and no annotation of a pod asks for one")
	}
	for _, i := range s.Checks.Instances {
		state := "ok"
		if i.LastError != "" {
			state = "FAILING: " + i.LastError
		}
		p.line("  %s %s (%s), every %s: %d runs, %d series%s; %s", i.Check, i.Name, i.Source, i.Interval, i.Runs, i.Series, s.ago(i.LastRun), state)
		for _, w := range i.Warnings {
			p.line("    warning: %s", w)
		}
	}
	for _, problem := range s.Checks.Problems {
		p.line("  not run: %s: %s", problem.Source, problem.Error)
	}
}

func (s *Status) printForwarding(p *printer) {
	p.line("\nForwarding")
	for _, e := range s.Forwarding {
		state := "no request yet"
		switch {
		case e.Failing:
			state = "FAILING"
		case e.LastSuccess != nil:
			state = "ok"
		}
		p.line("  %s (API key %s): %s", e.URL, e.APIKey, state)
		p.line("    delivered %d points in %d payloads%s; dropped %d points; %d retries", e.DeliveredPts, e.Delivered, s.ago(e.LastSuccess), e.DroppedPts, e.Retries)
		if e.QueuePayloads > 0 {
			p.line("    queue: %d payloads, %d bytes in memory, oldest%s", e.QueuePayloads, e.QueueBytes, s.ago(e.OldestQueued))
		}
		if f := e.FastLane; f != nil {
			s.printOffer(p, f)
		}
		if d := e.Spool; d != nil {
			p.line("    on disk: %d payloads, %d of %d bytes, in %s", d.Payloads, d.Bytes, d.Limit, d.Directory)
			if d.Error != "" {
				p.line("    NOT on disk, as it should be: %s", d.Error)
			}
		}
		for _, k := range e.Kinds {
			for _, reason := range slices.Sorted(maps.Keys(k.DroppedPoints)) {
				p.line("    dropped %d points of %s: %s", k.DroppedPoints[reason], k.Kind, reason)
			}
		}
		if e.LastError != "" {
			p.line("    last error%s: %s", s.ago(e.LastErrorAt), e.LastError)
		}
	}
}

// printOffer tells what an intake asks for every second.
func (s *Status) printOffer(p *printer, f *forward.FastLaneStatus) {
	state := "does not get them: it has not said so for a minute, or what waits for it is older than that"
	switch {
	case f.Since != nil:
		state = "gets them since " + f.Since.UTC().Format(time.RFC3339)
	case f.Metrics == 0:
		state = "nothing to send"
	}
	p.line("    fast lane: asks for %d metrics every second%s; %s", f.Metrics, s.ago(f.Confirmed), state)
	if f.Malformed > 0 {
		p.line("    fast lane: %d answers could not be read; the newest: %s", f.Malformed, cmp.Or(f.Error, "good again"))
	}
}

func (s *Status) ago(t *time.Time) string {
	if t == nil {
		return ""
	}
	return ", " + s.Now.Sub(*t).Round(time.Second).String() + " ago"
}

// printer writes lines until the first failure, which it keeps.
type printer struct {
	w   io.Writer
	err error
}

func (p *printer) line(format string, args ...any) {
	if p.err == nil {
		_, p.err = fmt.Fprintf(p.w, format+"\n", args...)
	}
}
