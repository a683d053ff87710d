package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"kelpie.dev/kelpie/bench/load"
	"kelpie.dev/kelpie/bench/process"
)

// The cores: programs under test have one, this process and the sender the
// other.
const (
	receiverCPU = 0
	senderCPU   = 1
)

// A receiver is a running program.
type receiver struct {
	*process.Process
	program *program
	place   place
	next    int // where in the load the next sender begins
	run     *run
}

// start starts a program and waits until it listens.
func (r *run) start(ctx context.Context, p *program, network string) (*receiver, error) {
	r.started++
	x := &receiver{program: p, run: r, place: place{network: network, intake: r.sink.url, socket: filepath.Join(r.dir, fmt.Sprintf("%d.sock", r.started))}}
	var err error
	if x.place.udp, err = freePort(ctx, "udp"); err != nil {
		return nil, err
	}
	if x.place.http, err = freePort(ctx, "tcp"); err != nil {
		return nil, err
	}
	env := []string{"PATH=" + os.Getenv("PATH"), "HOME=" + r.dir}
	if p.env != nil {
		env = append(env, p.env(x.place)...)
	}
	x.Process, err = process.Start(ctx, process.Options{
		Args: append([]string{p.bin}, p.args(x.place)...), Env: env, Dir: r.dir, CPU: receiverCPU,
		Log: filepath.Join(r.dir, fmt.Sprintf("%d-%s.log", r.started, p.name)),
	})
	if err != nil {
		return nil, err
	}
	for deadline := time.Now().Add(20 * time.Second); ; {
		_, err := x.counters(ctx)
		if err == nil {
			return x, nil
		}
		select {
		case <-x.Done():
			return nil, x.Stop(0)
		case <-time.After(50 * time.Millisecond):
		}
		if time.Now().After(deadline) || ctx.Err() != nil {
			_ = x.Stop(0)
			return nil, fmt.Errorf("start %s: %w\n%s", p.name, err, x.Tail())
		}
	}
}

func freePort(ctx context.Context, network string) (string, error) {
	var config net.ListenConfig
	if network == "tcp" {
		l, err := config.Listen(ctx, "tcp", "127.0.0.1:0")
		if err != nil {
			return "", fmt.Errorf("find a free port: %w", err)
		}
		return l.Addr().String(), l.Close()
	}
	c, err := config.ListenPacket(ctx, "udp", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("find a free port: %w", err)
	}
	return c.LocalAddr().String(), c.Close()
}

// end stops the program, with time to flush.
func (x *receiver) end() error { return x.Stop(10 * time.Second) }

// scrape returns the sums of the samples that each of the wanted functions
// takes.
func (x *receiver) scrape(ctx context.Context, wanted ...func(process.Sample) bool) ([]float64, error) {
	sums := make([]float64, len(wanted))
	err := process.Scrape(ctx, "http://"+x.place.http+"/metrics", func(s process.Sample) {
		for i, want := range wanted {
			if want(s) {
				sums[i] += s.Value
			}
		}
	})
	return sums, err
}

func (x *receiver) counters(ctx context.Context) (float64, error) {
	sums, err := x.scrape(ctx, x.program.counted)
	return sums[0], err
}

// A step is one sending and what became of it.
type step struct {
	load.Sent
	received float64       // counter samples
	cpu      time.Duration // of the receiver
}

// rate is what the sender achieved, in samples a second.
func (s step) rate() float64 { return float64(s.Samples) / s.Seconds }

// lossless reports whether everything came through. Counters stand for all
// types, as every program tells how many it took; a lost datagram loses some.
func (s step) lossless() bool { return s.Timeouts == 0 && s.received == float64(s.Counters) }

// share is the part of the samples that came through.
func (s step) share() float64 {
	if s.Counters == 0 {
		return 0
	}
	return s.received / float64(s.Counters)
}

