// Command otelcol runs the OpenTelemetry collector's statsd receiver alone,
// made by its factory, aggregating over 10 s. What it hands on is counted and
// thrown away, so it has none of the cost that an exporter would add.
//
// The number of counter samples handed on so far is served at /metrics.
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

	"github.com/open-telemetry/opentelemetry-collector-contrib/receiver/statsdreceiver"
	"github.com/open-telemetry/opentelemetry-collector-contrib/receiver/statsdreceiver/protocol"
	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/component/componenttest"
	"go.opentelemetry.io/collector/config/confignet"
	"go.opentelemetry.io/collector/consumer"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/receiver"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	network := flag.String("network", "udp", "udp or unixgram")
	address := flag.String("address", "127.0.0.1:8125", "where to listen")
	listen := flag.String("http", "127.0.0.1:9125", "where to serve /metrics")
	buffer := flag.Int("read-buffer", 0, "SO_RCVBUF")
	flag.Parse()
	if err := run(ctx, confignet.AddrConfig{Transport: confignet.TransportType(*network), Endpoint: *address}, *listen, *buffer); err != nil {
		fmt.Fprintln(os.Stderr, "otelcol:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, address confignet.AddrConfig, listen string, buffer int) error {
	factory := statsdreceiver.NewFactory()
	config := factory.CreateDefaultConfig().(*statsdreceiver.Config)
	config.NetAddr, config.SocketBufferSize = address, buffer
	config.AggregationInterval = 10 * time.Second
	// Its default makes a gauge of each single value; this is what aggregates.
	config.TimerHistogramMapping = []protocol.TimerHistogramMapping{
		{StatsdType: protocol.TimingAltTypeName, ObserverType: protocol.HistogramObserver},
		{StatsdType: protocol.HistogramTypeName, ObserverType: protocol.HistogramObserver},
		{StatsdType: protocol.DistributionTypeName, ObserverType: protocol.HistogramObserver},
	}
	if err := config.Validate(); err != nil {
		return fmt.Errorf("configure the statsd receiver: %w", err)
	}
	var counters atomic.Int64
	next, err := consumer.NewMetrics(func(_ context.Context, m pmetric.Metrics) error {
		counters.Add(sums(m))
		return nil
	})
	if err != nil {
		return fmt.Errorf("make the consumer: %w", err)
	}
	settings := receiver.Settings{
		ID:                component.NewID(factory.Type()),
		TelemetrySettings: componenttest.NewNopTelemetrySettings(),
		BuildInfo:         component.NewDefaultBuildInfo(),
	}
	r, err := factory.CreateMetrics(ctx, settings, config, next)
	if err != nil {
		return fmt.Errorf("make the statsd receiver: %w", err)
	}
	if err := r.Start(ctx, componenttest.NewNopHost()); err != nil {
		return fmt.Errorf("start the statsd receiver: %w", err)
	}
	if address.Transport == confignet.TransportTypeUDP && buffer > 0 {
		if err := enlarge(buffer); err != nil {
			return fmt.Errorf("set the receive buffer: %w", err)
		}
	}
	http.HandleFunc("GET /metrics", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = fmt.Fprintf(w, "bench_counter_samples_total %d\n", counters.Load())
	})
	failed := make(chan error, 1)
	go func() { failed <- http.ListenAndServe(listen, nil) }()
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
		return r.Shutdown(context.WithoutCancel(ctx))
	}
}

// sums adds up every point of every counter.
func sums(m pmetric.Metrics) (total int64) {
	for _, resource := range m.ResourceMetrics().All() {
		for _, scope := range resource.ScopeMetrics().All() {
			for _, metric := range scope.Metrics().All() {
				if metric.Type() != pmetric.MetricTypeSum {
					continue
				}
				for _, point := range metric.Sum().DataPoints().All() {
					total += point.IntValue()
				}
			}
		}
	}
	return total
}

// enlarge sets SO_RCVBUF of this process' UDP socket: the receiver has no
// setting for it, and the others have.
func enlarge(bytes int) error {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return err
	}
	for _, e := range entries {
		var fd int
		if _, err := fmt.Sscan(e.Name(), &fd); err != nil {
			continue
		}
		if kind, err := syscall.GetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_TYPE); err != nil || kind != syscall.SOCK_DGRAM {
			continue
		}
		if err := syscall.SetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_RCVBUF, bytes); err != nil {
			return err
		}
	}
	return nil
}
