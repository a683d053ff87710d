package queryapi

import (
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"kelpie.dev/kelpie/query"
)

// Outcomes of a request, as the counter's label has them.
const (
	outcomeOK          = "ok"
	outcomeForbidden   = "forbidden"
	outcomeInvalid     = "invalid" // a parameter
	outcomeSyntax      = "syntax"
	outcomeUnsupported = "unsupported"
	outcomeLimit       = "limit"
	outcomeLimited     = "rate_limit" // too many requests of the key
	outcomeBudget      = "budget"     // too many points of the key
	outcomeTimeout     = "timeout"
	outcomeBusy        = "busy"
	outcomeError       = "error"
)

type metrics struct {
	queries  *prometheus.CounterVec
	duration prometheus.Histogram
}

func newMetrics(reg prometheus.Registerer, cache *query.Cache) *metrics {
	m := &metrics{
		queries: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "kelpie_backend_queries_total",
			Help: "Query requests by outcome. A request may hold several queries.",
		}, []string{"outcome"}),
		duration: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "kelpie_backend_query_duration_seconds",
			Help:    "Time to parse and evaluate a query request.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 2, 16),
		}),
	}
	for _, o := range []string{outcomeOK, outcomeForbidden, outcomeInvalid, outcomeSyntax, outcomeUnsupported, outcomeLimit, outcomeLimited, outcomeBudget, outcomeTimeout, outcomeBusy, outcomeError} {
		m.queries.WithLabelValues(o)
	}
	if reg != nil {
		reg.MustRegister(m.queries, m.duration)
		for outcome, count := range map[string]func(query.CacheStats) uint64{
			"hit":    func(s query.CacheStats) uint64 { return s.Hits },
			"miss":   func(s query.CacheStats) uint64 { return s.Misses },
			"passed": func(s query.CacheStats) uint64 { return s.Passed },
		} {
			reg.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{
				Name: "kelpie_backend_query_cache_total", ConstLabels: prometheus.Labels{"outcome": outcome},
				Help: "Queries of graphs by what the cache had of them: part (hit), nothing (miss), or they cannot be kept (passed).",
			}, func() float64 { return float64(count(cache.Stats())) }))
		}
		reg.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "kelpie_backend_query_cache_bytes", Help: "Memory that the cache of graphs holds.",
		}, func() float64 { return float64(cache.Stats().Values * query.CachedValueSize) }))
	}
	return m
}

// A SlowQuery is a query request that took long.
type SlowQuery struct {
	Query   string    `json:"query"`
	Seconds float64   `json:"seconds"`
	Span    int64     `json:"span_seconds"` // of the request's window
	Series  int       `json:"series"`       // in the answer
	At      time.Time `json:"at"`
}

// keptSlow is how many slow queries are remembered, and keptFor how long.
const (
	keptSlow = 10
	keptFor  = time.Hour
)

// slowest remembers the slowest queries of the last hour. The zero value is empty.
type slowest struct {
	mu   sync.Mutex
	list []SlowQuery // slowest first
}

func (s *slowest) add(q SlowQuery) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.list = slices.DeleteFunc(s.list, func(old SlowQuery) bool { return q.At.Sub(old.At) > keptFor })
	i, _ := slices.BinarySearchFunc(s.list, q.Seconds, func(old SlowQuery, sec float64) int {
		if old.Seconds > sec {
			return -1
		}
		return 1
	})
	if i < keptSlow {
		s.list = slices.Insert(s.list, i, q)
		s.list = s.list[:min(len(s.list), keptSlow)]
	}
}

// Slowest returns the slowest query requests of the last hour, slowest first.
func (a *API) Slowest() []SlowQuery {
	a.slow.mu.Lock()
	defer a.slow.mu.Unlock()
	return slices.Clone(a.slow.list)
}

// NoteSlow remembers a request over so many seconds that took long, and logs it
// if it was slow. It may be called for queries that others answered.
func (a *API) NoteSlow(text string, span int64, series int, took time.Duration) {
	q := SlowQuery{Query: text, Seconds: took.Seconds(), Span: span, Series: series, At: a.opts.Now()}
	a.slow.add(q)
	if took >= time.Duration(a.slowAfter.Load()) {
		a.opts.Log.Warn("slow query", "query", q.Query, "took", took, "span_seconds", q.Span, "series", q.Series)
	}
}
