package dogstatsd

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/DataDog/datadog-go/v5/statsd"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"kelpie.dev/kelpie/metric"
)

// heard is everything that a client has said.
type heard struct {
	Metrics []parsed
	Events  []metric.Event
	Checks  []metric.ServiceCheck
	Said    map[string]said // by title or name
}

// hear reads n lines of out. Metrics are in the order of their names, as a
// client may send them in any.
func hear(t *testing.T, out <-chan *Batch, n int) heard {
	t.Helper()
	h := heard{Said: map[string]said{}}
	p := Parser{ClientOrigin: true}
	for n > 0 {
		b := next(t, out)
		for _, packet := range b.Packets {
			for rest := packet.Data; len(rest) > 0; {
				var line []byte
				if line, rest = NextLine(rest); len(line) > 0 {
					h.line(t, &p, line)
					n--
				}
			}
		}
		b.Release()
	}
	slices.SortFunc(h.Metrics, func(a, b parsed) int { return strings.Compare(a.Name, b.Name) })
	return h
}

func (h *heard) line(t *testing.T, p *Parser, line []byte) {
	t.Helper()
	var err error
	switch KindOf(line) {
	case MetricLine:
		var m *Metric
		if m, err = p.Metric(line); err == nil {
			h.Metrics = append(h.Metrics, words(m))
		}
	case EventLine:
		var e Event
		if e, err = p.Event(line); err == nil {
			h.Events, h.Said[e.Title] = append(h.Events, e.Event), e.words()
		}
	case ServiceCheckLine:
		var c ServiceCheck
		if c, err = p.ServiceCheck(line); err == nil {
			h.Checks, h.Said[c.Name] = append(h.Checks, c.ServiceCheck), c.words()
		}
	}
	if err != nil {
		t.Errorf("%q: %v", line, err)
	}
}

