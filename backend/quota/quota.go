// Package quota bounds what one application key may use: how many requests in a
// period, and how many points in a minute and in one request.
//
// It owns the counts and the headers that tell clients of them. It does not know
// keys, only names for them, and does not know what a request does: its caller
// says what it would cost. Its memory grows with the keys that are valid, not
// with those that are tried.
package quota

import (
	"fmt"
	"math"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// The kinds of requests that are counted apart.
const (
	Query    = "query"    // everything that is evaluated
	Metrics  = "metrics"  // lists and descriptions
	Metadata = "metadata" // changes of descriptions
)

// defaultRates are far above what people and autoscalers ask: 100 queries a
// second, ten lists a second, and 100 changes a second.
const defaultRates = "query=360000/3600,metrics=36000/3600,metadata=6000/60"

// Off is the value of Options.Rates for no limits, and no headers.
const Off = "off"

// Options configures a Quota. The zero value has the default rates and no limit
// of costs.
type Options struct {
	// Rates are kind=requests/seconds, separated by commas or spaces; a kind that
	// is not named keeps its default. "" means the defaults, Off none at all.
	Rates   string
	MaxCost int64 // points that one request may read; 0 means no limit
	Budget  int64 // points that one key may read in a minute; 0 means no limit

	Now        func() time.Time      // nil means time.Now
	Registerer prometheus.Registerer // nil registers nothing
}

// Quota holds the counts of all keys. Its methods may be called concurrently.
type Quota struct {
	opts    Options
	rates   map[string]rate
	limited *prometheus.CounterVec
	costs   *prometheus.CounterVec
	read    prometheus.Counter

	mu   sync.Mutex // guards keys
	keys map[string]*usage
}

// rate is how many requests a period of so many seconds may have.
type rate struct{ limit, period int64 }

// usage is what one key used lately.
type usage struct {
	windows map[string]window
	spent   [minute]int64 // points in each of the last seconds, by second modulo minute
	second  int64         // the newest of them
}

// window is the running period of one kind.
type window struct{ index, used int64 }

const minute = 60

// New returns a Quota.
func New(o Options) (*Quota, error) {
	if o.MaxCost < 0 || o.Budget < 0 {
		return nil, fmt.Errorf("costs must not be negative")
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	q := &Quota{opts: o, keys: make(map[string]*usage)}
	if err := q.parse(o.Rates); err != nil {
		return nil, err
	}
	q.register(o.Registerer)
	return q, nil
}

// parse reads the defaults, and then what changes them.
func (q *Quota) parse(text string) error {
	if strings.TrimSpace(text) == Off {
		return nil
	}
	q.rates = make(map[string]rate)
	for part := range strings.FieldsFuncSeq(defaultRates+","+text, func(r rune) bool { return r == ',' || r == ' ' }) {
		kind, value, ok := strings.Cut(part, "=")
		if _, known := map[string]bool{Query: true, Metrics: true, Metadata: true}[kind]; !ok || !known {
			return fmt.Errorf("rate %q: expected %s=, %s= or %s= and requests/seconds, or %s", part, Query, Metrics, Metadata, Off)
		}
		requests, seconds, ok := strings.Cut(value, "/")
		limit, err := strconv.ParseInt(requests, 10, 64)
		period, perr := strconv.ParseInt(seconds, 10, 64)
		if !ok || err != nil || perr != nil || limit < 1 || period < 1 || period > 86400 {
			return fmt.Errorf("rate %q: expected requests/seconds such as %s=1600/3600, the period at most a day", part, kind)
		}
		q.rates[kind] = rate{limit, period}
	}
	return nil
}

func (q *Quota) register(reg prometheus.Registerer) {
	q.limited = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "kelpie_backend_rate_limited_total",
		Help: "Requests refused because their application key had used up its rate, by kind.",
	}, []string{"kind"})
	q.costs = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "kelpie_backend_query_cost_refused_total",
		Help: "Query requests refused before they were evaluated, by the limit that their estimated cost exceeds.",
	}, []string{"limit"})
	q.read = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "kelpie_backend_query_points_estimated_total",
		Help: "Points that evaluated query requests were estimated to read.",
	})
	for _, kind := range []string{Query, Metrics, Metadata} {
		q.limited.WithLabelValues(kind)
	}
	for _, limit := range []string{limitRequest, limitBudget} {
		q.costs.WithLabelValues(limit)
	}
	if reg != nil {
		reg.MustRegister(q.limited, q.costs, q.read)
	}
}

