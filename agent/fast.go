package agent

import (
	"context"
	"time"

	"kelpie.dev/kelpie/agent/aggregate"
	"kelpie.dev/kelpie/agent/forward"
)

// fastLane is the pipeline's part of what leaves every second: for which metrics
// and whom, from one end of buckets to another. The zero value is none.
type fastLane struct {
	ask      func(now time.Time) forward.Lane // nil: there is none
	lane     forward.Lane                     // of the open buckets
	next     *forward.Lane                    // of those from boundary on, where it is another
	boundary int64                            // the start of the bucket at which ask was called last
}

// turn asks for the lane once in each bucket.
func (f *fastLane) turn(now time.Time, ended bool) {
	at := bucketStart(now)
	if f.ask == nil || at == f.boundary || at < f.boundary && !ended {
		return
	}
	f.boundary, f.next = at, nil
	if lane := f.ask(now); !lane.Equal(f.lane) {
		f.next = &lane
	}
}

func bucketStart(now time.Time) int64 { return now.Unix() - now.Unix()%aggregate.DefaultInterval }

// flushSeconds hands the seconds that have ended to out. They do not wait for
// lines whose origin is looked for, as buckets do. But where another lane begins,
// its seconds wait for the buckets before, and the last one before stays open for
// what these wait for. ended says that the buckets are flushed next.
func (p *pipeline) flushSeconds(ctx context.Context, now time.Time, ended bool, out chan<- forward.Batch) {
	p.fast.turn(now, ended)
	boundary := time.Unix(p.fast.boundary, 0)
	switch {
	case ended && now.After(boundary):
		now = boundary
	case !ended && p.fast.next != nil:
		now = boundary.Add(-time.Second)
	}
	p.sendSeconds(ctx, forward.Batch{Fast: p.aggregator.FlushFast(now)}, out)
}

func (p *pipeline) sendSeconds(ctx context.Context, batch forward.Batch, out chan<- forward.Batch) {
	if len(batch.Fast) > 0 {
		p.metrics.series.Add(float64(len(batch.Fast)))
		p.send(ctx, batch, out)
	}
}

// changeLane follows a flush of buckets that have ended: where one lane ends and
// the next begins.
func (p *pipeline) changeLane() {
	f := &p.fast
	if f.ask == nil {
		return
	}
	if f.next != nil {
		f.lane, f.next = *f.next, nil
	}
	p.aggregator.SetFast(f.lane.Metrics, f.boundary)
}

// FastLaneStatus is what leaves every second.
type FastLaneStatus struct {
	Limit    int                   `json:"limit"`    // of contexts; 0 means that the fast lane is off
	Contexts int                   `json:"contexts"` // that leave every second
	Left     int                   `json:"left"`     // that are wanted so and do not fit
	Metrics  []aggregate.FastStats `json:"metrics,omitempty"`
}

// maxFastShown bounds the metrics that are printed.
const maxFastShown = 20

func (s *Status) printFastLane(p *printer) {
	f := &s.FastLane
	switch {
	case f.Limit == 0:
		p.line("  fast lane: off (KELPIE_FAST_LANE_CONTEXTS)")
		return
	case len(f.Metrics) == 0:
		p.line("  fast lane: no intake asks for a metric of this node every second")
		return
	}
	p.line("  fast lane: %d contexts leave every second, as intakes ask for them (below)", f.Contexts)
	for _, m := range f.Metrics[:min(len(f.Metrics), maxFastShown)] {
		p.line("    %9d of %d contexts  %s", m.Fast, m.Contexts, m.Metric)
	}
	if n := len(f.Metrics) - maxFastShown; n > 0 {
		p.line("    and %d metrics more", n)
	}
	if f.Left > 0 {
		p.line("    %d contexts do not fit and leave every ten seconds: KELPIE_FAST_LANE_CONTEXTS is %d", f.Left, f.Limit)
	}
}
