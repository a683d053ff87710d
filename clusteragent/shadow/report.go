package shadow

import (
	"cmp"
	"math"
	"slices"
	"time"

	"kelpie.dev/kelpie/clusteragent/source"
)

// A Summary is how the sources compare, on one line.
type Summary struct {
	Main     source.Name     `json:"main"`
	Shadow   source.Name     `json:"shadow"`
	Queries  int             `json:"queries"`
	Verdicts map[Outcome]int `json:"verdicts"` // queries of each
}

// A Report is all that is known of how the sources compare.
type Report struct {
	Summary
	At        time.Time `json:"at"`
	Since     time.Time `json:"since"` // of this process
	Period    float64   `json:"period_seconds"`
	Tolerance Tolerance `json:"tolerance"`
	Rows      []Row     `json:"rows"` // the worst first
}

// A Row is one query of a Report.
type Row struct {
	Key     source.Key `json:"-"`
	Query   string     `json:"query"`
	Window  float64    `json:"window_seconds"`
	Metrics []string   `json:"metrics,omitempty"` // that autoscalers read by it; the caller knows

	Verdict      Outcome            `json:"verdict"`
	VerdictSince time.Time          `json:"verdict_since"`
	Since        time.Time          `json:"since"` // when the query began to be compared
	Main         Newest             `json:"newest_main"`
	Shadow       Newest             `json:"newest_shadow"`
	Outcomes     map[Outcome]uint64 `json:"outcomes"` // comparisons by outcome
	Outside      float64            `json:"outside"`  // share of comparisons with two values that were outside of the tolerance
	Bias         float64            `json:"bias"`     // mean difference
	Last         *Comparison        `json:"last,omitempty"`
	Worst        *Comparison        `json:"worst,omitempty"` // outside of the tolerance
}

// Newest is what a source has of a query now.
type Newest struct {
	Value *float64  `json:"value,omitempty"`
	At    time.Time `json:"at,omitzero"` // the point's own time
	Error string    `json:"error,omitempty"`
}

func (s *side) shown() (n Newest) {
	if r := s.reading; !r.At.IsZero() {
		n.Value, n.At = &r.Value, r.At
	}
	if err := s.reading.Err; err != nil {
		n.Error = string(err.Reason) + ": " + err.Error()
	}
	return n
}

// Summary returns how the sources compare now.
func (s *Shadow) Summary() Summary {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.summary()
}

func (s *Shadow) summary() Summary {
	out := Summary{Main: s.opts.MainName, Shadow: s.opts.OtherName, Queries: len(s.tracks), Verdicts: map[Outcome]int{}}
	for _, t := range s.tracks {
		out.Verdicts[t.verdict]++
	}
	return out
}

// Report returns all that is known now.
func (s *Shadow) Report(now time.Time) Report {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := Report{Summary: s.summary(), At: now.UTC(), Since: s.since.UTC(), Period: s.opts.Period.Seconds(), Tolerance: s.opts.Tolerance, Rows: []Row{}}
	for k, t := range s.tracks {
		r.Rows = append(r.Rows, t.row(k))
	}
	slices.SortFunc(r.Rows, worse)
	return r
}

func (t *track) row(k source.Key) Row {
	r := Row{Key: k, Query: k.Query, Window: k.Window.Seconds(), Verdict: t.verdict, VerdictSince: t.turned.UTC(), Since: t.since.UTC(),
		Main: t.main.shown(), Shadow: t.shadow.shown(), Outcomes: map[Outcome]uint64{}}
	for o, n := range t.counts {
		r.Outcomes[o] = n
	}
	if n := t.counts[Agree] + t.counts[Differ]; n > 0 {
		last := t.last
		r.Last, r.Outside, r.Bias = &last, float64(t.counts[Differ])/float64(n), t.sum/float64(n)
	}
	if !t.worst.At.IsZero() {
		worst := t.worst
		r.Worst = &worst
	}
	return r
}

// worse orders rows: by verdict, then by how often and how far they differ.
func worse(a, b Row) int {
	far := func(r Row) float64 {
		if r.Worst == nil {
			return 0
		}
		return math.Abs(r.Worst.Difference)
	}
	return cmp.Or(
		cmp.Compare(slices.Index(outcomes, a.Verdict), slices.Index(outcomes, b.Verdict)),
		-cmp.Compare(a.Outside, b.Outside),
		-cmp.Compare(far(a), far(b)),
		cmp.Compare(a.Query, b.Query),
		cmp.Compare(a.Window, b.Window),
	)
}
