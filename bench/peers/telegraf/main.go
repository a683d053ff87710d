// Command telegraf runs Telegraf's statsd input alone: the plugin with its
// Datadog extensions on, gathered every 10 s as Telegraf's agent does by
// default. What it gathers is counted and thrown away, so it has none of the
// cost that an output would add.
//
// The number of counter samples gathered so far is served at /metrics.
package main

import (
	"context"
	"flag"
	"fmt"
	"net/http"
	"os"
	"os/signal"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/influxdata/telegraf"
	"github.com/influxdata/telegraf/logger"
	"github.com/influxdata/telegraf/metric"
	"github.com/influxdata/telegraf/plugins/inputs/statsd"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	address := flag.String("udp", "127.0.0.1:8125", "where to listen")
	listen := flag.String("http", "127.0.0.1:9125", "where to serve /metrics")
	buffer := flag.Int("read-buffer", 0, "SO_RCVBUF")
	flag.Parse()
	if err := run(ctx, *address, *listen, *buffer); err != nil {
		fmt.Fprintln(os.Stderr, "telegraf:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, address, listen string, buffer int) error {
	plugin := &statsd.Statsd{ // the defaults of the plugin, then what DogStatsD needs
		Protocol: "udp", ServiceAddress: address, AllowedPendingMessages: 10000, NumberWorkerThreads: 5,
		DeleteCounters: true, DeleteGauges: true, DeleteSets: true, DeleteTimings: true,
		MetricSeparator: "_", MaxTCPConnections: 250, PercentileLimit: 1000, Percentiles: []statsd.Number{50, 95},
		DataDogExtensions: true, DataDogDistributions: true, ReadBufferSize: buffer,
		Log: logger.New("inputs", "statsd", ""),
	}
	acc := &accumulator{}
	if err := plugin.Start(acc); err != nil {
		return fmt.Errorf("start the statsd input: %w", err)
	}
	http.HandleFunc("GET /metrics", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = fmt.Fprintf(w, "bench_counter_samples_total %d\n", acc.counters.Load())
	})
	failed := make(chan error, 1)
	go func() { failed <- http.ListenAndServe(listen, nil) }()
	ticker := time.NewTicker(10 * time.Second)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			if err := plugin.Gather(acc); err != nil {
				return fmt.Errorf("gather: %w", err)
			}
		case err := <-failed:
			return err
		case <-ctx.Done():
			plugin.Stop()
			return nil
		}
	}
}

// accumulator makes a metric of what it is given, as Telegraf's own does, and
// counts the counters.
type accumulator struct{ counters atomic.Int64 }

func (a *accumulator) add(kind telegraf.ValueType, name string, fields map[string]any, tags map[string]string, t []time.Time) telegraf.Metric {
	at := time.Now()
	if len(t) > 0 {
		at = t[0]
	}
	return metric.New(name, tags, fields, at, kind)
}

func (a *accumulator) AddFields(name string, fields map[string]any, tags map[string]string, t ...time.Time) {
	a.add(telegraf.Untyped, name, fields, tags, t)
}

func (a *accumulator) AddGauge(name string, fields map[string]any, tags map[string]string, t ...time.Time) {
	a.add(telegraf.Gauge, name, fields, tags, t)
}

func (a *accumulator) AddCounter(name string, fields map[string]any, tags map[string]string, t ...time.Time) {
	for _, f := range a.add(telegraf.Counter, name, fields, tags, t).FieldList() {
		if n, ok := f.Value.(int64); ok {
			a.counters.Add(n)
		}
	}
}

func (a *accumulator) AddSummary(name string, fields map[string]any, tags map[string]string, t ...time.Time) {
	a.add(telegraf.Summary, name, fields, tags, t)
}

func (a *accumulator) AddHistogram(name string, fields map[string]any, tags map[string]string, t ...time.Time) {
	a.add(telegraf.Histogram, name, fields, tags, t)
}

func (a *accumulator) AddMetric(telegraf.Metric) {}

func (a *accumulator) SetPrecision(time.Duration) {}

func (a *accumulator) AddError(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "telegraf:", err)
	}
}

func (a *accumulator) WithTracking(int) telegraf.TrackingAccumulator { return nil }
