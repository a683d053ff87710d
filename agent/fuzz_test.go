package agent

import (
	"bytes"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"kelpie.dev/kelpie/agent/aggregate"
	"kelpie.dev/kelpie/agent/dogstatsd"
	"kelpie.dev/kelpie/metric"
)

// FuzzDatagram takes a datagram all the way, three times in one second: nothing
// panics, each line is taken or counted once, what leaves is fit for the wire,
// and lines that are remembered mean what they meant when they were parsed.
func FuzzDatagram(f *testing.F) {
	for _, s := range []string{
		"a:1|c\na:2|c|#x:1", "a:1:2|ms|@0.5|#b,a,,A:B\nb:x|s", "a:1|d|T5\na:1|g|T5", "_e{1,1}:a|b|#x\n_sc|a|0|m:x", "a-b:1|c\na_b:1|g\n1:1|c",
		"a:1|c|#host:,device:d,dd.internal.card:none|c:ci-a|e:pu-b|card:low\r\n\n|", "a:1e308|c\na:1e308|c", "\xff:1|h|#\xc3",
	} {
		f.Add([]byte(s), uint8(0))
	}
	f.Fuzz(func(t *testing.T, datagram []byte, from uint8) {
		remembers, parses := newPipeline(t), newPipeline(t)
		var flushed [2]aggregate.Flush
		for i, p := range []*pipeline{remembers, parses} {
			p.log = slog.New(slog.DiscardHandler)
			p.parser.ClientOrigin = from%2 == 0
			for range 3 {
				if p == parses {
					p.lines.forget()
				}
				b := batchOf(string(datagram))
				b.Packets = []dogstatsd.Packet{{Data: bytes.Clone(datagram), PID: -int32(from % 3)}} // of nobody
				p.batch(b, time.Unix(1_700_000_001, 0))
				if !bytes.Equal(b.Packets[0].Data, datagram) {
					t.Fatal("the datagram was modified")
				}
			}
			p.recheck(time.Unix(1_700_000_001, 0), true)
			flushed[i] = p.aggregator.Flush(time.Unix(1_700_000_010, 0))
		}
		if diff := cmp.Diff(flushed[1], flushed[0]); diff != "" {
			t.Fatalf("parsed anew (-) against remembered (+):\n%s", diff)
		}
		taken, _ := remembers.metrics.totals()
		again, _ := parses.metrics.totals()
		if diff := cmp.Diff(again, taken); diff != "" {
			t.Fatalf("counts, parsed anew (-) against remembered (+):\n%s", diff)
		}
		for _, s := range flushed[0].Series {
			// A histogram's suffix may make a name that is too long for intakes.
			if name, ok := metric.NormalizeName(s.Name); name != s.Name || !ok && len(name) <= metric.MaxNameLength {
				t.Errorf("name %q", s.Name)
			}
			if !cmp.Equal(s.Tags, metric.NewTags(s.Tags...)) {
				t.Errorf("tags are not canonical: %q", s.Tags)
			}
			for _, tag := range s.Tags {
				if metric.NormalizeTag(tag) != tag {
					t.Errorf("tag %q", tag)
				}
			}
			for _, p := range s.Points {
				if p.Value-p.Value != 0 {
					t.Errorf("%s is %v", s.Name, p.Value)
				}
			}
		}
		for line := range bytes.SplitSeq(datagram, []byte("\n")) {
			if line = bytes.TrimSuffix(line, []byte("\r")); len(line) > 0 {
				return
			}
		}
		if fmt.Sprint(taken.Samples, taken.Dropped) != "map[] map[]" {
			t.Errorf("of nothing became %+v", taken)
		}
	})
}
