package backend

import (
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"kelpie.dev/kelpie/backend/auth"
	"kelpie.dev/kelpie/backend/quota"
	"kelpie.dev/kelpie/env"
)

// Config is everything that a user can set of the backend. FromEnv fills it; the
// variable of each field stands beside it.
type Config struct {
	DataDir string // KELPIE_DATA_DIR: where series are kept; /var/lib/kelpie
	Listen  string // KELPIE_LISTEN: host:port of intake and query API; :8080
	// OTLPListen is a second host:port of the same, where OTLP's exporters look:
	// KELPIE_OTLP_LISTEN; "" is port 4317 beside Listen where that is free, "off"
	// is none.
	OTLPListen string
	Health     string // DD_HEALTH_PORT: host:port of health, metrics and status; :8081

	APIKeys auth.Source // DD_API_KEY, KELPIE_API_KEYS (list), KELPIE_API_KEYS_FILE (list of files or directories)
	AppKeys auth.Source // DD_APP_KEY, KELPIE_APP_KEYS, KELPIE_APP_KEYS_FILE

	Retention      time.Duration // KELPIE_RETENTION: how long points are kept, seconds or like 360h; 15 days
	RetentionBytes int64         // KELPIE_RETENTION_BYTES: of compacted data; 0 means no limit
	MinFree        int64         // KELPIE_MIN_FREE_BYTES: below it new points are refused; 64 MiB, negative disables

	// KELPIE_LIMITS_FILE: YAML that sets some of the limits below, those that limitsText
	// lists, and is read again when it changes; none
	LimitsFile string

	MaxSeriesPerMetric int           // KELPIE_MAX_SERIES_PER_METRIC: live contexts of a metric name; 200 000
	MaxSeries          int           // KELPIE_MAX_SERIES: live contexts in all, some 3 KiB of memory each; 1 000 000
	MaxMetricNames     int           // KELPIE_MAX_METRIC_NAMES: metric names within retention; 200 000
	MaxEvents          int           // KELPIE_MAX_EVENTS: events that are kept, 256 MiB of them at most; the oldest make room; 100 000
	MaxChecks          int           // KELPIE_MAX_CHECKS: contexts of service checks; 100 000
	MaxHosts           int           // KELPIE_MAX_HOSTS: hosts with metadata; 20 000
	QueryMaxSeries     int           // KELPIE_QUERY_MAX_SERIES: contexts that one part of a query may read; 100 000
	QueryMaxPoints     int           // KELPIE_QUERY_MAX_POINTS: points that one part of a query may read; 20 000 000
	QueryTimeout       time.Duration // KELPIE_QUERY_TIMEOUT: of one request; 30 s
	QueryConcurrency   int           // KELPIE_QUERY_CONCURRENCY: requests evaluated at once; 0 means twice the processors
	FastLane           int           // KELPIE_FAST_LANE_METRICS: metrics that agents send every second, as autoscalers read them; 500, -1 for none
	QueryMaxCost       int64         // KELPIE_QUERY_MAX_COST: points that one request may be estimated to read; 100 000 000, 0 means no limit
	QueryBudget        int64         // KELPIE_QUERY_BUDGET: points that an application key may read in a minute, likewise; 1 000 000 000, 0 means no limit
	RateLimits         string        // KELPIE_RATE_LIMITS: requests/seconds of a key, as query=1600/3600,metrics=1000/3600,metadata=2000/60; off means none
	QueryCache         int           // KELPIE_QUERY_CACHE: MiB of what graphs have shown that is kept for the next time; 32, 0 keeps nothing
	SlowQuery          time.Duration // KELPIE_SLOW_QUERY: requests that take longer are logged; 1 s
	IntakeBodyBytes    int64         // KELPIE_INTAKE_BODY_BYTES: bodies being received, all together; 64 MiB
	IntakeDecodeBytes  int64         // KELPIE_INTAKE_DECODE_BYTES: bodies being decoded, all together; 128 MiB
	MaxConnections     int           // KELPIE_MAX_CONNECTIONS: open at once; 2048
	ShutdownTimeout    time.Duration // KELPIE_SHUTDOWN_TIMEOUT: for requests under way at the end; 20 s
}

