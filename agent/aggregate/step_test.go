package aggregate_test

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"kelpie.dev/kelpie/agent/aggregate"
	"kelpie.dev/kelpie/agent/dogstatsd"
)

// TestStepsSayTheSame holds, over random samples, that a flush in steps with
// samples added between them tells what one does that is done at once before
// those samples come: now, and in the next flushes.
func TestStepsSayTheSame(t *testing.T) {
	const contexts = 3000
	options := aggregate.Options{Aggregates: []string{"max", "median", "count"}}
	stepped, whole := newAggregator(t, options), newAggregator(t, options)
	r, between := rand.New(rand.NewPCG(5, 6)), 0
	add := func(a *aggregate.Aggregator, lines []string, now int64) {
		for _, line := range lines {
			m, err := (&dogstatsd.Parser{}).Metric([]byte(line))
			if err != nil {
				t.Fatal(err)
			}
			if err := a.Add(&m.Sample, time.Unix(now, 0)); err != nil {
				t.Fatalf("add %q: %v", line, err)
			}
		}
	}
	some := func(n int) (lines []string) {
		for range n {
			id := r.IntN(contexts)
			lines = append(lines, fmt.Sprintf("%s:%d|%[1]s|#n:%[3]d", []string{"c", "g", "h", "s", "d", "ms"}[id%6], 1+r.IntN(9), id))
		}
		return lines
	}
	for now := int64(10); now <= 200; now += 10 {
		lines := some(8000)
		add(stepped, lines, now-3)
		add(whole, lines, now-3)
		want := whole.Flush(time.Unix(now, 0))
		f := stepped.StartFlush(time.Unix(now, 0))
		for f.Step() {
			lines := some(40)
			between += len(lines)
			add(stepped, lines, now)
			add(whole, lines, now)
		}
		got := f.End()
		if len(want.Series) == 0 || len(want.Distributions) == 0 {
			t.Fatalf("at %d nothing was flushed", now)
		}
		if diff := cmp.Diff(byName(want.Series), byName(got.Series)); diff != "" {
			t.Fatalf("at %d, at once (-) against in steps (+):\n%s", now, diff)
		}
		if len(want.Distributions) != len(got.Distributions) {
			t.Fatalf("at %d: %d distributions at once, %d in steps", now, len(want.Distributions), len(got.Distributions))
		}
	}
	if between < 2000 {
		t.Errorf("%d samples came between steps: next to nothing was compared", between)
	}
}

func newAggregator(t *testing.T, o aggregate.Options) *aggregate.Aggregator {
	t.Helper()
	a, err := aggregate.New(o)
	if err != nil {
		t.Fatal(err)
	}
	return a
}
