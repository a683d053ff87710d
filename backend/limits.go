package backend

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"math"
	"os"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"sigs.k8s.io/yaml"

	"kelpie.dev/kelpie/backend/store"
)

// limitsText is the content of Config.LimitsFile, YAML by the names of Config's
// fields with a small first letter. What it does not name stays as the
// environment has it.
type limitsText struct {
	MaxSeriesPerMetric *int      `json:"maxSeriesPerMetric"`
	MaxSeries          *int      `json:"maxSeries"`
	MaxMetricNames     *int      `json:"maxMetricNames"`
	QueryMaxSeries     *int      `json:"queryMaxSeries"`
	QueryMaxPoints     *int      `json:"queryMaxPoints"`
	SlowQuery          *duration `json:"slowQuery"`
	FastLane           *int      `json:"fastLane"`
}

// duration is seconds, or text like 1m30s, as in the environment.
type duration time.Duration

// UnmarshalJSON implements json.Unmarshaler.
func (d *duration) UnmarshalJSON(text []byte) error {
	var seconds float64
	if json.Unmarshal(text, &seconds) == nil && math.Abs(seconds) < maxSeconds {
		*d = duration(seconds * float64(time.Second))
		return nil
	}
	var s string
	if json.Unmarshal(text, &s) == nil {
		v, err := time.ParseDuration(s)
		*d = duration(v)
		if err == nil {
			return nil
		}
	}
	return fmt.Errorf("%s: expected seconds or a duration like 1m30s", text)
}

const (
	maxSeconds    = 1e9             // of a duration, about thirty years
	maxLimitsFile = 64 << 10        // bytes
	limitsPeriod  = 5 * time.Second // between two looks at the file
)

// readLimits reads a limits file.
func readLimits(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	text, err := io.ReadAll(io.LimitReader(f, maxLimitsFile+1))
	if err == nil && len(text) > maxLimitsFile {
		err = fmt.Errorf("%s is larger than %d bytes: expected a few limits", path, maxLimitsFile)
	}
	return text, err
}

// withLimits returns c with the limits of text, which stand in the file c names.
func (c Config) withLimits(text []byte) (Config, error) {
	var l limitsText
	if err := yaml.UnmarshalStrict(text, &l); err != nil {
		return c, fmt.Errorf("KELPIE_LIMITS_FILE %s: %w", c.LimitsFile, err)
	}
	for _, v := range []struct{ from, to *int }{
		{l.MaxSeriesPerMetric, &c.MaxSeriesPerMetric}, {l.MaxSeries, &c.MaxSeries}, {l.MaxMetricNames, &c.MaxMetricNames},
		{l.QueryMaxSeries, &c.QueryMaxSeries}, {l.QueryMaxPoints, &c.QueryMaxPoints}, {l.FastLane, &c.FastLane},
	} {
		if v.from != nil {
			*v.to = *v.from
		}
	}
	if l.SlowQuery != nil {
		c.SlowQuery = time.Duration(*l.SlowQuery)
	}
	if err := c.validate(); err != nil {
		return c, fmt.Errorf("KELPIE_LIMITS_FILE %s: %w", c.LimitsFile, err)
	}
	return c, nil
}

// storeLimits are the limits of the store.
func (c *Config) storeLimits() store.Limits {
	return store.Limits{
		MaxMetricSeries: c.MaxSeriesPerMetric, MaxSeries: c.MaxSeries, MaxMetricNames: c.MaxMetricNames,
		MaxSelectSeries: c.QueryMaxSeries, MaxSelectPoints: c.QueryMaxPoints,
	}
}

// LimitsStatus tells which limits hold.
type LimitsStatus struct {
	File     string    `json:"file"`
	Read     time.Time `json:"read"`               // when the limits that hold were read
	Error    string    `json:"error,omitempty"`    // why the file as it is now does not hold
	Failures int       `json:"failures,omitempty"` // versions of the file that could not be used
}

// limitsFile keeps the limits as the file has them.
type limitsFile struct {
	base     Config // of the environment
	apply    func(Config) error
	log      *slog.Logger
	failures prometheus.Counter

	mu     sync.Mutex // guards what follows
	text   []byte     // as it was read last
	status LimitsStatus
}

// openLimits reads the file that cfg names, if any. It returns cfg with its limits.
func openLimits(cfg Config, reg prometheus.Registerer, log *slog.Logger) (*limitsFile, Config, error) {
	l := &limitsFile{base: cfg, log: log, status: LimitsStatus{File: cfg.LimitsFile, Read: time.Now()}}
	l.failures = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "kelpie_backend_limits_file_failures_total",
		Help: "Versions of the file of limits that could not be used.",
	})
	if cfg.LimitsFile == "" {
		return nil, cfg, nil
	}
	text, err := readLimits(cfg.LimitsFile)
	if err != nil {
		return nil, cfg, fmt.Errorf("read KELPIE_LIMITS_FILE: %w", err)
	}
	reg.MustRegister(l.failures)
	l.text = text
	cfg, err = cfg.withLimits(text)
	return l, cfg, err
}

// follow has what the file says applied by apply, before run.
func (l *limitsFile) follow(apply func(Config) error) {
	if l != nil {
		l.apply = apply
	}
}

// run applies the file whenever it changes, and when asked to, until ctx ends.
func (l *limitsFile) run(ctx context.Context, ask <-chan os.Signal) error {
	tick := time.NewTicker(limitsPeriod)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ask:
		case <-tick.C:
		}
		if l != nil {
			l.look()
		}
	}
}

// look reads the file. One that cannot be used leaves the limits as they are.
func (l *limitsFile) look() {
	text, err := readLimits(l.base.LimitsFile)
	l.mu.Lock()
	defer l.mu.Unlock()
	if err == nil && bytes.Equal(text, l.text) && l.text != nil {
		return
	}
	var cfg Config
	if err == nil {
		l.text = append([]byte{}, text...)
		cfg, err = l.base.withLimits(text)
	} else {
		l.text = nil // it is read again once it is there
	}
	if err == nil {
		err = l.apply(cfg)
	}
	switch {
	case err == nil:
		l.status.Read, l.status.Error = time.Now(), ""
		l.log.Info("limits read", "file", l.base.LimitsFile)
	case err.Error() != l.status.Error:
		l.status.Error = err.Error()
		l.status.Failures++
		l.failures.Inc()
		l.log.Error("cannot use the file of limits, the limits stay as they are", "file", l.base.LimitsFile, "error", err)
	}
}

// snapshot is nil without a file.
func (l *limitsFile) snapshot() *LimitsStatus {
	if l == nil {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	out := l.status
	return &out
}
