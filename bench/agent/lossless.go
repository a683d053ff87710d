package main

import (
	"context"
	"fmt"
	"time"

	"kelpie.dev/kelpie/bench/figure"
	"kelpie.dev/kelpie/bench/load"
	"kelpie.dev/kelpie/bench/process"
)

// primary is the load of the figures.
var primary = load.Spec{Contexts: 10_000, Packed: 30}

// ceiling is what a search for the highest rate without loss found.
type ceiling struct {
	flood step // the sender sent all it could
	best  step // the fastest confirmed step without loss
	by    string
}

// search finds the highest rate that a program takes without loss, to 5 %. The
// rate is confirmed over more than a bucket, so that a flush falls into it.
func (x *receiver) search(ctx context.Context, path string) (c ceiling, err error) {
	r := x.run
	if err = x.warm(ctx, path); err != nil {
		return c, err
	}
	if c.flood, err = x.step(ctx, path, 0, r.probe); err != nil {
		return c, err
	}
	figure.Progress("       %s: flooded with %s/s, took %s/s", x.program.name, figure.Count(c.flood.rate()), figure.Count(c.flood.rate()*c.flood.share()))
	if c.flood.lossless() {
		if c.best, err = x.twice(ctx, path, 0, r.confirm); err != nil {
			return c, err
		}
		if c.best.lossless() {
			c.by = "sender"
			if x.place.network != "udp" {
				c.by = "receiver" // the socket makes the sender wait
			}
			return c, nil
		}
	}
	rate, err := x.bisect(ctx, path, c.flood)
	if err != nil {
		return c, err
	}
	for range 12 {
		s, err := x.twice(ctx, path, rate, r.confirm)
		if err != nil {
			return c, err
		}
		if s.lossless() {
			c.best, c.by = s, "receiver"
			return c, nil
		}
		rate *= 0.93
	}
	return c, fmt.Errorf("%s: no rate without loss found, down to %s/s", x.program.name, figure.Count(rate))
}

// twice is a step that is repeated when it lost something: a hiccup of the
// machine is nobody's ceiling.
func (x *receiver) twice(ctx context.Context, path string, rate float64, d time.Duration) (step, error) {
	s, err := x.step(ctx, path, rate, d)
	if err != nil || s.lossless() {
		return s, err
	}
	again, err := x.step(ctx, path, rate, d)
	if again.share() < s.share() {
		again = s
	}
	return again, err
}

// bisect returns the highest rate at which short steps lost nothing.
func (x *receiver) bisect(ctx context.Context, path string, flood step) (float64, error) {
	low, high := 0.0, flood.rate()
	rate := max(flood.rate()*flood.share(), flood.rate()/100)
	for n := 0; n < 14 && (low == 0 || high/low > 1.05); n++ {
		s, err := x.twice(ctx, path, rate, x.run.probe)
		if err != nil {
			return 0, err
		}
		figure.Progress("       %s: %s/s, %.3f %% came through", x.program.name, figure.Count(s.rate()), 100*s.share())
		if s.lossless() {
			low = s.rate()
		} else {
			high = min(high, s.rate())
		}
		switch {
		case low == 0:
			rate = high * 0.7
		case high/low > 1.5:
			rate = low * 1.4
		default:
			rate = (low + high) / 2
		}
	}
	if low == 0 {
		low = high * 0.7
	}
	return low, nil
}

// lossless measures the ceilings on one kind of socket.
func (r *run) lossless(ctx context.Context, network string, spec load.Spec) error {
	path, err := r.load(spec)
	if err != nil {
		return err
	}
	table := figure.Table{
		Title:  fmt.Sprintf("Highest rate without loss, %s, one core (%s)", network, spec),
		Header: []string{"", "samples/s", "datagrams/s", "limited by", "samples/CPU-s", "under a flood, taken", "of"},
	}
	found := map[string]float64{}
	for _, p := range r.programs {
		if !p.listensOn(network) {
			continue
		}
		c, err := r.losslessOf(ctx, p, network, path)
		if err != nil {
			r.report.Failed(p.name+" on "+network, err)
			continue
		}
		found[p.name] = c.best.rate()
		table.Add(p.name, figure.Count(c.best.rate()), figure.Count(float64(c.best.Datagrams)/c.best.Seconds), c.by, figure.Count(c.best.perCPUSecond()),
			figure.Count(c.flood.rate()*c.flood.share())+"/s", figure.Count(c.flood.rate())+"/s")
	}
	name := "dogstatsd_udp_lossless"
	if network == "unixgram" {
		name = "dogstatsd_uds_lossless"
		table.Notes = append(table.Notes, "A Unix socket makes its sender wait; a datagram is lost when it waits longer than the official client does, "+load.WriteTimeout.String()+".")
	}
	if spec == primary {
		r.compare(name, "samples/s", figure.HigherIsBetter, found)
	}
	return r.print(table)
}

