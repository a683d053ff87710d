package clusteragent

import (
	"cmp"
	"slices"
	"strconv"
	"time"

	"kelpie.dev/kelpie/clusteragent/datadogmetric"
	"kelpie.dev/kelpie/clusteragent/metadata"
	"kelpie.dev/kelpie/clusteragent/reference"
	"kelpie.dev/kelpie/clusteragent/source"
	"kelpie.dev/kelpie/clusteragent/state"
)

// Status is what the cluster agent knows of itself, as /status serves it.
type Status struct {
	Replica      string          `json:"replica"`
	Leader       bool            `json:"leader"`
	CRD          bool            `json:"crd"`
	Serving      bool            `json:"serving"`
	Registration string          `json:"registration,omitempty"` // what is wrong with the APIService
	Certificate  string          `json:"certificate,omitempty"`  // what is wrong with it
	CertEnds     time.Time       `json:"certificate_ends,omitzero"`
	Source       source.Status   `json:"source"`
	OtherSources []source.Status `json:"other_sources,omitempty"`
	Shadow       *ShadowStatus   `json:"shadow,omitempty"` // absent when nothing is compared
	Metrics      []Row           `json:"metrics"`

	State    *state.Status    `json:"kubernetes_state,omitempty"` // absent when switched off
	Metadata *metadata.Status `json:"metadata,omitempty"`         // for node agents; absent when switched off
}

// Row is one metric of a Status.
type Row struct {
	Metric     string    `json:"metric"`
	Query      string    `json:"query"`
	Value      string    `json:"value,omitempty"` // the newest, even when no longer valid
	At         time.Time `json:"at,omitzero"`     // the value's own time
	Age        float64   `json:"age_seconds,omitempty"`
	Valid      bool      `json:"valid"`
	StandsIn   bool      `json:"stands_in,omitempty"` // the value is what the object's annotation says for no data; Error is why
	Error      string    `json:"error,omitempty"`
	References []string  `json:"references,omitempty"` // autoscalers
	Advice     []string  `json:"advice,omitempty"`     // to those whose target does not suit the query
}

func (a *agent) status() any {
	s := Status{Replica: a.cfg.Identity, Metrics: []Row{}}
	if a.leader != nil {
		s.Leader = a.leader.isLeader()
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
	slices.SortFunc(s.Metrics, func(x, y Row) int { return cmp.Or(cmp.Compare(x.Metric, y.Metric), cmp.Compare(x.Query, y.Query)) })
	return s
}

// rows returns all external metrics.
func (a *agent) rows(now time.Time) (rows []Row) {
	for _, c := range a.index.All() {
		for _, in := range c.Inline {
			if in.Err != nil {
				rows = append(rows, Row{Metric: in.Metric, Error: in.Err.Error(), References: []string{c.By.String()}})
			}
		}
	}
	generated := map[string]bool{}
	if a.objects != nil {
		for _, m := range a.objects.Metrics() {
			rows = append(rows, a.row(reference.ObjectMetric(m.ID), m, now))
			generated[m.ID.String()] = true
		}
	}
	for query, metric := range a.index.Queries() {
		id := a.index.Autogen(query)
		if generated[id.String()] {
			continue
		}
		rows = append(rows, a.row(metric, datadogmetric.Metric{
			ID: id, Query: query, Active: true, Limits: a.cfg.Rules.Limits(0), References: a.index.Referrers(id),
			Key: source.Key{Query: query, Window: a.cfg.Rules.Window(0, 0)},
		}, now))
	}
	return rows
}

func (a *agent) row(metric string, m datadogmetric.Metric, now time.Time) Row {
	reading := a.source.Read(m.Key)
	served, why := m.Value(reading, now)
	r := Row{Metric: metric, Query: m.Query, Valid: why == nil, At: reading.At, Advice: a.advicesFor(m)}
	if why != nil {
		r.Error = string(why.Reason) + ": " + why.Error()
	}
	if served.StandsFor != nil {
		r.Error = string(served.StandsFor.Reason) + ": " + served.StandsFor.Error()
		r.Value, r.StandsIn = strconv.FormatFloat(served.Value, 'g', 6, 64), true
	} else if !reading.At.IsZero() {
		r.Value = strconv.FormatFloat(reading.Value, 'g', 6, 64)
		r.Age = now.Sub(reading.At).Round(time.Second).Seconds()
	}
	for _, id := range m.References {
		r.References = append(r.References, id.String())
	}
	return r
}
