package agent

import (
	"bytes"
	"errors"
	"net/netip"
	"time"
	"unicode/utf8"

	"kelpie.dev/kelpie/agent/aggregate"
	"kelpie.dev/kelpie/agent/dogstatsd"
	"kelpie.dev/kelpie/agent/origin"
)

// sender is what a line's datagram tells about it.
type sender struct {
	pid    int32 // 0 means unknown
	addr   netip.Addr
	hash   uint64 // of lines
	at     time.Time
	waited bool // the line has been counted as waiting, and is a copy
}

// waitingLine is a line whose origin was unknown when it came.
type waitingLine struct {
	line []byte
	sender
}

// packet handles the lines of one datagram.
func (p *pipeline) packet(packet *dogstatsd.Packet, transport dogstatsd.Transport, at time.Time) {
	if packet.PID == 0 && p.problems.wantPID && transport != dogstatsd.UDP {
		p.zeroPID.Do(func() {
			p.log.Warn("the kernel does not say which process sends to the socket; its samples go without the tags of their origin",
				"mend", "give the agent's pod hostPID: true")
		})
	}
	from := sender{pid: packet.PID, addr: packet.Addr, hash: p.lines.sender(packet), at: at}
	now, watched := at.Unix(), p.taps.any()
	for rest := packet.Data; len(rest) > 0; {
		var lines []cutLine
		lines, rest = p.ahead.look(p.lines, rest, from.hash)
		for i := range lines {
			if watched || !p.repeat(&lines[i], now) {
				p.line(lines[i].line, from, at, true)
			}
		}
	}
}

// repeat takes in a line like one that came before, and reports whether it was
// one. It spares all that line does but for the value.
func (p *pipeline) repeat(line *cutLine, now int64) bool {
	if line.hash == 0 {
		return false
	}
	known := p.lines.find(line.hash)
	if known == nil || !known.context.Live() {
		return false
	}
	s := &p.repeated
	s.Type, s.Rate, s.Values, s.Member = known.kind, known.rate, nil, nil
	if known.kind == aggregate.Set {
		s.Member = line.values
	} else {
		var err error
		if p.values, err = dogstatsd.AppendValues(p.values[:0], line.values); err != nil {
			return false // line says what is wrong with it
		}
		s.Values = p.values
	}
	if p.aggregator.AddTo(known.context, s, now) != nil {
		return false // nothing was added; line tries again, and says why not
	}
	p.counts.origins[known.outcome]++
	p.counts.samples[known.kind] += max(1, len(s.Values))
	return true
}

// line handles one line that from sent. mayWait is false when its origin has
// to be decided now.
func (p *pipeline) line(line []byte, from sender, now time.Time, mayWait bool) {
	switch dogstatsd.KindOf(line) {
	case dogstatsd.EventLine:
		p.event(line, from, now, mayWait)
	case dogstatsd.ServiceCheckLine:
		p.serviceCheck(line, from, now, mayWait)
	case dogstatsd.MetricLine:
		p.metricLine(line, from, now, mayWait)
	}
}

func (p *pipeline) metricLine(line []byte, from sender, now time.Time, mayWait bool) {
	m, err := p.parser.Metric(line)
	if err != nil {
		p.refuse(line, err, from.at)
		return
	}
	claim := origin.Claim{
		PID: from.pid, Addr: from.addr, PodUID: m.PodUID, ContainerID: m.ContainerID, External: m.External,
		Cardinality: m.Cardinality, Gauge: m.Type == aggregate.Gauge,
	}
	found, outcome, wait := p.resolve(&claim, line, from, now, mayWait)
	if wait {
		return
	}
	name := m.Name // as sent: what is remembered is the line, not the name
	m.Base, m.Origin = found.Set, found.Origin
	m.Sender = p.sentBy(m, from)
	if p.taps.any() {
		p.taps.offer(m, from.at)
	}
	if !p.rewriter.Rewrite(m) {
		p.metrics.dropped[dropBlocked].Inc()
		return
	}
	p.counts.samples[m.Type] += max(1, len(m.Values))
	copied := p.copies && (m.Type == aggregate.Histogram || m.Type == aggregate.Timer)
	c := p.add(&m.Sample, line, from.at)
	if copied {
		m.Name, m.Type = append([]byte(p.toSketch), m.Name...), aggregate.Distribution
		p.add(&m.Sample, line, from.at)
	}
	if c != nil && m.Type == aggregate.Gauge && m.Time == 0 {
		p.noteShared(c, m.Sender, line, from.at)
	}
	if c == nil || copied || m.Time != 0 || c.Samples() < 2 {
		return // not worth remembering: a line that nobody repeats makes a context of its own
	}
	_, _, rest, ok := dogstatsd.CutMetric(line)
	if ok {
		p.lines.remember(lineSlot{hash: p.lines.hash(from.hash, name, rest), context: c, rate: m.Rate, kind: m.Type, outcome: outcome})
	}
}

