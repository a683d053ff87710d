package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"kelpie.dev/kelpie/bench/figure"
	"kelpie.dev/kelpie/bench/load"
	"kelpie.dev/kelpie/bench/process"
)

// memoryRate is slow enough for every program to lose nothing.
const memoryRate = 50_000

// memory measures resident memory: idle, and with contexts over two flushes.
func (r *run) memory(ctx context.Context) error {
	table := figure.Table{
		Title:  "Resident memory, MiB: at the end, and (peak)",
		Header: []string{"", "idle", "10 000 contexts", "1 000 000 contexts"},
	}
	idle, ten, million := map[string]float64{}, map[string]float64{}, map[string]float64{}
	for _, p := range r.programs {
		row := []string{p.name}
		for _, m := range []struct {
			contexts int
			rate     float64
			into     map[string]float64
		}{{0, 0, idle}, {10_000, memoryRate, ten}, {1_000_000, 2 * memoryRate, million}} {
			if m.contexts > 10_000 && r.quick {
				row = append(row, "–")
				continue
			}
			got, err := r.memoryOf(ctx, p, m.contexts, m.rate)
			if err != nil {
				r.report.Failed(fmt.Sprintf("%s, memory at %d contexts", p.name, m.contexts), err)
				row = append(row, "–")
				continue
			}
			m.into[p.name] = mib(got.Peak)
			row = append(row, fmt.Sprintf("%.1f (%.1f)", mib(got.Now), mib(got.Peak)))
		}
		table.Add(row...)
	}
	r.compare("agent_rss_idle", "MiB", figure.LowerIsBetter, idle)
	r.compare("agent_rss_10k", "MiB", figure.LowerIsBetter, ten)
	if !r.quick {
		r.compare("agent_rss_1m", "MiB", figure.LowerIsBetter, million)
	}
	table.Notes = []string{"Figures are peaks. Peers run without outputs; Kelpie sends what it flushes. Kelpie's limit of contexts stands at its default."}
	return r.print(table)
}

func mib(n int64) float64 { return float64(n) / (1 << 20) }

func (r *run) memoryOf(ctx context.Context, p *program, contexts int, rate float64) (m process.Memory, err error) {
	figure.Progress("run    %s, memory at %d contexts", p.name, contexts)
	x, err := r.start(ctx, p, "udp")
	if err != nil {
		return m, err
	}
	if contexts == 0 {
		err = pause(ctx, r.memoryFor/2)
	} else {
		var path string
		if path, err = r.load(load.Spec{Contexts: contexts, Packed: 30}); err == nil {
			_, err = x.step(ctx, path, rate, r.memoryFor)
		}
	}
	if err == nil {
		m, err = x.Memory()
	}
	if ended := x.end(); err == nil {
		err = ended
	}
	return m, err
}

// flushRate is well below Kelpie's ceiling: that nothing is lost shows that the
// flush does not stop the intake.
const flushRate = 500_000

// flush measures how long Kelpie takes to close the buckets of 100 000 contexts
// while samples come in.
func (r *run) flush(ctx context.Context) error {
	p := r.programs[0]
	if p.name != kelpieName {
		return nil
	}
	path, err := r.load(load.Spec{Contexts: 100_000, Packed: 30})
	if err != nil {
		return err
	}
	figure.Progress("run    %s, flush of 100 000 contexts", p.name)
	x, err := r.start(ctx, p, "udp")
	if err != nil {
		return err
	}
	watching, stop := context.WithCancel(ctx)
	seen := make(chan []time.Duration)
	go func() { seen <- x.watchFlushes(watching) }()
	s, err := x.step(ctx, path, flushRate, r.memoryFor)
	stop()
	flushes := <-seen
	if ended := x.end(); err == nil {
		err = ended
	}
	if err != nil {
		return err
	}
	if len(flushes) == 0 {
		r.report.Note("flush of 100 000 contexts: no flush was seen in %s", r.memoryFor)
		return nil
	}
	longest, texts := time.Duration(0), make([]string, len(flushes))
	for i, d := range flushes {
		longest = max(longest, d)
		texts[i] = d.Round(time.Millisecond / 10).String()
	}
	r.report.Note("kelpie's flush of 100 000 contexts at %s samples/s: %s; %.4f %% of the samples came through meanwhile",
		figure.Count(s.rate()), strings.Join(texts, ", "), 100*s.share())
	r.report.Limit("agent_flush_100k", "ms", float64(longest)/float64(time.Millisecond), 100)
	return nil
}

// watchFlushes returns the duration of each flush of a full bucket until ctx
// ends.
func (x *receiver) watchFlushes(ctx context.Context) (out []time.Duration) {
	const name = "kelpie_agent_flush_duration_seconds"
	is := func(name string) func(process.Sample) bool {
		return func(s process.Sample) bool { return s.Name == name }
	}
	var count, sum, series float64
	for pause(ctx, 200*time.Millisecond) == nil {
		got, err := x.scrape(ctx, is(name+"_count"), is(name+"_sum"), is("kelpie_agent_flushed_series_total"))
		if err != nil {
			continue
		}
		if n := got[0] - count; n > 0 && got[2]-series >= 100_000 {
			out = append(out, time.Duration((got[1]-sum)/n*float64(time.Second)))
		}
		count, sum, series = got[0], got[1], got[2]
	}
	return out
}