// FromEnv reads the configuration from environment variables.
func FromEnv(lookup func(string) (string, bool)) (Config, error) {
	r := env.New(lookup)
	c := Config{
		DataDir:    r.String("/var/lib/kelpie", "KELPIE_DATA_DIR"),
		Listen:     r.String(":8080", "KELPIE_LISTEN"),
		OTLPListen: r.String("", "KELPIE_OTLP_LISTEN"),
		Health:     fmt.Sprintf(":%d", r.Int(8081, "DD_HEALTH_PORT")),

		APIKeys: auth.Source{
			Keys:  append(r.List("KELPIE_API_KEYS"), r.String("", "DD_API_KEY")),
			Files: r.List("KELPIE_API_KEYS_FILE"),
		},
		AppKeys: auth.Source{
			Keys:  append(r.List("KELPIE_APP_KEYS"), r.String("", "DD_APP_KEY")),
			Files: r.List("KELPIE_APP_KEYS_FILE"),
		},

		Retention:      r.Seconds(15*24*time.Hour, "KELPIE_RETENTION"),
		RetentionBytes: int64(r.Int(0, "KELPIE_RETENTION_BYTES")),
		MinFree:        int64(r.Int(64<<20, "KELPIE_MIN_FREE_BYTES")),

		LimitsFile: r.String("", "KELPIE_LIMITS_FILE"),

		MaxSeriesPerMetric: r.Int(200_000, "KELPIE_MAX_SERIES_PER_METRIC"),
		MaxSeries:          r.Int(1_000_000, "KELPIE_MAX_SERIES"),
		MaxMetricNames:     r.Int(200_000, "KELPIE_MAX_METRIC_NAMES"),
		MaxEvents:          r.Int(100_000, "KELPIE_MAX_EVENTS"),
		MaxChecks:          r.Int(100_000, "KELPIE_MAX_CHECKS"),
		MaxHosts:           r.Int(20_000, "KELPIE_MAX_HOSTS"),
		QueryMaxSeries:     r.Int(100_000, "KELPIE_QUERY_MAX_SERIES"),
		QueryMaxPoints:     r.Int(20_000_000, "KELPIE_QUERY_MAX_POINTS"),
		QueryTimeout:       r.Seconds(30*time.Second, "KELPIE_QUERY_TIMEOUT"),
		QueryConcurrency:   r.Int(0, "KELPIE_QUERY_CONCURRENCY"),
		FastLane:           r.Int(500, "KELPIE_FAST_LANE_METRICS"),
		QueryMaxCost:       int64(r.Int(100_000_000, "KELPIE_QUERY_MAX_COST")),
		QueryBudget:        int64(r.Int(1_000_000_000, "KELPIE_QUERY_BUDGET")),
		RateLimits:         r.String("", "KELPIE_RATE_LIMITS"),
		QueryCache:         r.Int(32, "KELPIE_QUERY_CACHE"),
		SlowQuery:          r.Seconds(time.Second, "KELPIE_SLOW_QUERY"),
		IntakeBodyBytes:    int64(r.Int(64<<20, "KELPIE_INTAKE_BODY_BYTES")),
		IntakeDecodeBytes:  int64(r.Int(128<<20, "KELPIE_INTAKE_DECODE_BYTES")),
		MaxConnections:     r.Int(2048, "KELPIE_MAX_CONNECTIONS"),
		ShutdownTimeout:    r.Seconds(20*time.Second, "KELPIE_SHUTDOWN_TIMEOUT"),
	}
	if err := r.Err(); err != nil {
		return c, err
	}
	return c, c.validate()
}

func (c *Config) validate() error {
	var errs []error
	for _, v := range []struct {
		name  string
		value int64
	}{
		{"KELPIE_RETENTION_BYTES", c.RetentionBytes},
		{"KELPIE_MAX_SERIES_PER_METRIC", int64(c.MaxSeriesPerMetric)},
		{"KELPIE_MAX_SERIES", int64(c.MaxSeries)},
		{"KELPIE_MAX_METRIC_NAMES", int64(c.MaxMetricNames)},
		{"KELPIE_MAX_EVENTS", int64(c.MaxEvents)},
		{"KELPIE_MAX_CHECKS", int64(c.MaxChecks)},
		{"KELPIE_MAX_HOSTS", int64(c.MaxHosts)},
		{"KELPIE_QUERY_MAX_SERIES", int64(c.QueryMaxSeries)},
		{"KELPIE_QUERY_MAX_POINTS", int64(c.QueryMaxPoints)},
		{"KELPIE_QUERY_CONCURRENCY", int64(c.QueryConcurrency)},
		{"KELPIE_QUERY_MAX_COST", c.QueryMaxCost},
		{"KELPIE_QUERY_BUDGET", c.QueryBudget},
		{"KELPIE_INTAKE_BODY_BYTES", c.IntakeBodyBytes},
		{"KELPIE_INTAKE_DECODE_BYTES", c.IntakeDecodeBytes},
		{"KELPIE_MAX_CONNECTIONS", int64(c.MaxConnections)},
		{"KELPIE_QUERY_CACHE", int64(c.QueryCache)},
		{"KELPIE_SLOW_QUERY", int64(c.SlowQuery)},
	} {
		if v.value < 0 {
			errs = append(errs, fmt.Errorf("%s must not be negative", v.name))
		}
	}
	if c.Retention < 2*time.Hour {
		errs = append(errs, fmt.Errorf("KELPIE_RETENTION is %s: expected at least 2h", c.Retention))
	}
	if _, err := quota.New(quota.Options{Rates: c.RateLimits}); err != nil {
		errs = append(errs, fmt.Errorf("KELPIE_RATE_LIMITS: %w", err))
	}
	return errors.Join(errs...)
}

// keys returns the check of both kinds of keys.
func (c *Config) keys(reg prometheus.Registerer, log *slog.Logger) (*auth.Checker, error) {
	c.APIKeys.Log, c.AppKeys.Log = log, log
	api, err := auth.New("API", c.APIKeys)
	if err != nil {
		return nil, fmt.Errorf("%w (set DD_API_KEY, KELPIE_API_KEYS or KELPIE_API_KEYS_FILE)", err)
	}
	app, err := auth.New(auth.Application, c.AppKeys)
	if err != nil {
		return nil, fmt.Errorf("%w (set DD_APP_KEY, KELPIE_APP_KEYS or KELPIE_APP_KEYS_FILE)", err)
	}
	return auth.NewChecker(api, app, reg), nil
}
