package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"kelpie.dev/kelpie/cli/release"
	"kelpie.dev/kelpie/cli/served"
)

func newStatus(s *session) *cobra.Command {
	var out output
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show the installation and every external metric on one screen",
		Long: `status shows how the parts of the installation are, and for every external
metric that an HPA asks for, the worst first: its state, the value it is served,
the value's age, when it is asked for again and who asks. What cannot be read
says why. When something is wrong, kelpie doctor says what and how to mend it.

States: Valid; Aging, which is valid while the newest attempt failed; StandsIn, a
value that an annotation gives for no data; NotReferenced; or the reason why
there is no value.`,
		Example: "  kelpie status\n  kelpie status -o wide\n  kelpie status -o json",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cluster, err := s.connect()
			if err != nil {
				return err
			}
			st, err := overview(cmd.Context(), cluster, s.kelpieNamespace, s.Now())
			if err != nil {
				return err
			}
			if out == "json" {
				enc := json.NewEncoder(cmd.OutOrStdout())
				enc.SetIndent("", "  ")
				return enc.Encode(st)
			}
			return st.print(cmd.OutOrStdout(), out == "wide")
		},
	}
	out.wideFlag(cmd)
	return cmd
}

// status is what "kelpie status -o json" prints. Fields are added, never
// renamed or removed.
type status struct {
	At           time.Time       `json:"at"`
	Namespace    string          `json:"namespace"`
	Release      string          `json:"release"`
	Chart        string          `json:"chart,omitempty"`
	Agents       *workload       `json:"agents,omitempty"` // absent when the chart installed none
	Backend      *backendState   `json:"backend,omitempty"`
	Source       string          `json:"source"` // where values are read
	ClusterAgent agentState      `json:"cluster_agent"`
	APIService   apiServiceState `json:"api_service"`
	Metrics      []servedMetric  `json:"metrics"`
	MetricsError string          `json:"metrics_error,omitempty"` // why Metrics is not complete
}

// workload counts the pods of a role.
type workload struct {
	Name    string `json:"name"`
	Ready   int32  `json:"ready"`
	Desired int32  `json:"desired"`
}

// backendState is the backend's part; Error says why there are no numbers.
type backendState struct {
	workload
	Series          uint64  `json:"series"`
	MetricNames     int     `json:"metric_names"`
	PointsPerSecond float64 `json:"points_per_second"`
	LastError       string  `json:"last_error,omitempty"`
	Error           string  `json:"error,omitempty"`
}

type agentState struct {
	workload
	Leader      string `json:"leader,omitempty"` // the pod that writes status
	Source      string `json:"source,omitempty"`
	Pushed      bool   `json:"pushed"`                 // values are pushed by the source, not polled
	SourceError string `json:"source_error,omitempty"` // of the newest request; empty when it went well
	Shadow      string `json:"shadow,omitempty"`       // how a second source compares; empty when none does
	Error       string `json:"error,omitempty"`        // why what is above and below is not known

	Sources      []served.Source `json:"sources,omitempty"`      // all of them, the cluster's own first
	Registration string          `json:"registration,omitempty"` // what is wrong with the APIService
	Certificate  string          `json:"certificate,omitempty"`  // what is wrong with it
	CertEnds     time.Time       `json:"certificate_ends,omitzero"`
}

type apiServiceState struct {
	Available bool   `json:"available"`
	Message   string `json:"message,omitempty"` // why not
}

// servedMetric is one external metric.
type servedMetric struct {
	Name       string   `json:"name"`
	Query      string   `json:"query,omitempty"`       // absent when the cluster agent could not be asked
	Source     string   `json:"source,omitempty"`      // likewise
	State      string   `json:"state,omitempty"`       // likewise: Valid, or a word for what it is instead
	Value      string   `json:"value,omitempty"`       // the newest, even when no longer valid
	AgeSeconds *float64 `json:"age_seconds,omitempty"` // of the value
	Valid      bool     `json:"valid"`                 // autoscalers are given the value
	StandsIn   bool     `json:"stands_in,omitempty"`   // the value is one that an annotation gives for no data
	Error      string   `json:"error,omitempty"`
	Warning    string   `json:"warning,omitempty"` // of the newest attempt, while the value is still good
	References []string `json:"references"`        // the HPAs, as namespace/name
	Advice     []string `json:"advice,omitempty"`  // to those whose target does not suit the query

	Pushed      bool      `json:"pushed,omitempty"`
	NextAttempt time.Time `json:"next_attempt,omitzero"`
	BackOff     bool      `json:"back_off,omitempty"`

	namespace string // to ask for it
	selector  *metav1.LabelSelector
}

// overview asks all parts. Only an installation that cannot be found is an error.
func overview(ctx context.Context, c *release.Cluster, namespace string, now time.Time) (*status, error) {
	rel, err := release.Find(ctx, c, namespace)
	if err != nil {
		return nil, &exit{exitBroken, fmt.Sprintf("%v\nRun kelpie doctor for the mend.", err)}
	}
	st := &status{At: now.UTC(), Namespace: rel.Namespace, Release: rel.Instance, Chart: rel.ClusterAgent.Labels["helm.sh/chart"],
		Source: rel.QueryURL(), Metrics: []servedMetric{}}
	if ds := rel.Agents; ds != nil {
		st.Agents = &workload{ds.Name, ds.Status.NumberReady, ds.Status.DesiredNumberScheduled}
	}
	st.Backend = backendOf(ctx, c, rel)
	var rows []served.Metric
	st.ClusterAgent, rows = clusterAgentOf(ctx, c, rel)
	st.APIService = apiServiceOf(ctx, c)
	if rows != nil {
		st.Metrics = asSeen(rows, now)
		return st, nil
	}
	if st.Metrics, err = asServed(ctx, c, now); err != nil {
		st.MetricsError = err.Error()
	}
	return st, nil
}

func wantedReplicas(n *int32) int32 {
	if n == nil {
		return 1
	}
	return *n
}
