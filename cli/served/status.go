package served

import (
	"cmp"
	"fmt"
	"strings"
	"time"
)

// Status is what is read of a cluster agent's /status.
type Status struct {
	Replica      string    `json:"replica"`
	Leader       bool      `json:"leader"`
	LeaderName   string    `json:"leader_name"` // "" while the replica knows of none
	CRD          bool      `json:"crd"`
	Serving      bool      `json:"serving"`
	Registration string    `json:"registration"` // what is wrong with the APIService
	Certificate  string    `json:"certificate"`  // what is wrong with it
	CertEnds     time.Time `json:"certificate_ends"`
	Source       Source    `json:"source"`
	OtherSources []Source  `json:"other_sources"`
	Shadow       *Shadow   `json:"shadow"`  // nil when no source is compared
	Metrics      []Metric  `json:"metrics"` // the worst first
}

// Shadow is how a second source compares with the one that serves.
type Shadow struct {
	Main     string         `json:"main"`
	Shadow   string         `json:"shadow"`
	Queries  int            `json:"queries"`
	Verdicts map[string]int `json:"verdicts"` // queries of each; "agree" is one
	Source   Source         `json:"source"`   // the shadow's own health
}

// Text says it in a line.
func (s *Shadow) Text() string {
	text := fmt.Sprintf("%s beside %s: %d of %d queries agree", s.Shadow, s.Main, s.Verdicts["agree"], s.Queries)
	for _, verdict := range []string{"differ", "only_main", "only_shadow", "error", "neither", "waiting"} {
		if n := s.Verdicts[verdict]; n > 0 {
			text += fmt.Sprintf(", %d %s", n, verdict)
		}
	}
	return text
}

// Source is how a cluster agent's reading from one source goes.
type Source struct {
	Name        string     `json:"name,omitempty"`
	URL         string     `json:"url"`
	Period      float64    `json:"period_seconds"` // between two polls
	Queries     int        `json:"queries"`
	LastSuccess time.Time  `json:"last_success,omitzero"`
	LastError   string     `json:"last_error,omitempty"`
	LastErrorAt time.Time  `json:"last_error_at,omitzero"`
	Streaming   bool       `json:"streaming"` // values are pushed
	StreamError string     `json:"stream_error,omitempty"`
	PausedUntil time.Time  `json:"paused_until,omitzero"`
	RateLimit   *RateLimit `json:"rate_limit,omitempty"`
	Endpoints   []Endpoint `json:"endpoints,omitempty"` // where there are several
}

// RateLimit is a source's limit on requests, as its newest answer said it.
type RateLimit struct {
	Limit     int       `json:"limit"`
	Remaining int       `json:"remaining"`
	Least     int       `json:"remaining_min"` // of late
	Period    float64   `json:"period_seconds"`
	Resets    time.Time `json:"resets"`
}

// Endpoint is one of several places that give the same.
type Endpoint struct {
	URL         string    `json:"url"`
	Status      string    `json:"status"`
	LastSuccess time.Time `json:"last_success,omitzero"`
	LastFailure time.Time `json:"last_failure,omitzero"`
	Used        bool      `json:"used"`
}

// Failing reports whether the newest request failed.
func (s *Source) Failing() bool { return s.LastError != "" && s.LastErrorAt.After(s.LastSuccess) }

// Metric is a metric as a cluster agent sees it.
type Metric struct {
	Metric     string    `json:"metric"`
	Query      string    `json:"query"`
	Source     string    `json:"source"`
	State      string    `json:"state"` // Valid, or a word for what it is instead
	Value      string    `json:"value"` // the newest, even when no longer valid
	At         time.Time `json:"at"`
	Valid      bool      `json:"valid"` // autoscalers are given the value
	StandsIn   bool      `json:"stands_in"`
	Error      string    `json:"error"`
	Warning    string    `json:"warning"`    // of the newest attempt, while the value is still good
	References []string  `json:"references"` // the HPAs, as namespace/name
	Advice     []string  `json:"advice"`     // to those of them whose target does not suit the query

	Pushed      bool      `json:"pushed"`
	NextAttempt time.Time `json:"next_attempt"`
	BackOff     bool      `json:"back_off"`
}

// state is the metric's own, or what can be said when nobody has.
func (m *Metric) state() string {
	if m.State != "" {
		return m.State
	}
	if m.Valid {
		return "Valid"
	}
	reason, _, ok := strings.Cut(m.Error, ": ")
	if !ok || strings.ContainsAny(reason, " ./") {
		reason = ""
	}
	return cmp.Or(reason, "NoValue")
}
