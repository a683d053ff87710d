package main

import (
	"errors"
	"io"
	"strings"
	"testing"
)

func TestParseIngest(t *testing.T) {
	const text = `goos: linux
pkg: kelpie.dev/kelpie/agent
BenchmarkIngest/contexts=10000 	  100	  1000 ns/op	  30 ns/sample	  33000000 samples/s	  0 B/op	  0 allocs/op
BenchmarkIngest/recorded       	  100	  3000 ns/op	  100 ns/sample	  10000000 samples/s	  0 B/op	  0 allocs/op
BenchmarkIngest/recorded       	  100	  3000 ns/op	  90 ns/sample	  11000000 samples/s	  8 B/op	  1 allocs/op
BenchmarkIngest/recorded       	  100	  3000 ns/op	  80 ns/sample	  12000000 samples/s	  0 B/op	  0 allocs/op
PASS
`
	got, err := parseIngest(text)
	if want := (ingested{11e6, "1"}); err != nil || got != want {
		t.Errorf("got %+v, %v; want the median rate and the most allocations, %+v", got, err, want)
	}
	var own []string
	for line := range strings.Lines(text) {
		if !strings.Contains(line, recorded) {
			own = append(own, line)
		}
	}
	if got, err := parseIngest(strings.Join(own, "")); err == nil || !strings.Contains(err.Error(), "33 M") {
		t.Errorf("got %+v, %v; want an error that tells of the other load", got, err)
	}
}

// TestLossless holds that nearly all is not all.
func TestLossless(t *testing.T) {
	for name, test := range map[string]struct {
		s    step
		want bool
	}{
		"all":           {step{received: 1e6}, true},
		"one is gone":   {step{received: 1e6 - 1}, false},
		"one timed out": {step{received: 1e6}, false},
	} {
		test.s.Counters = 1e6
		if name == "one timed out" {
			test.s.Timeouts = 1
		}
		if got := test.s.lossless(); got != test.want {
			t.Errorf("%s: lossless %v, want %v", name, got, test.want)
		}
	}
}

// TestFailuresCount holds that a run in which a part failed does not end as if
// all were well, and that a part nobody knows is named.
func TestFailuresCount(t *testing.T) {
	r := &run{}
	r.report.Limit("some", "ms", 1, 2)
	if err := r.report.Finish(io.Discard); err != nil {
		t.Errorf("without a failure: %v", err)
	}
	r.report.Failed("a part", errors.New("no benchmark"))
	if err := r.report.Finish(io.Discard); err == nil || !strings.Contains(err.Error(), "a part") {
		t.Errorf("with a failure: %v", err)
	}
	if err := known([]string{"udp", " flush"}); err != nil {
		t.Errorf("parts that are there: %v", err)
	}
	if err := known([]string{"udp", "tcp"}); err == nil || !strings.Contains(err.Error(), `"tcp"`) {
		t.Errorf("a part that is not there: %v", err)
	}
}
