// Command inprocess parses and aggregates recorded datagrams with
// statsd_exporter's own packages, on one core, without a socket: the line
// parser with the flags that its binary has by default, and its exporter.
//
// It prints samples a second.
package main

import (
	"encoding/binary"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"runtime"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/statsd_exporter/pkg/event"
	"github.com/prometheus/statsd_exporter/pkg/exporter"
	"github.com/prometheus/statsd_exporter/pkg/line"
	"github.com/prometheus/statsd_exporter/pkg/listener"
	"github.com/prometheus/statsd_exporter/pkg/mapper"
	"github.com/prometheus/statsd_exporter/pkg/mappercache/lru"
)

func main() {
	load := flag.String("load", "", "file of datagrams, each after its length (4 bytes, little-endian)")
	duration := flag.Duration("for", 5*time.Second, "how long to measure")
	flag.Parse()
	if err := run(*load, *duration); err != nil {
		fmt.Fprintln(os.Stderr, "inprocess:", err)
		os.Exit(1)
	}
}

func run(path string, duration time.Duration) error {
	runtime.GOMAXPROCS(1)
	datagrams, err := read(path)
	if err != nil {
		return err
	}
	p, err := newPipeline()
	if err != nil {
		return err
	}
	for _, d := range datagrams { // every context is known before the clock starts
		p.take(d)
	}
	p.apply()
	warm := p.samples
	start := time.Now()
	for time.Since(start) < duration {
		for i, d := range datagrams {
			p.take(d)
			if i%64 == 63 {
				p.apply()
			}
		}
		p.apply()
	}
	fmt.Printf("%.0f\n", float64(p.samples-warm)/time.Since(start).Seconds())
	return nil
}

func read(path string) (out [][]byte, err error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	for len(data) >= 4 {
		n := binary.LittleEndian.Uint32(data)
		out = append(out, data[4:4+n])
		data = data[4+n:]
	}
	return out, nil
}

// pipeline is the listener's handler and the exporter, without the queues that
// the binary has between them.
type pipeline struct {
	listener listener.StatsDUDPListener
	exporter *exporter.Exporter
	events   event.Events
	samples  int
}

// Queue takes the events of one line, as the exporter's event queue does.
func (p *pipeline) Queue(events event.Events) {
	p.samples++
	p.events = append(p.events, events...)
}

func newPipeline() (*pipeline, error) {
	registry := prometheus.NewRegistry()
	log := slog.New(slog.DiscardHandler)
	counter := func(name string) prometheus.Counter {
		c := prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: name})
		registry.MustRegister(c)
		return c
	}
	vec := func(name string, labels ...string) *prometheus.CounterVec {
		c := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: name}, labels)
		registry.MustRegister(c)
		return c
	}
	count := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "metrics_total", Help: "metrics_total"}, []string{"type"})
	registry.MustRegister(count)
	cache, err := lru.NewMetricMapperLRUCache(registry, 1000)
	if err != nil {
		return nil, fmt.Errorf("make the mapping cache: %w", err)
	}
	m := &mapper.MetricMapper{Registerer: registry, Logger: log}
	m.UseCache(cache)
	parser := line.NewParser()
	parser.EnableDogstatsdParsing()
	parser.EnableInfluxdbParsing()
	parser.EnableLibratoParsing()
	parser.EnableSignalFXParsing()
	p := &pipeline{exporter: exporter.NewExporter(registry, m, log, vec("actions_total", "action"), counter("unmapped_total"),
		vec("errors_total", "reason"), vec("events_total", "type"), vec("conflicts_total", "type", "metric_name"), count)}
	p.listener = listener.StatsDUDPListener{
		EventHandler: p, Logger: log, LineParser: parser, LinesReceived: counter("lines_total"), SampleErrors: *vec("sample_errors_total", "reason"),
		SamplesReceived: counter("samples_total"), TagErrors: counter("tag_errors_total"), TagsReceived: counter("tags_total"),
	}
	return p, nil
}

// take parses the lines of one datagram.
func (p *pipeline) take(datagram []byte) { p.listener.HandlePacket(datagram) }

// apply aggregates what has been parsed.
func (p *pipeline) apply() {
	events := make(chan event.Events, 1)
	events <- p.events
	close(events)
	p.exporter.Listen(events)
	p.events = p.events[:0]
}
