package release

import (
	"context"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// AgentStatus is what is read of an agent's /status.
type AgentStatus struct {
	Hostname  string `json:"hostname"`
	Listeners []struct {
		Packets uint64 `json:"packets"`
	} `json:"listeners"`
	Problems   []AgentProblem `json:"problems"` // newest first
	Contexts   int            `json:"contexts"`
	Forwarding []Forwarding   `json:"forwarding"`
}

// AgentProblem is the newest line that an agent refused for one reason.
type AgentProblem struct {
	Meaning string    `json:"meaning"`
	Line    string    `json:"line"`
	At      time.Time `json:"at"`
	Count   uint64    `json:"count"`
}

// Forwarding is how an agent's deliveries to one intake go.
type Forwarding struct {
	URL       string `json:"url"`
	Delivered uint64 `json:"delivered_points"`
	Dropped   uint64 `json:"dropped_points"`
	LastError string `json:"last_error"`
	Failing   bool   `json:"failing"` // the newest request failed
}

// Packets is the number of datagrams that the agent received.
func (s *AgentStatus) Packets() uint64 {
	var n uint64
	for _, l := range s.Listeners {
		n += l.Packets
	}
	return n
}

// Status reads a role's /status from its pod into into.
func Status(ctx context.Context, p Proxy, pod *corev1.Pod, defaultPort int32, into any) error {
	return p.Pod(pod.Namespace, pod.Name, HealthPort(pod, defaultPort)).JSON(ctx, "/status", into)
}

// ClusterAgentStatus is what is read of a cluster agent's /status.
type ClusterAgentStatus struct {
	Replica      string         `json:"replica"`
	Leader       bool           `json:"leader"`
	Registration string         `json:"registration"` // what is wrong with the APIService
	Source       Source         `json:"source"`
	Shadow       *Shadow        `json:"shadow"` // nil when no source is compared
	Metrics      []ServedMetric `json:"metrics"`
}

// Source is how a cluster agent's reading of values goes.
type Source struct {
	URL         string    `json:"url"`
	LastSuccess time.Time `json:"last_success"`
	LastError   string    `json:"last_error"`
	LastErrorAt time.Time `json:"last_error_at"`
	Streaming   bool      `json:"streaming"` // values are pushed
}

// Shadow is how a second source compares with the one that serves.
type Shadow struct {
	Main     string         `json:"main"`
	Shadow   string         `json:"shadow"`
	Queries  int            `json:"queries"`
	Verdicts map[string]int `json:"verdicts"` // queries of each; "agree" is one
}

// Failing reports whether the newest request failed.
func (s *Source) Failing() bool { return s.LastError != "" && s.LastErrorAt.After(s.LastSuccess) }

// ServedMetric is a metric as the cluster agent sees it.
type ServedMetric struct {
	Metric     string    `json:"metric"`
	Query      string    `json:"query"`
	Value      string    `json:"value"` // the newest, even when no longer valid
	At         time.Time `json:"at"`
	Valid      bool      `json:"valid"`
	Error      string    `json:"error"`
	References []string  `json:"references"` // the HPAs, as namespace/name
}

// BackendStatus is what is read of the backend's /status.
type BackendStatus struct {
	PointsPerSecond float64 `json:"points_accepted_per_second"`
	Store           struct {
		Series      uint64 `json:"series"`
		MetricNames int    `json:"metric_names"`
	} `json:"store"`
	Errors []struct {
		At         time.Time         `json:"at"`
		Message    string            `json:"message"`
		Attributes map[string]string `json:"attributes"`
	} `json:"last_errors"` // newest last
}
