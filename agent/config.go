package agent

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"kelpie.dev/kelpie/agent/aggregate"
	"kelpie.dev/kelpie/agent/forward"
	"kelpie.dev/kelpie/env"
	"kelpie.dev/kelpie/metric"
)

// Config is all that can be set about an agent. ConfigFromEnv reads it from the
// variables that Datadog's agent has for it.
type Config struct {
	Hostname   string             // host of every series; DD_HOSTNAME, else DD_KUBERNETES_NODE_NAME, else the system's
	Tags       metric.Tags        // host tags: DD_TAGS, DD_EXTRA_TAGS and, from DD_CLUSTER_NAME, the cluster's
	HealthAddr string             // of health, metrics and status: port DD_HEALTH_PORT (5555) of every address
	DogStatsD  DogStatsDConfig    //
	Aggregate  aggregate.Options  // DD_HISTOGRAM_*, DD_DOGSTATSD_*EXPIRY_SECONDS, KELPIE_FAST_LANE_CONTEXTS (5000; 0 asks no intake); Host is taken from Hostname
	Origin     OriginConfig       //
	Checks     ChecksConfig       //
	Endpoints  []forward.Endpoint // DD_DD_URL or DD_SITE with DD_API_KEY or, read anew for each request, the file KELPIE_API_KEY_FILE; then DD_ADDITIONAL_ENDPOINTS
	Compress   string             // DD_SERIALIZER_COMPRESSOR_KIND: zstd (default), zlib, gzip or none
	Timeout    time.Duration      // of a request to an intake: DD_FORWARDER_TIMEOUT (20 s)
	QueueBytes int                // of payloads waiting in memory for one endpoint: DD_FORWARDER_RETRY_QUEUE_PAYLOADS_MAX_SIZE (15 MiB)
	SpoolDir   string             // where payloads wait on disk, "" for none: DD_FORWARDER_STORAGE_PATH, else DD_RUN_PATH/transactions_to_retry
	SpoolBytes int                // of payloads on disk for one endpoint, 0 for no spool: DD_FORWARDER_STORAGE_MAX_SIZE_IN_BYTES (256 MiB)
	LogLevel   slog.Level         // DD_LOG_LEVEL: trace (as debug), debug, info (default), warn, error, critical (as error), off
}

// ConfigFromEnv reads the configuration. The error names every variable that
// cannot be used, and what it should hold.
func ConfigFromEnv(lookup func(string) (string, bool)) (Config, error) {
	r := env.New(lookup)
	var errs []error
	healthPort, err := port(r, 5555, "DD_HEALTH_PORT")
	if err != nil {
		errs = append(errs, err)
	}
	c := Config{
		Hostname:   r.String("", "DD_HOSTNAME"),
		Tags:       hostTags(r),
		HealthAddr: net.JoinHostPort("", strconv.Itoa(healthPort)),
		Compress:   r.String("zstd", "DD_SERIALIZER_COMPRESSOR_KIND"),
		Timeout:    r.Seconds(20*time.Second, "DD_FORWARDER_TIMEOUT"),
		QueueBytes: r.Int(15<<20, "DD_FORWARDER_RETRY_QUEUE_PAYLOADS_MAX_SIZE"),
		SpoolDir:   r.String("", "DD_FORWARDER_STORAGE_PATH"),
		SpoolBytes: r.Int(256<<20, "DD_FORWARDER_STORAGE_MAX_SIZE_IN_BYTES"),
		Checks:     checksConfig(r),
	}
	if run := r.String("", "DD_RUN_PATH"); c.SpoolDir == "" && run != "" {
		c.SpoolDir = filepath.Join(run, "transactions_to_retry")
	}
	if c.SpoolBytes == 0 {
		c.SpoolDir = ""
	}
	if c.Hostname = cmp.Or(c.Hostname, r.String("", "DD_KUBERNETES_NODE_NAME")); c.Hostname == "" {
		name, err := os.Hostname()
		if err != nil {
			errs = append(errs, fmt.Errorf("find this host's name (DD_HOSTNAME sets it): %w", err))
		}
		c.Hostname = name
	}
	if c.DogStatsD, err = dogstatsdConfig(r); err != nil {
		errs = append(errs, err)
	}
	if c.Aggregate, err = aggregateConfig(r); err != nil {
		errs = append(errs, err)
	}
	if c.Origin, err = originConfig(r); err != nil {
		errs = append(errs, err)
	}
	if c.Endpoints, err = endpoints(r); err != nil {
		errs = append(errs, err)
	}
	if c.LogLevel, err = logLevel(r.String("info", "DD_LOG_LEVEL")); err != nil {
		errs = append(errs, err)
	}
	return c, errors.Join(append(errs, c.validate(), r.Err())...)
}

