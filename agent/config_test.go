package agent

import (
	"log/slog"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"kelpie.dev/kelpie/agent/aggregate"
	"kelpie.dev/kelpie/agent/dogstatsd"
	"kelpie.dev/kelpie/agent/forward"
	"kelpie.dev/kelpie/agent/origin"
	"kelpie.dev/kelpie/metric"
)

func fromEnv(settings ...string) (Config, error) {
	return ConfigFromEnv(func(name string) (string, bool) {
		for _, s := range settings {
			if k, v, _ := strings.Cut(s, "="); k == name {
				return v, true
			}
		}
		return "", false
	})
}

func TestConfigDefaults(t *testing.T) {
	got, err := fromEnv("DD_API_KEY=k")
	if err != nil {
		t.Fatal(err)
	}
	hostname, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	want := Config{
		Hostname: hostname, HealthAddr: ":5555", Compress: "zstd", Timeout: 20 * time.Second, QueueBytes: 15 << 20, SpoolBytes: 256 << 20,
		DogStatsD: DogStatsDConfig{UDPAddr: "localhost:8125", Socket: "/var/run/datadog/dsd.socket", BufferSize: 8192, QueueSize: 4096, Tags: metric.Tags{}, Rewrite: dogstatsd.RewriteOptions{Exempt: namespaceExempt}},
		Tags:      metric.Tags{},
		Aggregate: aggregate.Options{CounterExpiry: 300, ContextExpiry: 20, MaxContexts: 500_000, MaxContextBytes: 256 << 20, FastContexts: 5000},
		Origin:    OriginConfig{OptOut: true, Cardinality: origin.Low, GaugeCardinality: origin.Orchestrator, ProcRoot: "/proc", CgroupRoot: "/sys/fs/cgroup"},
		Checks:    ChecksConfig{Dir: "/etc/datadog-agent/conf.d", Kubelet: true, Discover: true, Cardinality: origin.Low},
		Endpoints: []forward.Endpoint{{URL: "https://7-85-0-app.agent.datadoghq.com", APIKey: "k"}},
	}
	if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b metric.Tags) bool { return slices.Equal(a, b) }), cmp.Comparer(func(a, b origin.TagMap) bool { return reflect.DeepEqual(a, b) })); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestConfig(t *testing.T) {
	c, err := fromEnv("DD_API_KEY=k", "DD_SITE=datadoghq.eu", "DD_KUBERNETES_NODE_NAME=node", "DD_TAGS=b:2 a:1", "DD_CLUSTER_NAME=x",
		"DD_DOGSTATSD_NON_LOCAL_TRAFFIC=true", "DD_DOGSTATSD_PORT=9125", "DD_DOGSTATSD_SOCKET=", "DD_HISTOGRAM_PERCENTILES=0.5 0.99",
		"DD_DOGSTATSD_TAG_CARDINALITY=high", "DD_KUBERNETES_KUBELET_HOST=10.0.0.1", "DD_KUBELET_TLS_VERIFY=false",
		`DD_ADDITIONAL_ENDPOINTS={"https://b":["1","2"],"https://a":["3"]}`)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		about     string
		want, got any
	}{
		{"hostname", "node", c.Hostname},
		{"tags", "a:1,b:2,cluster_name:x,kube_cluster_name:x", c.Tags.String()},
		{"UDP address", ":9125", c.DogStatsD.UDPAddr},
		{"socket: empty means the default is off", "", c.DogStatsD.Socket},
		{"percentiles", []float64{0.5, 0.99}, c.Aggregate.Percentiles},
		{"cardinality", origin.High, c.Origin.Cardinality},
		{"kubelet", &origin.KubeletOptions{Host: "10.0.0.1", Port: 10250, Insecure: true}, c.Origin.Kubelet},
		{"endpoints", []forward.Endpoint{
			{URL: "https://7-85-0-app.agent.datadoghq.eu", APIKey: "k"}, {URL: "https://a", APIKey: "3"}, {URL: "https://b", APIKey: "1"}, {URL: "https://b", APIKey: "2"},
		}, c.Endpoints},
	} {
		if diff := cmp.Diff(tt.want, tt.got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.about, diff)
		}
	}
	if c, err = fromEnv("DD_API_KEY=k", "DD_USE_DOGSTATSD=false"); err != nil || c.DogStatsD.UDPAddr+c.DogStatsD.Socket != "" {
		t.Errorf("DD_USE_DOGSTATSD=false: %+v, %v", c.DogStatsD, err)
	}
	if c, err = fromEnv("DD_API_KEY=k", "DD_DOGSTATSD_PORT=0", "DD_DD_URL=http://backend:8080"); err != nil || c.DogStatsD.UDPAddr != "" || c.Endpoints[0].URL != "http://backend:8080" {
		t.Errorf("port 0 and DD_DD_URL: %+v, %v", c, err)
	}
}