func (r *run) losslessOf(ctx context.Context, p *program, network, path string) (c ceiling, err error) {
	figure.Progress("run    %s, %s", p.name, network)
	x, err := r.start(ctx, p, network)
	if err != nil {
		return c, err
	}
	c, err = x.search(ctx, path)
	if err == nil && p.name == kelpieName {
		err = r.account(ctx, x, path)
	}
	if ended := x.end(); err == nil {
		err = ended
	}
	return c, err
}

// account checks, above the ceiling, that each datagram that was sent is either
// received or counted as dropped, and that what was received leaves the agent.
func (r *run) account(ctx context.Context, x *receiver, path string) error {
	transport := map[string]string{"udp": "udp", "unixgram": "uds"}[x.place.network]
	named := func(name string) func(process.Sample) bool {
		return func(s process.Sample) bool {
			return s.Name == "kelpie_agent_dogstatsd_"+name && s.Labels == `transport="`+transport+`"`
		}
	}
	before, err := x.scrape(ctx, named("packets_total"), named("kernel_drops_total"))
	if err != nil {
		return err
	}
	if _, err := r.sink.counters(); err != nil {
		return err
	}
	flood, err := x.step(ctx, path, 0, r.probe)
	if err != nil {
		return err
	}
	// The kernel tells of drops with the next datagram that it delivers.
	last, err := x.send(ctx, path, load.SendOptions{Limit: 2})
	if err != nil {
		return err
	}
	after, err := x.scrape(ctx, named("packets_total"), named("kernel_drops_total"))
	if err != nil {
		return err
	}
	received, dropped := after[0]-before[0], after[1]-before[1]
	sent := float64(flood.Datagrams + last.Datagrams)
	r.report.Note("kelpie above its ceiling, %s: %.0f datagrams sent = %.0f received + %.0f counted as dropped by the kernel; unaccounted: %.0f",
		x.place.network, sent, received, dropped, sent-received-dropped)
	if x.place.network == "udp" {
		r.report.Limit("dogstatsd_udp_unaccounted", "datagrams", sent-received-dropped, 0)
	}
	return nil
}

func (p *program) listensOn(network string) bool {
	for _, n := range p.networks {
		if n == network {
			return true
		}
	}
	return false
}

// wire measures, under a flood, how much processor time a sample costs.
func (r *run) wire(ctx context.Context, specs []load.Spec) error {
	table := figure.Table{
		Title:  "Samples for a second of processor time, UDP, flooded: socket, parsing, aggregation and flush",
		Header: []string{""},
		Notes:  []string{"The processor time of the whole process (user and system), divided by the samples that it took."},
	}
	for _, p := range r.programs {
		table.Header = append(table.Header, p.name)
	}
	for _, spec := range specs {
		path, err := r.load(spec)
		if err != nil {
			return err
		}
		row, found := []string{spec.String()}, map[string]float64{}
		for _, p := range r.programs {
			s, err := r.flood(ctx, p, path)
			if err != nil {
				r.report.Failed(p.name+", "+spec.String(), err)
				row = append(row, "–")
				continue
			}
			found[p.name] = s.perCPUSecond()
			row = append(row, figure.Count(s.perCPUSecond()))
		}
		table.Add(row...)
		if spec == primary {
			r.compare("dogstatsd_wire", "samples/CPU-second", figure.HigherIsBetter, found)
		}
	}
	return r.print(table)
}

// flood sends all that goes for a while, after a pass that makes the contexts.
func (r *run) flood(ctx context.Context, p *program, path string) (s step, err error) {
	x, err := r.start(ctx, p, "udp")
	if err != nil {
		return s, err
	}
	if err = x.warm(ctx, path); err == nil {
		s, err = x.step(ctx, path, 0, r.floodFor)
	}
	figure.Progress("       %s: %s/s", p.name, figure.Count(s.perCPUSecond()))
	if ended := x.end(); err == nil {
		err = ended
	}
	return s, err
}