// maxSender bounds what a line's sender may call itself, in bytes.
const maxSender = 128

// sentBy tells apart who sent m: its pod or, where that is not known, the
// container that it names or an address that is not this machine's. Nothing, if
// none of it is there. It is valid until the next call.
func (p *pipeline) sentBy(m *dogstatsd.Metric, from sender) []byte {
	b := p.sender[:0]
	switch {
	case m.Origin != "":
		b = append(b, m.Origin...)
	case len(m.Container) > 0:
		name := m.Container[:min(len(m.Container), maxSender)]
		if !utf8.Valid(name) {
			name = bytes.ToValidUTF8(name, []byte("?"))
		}
		b = append(append(b, "container "...), name...)
	case from.addr.IsValid() && !from.addr.IsLoopback():
		b = from.addr.AppendTo(b)
	}
	p.sender = b
	return b
}

// noteShared tells of a gauge that several senders send as one series. Each line
// comes this way once in rememberLines at least.
func (p *pipeline) noteShared(c *aggregate.Context, sentBy, line []byte, at time.Time) {
	if len(sentBy) == 0 {
		return
	}
	if other := c.SentBy(sentBy, at.Unix(), int64(2*rememberLines/time.Second)); other != "" {
		p.problems.note(sharedGauge, "gauges of "+min(other, string(sentBy))+" and "+max(other, string(sentBy))+
			" are one series, in which the last of each 10 s stands; give them a tag that tells them apart, or let their pod do so: origin detection, card:orchestrator", line, at)
	}
}

func nameOrigin(o string) string {
	if o == "" {
		return "an unknown sender"
	}
	return o
}

// add takes s in and returns its context, or nil when it was dropped, which is
// then counted.
func (p *pipeline) add(s *aggregate.Sample, line []byte, at time.Time) *aggregate.Context {
	c, err := p.aggregator.Context(s)
	if err == nil {
		err = p.aggregator.AddTo(c, s, at.Unix())
	}
	if err == nil {
		return c
	}
	var drop aggregate.Drop
	errors.As(err, &drop)
	p.metrics.dropped[string(drop)].Inc()
	p.problems.note(string(drop), drop.Error(), line, at)
	return nil
}

// resolve finds the tags of a line's origin. wait reports that the line has
// been put aside until these are known.
func (p *pipeline) resolve(claim *origin.Claim, line []byte, from sender, now time.Time, mayWait bool) (found origin.Resolution, outcome origin.Outcome, wait bool) {
	found, outcome = p.resolver.Resolve(claim, now)
	if outcome == origin.Waiting && mayWait {
		if size := len(line) + waitingOverhead; p.waitBytes+size <= maxWaiting {
			p.waitBytes += size
			if !from.waited {
				line, from.waited = bytes.Clone(line), true
				p.counts.origins[outcome]++
			}
			p.waiting = append(p.waiting, waitingLine{line, from})
			return found, outcome, true
		}
		outcome = origin.Unresolved
	}
	p.counts.origins[outcome]++
	return found, outcome, false
}

// refuse counts a line that cannot be read. err is one of dogstatsd's, whose
// texts are labels.
func (p *pipeline) refuse(line []byte, err error, at time.Time) {
	reason := reasonOf(err)
	p.metrics.parseErrors[reason].Inc()
	p.problems.note(reason, err.Error(), line, at)
}

func reasonOf(err error) string {
	var (
		metric dogstatsd.ParseError
		event  dogstatsd.EventError
		check  dogstatsd.CheckError
	)
	switch {
	case errors.As(err, &metric):
		return string(metric)
	case errors.As(err, &event):
		return string(event)
	case errors.As(err, &check):
		return string(check)
	default:
		return "other"
	}
}

// counts are what a batch adds to the agent's metrics, at its end.
type counts struct {
	samples [len(aggregate.Types) + 1]int
	origins [origin.Waiting + 1]int
}

func (c *counts) addTo(m *metrics) {
	for i, n := range c.samples {
		if n > 0 {
			m.samples[i].Add(float64(n))
		}
	}
	for i, n := range c.origins {
		if n > 0 {
			m.origins[i].Add(float64(n))
		}
	}
	*c = counts{}
}
