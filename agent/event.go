package agent

import (
	"time"

	"kelpie.dev/kelpie/agent/dogstatsd"
	"kelpie.dev/kelpie/agent/origin"
	"kelpie.dev/kelpie/metric"
)

// ignoredField is the problem of an event or a service check that was taken
// without a field that cannot be read.
const ignoredField = "bad_optional_field"

// event handles one event line.
func (p *pipeline) event(line []byte, from sender, now time.Time, mayWait bool) {
	e, err := p.parser.Event(line)
	if err != nil {
		p.refuse(line, err, from.at)
		return
	}
	found, wait := p.claimed(&e.Claims, line, from, now, mayWait)
	if wait {
		return
	}
	p.noteIgnored(e.Ignored, line, from.at)
	e.Tags = e.Tags.Union(found.Set.Tags()...)
	e.Host, e.Time = p.hostOf(e.HasHost, e.Host), timeOf(e.Time, from.at)
	p.metrics.events.Inc()
	p.unsent.Events = append(p.unsent.Events, e.Event)
}

// serviceCheck handles one service check line.
func (p *pipeline) serviceCheck(line []byte, from sender, now time.Time, mayWait bool) {
	c, err := p.parser.ServiceCheck(line)
	if err != nil {
		p.refuse(line, err, from.at)
		return
	}
	found, wait := p.claimed(&c.Claims, line, from, now, mayWait)
	if wait {
		return
	}
	p.noteIgnored(c.Ignored, line, from.at)
	c.Tags = c.Tags.Union(found.Set.Tags()...)
	c.Host, c.Time = p.hostOf(c.HasHost, c.Host), timeOf(c.Time, from.at)
	p.metrics.serviceChecks.Inc()
	p.unsent.Checks = append(p.unsent.Checks, c.ServiceCheck)
}

// claimed resolves what an event or a service check says of its origin.
func (p *pipeline) claimed(c *dogstatsd.Claims, line []byte, from sender, now time.Time, mayWait bool) (origin.Resolution, bool) {
	claim := origin.Claim{
		PID: from.pid, Addr: from.addr, PodUID: c.PodUID, ContainerID: c.ContainerID, External: c.External, Cardinality: c.Cardinality,
	}
	found, _, wait := p.resolve(&claim, line, from, now, mayWait)
	return found, wait
}

func (p *pipeline) noteIgnored(ignored bool, line []byte, at time.Time) {
	if ignored {
		p.problems.note(ignoredField, "a field after the required ones cannot be read and was left out", line, at)
	}
}

// hostOf returns the host that a line names, which may be none, or this one.
func (p *pipeline) hostOf(named bool, host string) string {
	if named {
		return host
	}
	return p.running.Host
}

func timeOf(sent int64, arrived time.Time) int64 {
	if sent > 0 {
		return sent
	}
	return arrived.Unix()
}

// up is the service check that says that the agent runs.
func (p *pipeline) up(at int64) metric.ServiceCheck {
	return metric.ServiceCheck{Name: "datadog.agent.up", Status: metric.CheckOK, Time: at, Host: p.running.Host, Tags: p.running.Tags}
}
