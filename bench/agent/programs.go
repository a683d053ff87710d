package main

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"

	"kelpie.dev/kelpie/bench/process"
)

// A place is where a program shall listen, and send to.
type place struct {
	network string // "udp" or "unixgram"
	udp     string // host:port
	socket  string // path
	http    string // host:port
	intake  string // URL of the sink
}

// target returns where a sender sends.
func (p place) target() (network, address string) {
	if p.network == "udp" {
		return p.network, p.udp
	}
	return p.network, p.socket
}

// A program is something that takes DogStatsD.
type program struct {
	name     string
	networks []string // on which it can listen
	build    func(context.Context, *process.Builder) (string, error)
	args     func(place) []string
	env      func(place) []string
	// counted reports whether a sample of its /metrics counts counter samples
	// that it aggregated.
	counted func(process.Sample) bool
	// atFlush says that counted moves only when a bucket is flushed.
	atFlush bool
	bin     string // once built
}

// receiveBuffer is the SO_RCVBUF that every program is given, by its own
// setting where it has one. The kernel caps it at net.core.rmem_max.
const receiveBuffer = 4 << 20

const (
	kelpieName   = "kelpie"
	exporterName = "statsd_exporter"
)

// programs returns Kelpie, then its peers.
func programs() []*program {
	return []*program{kelpieProgram(), exporterProgram(), telegrafProgram(), collectorProgram()}
}

func kelpieProgram() *program {
	return &program{
		name: kelpieName, networks: []string{"udp", "unixgram"},
		build: func(ctx context.Context, b *process.Builder) (string, error) {
			return b.Build(ctx, "kelpie-agent", b.Kelpie, "./cmd/kelpie-agent")
		},
		args: func(place) []string { return nil },
		env: func(p place) []string {
			udp, socket := "0", ""
			if p.network == "udp" {
				udp = port(p.udp)
			} else {
				socket = p.socket
			}
			return []string{
				"DD_API_KEY=bench", "DD_DD_URL=" + p.intake, "DD_HOSTNAME=bench", "DD_BIND_HOST=127.0.0.1",
				"DD_DOGSTATSD_PORT=" + udp, "DD_DOGSTATSD_SOCKET=" + socket, "DD_HEALTH_PORT=" + port(p.http),
				fmt.Sprintf("DD_DOGSTATSD_SO_RCVBUF=%d", receiveBuffer),
			}
		},
		counted: func(s process.Sample) bool {
			return s.Name == "kelpie_agent_dogstatsd_samples_total" && s.Labels == `type="c"`
		},
	}
}

func exporterProgram() *program {
	return &program{
		name: exporterName, networks: []string{"udp", "unixgram"},
		build: func(ctx context.Context, b *process.Builder) (string, error) {
			return b.Build(ctx, exporterName, filepath.Join(b.Bench, "peers", exporterName), "github.com/prometheus/statsd_exporter")
		},
		args: func(p place) []string {
			udp, socket := p.udp, ""
			if p.network != "udp" {
				udp, socket = "", p.socket
			}
			return []string{
				"--web.listen-address=" + p.http, "--statsd.listen-udp=" + udp, "--statsd.listen-tcp=", "--statsd.listen-unixgram=" + socket,
				fmt.Sprintf("--statsd.read-buffer=%d", receiveBuffer), "--log.level=error",
			}
		},
		counted: func(s process.Sample) bool {
			return s.Name == "statsd_exporter_events_total" && s.Labels == `type="counter"`
		},
	}
}

func telegrafProgram() *program {
	return &program{
		name: "telegraf", networks: []string{"udp"},
		build: func(ctx context.Context, b *process.Builder) (string, error) {
			return b.Build(ctx, "telegraf", filepath.Join(b.Bench, "peers", "telegraf"), ".")
		},
		args: func(p place) []string {
			return []string{"-udp", p.udp, "-http", p.http, fmt.Sprintf("-read-buffer=%d", receiveBuffer)}
		},
		counted: benchCounter, atFlush: true,
	}
}

func collectorProgram() *program {
	return &program{
		name: "otelcol", networks: []string{"udp", "unixgram"},
		build: func(ctx context.Context, b *process.Builder) (string, error) {
			return b.Build(ctx, "otelcol", filepath.Join(b.Bench, "peers", "otelcol"), ".")
		},
		args: func(p place) []string {
			address := p.udp
			if p.network != "udp" {
				address = p.socket
			}
			return []string{"-network", p.network, "-address", address, "-http", p.http, fmt.Sprintf("-read-buffer=%d", receiveBuffer)}
		},
		counted: benchCounter, atFlush: true,
	}
}

// benchCounter is what our mains of peers serve.
func benchCounter(s process.Sample) bool { return s.Name == "bench_counter_samples_total" }

func port(address string) string { return address[strings.LastIndexByte(address, ':')+1:] }
