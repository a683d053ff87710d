package clusteragent

import (
	"cmp"
	"strconv"
	"time"

	"kelpie.dev/kelpie/clusteragent/datadogmetric"
	"kelpie.dev/kelpie/clusteragent/externalmetrics"
	"kelpie.dev/kelpie/clusteragent/reference"
	"kelpie.dev/kelpie/clusteragent/source"
)

// Row is one metric of a Status.
type Row struct {
	Metric     string    `json:"metric"`
	Query      string    `json:"query"`
	Source     string    `json:"source,omitempty"`
	State      string    `json:"state"`           // a State, or the reason why there is no value
	Value      string    `json:"value,omitempty"` // the newest, even when no longer valid
	At         time.Time `json:"at,omitzero"`     // the value's own time
	Age        float64   `json:"age_seconds,omitempty"`
	Valid      bool      `json:"valid"`
	StandsIn   bool      `json:"stands_in,omitempty"` // the value is what the object's annotation says for no data; Error is why
	Error      string    `json:"error,omitempty"`
	Warning    string    `json:"warning,omitempty"`    // what the newest attempt met, while the value is still good
	References []string  `json:"references,omitempty"` // autoscalers
	Advice     []string  `json:"advice,omitempty"`     // to those whose target does not suit the query

	Pushed      bool      `json:"pushed,omitempty"` // the source tells of changes itself
	NextAttempt time.Time `json:"next_attempt,omitzero"`
	BackOff     bool      `json:"back_off,omitempty"` // NextAttempt is later than the next cycle

	by     []reference.Autoscaler // References
	metric datadogmetric.Metric   // that it is of
}

// The states of a metric that has a value to give; those of others are the
// reasons why not.
const (
	stateValid    = "Valid"
	stateAging    = "Aging"    // valid, but the newest attempt brought no new value
	stateStandsIn = "StandsIn" // the value is what an annotation says for no data
	stateUnused   = "NotReferenced"
)

// rank orders states, the one to look at first lowest.
func (r *Row) rank() int {
	switch r.State {
	case stateStandsIn:
		return 1
	case stateAging:
		return 2
	case stateValid:
		return 3
	case stateUnused:
		return 4
	default:
		return 0
	}
}

// counts reports whether the value's age is one to watch. Where something stands
// in for data that there are not, that these are old is what was asked for.
func (r *Row) counts() bool { return r.State != stateUnused && r.State != stateStandsIn }

// worseFirst orders rows by what an operator has to look at: no value, a value
// about to be lost, the oldest.
func worseFirst(x, y Row) int {
	return cmp.Or(cmp.Compare(x.rank(), y.rank()), cmp.Compare(y.Age, x.Age), cmp.Compare(x.Metric, y.Metric), cmp.Compare(x.Query, y.Query))
}

// rows returns all external metrics.
func (a *agent) rows(now time.Time) (rows []Row) {
	for _, c := range a.index.All() {
		for _, in := range c.Inline {
			if in.Err != nil {
				rows = append(rows, Row{Metric: in.Metric, Source: string(a.source.Main()), State: string(externalmetrics.Untranslatable(in.Err)),
					Error: in.Err.Error(), References: []string{c.By.String()}})
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
	next := a.source.Next(m.Key)
	r := Row{Metric: metric, Query: m.Query, Source: cmp.Or(string(m.Key.Source), string(a.source.Main())), State: stateValid, Valid: why == nil,
		At: reading.At, Pushed: next.Pushed, NextAttempt: next.At, BackOff: next.BackOff, by: m.References, metric: m}
	switch {
	case why != nil:
		r.State, r.Error = string(why.Reason), words(why)
	case served.StandsFor != nil:
		r.State, r.Error, r.StandsIn = stateStandsIn, words(served.StandsFor), true
		r.Value = strconv.FormatFloat(served.Value, 'g', 6, 64)
	case reading.Err != nil:
		r.State, r.Warning = stateAging, words(reading.Err)
	}
	if !reading.At.IsZero() {
		if !r.StandsIn {
			r.Value = strconv.FormatFloat(reading.Value, 'g', 6, 64)
		}
		r.Age = now.Sub(reading.At).Round(time.Second).Seconds()
	}
	for _, id := range m.References {
		r.References = append(r.References, id.String())
	}
	return r
}

func words(e *source.Error) string { return string(e.Reason) + ": " + e.Error() }