// perCPUSecond is how many samples came through for a second of processor time.
func (s step) perCPUSecond() float64 {
	if s.cpu <= 0 {
		return 0
	}
	return float64(s.Samples) * s.share() / s.cpu.Seconds()
}

// bucket is the width of every program's buckets.
const bucket = 10 * time.Second

// step sends at rate samples a second (0: all that goes) for d, and waits until
// the program is at rest.
func (x *receiver) step(ctx context.Context, path string, rate float64, d time.Duration) (step, error) {
	return x.send(ctx, path, load.SendOptions{Rate: rate, For: d})
}

func (x *receiver) send(ctx context.Context, path string, o load.SendOptions) (step, error) {
	before, err := x.counters(ctx)
	if err != nil {
		return step{}, err
	}
	cpu, err := x.CPU()
	if err != nil {
		return step{}, err
	}
	o.Network, o.Address = x.place.target()
	o.Start = x.next
	var s step
	if s.Sent, err = x.run.sendFromChild(ctx, path, o); err != nil {
		return s, fmt.Errorf("%s: %w", x.program.name, err)
	}
	x.next = s.Next
	ended := time.Now()
	if err := x.rest(ctx); err != nil {
		return s, err
	}
	for {
		after, err := x.counters(ctx)
		if err != nil {
			return s, fmt.Errorf("%s: %w", x.program.name, err)
		}
		s.received = after - before
		if !x.program.atFlush || s.received >= float64(s.Counters) || time.Since(ended) > bucket+2*time.Second {
			break
		}
		if err := pause(ctx, 200*time.Millisecond); err != nil {
			return s, err
		}
	}
	total, err := x.CPU()
	s.cpu = total - cpu
	return s, err
}

// warm lets the program see the contexts, slowly, before a step counts.
func (x *receiver) warm(ctx context.Context, path string) error {
	o := load.SendOptions{Rate: 100_000, For: 1500 * time.Millisecond}
	o.Network, o.Address = x.place.target()
	sent, err := x.run.sendFromChild(ctx, path, o)
	if err != nil {
		return fmt.Errorf("%s: %w", x.program.name, err)
	}
	x.next = sent.Next
	if x.program.atFlush { // what it took in warming must not count as a step's
		if err := pause(ctx, bucket+time.Second); err != nil {
			return err
		}
	}
	return x.rest(ctx)
}

// rest waits until the program has worked off its own queues: three looks in a
// row at which it used next to no processor time.
func (x *receiver) rest(ctx context.Context) error {
	last, err := x.CPU()
	for quiet := 0; err == nil && quiet < 3; {
		if err = pause(ctx, 100*time.Millisecond); err != nil {
			return err
		}
		var now time.Duration
		now, err = x.CPU()
		if quiet++; now-last > 20*time.Millisecond {
			quiet = 0
		}
		last = now
	}
	return err
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// sendFromChild runs a sender in a process of its own, on its own core.
func (r *run) sendFromChild(ctx context.Context, path string, o load.SendOptions) (load.Sent, error) {
	var out bytes.Buffer
	p, err := process.Start(ctx, process.Options{
		Args: []string{r.self, "-send", path, "-send-network", o.Network, "-send-address", o.Address, "-send-start", fmt.Sprint(o.Start),
			"-send-rate", fmt.Sprint(o.Rate), "-send-for", o.For.String(), "-send-limit", fmt.Sprint(o.Limit)},
		CPU: senderCPU, Log: filepath.Join(r.dir, "sender.log"), Stdout: &out,
	})
	if err != nil {
		return load.Sent{}, err
	}
	if err := p.Wait(); err != nil {
		return load.Sent{}, err
	}
	var sent load.Sent
	if err := json.Unmarshal(out.Bytes(), &sent); err != nil {
		return sent, fmt.Errorf("read what the sender did: %w", err)
	}
	if sent.Datagrams == 0 {
		return sent, errors.New("the sender sent nothing")
	}
	return sent, nil
}
