package check

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"kelpie.dev/kelpie/metric"
)

// DefaultLimit is how many contexts one run may submit, unless its check asks
// for another limit.
const DefaultLimit = 50_000

// Bounds of what one run may say about itself.
const (
	maxWarnings      = 20
	maxServiceChecks = 1000
	maxMessage       = 500
)

// How long values are remembered that later submissions are compared with.
const (
	rememberRate  = 5 * time.Minute
	rememberCount = 25 * time.Hour // as upstream does: a total that comes back must not count twice
	// repeatRate is how old an unchanged sample may be whose rate is repeated.
	repeatRate = 2 * time.Minute
)

// A Drop is a reason for which a submission is not sent.
type Drop string

// The reasons.
const (
	DropLimit     Drop = "context_limit" // beyond SetLimit
	DropNotFinite Drop = "not_finite"
	DropChecks    Drop = "service_check_limit"
)

// Drops lists every reason.
var Drops = [...]Drop{DropLimit, DropNotFinite, DropChecks}

// A Sender takes what one instance submits in one run and turns it into
// series; between runs it remembers what rates and totals need. Tags that all
// of the instance's series have are not given to it. Reference
// metrics-pipeline A2.6 says what each submission means. It belongs to the
// goroutine that runs the check.
type Sender struct {
	at       time.Time // of this run
	limit    int
	order    []*submission
	current  map[string]*submission
	remember map[string]*remembered
	checks   []metric.ServiceCheck
	warnings []string
	dropped  map[Drop]int
	scratch  []string
	key      []byte
}

type method byte

const (
	gauge method = iota
	rate
	count
	monotonic
	histogram
)

// submission is what a run said of one context.
type submission struct {
	method method
	name   string
	tags   metric.Tags
	value  float64
	values []float64 // of a histogram
	silent bool      // there is nothing to say yet
}

// remembered is the newest sample of a context whose change is what counts.
type remembered struct {
	value float64
	at    time.Time // of the sample
	seen  time.Time // the run that submitted it
	keep  time.Duration
	rate  float64 // before at; NaN when unknown
}

func newSender() *Sender {
	return &Sender{current: map[string]*submission{}, remember: map[string]*remembered{}, dropped: map[Drop]int{}, limit: DefaultLimit}
}

// begin starts a run.
func (s *Sender) begin(at time.Time) {
	s.at = at
	s.order, s.checks, s.warnings = nil, nil, nil
	clear(s.current)
	clear(s.dropped)
}

// Time is when this run began: the time of its points.
func (s *Sender) Time() time.Time { return s.at }

// SetLimit bounds how many contexts this and later runs may submit.
func (s *Sender) SetLimit(contexts int) { s.limit = contexts }

// Gauge submits a level; the last of a run counts.
func (s *Sender) Gauge(name string, value float64, tags ...string) {
	if sub := s.submit(gauge, name, value, tags); sub != nil {
		sub.value = value
	}
}

// Count submits how many there were since the last run; a run's are added up.
func (s *Sender) Count(name string, value float64, tags ...string) {
	if sub := s.submit(count, name, value, tags); sub != nil {
		sub.value += value
	}
}

// Rate submits a running total, which is sent as a gauge: its change per
// second since the run before. The first one, and one that is smaller than
// the one before, is silent.
func (s *Sender) Rate(name string, total float64, tags ...string) {
	s.RateAt(name, total, s.at, tags...)
}

// RateAt is Rate for a total that was read at another time than the run's. A
// total as old as the one before repeats its rate, instead of saying that
// nothing happened.
func (s *Sender) RateAt(name string, total float64, at time.Time, tags ...string) {
	sub := s.submit(rate, name, total, tags)
	if sub == nil {
		return
	}
	sub.silent = true
	m := s.remembered(rememberRate)
	if m.at.IsZero() || at.Before(m.at) {
		*m = remembered{value: total, at: at, seen: s.at, keep: rememberRate, rate: math.NaN()}
		return
	}
	if at.After(m.at) {
		m.rate = (total - m.value) / at.Sub(m.at).Seconds()
		m.value, m.at = total, at
	}
	if m.rate >= 0 && s.at.Sub(at) < repeatRate {
		sub.value, sub.silent = m.rate, false
	}
}

// MonotonicCount submits a running total, which is sent as a count: how much
// it grew since the run before. The first total is silent unless first, which
// says that all of it is new; then a total that became smaller counts whole,
// as it began again.
func (s *Sender) MonotonicCount(name string, total float64, first bool, tags ...string) {
	sub := s.submit(monotonic, name, total, tags)
	if sub == nil {
		return
	}
	m := s.remembered(rememberCount)
	grown, known := total-m.value, !m.at.IsZero()
	m.value, m.at = total, s.at
	switch {
	case known && grown >= 0:
		sub.value += grown
		sub.silent = false
	case first:
		sub.value += total
		sub.silent = false
	}
}

// Histogram submits one of many values; max, median, avg, 95percentile and
// count of a run are sent.
func (s *Sender) Histogram(name string, value float64, tags ...string) {
	if sub := s.submit(histogram, name, value, tags); sub != nil {
		sub.values = append(sub.values, value)
	}
}

// ServiceCheck submits the state of something.
func (s *Sender) ServiceCheck(name string, status metric.CheckStatus, message string, tags ...string) {
	if len(s.checks) >= maxServiceChecks {
		s.dropped[DropChecks]++
		return
	}
	if len(message) > maxMessage {
		message = strings.ToValidUTF8(message[:maxMessage], "")
	}
	s.checks = append(s.checks, metric.ServiceCheck{Name: name, Status: status, Time: s.at.Unix(), Message: message, Tags: metric.NewTags(tags...)})
}

// Warnf notes something that the instance's owner should know. It is shown
// with the status of the instance until the next run.
func (s *Sender) Warnf(format string, args ...any) {
	if len(s.warnings) < maxWarnings {
		s.warnings = append(s.warnings, shorten(fmt.Sprintf(format, args...)))
	}
}

// submit returns the run's submission of a context, or nil when it is dropped.
// It leaves the context's key in s.key.
func (s *Sender) submit(m method, name string, value float64, tags []string) *submission {
	if math.IsNaN(value) || math.IsInf(value, 0) {
		s.dropped[DropNotFinite]++
		return nil
	}
	s.scratch = append(s.scratch[:0], tags...)
	slices.Sort(s.scratch)
	s.key = append(append(s.key[:0], byte(m)), name...)
	for _, tag := range s.scratch {
		s.key = append(append(s.key, 0), tag...)
	}
	if sub, ok := s.current[string(s.key)]; ok {
		return sub
	}
	if len(s.order) >= s.limit {
		s.dropped[DropLimit]++
		return nil
	}
	sub := &submission{method: m, name: name, tags: metric.NewTags(s.scratch...), silent: m == monotonic}
	s.current[string(s.key)] = sub
	s.order = append(s.order, sub)
	return sub
}

// remembered returns what is remembered of the context in s.key.
func (s *Sender) remembered(keep time.Duration) *remembered {
	m, ok := s.remember[string(s.key)]
	if !ok {
		m = &remembered{}
		s.remember[string(s.key)] = m
	}
	m.seen, m.keep = s.at, keep
	return m
}

// forget drops what has not been submitted for long, and sooner when there is
// more of it than two runs could need.
func (s *Sender) forget(interval time.Duration) {
	crowded := len(s.remember) > 2*s.limit
	for key, m := range s.remember {
		if age := s.at.Sub(m.seen); age > max(m.keep, 3*interval) || crowded && age > 0 {
			delete(s.remember, key)
		}
	}
}
