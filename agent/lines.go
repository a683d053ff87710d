package agent

import (
	"encoding/binary"
	"hash/maphash"
	"math/bits"

	"kelpie.dev/kelpie/agent/aggregate"
	"kelpie.dev/kelpie/agent/dogstatsd"
	"kelpie.dev/kelpie/agent/origin"
)

// lines remembers what became of metric lines: a sender says the same name,
// type and tags over and over, and only the value differs. What is around the
// value is hashed once; parsing tags, finding the origin and hashing the
// context's identity are then spared.
//
// A line is known by a 64-bit hash with a seed of this process, as a context is
// by its key. It must be forgotten whenever a sender's tags may have changed.
type lines struct {
	seed  maphash.Seed
	slots []lineSlot // open addressing; the length is a power of two
	used  int
}

// lineSlot is 32 bytes, so that one cache line holds two.
type lineSlot struct {
	hash    uint64 // 0: free
	context *aggregate.Context
	rate    float64
	kind    aggregate.Type
	outcome origin.Outcome
}

// Bounds of lines, in slots; at most half of them are used. The largest take
// 8 MiB.
const (
	minLineSlots = 1 << 10
	maxLineSlots = 1 << 18
)

func newLines() *lines {
	return &lines{seed: maphash.MakeSeed(), slots: make([]lineSlot, minLineSlots)}
}

// sender is the part of a line's hash that stands for who sent it.
func (l *lines) sender(p *dogstatsd.Packet) uint64 {
	switch {
	case p.PID != 0:
		return uint64(p.PID) * 0x9e3779b97f4a7c15
	case p.Addr.IsValid():
		a := p.Addr.As16()
		return (binary.LittleEndian.Uint64(a[:8]) ^ bits.RotateLeft64(binary.LittleEndian.Uint64(a[8:]), 29)) * 0xc4ceb9fe1a85ec53
	default:
		return 0
	}
}

// hash is the identity of a line from sender; it is never 0.
func (l *lines) hash(sender uint64, name, rest []byte) uint64 {
	h := (maphash.Bytes(l.seed, name)^sender)*0xff51afd7ed558ccd ^ maphash.Bytes(l.seed, rest)
	return h | 1
}

// find returns what became of the line with this hash, or nil.
func (l *lines) find(hash uint64) *lineSlot {
	mask := uint64(len(l.slots) - 1)
	for i := hash >> 1 & mask; ; i = (i + 1) & mask {
		s := &l.slots[i]
		if s.hash == hash {
			return s
		}
		if s.hash == 0 {
			return nil
		}
	}
}

// first returns the context that the first slot for this hash holds, most often
// the one of the line with it.
func (l *lines) first(hash uint64) *aggregate.Context {
	return l.slots[hash>>1&uint64(len(l.slots)-1)].context
}

// remember keeps s, unless there is no room: what is left out is parsed anew
// each time.
func (l *lines) remember(s lineSlot) {
	if have := l.find(s.hash); have != nil {
		*have = s
		return
	}
	if 2*(l.used+1) > len(l.slots) && !l.grow() {
		return
	}
	l.place(s)
}

func (l *lines) place(s lineSlot) {
	mask := uint64(len(l.slots) - 1)
	i := s.hash >> 1 & mask
	for l.slots[i].hash != 0 {
		i = (i + 1) & mask
	}
	l.slots[i] = s
	l.used++
}

func (l *lines) grow() bool {
	if len(l.slots) == maxLineSlots {
		return false
	}
	old := l.slots
	l.slots, l.used = make([]lineSlot, 2*len(old)), 0
	for _, s := range old {
		if s.hash != 0 && s.context.Live() {
			l.place(s)
		}
	}
	return true
}

// forget empties l. It keeps its size, as the same lines will come again.
func (l *lines) forget() {
	clear(l.slots)
	l.used = 0
}