func (h heard) expect(t *testing.T, got heard) {
	t.Helper()
	for i := range h.Metrics {
		if h.Metrics[i].Rate == 0 {
			h.Metrics[i].Rate = 1
		}
	}
	if diff := cmp.Diff(h, got, cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// The official Go client over each socket: everything that it can say.
func TestGoClient(t *testing.T) {
	for _, transport := range []Transport{UDP, Unixgram, UnixStream} {
		t.Run(string(transport), func(t *testing.T) {
			l := open(t, transport, ListenOptions{Credentials: hasCredentials})
			out := start(t, l)
			client, err := statsd.New(map[Transport]string{UDP: "", Unixgram: "unixgram://", UnixStream: "unixstream://"}[transport]+l.Addr(),
				statsd.WithoutTelemetry(), statsd.WithoutOriginDetection(), statsd.WithTags([]string{"env:test"}))
			if err != nil {
				t.Fatal(err)
			}
			at, tags := time.Unix(1700000000, 0), []string{"k:v"}
			for _, err := range []error{
				client.Count("count", 3, tags, 1), client.Gauge("gauge", -1.5, nil, 1), client.Histogram("histogram", 2, nil, 1),
				client.Distribution("distribution", 4, nil, 1), client.Set("set", "a:b", nil, 1), client.Timing("timing", 250*time.Millisecond, nil, 1),
				client.GaugeWithTimestamp("timestamped", 7, nil, 1, at),
				client.Event(&statsd.Event{Title: "Déploiement | v2", Text: "line 1\nline 2", Timestamp: at, Hostname: "web-1", AggregationKey: "deploys",
					Priority: statsd.Low, SourceTypeName: "ci", AlertType: statsd.Success, Tags: tags}),
				client.ServiceCheck(&statsd.ServiceCheck{Name: "db.up", Status: statsd.Critical, Timestamp: at, Hostname: "web-1", Message: "down | no\nroute", Tags: tags}),
				client.Close(), // sends all of it
			} {
				if err != nil {
					t.Fatal(err)
				}
			}
			env, both := []string{"env:test"}, []string{"env:test", "k:v"}
			heard{
				Metrics: []parsed{
					{Name: "count", Type: "c", Values: []float64{3}, Tags: both},
					{Name: "distribution", Type: "d", Values: []float64{4}, Tags: env},
					{Name: "gauge", Type: "g", Values: []float64{-1.5}, Tags: env},
					{Name: "histogram", Type: "h", Values: []float64{2}, Tags: env},
					{Name: "set", Type: "s", Member: "a:b", Tags: env},
					{Name: "timestamped", Type: "g", Values: []float64{7}, Tags: env, Time: 1700000000},
					{Name: "timing", Type: "ms", Values: []float64{250}, Tags: env},
				},
				Events: []metric.Event{{Title: "Déploiement | v2", Text: "line 1\nline 2", Time: 1700000000, Host: "web-1", AggregationKey: "deploys",
					Priority: "low", SourceType: "ci", AlertType: "success", Tags: both}},
				Checks: []metric.ServiceCheck{{Name: "db.up", Status: metric.CheckCritical, Time: 1700000000, Host: "web-1", Message: "down | no\nroute", Tags: both}},
				Said:   map[string]said{"Déploiement | v2": {HasHost: true}, "db.up": {HasHost: true}},
			}.expect(t, hear(t, out, 9))
			if c := l.Counts(); c.Truncated+c.ReadErrors+c.FramesTooLong+c.FramesCutShort != 0 {
				t.Errorf("counts %+v", c)
			}
		})
	}
}

// hotShots makes hot-shots, for Node.js, say everything that it can, as an
// application would. Arguments: the folder of node_modules, and options in JSON.
const hotShots = `
const [modules, options] = process.argv.slice(1);
const StatsD = require(modules + '/hot-shots');
const client = new StatsD({...JSON.parse(options), globalTags: {env: 'test'}, includeDatadogTelemetry: false,
  errorHandler: (err) => { console.error(err); process.exit(1); }});
const at = new Date(1700000000 * 1000);
client.increment('count', 3, ['k:v']);
client.gauge('gauge', -1.5);
client.histogram('histogram', 2);
client.distribution('distribution', 4);
client.set('set', 'a:b');
client.timing('timing', 250);
client.event('Déploiement | v2', 'line 1\nline 2', {date_happened: at, hostname: 'web-1', aggregation_key: 'deploys',
  priority: 'low', source_type_name: 'ci', alert_type: 'success'}, ['k:v']);
client.check('db.up', client.CHECKS.CRITICAL, {date_happened: at, hostname: 'web-1', message: 'down | no route'}, ['k:v']);
client.close((err) => { if (err) { console.error(err); process.exit(1); } });
`

// KELPIE_HOT_SHOTS is where scripts/hot-shots.sh has installed the client: the
// script prints it.
func TestHotShots(t *testing.T) {
	modules := os.Getenv("KELPIE_HOT_SHOTS")
	if modules == "" {
		t.Skip(`KELPIE_HOT_SHOTS is not set: KELPIE_HOT_SHOTS="$(scripts/hot-shots.sh)" go test ./agent/dogstatsd/ tests with Node.js' client`)
	}
	node, err := exec.LookPath("node")
	if err != nil {
		t.Skip("Node.js is not installed")
	}
	for _, transport := range []Transport{UDP, Unixgram} {
		t.Run(string(transport), func(t *testing.T) {
			l := open(t, transport, ListenOptions{Credentials: hasCredentials})
			out := start(t, l)
			options := map[string]any{"protocol": "uds", "path": l.Addr()}
			if transport == UDP {
				options = map[string]any{"host": "127.0.0.1", "port": l.sockets[0].port(), "maxBufferSize": 1432}
			} else if found, _ := filepath.Glob(filepath.Join(modules, "unix-dgram", "build", "Release", "*.node")); len(found) == 0 {
				t.Skip("unix-dgram, which hot-shots needs for Unix sockets, could not be built on this machine")
			}
			text, err := json.Marshal(options)
			if err != nil {
				t.Fatal(err)
			}
			cmd := exec.CommandContext(t.Context(), node, "-e", hotShots, modules, string(text))
			cmd.Env = []string{"PATH=" + os.Getenv("PATH")} // no DD_ variables
			var said bytes.Buffer
			cmd.Stdout, cmd.Stderr = &said, &said
			if err := cmd.Run(); err != nil || said.Len() > 0 {
				t.Fatalf("node: %v\n%s", err, &said)
			}
			expectHotShots(t, hear(t, out, 8))
		})
	}
}

func expectHotShots(t *testing.T, got heard) {
	t.Helper()
	for i := range got.Metrics {
		slices.Sort(got.Metrics[i].Tags)
	}
	env, both := []string{"env:test"}, []string{"env:test", "k:v"}
	heard{
		Metrics: []parsed{
			{Name: "count", Type: "c", Values: []float64{3}, Tags: both},
			{Name: "distribution", Type: "d", Values: []float64{4}, Tags: env},
			{Name: "gauge", Type: "g", Values: []float64{-1.5}, Tags: env},
			{Name: "histogram", Type: "h", Values: []float64{2}, Tags: env},
			{Name: "set", Type: "s", Member: "a:b", Tags: env},
			{Name: "timing", Type: "ms", Values: []float64{250}, Tags: env},
		},
		Events: []metric.Event{{Title: "Déploiement | v2", Text: "line 1\nline 2", Time: 1700000000, Host: "web-1", AggregationKey: "deploys",
			Priority: "low", SourceType: "ci", AlertType: "success", Tags: both}},
		Checks: []metric.ServiceCheck{{Name: "db.up", Status: metric.CheckCritical, Time: 1700000000, Host: "web-1", Message: "down | no route", Tags: both}},
		Said:   map[string]said{"Déploiement | v2": {HasHost: true}, "db.up": {HasHost: true}},
	}.expect(t, got)
}

func (s *datagramSocket) port() int {
	var port int
	addr := s.conn.LocalAddr().String()
	_, _ = fmt.Sscan(addr[strings.LastIndexByte(addr, ':')+1:], &port)
	return port
}