// Take counts a request of key, and tells of the rest in h, as Datadog does. It
// reports whether the request may go on.
func (q *Quota) Take(h http.Header, key, kind string) bool {
	r, ok := q.rates[kind]
	if !ok {
		return true
	}
	now := q.opts.Now().Unix()
	q.mu.Lock()
	u := q.usage(key, now)
	w := u.windows[kind]
	if index := now / r.period; index != w.index {
		w = window{index: index}
	}
	allowed := w.used < r.limit
	if allowed {
		w.used++
	}
	u.windows[kind] = w
	q.mu.Unlock()
	h.Set("X-Ratelimit-Limit", strconv.FormatInt(r.limit, 10))
	h.Set("X-Ratelimit-Period", strconv.FormatInt(r.period, 10))
	h.Set("X-Ratelimit-Remaining", strconv.FormatInt(r.limit-w.used, 10))
	h.Set("X-Ratelimit-Reset", strconv.FormatInt(r.period-now%r.period, 10))
	h.Set("X-Ratelimit-Name", kind)
	if !allowed {
		q.limited.WithLabelValues(kind).Inc()
	}
	return allowed
}

// usage returns what key used. The caller holds mu.
func (q *Quota) usage(key string, now int64) *usage {
	u := q.keys[key]
	if u == nil {
		// Keys come and go with their files; what is idle for an hour is forgotten.
		for other, idle := range q.keys {
			if now-idle.second > 3600 && idle.over(q.rates, now) {
				delete(q.keys, other)
			}
		}
		u = &usage{windows: make(map[string]window), second: now}
		q.keys[key] = u
	}
	for ; u.second < now; u.second++ {
		if now-u.second > minute {
			u.second, u.spent = now-1, [minute]int64{}
		}
		u.spent[(u.second+1)%minute] = 0
	}
	return u
}

// over reports whether every period of u has ended.
func (u *usage) over(rates map[string]rate, now int64) bool {
	for kind, w := range u.windows {
		if now/rates[kind].period == w.index {
			return false
		}
	}
	return true
}

// A Cost is what a request would read.
type Cost struct{ Series, Points int64 }

// Add returns the sum of c and d.
func (c Cost) Add(d Cost) Cost {
	return Cost{Series: c.Series + d.Series, Points: saturate(float64(c.Points) + float64(d.Points))}
}

// Of returns the cost of so many series over a span of seconds, at a point every
// so many seconds.
func Of(series, span, every int64) Cost {
	return Cost{Series: series, Points: saturate(float64(series) * math.Ceil(float64(max(span, 1))/float64(max(every, 1))))}
}

func saturate(points float64) int64 { return int64(min(points, 1<<62)) }

const (
	limitRequest = "request"
	limitBudget  = "minute"
)

// A CostError is a request that would cost more than is allowed.
type CostError struct {
	Cost  Cost
	Limit int64
	Spent int64         // by the key in the last minute; of a budget
	Wait  time.Duration // after which the budget has room; 0 when the request itself is too large
}

func (e *CostError) Error() string {
	what := fmt.Sprintf("would read about %d points of %d series", e.Cost.Points, e.Cost.Series)
	if e.Wait == 0 {
		return fmt.Sprintf("%s, more than the %d that are allowed: narrow its scope or its time range", what, e.Limit)
	}
	return fmt.Sprintf("%s, and this application key has read %d of the %d that it may in a minute: ask again in %d s", what, e.Spent, e.Limit, int64(e.Wait.Seconds()))
}

// QueryLimit marks the error as the query's fault, for the query API.
func (e *CostError) QueryLimit() {}

// Spend takes a request's cost from the budget of key, or returns a *CostError
// and takes nothing.
func (q *Quota) Spend(key string, c Cost) error {
	if q.opts.MaxCost > 0 && c.Points > q.opts.MaxCost || q.opts.Budget > 0 && c.Points > q.opts.Budget {
		q.costs.WithLabelValues(limitRequest).Inc()
		limit := q.opts.MaxCost
		if limit == 0 || q.opts.Budget > 0 && q.opts.Budget < limit {
			limit = q.opts.Budget
		}
		return &CostError{Cost: c, Limit: limit}
	}
	now := q.opts.Now().Unix()
	q.mu.Lock()
	u := q.usage(key, now)
	spent := int64(0)
	for _, n := range u.spent {
		spent += n
	}
	if q.opts.Budget > 0 && spent+c.Points > q.opts.Budget {
		wait := u.wait(now, spent+c.Points-q.opts.Budget)
		q.mu.Unlock()
		q.costs.WithLabelValues(limitBudget).Inc()
		return &CostError{Cost: c, Limit: q.opts.Budget, Spent: spent, Wait: wait}
	}
	if q.opts.Budget > 0 {
		u.spent[now%minute] += c.Points
	}
	q.mu.Unlock()
	q.read.Add(float64(c.Points))
	return nil
}

// wait is how long it takes until so many points were spent more than a minute ago.
func (u *usage) wait(now, points int64) time.Duration {
	for age := int64(minute - 1); age >= 0; age-- {
		if points -= u.spent[(now-age+minute)%minute]; points <= 0 {
			return time.Duration(minute-age) * time.Second
		}
	}
	return minute * time.Second
}
