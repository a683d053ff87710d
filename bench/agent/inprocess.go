package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/perf/benchfmt"

	"kelpie.dev/kelpie/bench/figure"
	"kelpie.dev/kelpie/bench/load"
	"kelpie.dev/kelpie/bench/process"
)

// ingest is the benchmark of package agent that takes a datagram through
// parsing, origin and aggregation. Its sub-benchmark "recorded" takes the
// datagrams from the file named by loadVariable (each after its length: 4
// bytes, little-endian), one datagram an operation, and reports samples/s. The
// others have loads of their own: what they say is told, but not compared.
const (
	ingest       = "BenchmarkIngest"
	recorded     = "recorded"
	loadVariable = "KELPIE_BENCH_LOAD"
)

// inProcess measures parsing and aggregating without a socket, where a program
// has a way to do so, and how far that is from copying the bytes.
func (r *run) inProcess(ctx context.Context, specs []load.Spec) error {
	table := figure.Table{
		Title:  "Parse and aggregate in process, one core, samples/s",
		Header: []string{"", kelpieName, "allocations a datagram", exporterName, "copying the bytes"},
	}
	for _, spec := range specs {
		path, err := r.load(spec)
		if err != nil {
			return err
		}
		figure.Progress("run    in process, %s", spec)
		ours, err := r.kelpieInProcess(ctx, spec, path)
		if err != nil {
			r.report.Failed("kelpie in process, "+spec.String(), err)
		}
		theirs, err := r.exporterInProcess(ctx, path)
		if err != nil {
			r.report.Failed("statsd_exporter in process, "+spec.String(), err)
		}
		copying, err := r.copying(path)
		if err != nil {
			return err
		}
		table.Add(spec.String(), figure.Count(ours.rate), ours.allocations, figure.Count(theirs), figure.Count(copying))
		if spec == primary {
			r.compare("dogstatsd_parse_aggregate", "samples/s/core", figure.HigherIsBetter, map[string]float64{kelpieName: ours.rate, exporterName: theirs})
		}
	}
	table.Notes = append(table.Notes, "Telegraf and the collector have no public way to parse and aggregate without a socket: they stand in the table of the wire.")
	return r.print(table)
}

// ingested is what the benchmark said.
type ingested struct {
	rate        float64 // samples/s
	allocations string  // "" when there is no result
}

// kelpieInProcess runs the agent's own benchmark, pinned to one core, and takes
// the median of three.
func (r *run) kelpieInProcess(ctx context.Context, spec load.Spec, path string) (ingested, error) {
	if r.ingestBin == "" {
		return ingested{}, fmt.Errorf("the tests of package agent are not built")
	}
	var out bytes.Buffer
	p, err := process.Start(ctx, process.Options{
		Args: []string{r.ingestBin, "-test.run=^$", "-test.bench=^" + ingest + "$/^(" + recorded + "|contexts=" + strconv.Itoa(spec.Contexts) + ")$",
			"-test.benchmem", "-test.count=3", "-test.cpu=1", "-test.benchtime=" + r.benchtime},
		Env: []string{"PATH=" + os.Getenv("PATH"), "HOME=" + r.dir, loadVariable + "=" + path},
		Dir: filepath.Join(r.builder.Kelpie, "agent"), CPU: receiverCPU, Log: filepath.Join(r.dir, "ingest.log"), Stdout: &out,
	})
	if err != nil {
		return ingested{}, err
	}
	if err := p.Wait(); err != nil {
		return ingested{}, fmt.Errorf("%w\n%s", err, bytes.TrimSpace(out.Bytes()))
	}
	return parseIngest(out.String())
}

// parseIngest reads the benchmark's output.
func parseIngest(text string) (ingested, error) {
	var rates, others []float64
	allocations := 0.0
	results := benchfmt.NewReader(strings.NewReader(text), ingest)
	for results.Scan() {
		result, ok := results.Result().(*benchfmt.Result)
		if !ok {
			continue
		}
		rate, ok := result.Value("samples/s")
		switch {
		case !ok:
		case strings.Contains(string(result.Name), "/"+recorded):
			rates = append(rates, rate)
			n, _ := result.Value("allocs/op")
			allocations = max(allocations, n)
		default:
			others = append(others, rate)
		}
	}
	if err := results.Err(); err != nil {
		return ingested{}, fmt.Errorf("read the output of %s: %w", ingest, err)
	}
	if len(rates) == 0 {
		return ingested{}, fmt.Errorf("%s/%s, which reads %s, reports no samples/s (on loads of its own, which cannot be compared: %s)",
			ingest, recorded, loadVariable, figure.Count(median(others)))
	}
	return ingested{median(rates), strconv.FormatFloat(allocations, 'g', -1, 64)}, nil
}

func median(values []float64) float64 {
	if len(values) == 0 {
		return 0
	}
	slices.Sort(values)
	return values[len(values)/2]
}

func (r *run) exporterInProcess(ctx context.Context, path string) (float64, error) {
	if r.exporterBin == "" {
		return 0, fmt.Errorf("it is not built")
	}
	var out bytes.Buffer
	p, err := process.Start(ctx, process.Options{
		Args: []string{r.exporterBin, "-load", path, "-for", r.probe.String()}, CPU: receiverCPU,
		Log: filepath.Join(r.dir, "exporter.log"), Stdout: &out,
	})
	if err != nil {
		return 0, err
	}
	if err := p.Wait(); err != nil {
		return 0, err
	}
	rate, err := strconv.ParseFloat(strings.TrimSpace(out.String()), 64)
	if err != nil {
		return 0, fmt.Errorf("read what it printed: %w", err)
	}
	return rate, nil
}

// copying returns how many samples a second go through copy alone.
func (r *run) copying(path string) (float64, error) {
	l, err := load.Read(path)
	if err != nil {
		return 0, err
	}
	buffer, passes, samples := make([]byte, 1<<16), 0, l.Samples()
	start := time.Now()
	for ; time.Since(start) < r.probe/2; passes++ {
		for _, d := range l.Datagrams {
			copy(buffer, d)
		}
	}
	return float64(samples) * float64(passes) / time.Since(start).Seconds(), nil
}
