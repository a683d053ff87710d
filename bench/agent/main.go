// Command agent measures Kelpie's node agent beside its peers: the same
// datagrams of Datadog's official client, in the same run, on the same core.
//
// It prints tables for people, then one JSON line for each figure. See
// bench/README.md.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"kelpie.dev/kelpie/bench/figure"
	"kelpie.dev/kelpie/bench/load"
	"kelpie.dev/kelpie/bench/process"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := command(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// parts are what can be measured, in this order.
var parts = []string{"inprocess", "wire", "udp", "uds", "memory", "flush"}

func command(ctx context.Context) error {
	quick := flag.Bool("quick", false, "short steps and few loads: to see that it works, not to quote")
	only := flag.String("only", strings.Join(parts, ","), "what to measure")
	names := flag.String("programs", "", "which programs, by name; all when empty")
	// The sender runs this same binary.
	path := flag.String("send", "", "send this load and tell as JSON what was sent; what the run starts for itself")
	var o load.SendOptions
	flag.StringVar(&o.Network, "send-network", "udp", "udp or unixgram")
	flag.StringVar(&o.Address, "send-address", "", "where to")
	flag.Float64Var(&o.Rate, "send-rate", 0, "samples a second; 0 for all that goes")
	flag.DurationVar(&o.For, "send-for", 0, "how long")
	flag.IntVar(&o.Limit, "send-limit", 0, "datagrams at most")
	flag.IntVar(&o.Start, "send-start", 0, "the first datagram")
	flag.Parse()
	if *path != "" {
		return send(*path, o)
	}
	wanted := strings.Split(*only, ",")
	if err := known(wanted); err != nil {
		return err
	}
	r, err := newRun(ctx, *quick)
	if err != nil {
		return err
	}
	defer r.close()
	return r.all(ctx, wanted, *names)
}

func send(path string, o load.SendOptions) error {
	l, err := load.Read(path)
	if err != nil {
		return err
	}
	sent, err := load.Send(l, o)
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(sent)
}

// A run is one invocation: its settings, and what it has found.
type run struct {
	builder     *process.Builder
	programs    []*program // Kelpie first; those that were built
	ingestBin   string     // tests of package agent; "" when not built
	exporterBin string     // statsd_exporter in process; "" when not built
	self, dir   string
	sink        *sink
	started     int
	loads       map[load.Spec]string

	quick     bool
	probe     time.Duration // a step of a search
	confirm   time.Duration // the step that counts: more than a bucket
	floodFor  time.Duration
	memoryFor time.Duration // more than two buckets
	benchtime string

	report figure.Report
}

func newRun(ctx context.Context, quick bool) (*run, error) {
	if n := runtime.NumCPU(); n < 2 {
		return nil, fmt.Errorf("this machine shows %d core: the sender needs one beside the receiver's", n)
	}
	r := &run{
		quick: quick, loads: map[load.Spec]string{},
		probe: 3 * time.Second, confirm: 12 * time.Second, floodFor: 5 * time.Second, memoryFor: 25 * time.Second, benchtime: "2s",
	}
	if quick {
		r.probe, r.confirm, r.floodFor, r.memoryFor, r.benchtime = time.Second, 2*time.Second, time.Second, 11*time.Second, "200ms"
	}
	var err error
	if r.builder, err = process.NewBuilder(ctx, figure.Progress); err != nil {
		return nil, err
	}
	if r.self, err = os.Executable(); err != nil {
		return nil, fmt.Errorf("find this program: %w", err)
	}
	if r.dir, err = os.MkdirTemp("", "kelpie-bench-"); err != nil {
		return nil, fmt.Errorf("make a working directory: %w", err)
	}
	r.sink, err = openSink(ctx)
	return r, err
}

func (r *run) close() {
	r.sink.close()
	_ = os.RemoveAll(r.dir)
}

// all measures what is wanted and prints it. A part that fails is named at the
// end and spoils no other.
func (r *run) all(ctx context.Context, wanted []string, names string) error {
	r.build(ctx, names)
	if err := process.PinSelf(senderCPU); err != nil {
		return err
	}
	sizes := []load.Spec{primary}
	if !r.quick {
		sizes = nil
		for _, contexts := range []int{100, 10_000, 100_000} {
			for _, packed := range []int{1, 10, 30} {
				sizes = append(sizes, load.Spec{Contexts: contexts, Packed: packed})
			}
		}
		sizes = append(sizes, load.Spec{Contexts: 10_000, Packed: 30, CountersOnly: true})
	}
	measure := map[string]func() error{
		"inprocess": func() error { return r.inProcess(ctx, sizes) },
		"wire":      func() error { return r.wire(ctx, sizes) },
		"udp":       func() error { return r.lossless(ctx, "udp", primary) },
		"uds":       func() error { return r.lossless(ctx, "unixgram", primary) },
		"memory":    func() error { return r.memory(ctx) },
		"flush":     func() error { return r.flush(ctx) },
	}
	for _, part := range parts {
		if !contains(wanted, part) {
			continue
		}
		if err := measure[part](); err != nil {
			r.report.Failed(part, err)
		}
		if ctx.Err() != nil {
			return fmt.Errorf("interrupted while measuring %s", part)
		}
	}
	return r.report.Finish(os.Stdout)
}

// known refuses what is no part.
func known(wanted []string) error {
	for _, w := range wanted {
		if !contains(parts, strings.TrimSpace(w)) {
			return fmt.Errorf("-only %q: expected some of %s", w, strings.Join(parts, ","))
		}
	}
	return nil
}

func contains(list []string, s string) bool {
	for _, x := range list {
		if strings.TrimSpace(x) == s {
			return true
		}
	}
	return false
}

func (r *run) build(ctx context.Context, names string) {
	for _, p := range programs() {
		if names != "" && !contains(strings.Split(names, ","), p.name) {
			continue
		}
		bin, err := p.build(ctx, r.builder)
		if err != nil {
			r.report.Failed("build "+p.name, err)
			continue
		}
		p.bin = bin
		r.programs = append(r.programs, p)
	}
	var err error
	if r.ingestBin, err = r.builder.BuildTest(ctx, "kelpie-agent.test", r.builder.Kelpie, "./agent"); err != nil {
		r.report.Failed("build the benchmarks of package agent", err)
	}
	peer := filepath.Join(r.builder.Bench, "peers", exporterName)
	if r.exporterBin, err = r.builder.Build(ctx, exporterName+"-inprocess", peer, "."); err != nil {
		r.report.Failed("build statsd_exporter in process", err)
	}
}

// load returns the file of a load, which is recorded when first asked for.
func (r *run) load(s load.Spec) (string, error) {
	if path, ok := r.loads[s]; ok {
		return path, nil
	}
	figure.Progress("record %s", s)
	l, err := load.Record(s)
	if err != nil {
		return "", err
	}
	path := filepath.Join(r.dir, fmt.Sprintf("load-%d", len(r.loads)))
	if err := l.Write(path); err != nil {
		return "", err
	}
	r.loads[s] = path
	r.report.Note("load %q: %d samples in %d datagrams of %d bytes on average", s, l.Samples(), len(l.Datagrams), l.Bytes()/len(l.Datagrams))
	return path, nil
}

// compare adds a figure of Kelpie's beside its best peer.
func (r *run) compare(name, unit string, d figure.Direction, found map[string]float64) {
	var peers []figure.Value
	for _, p := range r.programs {
		if p.name != kelpieName {
			peers = append(peers, figure.Value{Program: p.name, Value: found[p.name]})
		}
	}
	r.report.Compare(name, unit, d, found[kelpieName], peers...)
}

func (r *run) print(t figure.Table) error { return t.WriteText(os.Stdout) }
