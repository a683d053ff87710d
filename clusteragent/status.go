package clusteragent

import (
	"slices"
	"time"

	"kelpie.dev/kelpie/clusteragent/metadata"
	"kelpie.dev/kelpie/clusteragent/source"
	"kelpie.dev/kelpie/clusteragent/state"
)

// Status is what the cluster agent knows of itself, as /status serves it.
type Status struct {
	Replica      string          `json:"replica"`
	Leader       bool            `json:"leader"`
	LeaderName   string          `json:"leader_name,omitempty"` // the replica that leads, as this one knows
	CRD          bool            `json:"crd"`
	Serving      bool            `json:"serving"`
	Registration string          `json:"registration,omitempty"` // what is wrong with the APIService
	Certificate  string          `json:"certificate,omitempty"`  // what is wrong with it
	CertEnds     time.Time       `json:"certificate_ends,omitzero"`
	Source       source.Status   `json:"source"`
	OtherSources []source.Status `json:"other_sources,omitempty"`
	Shadow       *ShadowStatus   `json:"shadow,omitempty"` // absent when nothing is compared
	Metrics      []Row           `json:"metrics"`          // the worst first

	State    *state.Status    `json:"kubernetes_state,omitempty"` // absent when switched off
	Metadata *metadata.Status `json:"metadata,omitempty"`         // for node agents; absent when switched off
}

func (a *agent) status() any {
	s := Status{Replica: a.cfg.Identity, Metrics: []Row{}}
	if a.leader != nil {
		s.Leader, s.LeaderName = a.leader.isLeader(), a.leader.name()
	}
	if a.state != nil {
		s.State = new(a.state.Status())
	}
	if a.metadata != nil {
		s.Metadata = new(a.metadata.Status())
	}
	if a.source == nil {
		return s
	}
	s.CRD, s.Serving = a.cfg.CRD, a.serving.Load()
	s.Registration, s.Source, s.OtherSources = a.keeper.Registration(), a.source.Status(), a.source.Others()
	s.Certificate, s.CertEnds = a.keeper.Certificate()
	s.Shadow = a.shadowStatus()
	s.Metrics = append(s.Metrics, a.rows(time.Now())...)
	for i := range s.Metrics {
		s.Metrics[i].Advice = a.advicesFor(s.Metrics[i].metric) // parses queries: for people alone
	}
	slices.SortFunc(s.Metrics, worseFirst)
	return s
}