// TestConfigExpiry holds that zero is not the default in disguise.
func TestConfigExpiry(t *testing.T) {
	for value, want := range map[string]int64{"0": -1, "0.5": 1, "1": 1, "60": 60, "2m": 120} {
		c, err := fromEnv("DD_API_KEY=k", "DD_DOGSTATSD_EXPIRY_SECONDS="+value, "DD_DOGSTATSD_CONTEXT_EXPIRY_SECONDS="+value)
		if err != nil || c.Aggregate.CounterExpiry != want || c.Aggregate.ContextExpiry != want {
			t.Errorf("%s: counters %d, contexts %d, %v; want %d", value, c.Aggregate.CounterExpiry, c.Aggregate.ContextExpiry, err, want)
		}
	}
}

func TestConfigErrorsNameTheirVariable(t *testing.T) {
	for _, bad := range []string{
		"DD_API_KEY=", "DD_API_KEY=sec ret", "DD_DD_URL=intake:8080", "DD_SITE=https://datadoghq.eu", `DD_ADDITIONAL_ENDPOINTS={"intake":["k"]}`,
		`DD_ADDITIONAL_ENDPOINTS={"http://b":["file:"]}`, "DD_LOG_LEVEL=loud", "DD_DOGSTATSD_PORT=x", "DD_DOGSTATSD_TAG_CARDINALITY=huge", "DD_ADDITIONAL_ENDPOINTS=secret",
		"DD_HISTOGRAM_PERCENTILES=x", "DD_HISTOGRAM_AGGREGATES=mean", "DD_SERIALIZER_COMPRESSOR_KIND=br", "DD_FORWARDER_RETRY_QUEUE_PAYLOADS_MAX_SIZE=-1",
		"DD_FORWARDER_TIMEOUT=0", "DD_HEALTH_PORT=-1", "DD_HEALTH_PORT=65536", "DD_DOGSTATSD_PORT=-1", "DD_DOGSTATSD_BUFFER_SIZE=-1", "DD_DOGSTATSD_SO_RCVBUF=-1",
		"DD_DOGSTATSD_QUEUE_SIZE=-1", "KELPIE_DOGSTATSD_UDP_READERS=-1", "KELPIE_DOGSTATSD_UDP_READERS=1000", "DD_DOGSTATSD_QUEUE_SIZE=1000000000000", "DD_DOGSTATSD_CONTEXT_LIMITER_LIMIT=-1",
		"DD_DOGSTATSD_EXPIRY_SECONDS=-1", "DD_DOGSTATSD_CONTEXT_EXPIRY_SECONDS=-1",
	} {
		name, _, _ := strings.Cut(bad, "=")
		_, err := fromEnv(bad, "DD_API_KEY=k")
		if err == nil || !strings.Contains(err.Error(), name) || strings.Contains(err.Error(), "sec") && !strings.Contains(err.Error(), "second") {
			t.Errorf("%s: error %v", bad, err)
		}
		if err != nil && strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: one mistake makes several errors:\n%v", bad, err)
		}
	}
}

// TestLogLevel holds that Datadog's words for a level are known.
func TestLogLevel(t *testing.T) {
	for word, want := range map[string]slog.Level{
		"": slog.LevelInfo, "TRACE": slog.LevelDebug, "debug": slog.LevelDebug, "Info": slog.LevelInfo, "warn": slog.LevelWarn, "warning": slog.LevelWarn,
		"error": slog.LevelError, "critical": slog.LevelError, "off": noLog,
	} {
		if c, err := fromEnv("DD_API_KEY=k", "DD_LOG_LEVEL="+word); err != nil || c.LogLevel != want {
			t.Errorf("%q: %v, %v; want %v", word, c.LogLevel, err, want)
		}
	}
}

// TestAdditionalKeyFile holds that the key of an additional intake may stand in
// a file, too, where it can be changed without a restart.
func TestAdditionalKeyFile(t *testing.T) {
	c, err := fromEnv("DD_API_KEY=k", `DD_ADDITIONAL_ENDPOINTS={"https://b":["file:/keys/b", "2"]}`)
	want := []forward.Endpoint{{URL: "https://b", APIKeyFile: "/keys/b"}, {URL: "https://b", APIKey: "2"}}
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, c.Endpoints[1:]); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
