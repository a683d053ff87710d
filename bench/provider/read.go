package main

import (
	"cmp"
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"runtime"
	"slices"
	"time"

	"kelpie.dev/kelpie/bench/figure"
)

// A timing is what reading in process took.
type timing struct {
	P50, P99 time.Duration
	Allocs   float64 // a read
	Bytes    float64 // allocated a read
}

// readTimings are those of one program. Handler is through the generic API
// server's whole chain, without a socket; Provider is the program's part alone.
type readTimings struct {
	Provider, Handler map[string]timing // by what is read
}

// What is read. The sample adapter's external metrics are three, fixed in its
// source; what its own API writes are custom metrics.
const (
	objectReads = "DatadogMetric"
	inlineReads = "plain name, one label"
	fixedReads  = "external, 3 of them, one label"
	customReads = "custom, written by its API"
)

// reads measures reading in process beside the sample adapter.
func (r *run) reads(ctx context.Context) error {
	var kelpie, sample readTimings
	if err := r.work(ctx, "read-kelpie", &kelpie); err != nil {
		return err
	}
	if err := r.work(ctx, "read-sample-adapter", &sample); err != nil {
		return err
	}
	table := figure.Table{
		Title:  fmt.Sprintf("Reads in process, of %d metrics in random order, one core; µs", r.metrics),
		Header: []string{"", "provider p50", "p99", "allocations", "handler p50", "p99", "allocations"},
		Notes: []string{"Handler: the generic API server's chain as the library makes it, with who asks and whether he may left out, without a socket.",
			fmt.Sprintf("Kelpie's are %d DatadogMetrics and %d plain names, %d in all, each with a query of its own.", r.metrics/2, r.metrics/2, r.metrics)},
	}
	for _, row := range []struct {
		program string
		of      readTimings
		what    string
	}{
		{"kelpie", kelpie, objectReads}, {"kelpie", kelpie, inlineReads}, {"sample adapter", sample, fixedReads}, {"sample adapter", sample, customReads},
	} {
		p, h := row.of.Provider[row.what], row.of.Handler[row.what]
		table.Add(row.program+": "+row.what, micros(p.P50), micros(p.P99), fmt.Sprintf("%.0f", p.Allocs), micros(h.P50), micros(h.P99), fmt.Sprintf("%.0f", h.Allocs))
	}
	// Beside each other are requests of one form: with a label, and without.
	for _, pair := range []struct{ suffix, ours, theirs string }{{"", inlineReads, fixedReads}, {"_object", objectReads, customReads}} {
		peer := func(t time.Duration) figure.Value {
			return figure.Value{Program: "sample adapter: " + pair.theirs, Value: inMicros(t)}
		}
		for _, of := range []struct {
			name         string
			ours, theirs timing
		}{
			{"external_metric_read", kelpie.Handler[pair.ours], sample.Handler[pair.theirs]},
			{"external_metric_read_provider", kelpie.Provider[pair.ours], sample.Provider[pair.theirs]},
		} {
			r.report.Compare(of.name+pair.suffix+"_p50", "µs", figure.LowerIsBetter, inMicros(of.ours.P50), peer(of.theirs.P50))
			r.report.Compare(of.name+pair.suffix+"_p99", "µs", figure.LowerIsBetter, inMicros(of.ours.P99), peer(of.theirs.P99))
		}
	}
	worst := max(kelpie.Provider[inlineReads].P99, kelpie.Provider[objectReads].P99)
	r.report.Limit("external_metric_read_p99_limit", "µs", inMicros(worst), 1000)
	return table.WriteText(os.Stdout)
}

// readCount is how often each kind is read.
const readCount = 100_000

// timeReads times read(i) for random i below n.
func timeReads(n int, read func(i int) error) (timing, error) {
	rng := rand.New(rand.NewPCG(1, 2)) // every run reads the same
	for range n {
		if err := read(rng.IntN(n)); err != nil {
			return timing{}, err
		}
	}
	took := make([]time.Duration, readCount)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for k := range took {
		i := rng.IntN(n)
		start := time.Now()
		if err := read(i); err != nil {
			return timing{}, err
		}
		took[k] = time.Since(start)
	}
	runtime.ReadMemStats(&after)
	return timing{
		P50: quantile(took, 0.5), P99: quantile(took, 0.99),
		Allocs: float64(after.Mallocs-before.Mallocs) / readCount, Bytes: float64(after.TotalAlloc-before.TotalAlloc) / readCount,
	}, nil
}

// throughHandler returns a read of h: a request as the HPA controller's.
func throughHandler(ctx context.Context, h http.Handler, path func(i int) string) func(i int) error {
	return func(i int) error {
		req := httptest.NewRequestWithContext(ctx, http.MethodGet, path(i), nil)
		req.Header.Set("Accept", "application/json")
		w := httptest.NewRecorder()
		h.ServeHTTP(w, req)
		if w.Code != http.StatusOK {
			return fmt.Errorf("GET %s: %d %s", path(i), w.Code, w.Body)
		}
		return nil
	}
}

// quantile returns the value that a part q of values does not exceed; it sorts
// them.
func quantile[T cmp.Ordered](values []T, q float64) (none T) {
	if len(values) == 0 {
		return none
	}
	slices.Sort(values)
	return values[min(len(values)-1, int(q*float64(len(values))))]
}

func micros(d time.Duration) string {
	return fmt.Sprintf("%.2f", inMicros(d))
}

func inMicros(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }

func millis(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

func mib(n float64) float64 { return n / (1 << 20) }
