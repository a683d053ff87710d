package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"kelpie.dev/kelpie/bench/figure"
	"kelpie.dev/kelpie/bench/process"
)

// taken is what an intake did with a load.
type taken struct {
	samples int
	wall    time.Duration
	cpu     time.Duration
	create  time.Duration // processor time of the first round, in which all series are new
	memory  process.Memory
}

func (t taken) rate() float64    { return float64(t.samples) / t.wall.Seconds() }
func (t taken) perCore() float64 { return float64(t.samples) / t.cpu.Seconds() }

// intake compares how fast samples are taken over HTTP, to the write-ahead log.
// Both programs take the same number of samples of the same series, so that
// their memory compares.
func (r *run) intake(ctx context.Context) error {
	table := figure.Table{
		Title:  "Intake: batches of 1000 over HTTP, 2 senders, one core",
		Header: []string{"", "contexts", "samples/s", "samples/CPU-s", "new contexts/CPU-s", "MiB (peak)"},
		Notes:  []string{"Kelpie: Datadog's v2 protobuf, zstd. Prometheus: remote write v1, snappy, into a bare TSDB. Both acknowledge what is in the write-ahead log."},
	}
	for _, size := range []struct{ contexts, rounds int }{{10_000, pick(r, 500, 30)}, {100_000, pick(r, 50, 3)}} {
		kelpie, peer := taken{}, taken{}
		for _, p := range []struct {
			start func(context.Context) (*server, error)
			into  *taken
		}{{r.startKelpie, &kelpie}, {r.startPrometheus, &peer}} {
			s, err := p.start(ctx)
			if err != nil {
				return err
			}
			figure.Progress("run    intake of %d contexts, %s", size.contexts, s.name)
			if *p.into, err = r.take(ctx, s, load{Contexts: size.contexts, Deployments: size.contexts / 10, Names: 10, Interval: 10}, size.rounds); err != nil {
				return fmt.Errorf("%s, %d contexts: %w", s.name, size.contexts, err)
			}
			t := *p.into
			table.Add(s.name, figure.Count(float64(size.contexts)), figure.Count(t.rate()), figure.Count(t.perCore()),
				figure.Count(float64(size.contexts)/t.create.Seconds()), fmt.Sprintf("%.0f (%.0f)", mib(t.memory.Now), mib(t.memory.Peak)))
		}
		k := fmt.Sprint(size.contexts / 1000)
		r.report.Compare("intake_cpu_"+k+"k", "samples/CPU-s", figure.HigherIsBetter, kelpie.perCore(), figure.Value{Program: "prometheus", Value: peer.perCore()})
		r.report.Compare("intake_wall_"+k+"k", "samples/s", figure.HigherIsBetter, kelpie.rate(), figure.Value{Program: "prometheus", Value: peer.rate()})
		r.report.Compare("intake_rss_"+k+"k", "MiB", figure.LowerIsBetter, mib(kelpie.memory.Peak), figure.Value{Program: "prometheus", Value: mib(peer.memory.Peak)})
	}
	if !r.quick {
		if err := r.million(ctx, &table); err != nil {
			r.report.Failed("memory of a million series", err)
		}
	}
	return table.WriteText(os.Stdout)
}

// million measures the memory of a million live series.
func (r *run) million(ctx context.Context, table *figure.Table) error {
	s, err := r.startKelpie(ctx)
	if err != nil {
		return err
	}
	figure.Progress("run    intake of a million contexts, %s", s.name)
	t, err := r.take(ctx, s, load{Contexts: 1_000_000, Deployments: 100_000, Names: 10, Interval: 10}, 4)
	if err != nil {
		return err
	}
	table.Add(s.name, "1 M", figure.Count(t.rate()), figure.Count(t.perCore()), figure.Count(1e6/t.create.Seconds()),
		fmt.Sprintf("%.0f (%.0f)", mib(t.memory.Now), mib(t.memory.Peak)))
	r.report.Limit("backend_rss_1m", "MiB", mib(t.memory.Peak), 4096)
	return nil
}

// take sends a load to s and ends it. What s did not store is an error.
func (r *run) take(ctx context.Context, s *server, l load, rounds int) (t taken, err error) {
	defer func() {
		if ended := r.end(s); err == nil {
			err = ended
		}
	}()
	all, err := newSenders(s)
	if err != nil {
		return t, err
	}
	series := l.series()
	// A second a round, the last one now: points of the last hour are taken.
	first := time.Now().Unix() - int64(rounds)
	if t.create, err = s.during(func() error { return round(ctx, all, series, 0, first, nil) }); err != nil {
		return t, err
	}
	began := time.Now()
	t.cpu, err = s.during(func() error {
		for n := 1; n <= rounds; n++ {
			if err := round(ctx, all, series, n, first+int64(n), nil); err != nil {
				return err
			}
		}
		return nil
	})
	t.wall, t.samples = time.Since(began), rounds*l.Contexts
	if err != nil {
		return t, err
	}
	if t.memory, err = s.Memory(); err != nil {
		return t, err
	}
	n, err := s.appended(ctx)
	if sent := float64(t.samples + l.Contexts); err == nil && n != sent {
		err = fmt.Errorf("sent %.0f samples, of which %.0f were stored", sent, n)
	}
	return t, err
}

// during is the processor time that s uses while do runs.
func (s *server) during(do func() error) (time.Duration, error) {
	before, err := s.CPU()
	if err != nil {
		return 0, err
	}
	if err := do(); err != nil {
		return 0, err
	}
	after, err := s.CPU()
	return after - before, err
}
