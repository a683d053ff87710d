package agent

import (
	"bytes"
	"encoding/binary"
	"os"
	"testing"
	"time"

	"kelpie.dev/kelpie/agent/dogstatsd"
)

// loadVariable names a file of recorded datagrams for BenchmarkIngest, as the
// module bench writes it for Kelpie and its peers: each datagram after its
// length, four bytes, the least first.
const loadVariable = "KELPIE_BENCH_LOAD"

// bucketSamples is how many samples come between two flushes: ten seconds of a
// busy node. Without flushes histograms would grow as they never do.
const bucketSamples = 1_000_000

// benchmarkRecorded takes recorded datagrams in as BenchmarkIngest does its own;
// the buckets that end meanwhile are closed, too.
func benchmarkRecorded(b *testing.B) {
	path := os.Getenv(loadVariable)
	if path == "" {
		b.Skip(loadVariable + " names no recorded load: make bench-agent records some")
	}
	batches, lines := readLoad(b, path)
	p, now := newPipeline(b), time.Unix(1_700_000_000, 0)
	for range 3 { // a line is remembered when it comes again
		for _, batch := range batches {
			p.batch(batch, now)
		}
	}
	b.ReportAllocs()
	samples, pending, size := 0, 0, 0
	for i := 0; b.Loop(); i = (i + 1) % len(batches) {
		p.batch(batches[i], now)
		samples += lines[i]
		pending += lines[i]
		size += len(batches[i].Packets[0].Data)
		if pending >= bucketSamples {
			now, pending = now.Add(10*time.Second), 0
			p.aggregator.Flush(now)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(samples), "ns/sample")
	b.ReportMetric(float64(samples)/b.Elapsed().Seconds(), "samples/s")
	b.SetBytes(int64(size / b.N))
	for _, problem := range p.problems.list() {
		b.Errorf("%+v", problem)
	}
}

func readLoad(b *testing.B, path string) (batches []*dogstatsd.Batch, lines []int) {
	b.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		b.Fatal(err)
	}
	for len(data) > 0 {
		if len(data) < 4 || uint64(len(data)-4) < uint64(binary.LittleEndian.Uint32(data)) {
			b.Fatalf("load %s ends within a datagram", path)
		}
		n := 4 + int(binary.LittleEndian.Uint32(data))
		datagram := bytes.TrimSuffix(data[4:n:n], []byte("\n"))
		batches = append(batches, batchOf(string(datagram)))
		lines = append(lines, 1+bytes.Count(datagram, []byte("\n")))
		data = data[n:]
	}
	if len(batches) == 0 {
		b.Fatalf("load %s holds nothing", path)
	}
	return batches, lines
}
