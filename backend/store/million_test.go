package store

import (
	"fmt"
	"os"
	"regexp"
	"strconv"
	"testing"
	"time"

	"kelpie.dev/kelpie/metric"
)

// TestMillionSeriesCompacted writes a million contexts for four hours of the
// store's time, a point each ten minutes, and has the first of them compacted: the
// moment at which a store needs most. It prints what its process held at most; the
// test of the program holds that of the points of minutes.
func TestMillionSeriesCompacted(t *testing.T) {
	if os.Getenv("KELPIE_TEST_MILLION") == "" {
		t.Skip("takes a minute and gigabytes: set KELPIE_TEST_MILLION")
	}
	const million, batch = 1_000_000, 2000
	clock := &fixed{t0}
	s := open(t, Options{Now: clock.now, MinFree: -1})
	s.db.DisableCompactions()
	series := make([]metric.Series, batch)
	for round := range 24 {
		clock.sec += 600
		for first := 0; first < million; first += batch {
			for i := range series {
				pod, name := (first+i)/20, (first+i)%20
				series[i] = metric.Series{
					Name: fmt.Sprint("bench.million.metric_", name), Host: fmt.Sprint("node-", pod%1000), Type: metric.Rate, Interval: 10,
					Points: []metric.Point{{Time: clock.sec, Value: float64((first+i)*round%977) / 10}},
					Tags: metric.NewTags("env:production", "service:checkout", fmt.Sprint("version:1.", pod%7), "kube_cluster_name:eu-1", fmt.Sprint("kube_namespace:team-", pod%50),
						fmt.Sprint("kube_deployment:web-", pod%500), fmt.Sprint("pod_name:web-", pod%500, "-5d8f7c9b4-", pod)),
				}
			}
			write(t, s, series...)
		}
	}
	before := peakMemory(t)
	began := time.Now()
	s.db.EnableCompactions()
	if err := s.db.Compact(t.Context()); err != nil {
		t.Fatal(err)
	}
	if len(s.db.Blocks()) == 0 || s.liveSeries() != million {
		t.Fatalf("%d blocks and %d series", len(s.db.Blocks()), s.liveSeries())
	}
	after := peakMemory(t)
	t.Logf("%.2f GiB at most before the compaction, %.2f with it, which took %s", before, after, time.Since(began).Round(time.Second))
	if after > 4 {
		t.Errorf("%.2f GiB, more than 4", after)
	}
}

// peakMemory returns the most that this process ever held, in GiB.
func peakMemory(t *testing.T) float64 {
	t.Helper()
	text, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(`VmHWM:\s+(\d+) kB`).FindSubmatch(text)
	if m == nil {
		t.Fatal("the kernel does not tell what the process holds")
	}
	kib, err := strconv.ParseFloat(string(m[1]), 64)
	if err != nil {
		t.Fatal(err)
	}
	return kib / (1 << 20)
}
