package agent

import (
	"kelpie.dev/kelpie/agent/aggregate"
	"kelpie.dev/kelpie/agent/dogstatsd"
)

// aheadLines is how many lines of a datagram are looked up together.
const aheadLines = 32

// ahead is the next lines of a datagram. What is known of each lies somewhere
// else in memory: looked up one after the other, the processor waits for each in
// turn, which is most of what a line costs once the contexts fill its cache.
// Looked up together, it waits for all of them once.
type ahead struct {
	lines    [aheadLines]cutLine
	contexts [aheadLines]*aggregate.Context
	touched  int64 // keeps the compiler from leaving the loads out
}

// cutLine is a metric line, cut at its value. The hash is 0 of what is none.
type cutLine struct {
	line, values []byte
	hash         uint64
}

// look cuts lines off rest and returns them with what is left.
func (a *ahead) look(known *lines, rest []byte, sender uint64) (lines []cutLine, left []byte) {
	n := 0
	for n < aheadLines && len(rest) > 0 {
		c := &a.lines[n]
		c.line, rest = dogstatsd.NextLine(rest)
		if len(c.line) == 0 {
			continue
		}
		name, values, tail, ok := dogstatsd.CutMetric(c.line)
		if c.values, c.hash = values, 0; ok {
			c.hash = known.hash(sender, name, tail)
		}
		n++
	}
	for i := range n {
		a.contexts[i] = known.first(a.lines[i].hash)
	}
	for i := range n {
		if c := a.contexts[i]; c != nil {
			a.touched += c.Touch()
		}
	}
	return a.lines[:n], rest
}
