package agent

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"testing"
	"time"

	"kelpie.dev/kelpie/agent/aggregate"
	"kelpie.dev/kelpie/agent/forward"
)

// TestAnHourOfAnything feeds a pipeline an hour of valid, broken and hostile
// lines by a fake clock: nothing panics, every line is accounted for, and when
// the senders fall silent nothing of them is kept.
func TestAnHourOfAnything(t *testing.T) {
	p := newPipeline(t)
	r := rand.New(rand.NewPCG(7, 11))
	out := make(chan forward.Batch, 2)
	flush := func(now time.Time) {
		p.recheck(now, false)
		p.flush(t.Context(), now, nil, out)
		for len(out) > 0 {
			<-out
		}
	}
	now, lines := time.Unix(1_700_000_000, 0), 0
	var before uint64
	for second := range 3600 {
		now = now.Add(time.Second)
		b := batchOf("")
		b.Packets[0].PID = int32(r.IntN(4))
		for range 50 {
			b.Packets[0].Data = append(append(b.Packets[0].Data, anyLine(r)...), '\n')
			lines++
		}
		p.batch(b, now)
		if second%10 == 9 {
			flush(now)
		}
		if second == 600 {
			before = heap()
		}
	}
	after := heap()
	if after > before+32<<20 {
		t.Errorf("%d MiB are held after an hour, %d MiB were after ten minutes", after>>20, before>>20)
	}
	if p.lines.used == 0 || p.aggregator.Stats().Contexts == 0 {
		t.Error("nothing was taken in: the hour shows nothing")
	}
	for range 40 {
		now = now.Add(10 * time.Second)
		flush(now)
	}
	if stats := p.aggregator.Stats(); stats.Contexts != 0 || len(p.waiting) != 0 || len(p.aggregator.Origins(10)) != 0 {
		t.Errorf("400 s after the last of %d lines: %+v, %d lines wait, origins %v", lines, stats, len(p.waiting), p.aggregator.Origins(10))
	}
	if n := len(p.problems.list()); n == 0 || n > 30 {
		t.Errorf("%d kinds of problems are remembered", n)
	}
	if n := len(p.aggregator.Refused()); n > aggregate.MaxRefusals+1 {
		t.Errorf("%d refusals are told apart", n)
	}
}

func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// anyLine is a good line, a good line that was damaged, or noise.
func anyLine(r *rand.Rand) []byte {
	tags := fmt.Sprintf("#user:%d,route:%d,dd.internal.entity_id:pod-%d", r.IntN(1_000_000), r.IntN(20), r.IntN(1000))
	good := []string{
		fmt.Sprintf("shop.orders:%d|c|@0.5|#route:%d", r.IntN(9), r.IntN(50)),
		fmt.Sprintf("shop.load:%g|g|%s", r.NormFloat64(), tags),
		fmt.Sprintf("shop.time:%d:%d|ms|#route:%d", r.IntN(900), r.IntN(900), r.IntN(50)),
		fmt.Sprintf("shop.size:%g|d|#route:%d", r.ExpFloat64(), r.IntN(50)),
		fmt.Sprintf("shop.users:%d|s", r.IntN(1_000_000)),
		fmt.Sprintf("shop.late:1|c|T%d", r.Int64()),
		"_e{5,4}:title|text|#a:b", "_e{99999999999,1}:t|x", "_sc|db|2|m:away", "_sc|db|9",
	}
	line := []byte(good[r.IntN(len(good))])
	switch r.IntN(4) {
	case 0:
		for range 1 + r.IntN(3) {
			line[r.IntN(len(line))] = byte(r.IntN(256))
		}
	case 1:
		line = line[:r.IntN(len(line))]
	}
	return line
}
