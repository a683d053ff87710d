package agent

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"kelpie.dev/kelpie/agent/aggregate"
	"kelpie.dev/kelpie/agent/dogstatsd"
)

// TestRepeatedLinesMeanTheSame holds the two ways of a line together: whatever
// is sent, what a pipeline flushes that remembers lines is what one flushes
// that parses every line anew.
func TestRepeatedLinesMeanTheSame(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	pick := func(of ...string) string { return of[r.IntN(len(of))] }
	line := func() string {
		kind := pick("c", "g", "h", "ms", "d", "s", "c", "x")
		value := pick("1", "2.5", "-3", "1:2:3", "1e3", "0x10", "", "nan", "1::2", "99999999999999999999", "a:b")
		out := pick("a", "b", "a.b", "", "_x") + ":" + value + "|" + kind
		for range r.IntN(4) {
			out += "|" + pick("@0.5", "@0.1", "@0", "#x:1,y", "#y,x:1", "#x:2", "#host:h", "#host:", "#device:d", "T5", "zz", "#")
		}
		return out
	}
	remembers, forgets := newPipeline(t), newPipeline(t)
	for now := int64(1); now < 200; now++ {
		var lines []string
		for range 1 + r.IntN(200) {
			lines = append(lines, line())
		}
		data := strings.Join(lines, "\n")
		pid := int32(r.IntN(3))
		for _, p := range []*pipeline{remembers, forgets} {
			b := batchOf(data)
			b.Packets[0].PID = pid
			if p == forgets {
				p.lines.forget()
			}
			p.batch(b, time.Unix(now, 0))
		}
		if now%10 == 0 {
			got, want := remembers.aggregator.Flush(time.Unix(now, 0)), forgets.aggregator.Flush(time.Unix(now, 0))
			if diff := cmp.Diff(want, got); diff != "" {
				t.Fatalf("at %d s, parsed anew (-) against remembered (+):\n%s", now, diff)
			}
		}
	}
	if remembers.lines.used == 0 {
		t.Error("no line was remembered: nothing was compared")
	}
}

// TestLinesAreBounded holds that memory has a bound, and that what is full goes
// on finding what it knows.
func TestLinesAreBounded(t *testing.T) {
	l, live := newLines(), new(aggregate.Context)
	for i := range uint64(maxLineSlots) {
		l.remember(lineSlot{hash: i<<1 | 1, rate: float64(i), context: live})
	}
	if len(l.slots) != maxLineSlots || l.used != maxLineSlots/2 {
		t.Errorf("%d slots, %d used; want %d and half of them", len(l.slots), l.used, maxLineSlots)
	}
	for i := range uint64(maxLineSlots / 2) {
		if s := l.find(i<<1 | 1); s == nil || s.rate != float64(i) {
			t.Fatalf("line %d: %v", i, s)
		}
	}
	if s := l.find(uint64(maxLineSlots)<<1 | 1); s != nil {
		t.Errorf("found what was not remembered: %v", s)
	}
	l.forget()
	if l.find(1) != nil || l.used != 0 {
		t.Error("something was not forgotten")
	}
}

// TestSendersAreToldApart holds that the same line of two senders is two lines.
func TestSendersAreToldApart(t *testing.T) {
	l := newLines()
	seen := map[uint64]string{}
	for pid := range int32(50) {
		for _, name := range []string{"a", "b", "ab", ""} {
			for _, rest := range []string{"c", "g", "c|#x", ""} {
				h := l.hash(l.sender(&dogstatsd.Packet{PID: pid}), []byte(name), []byte(rest))
				what := fmt.Sprintf("%d %q %q", pid, name, rest)
				if other, ok := seen[h]; ok {
					t.Errorf("%s and %s have one hash", what, other)
				}
				seen[h] = what
			}
		}
	}
}