// validate says which values cannot be meant.
func (c *Config) validate() error {
	var errs []error
	for _, v := range []struct {
		name            string
		value, min, max int
	}{
		{"DD_DOGSTATSD_BUFFER_SIZE", c.DogStatsD.BufferSize, 0, 1 << 24},
		{"DD_DOGSTATSD_SO_RCVBUF", c.DogStatsD.ReceiveBuffer, 0, math.MaxInt32},
		{"DD_DOGSTATSD_QUEUE_SIZE", c.DogStatsD.QueueSize, 0, 1 << 24},
		{"KELPIE_DOGSTATSD_UDP_READERS", c.DogStatsD.Readers, 0, 64},
		{"DD_DOGSTATSD_CONTEXT_LIMITER_LIMIT", c.Aggregate.MaxContexts, 0, math.MaxInt32},
		{"KELPIE_DOGSTATSD_CONTEXT_BYTES", c.Aggregate.MaxContextBytes, 0, math.MaxInt},
		{"KELPIE_FAST_LANE_CONTEXTS", c.Aggregate.FastContexts, 0, math.MaxInt32},
		{"DD_FORWARDER_RETRY_QUEUE_PAYLOADS_MAX_SIZE", c.QueueBytes, 1, math.MaxInt},
		{"DD_FORWARDER_STORAGE_MAX_SIZE_IN_BYTES", c.SpoolBytes, 0, math.MaxInt},
	} {
		if v.value < v.min || v.value > v.max {
			errs = append(errs, fmt.Errorf("environment variable %s: expected a number from %d to %d", v.name, v.min, v.max))
		}
	}
	if c.Timeout <= 0 {
		errs = append(errs, errors.New("environment variable DD_FORWARDER_TIMEOUT: expected more than 0 seconds"))
	}
	if !slices.Contains(forward.Compressions, c.Compress) {
		errs = append(errs, fmt.Errorf("environment variable DD_SERIALIZER_COMPRESSOR_KIND: expected one of %s", strings.Join(forward.Compressions, ", ")))
	}
	return errors.Join(errs...)
}

// hostTags are the tags of this host and its cluster. Datadog's agent sends
// them once as host metadata and its backend joins them by host; as long as
// Kelpie's backend does not, they travel on each series, where queries such as
// {kube_cluster_name:x} find them in either backend.
func hostTags(r *env.Reader) metric.Tags {
	tags := append(r.List("DD_TAGS"), r.List("DD_EXTRA_TAGS")...)
	if cluster := r.String("", "DD_CLUSTER_NAME"); cluster != "" {
		tags = append(tags, "kube_cluster_name:"+cluster, "cluster_name:"+cluster)
	}
	return metric.NewTags(tags...)
}

func aggregateConfig(r *env.Reader) (aggregate.Options, error) {
	o := aggregate.Options{
		CounterExpiry:    expiry(r.Seconds(aggregate.DefaultCounterExpiry*time.Second, "DD_DOGSTATSD_EXPIRY_SECONDS")),
		ContextExpiry:    expiry(r.Seconds(aggregate.DefaultContextExpiry*time.Second, "DD_DOGSTATSD_CONTEXT_EXPIRY_SECONDS")),
		MaxContexts:      r.Int(aggregate.DefaultMaxContexts, "DD_DOGSTATSD_CONTEXT_LIMITER_LIMIT"),
		MaxContextBytes:  r.Int(aggregate.DefaultMaxContextBytes, "KELPIE_DOGSTATSD_CONTEXT_BYTES"),
		FastContexts:     r.Int(defaultFastContexts, "KELPIE_FAST_LANE_CONTEXTS"),
		BucketTimestamps: !r.Bool(true, "DD_DOGSTATSD_NO_AGGREGATION_PIPELINE"),
		Aggregates:       r.List("DD_HISTOGRAM_AGGREGATES"),
	}
	for _, text := range r.List("DD_HISTOGRAM_PERCENTILES") {
		p, err := strconv.ParseFloat(text, 64)
		if err != nil {
			return o, errors.New("environment variable DD_HISTOGRAM_PERCENTILES: expected numbers from 0 to 1")
		}
		o.Percentiles = append(o.Percentiles, p)
	}
	if _, err := aggregate.New(o); err != nil {
		return o, fmt.Errorf("environment variables DD_HISTOGRAM_AGGREGATES and DD_HISTOGRAM_PERCENTILES: %w", err)
	}
	return o, nil
}

// defaultFastContexts counters cost each second some 2 ms of a processor and some
// 30 kB as they are sent.
const defaultFastContexts = 5000

// expiry returns d in whole seconds as aggregate.Options has them, where zero
// would be the default and not "none".
func expiry(d time.Duration) int64 {
	if d == 0 {
		return -1
	}
	return int64((d + time.Second - 1) / time.Second)
}

// port reads a port; 0 is one, as it turns DogStatsD's off.
func port(r *env.Reader, def int, name string) (int, error) {
	n := r.Int(def, name)
	if n < 0 || n > 65535 {
		return def, fmt.Errorf("environment variable %s: expected a port from 0 to 65535", name)
	}
	return n, nil
}

// noLog is a level that nothing is logged at.
const noLog = slog.LevelError + 100

func logLevel(word string) (slog.Level, error) {
	level, ok := map[string]slog.Level{
		"trace": slog.LevelDebug, "debug": slog.LevelDebug, "info": slog.LevelInfo, "warn": slog.LevelWarn, "warning": slog.LevelWarn,
		"error": slog.LevelError, "critical": slog.LevelError, "off": noLog,
	}[strings.ToLower(word)]
	if !ok {
		return level, errors.New("environment variable DD_LOG_LEVEL: expected trace, debug, info, warn, error, critical or off")
	}
	return level, nil
}
