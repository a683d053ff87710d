package shadow

import (
	"cmp"
	"math"
	"slices"
	"time"

	"kelpie.dev/kelpie/clusteragent/source"
)

// An Outcome is what one comparison of a query's two values found.
type Outcome string

// The outcomes. Waiting is none: there is nothing to compare yet, or nothing new.
const (
	Waiting    Outcome = "waiting"
	Agree      Outcome = "agree"
	Differ     Outcome = "differ"
	OnlyMain   Outcome = "only_main"   // the shadow has no data
	OnlyShadow Outcome = "only_shadow" // the main source has no data
	Neither    Outcome = "neither"     // has data
	Error      Outcome = "error"       // one of the two cannot answer
)

// outcomes are all, the worst first.
var outcomes = []Outcome{Error, OnlyMain, OnlyShadow, Differ, Waiting, Neither, Agree}

// bad reports whether an outcome speaks against the shadow.
func (o Outcome) bad() bool { return o == Error || o == OnlyMain || o == OnlyShadow || o == Differ }

// Tolerance is how far apart two values may be and agree: either bound suffices.
type Tolerance struct {
	Relative float64 `json:"relative"` // to the larger of the two
	Absolute float64 `json:"absolute"`
}

// A Comparison is of two values of one time.
type Comparison struct {
	At     time.Time `json:"at"`
	Main   float64   `json:"main"`
	Shadow float64   `json:"shadow"`
	// Difference is the shadow's value less the main source's, in parts of the
	// larger of the two: -0.5 is a shadow that has half.
	Difference float64 `json:"difference"`
	outside    bool
}

// compare holds two values against each other.
func (t Tolerance) compare(main, shadow float64) Comparison {
	c := Comparison{Main: main, Shadow: shadow}
	if most := max(math.Abs(main), math.Abs(shadow)); most > 0 {
		c.Difference = shadow/most - main/most // each at most 1: nothing overflows
	}
	c.outside = math.Abs(shadow-main) > t.Absolute && math.Abs(c.Difference) > t.Relative
	return c
}

const (
	// keep is how far back values are remembered: how late a source may be
	// against the other and still be compared.
	keep = 15 * time.Minute
	// jitter is how far the time of a value of an instant may be off: by the
	// flush of a node agent.
	jitter = 10 * time.Second
	// grace is how long a source may lack data that the other has. A new metric
	// is seen by one before it is by the other.
	grace = 2 * time.Minute
	// dense is for how long every value is remembered, and sparse how far apart
	// those before are at least: a pushed value may change each second, which for
	// ten thousand queries would take hundreds of megabytes.
	dense  = time.Minute
	sparse = 10 * time.Second
	// leastSkew is how far away in time, at least, the values around another may
	// be.
	leastSkew = 30 * time.Second
)

// mark is a value of a source at the end of the time that it is of: a bucket's
// end, or the newest point that a value of an instant drew on. By its end alone
// a bucket can be held against an instant.
type mark struct {
	end   int64 // Unix seconds
	value float64
}

// side is what is known of a query at one of its two sources.
type side struct {
	reading source.Reading
	history []mark // by end, strictly rising
}

// observe takes what the source knows now.
func (s *side) observe(r source.Reading, now time.Time) {
	s.reading = r
	if !r.At.IsZero() {
		m := mark{r.At.Add(r.Length).Unix(), r.Value}
		switch n := len(s.history); {
		case n > 0 && s.history[n-1].end == m.end:
			s.history[n-1] = m // it was still filling
		case n == 0 || s.history[n-1].end < m.end:
			s.history = append(s.history, m)
		} // the reading of a source that starts again may fall back
	}
	oldest := now.Add(-keep).Unix()
	if i := slices.IndexFunc(s.history, func(m mark) bool { return m.end >= oldest }); i > 0 {
		s.history = slices.Delete(s.history, 0, i)
	}
	crowded := now.Add(-dense).Unix()
	kept := int64(math.MinInt64 / 2)
	s.history = slices.DeleteFunc(s.history, func(m mark) bool {
		if m.end < crowded && m.end-kept < int64(sparse/time.Second) {
			return true
		}
		kept = m.end
		return false
	})
}

// state says what the source has now: Agree stands for a value.
func (s *side) state() Outcome {
	switch err := s.reading.Err; {
	case err != nil && err.Reason == source.NoData:
		return Neither
	case err != nil && err.Reason != source.Pending:
		return Error
	case s.reading.At.IsZero():
		return Waiting
	default:
		return Agree
	}
}

// newest is the end of the newest value, or else since.
func (s *side) newest(since int64) int64 {
	if n := len(s.history); n > 0 {
		return s.history[n-1].end
	}
	return since
}

// around returns what the source had at a time: its value, or what lies between
// the two that surround it, or if one up to slack away is closer to v, that. ok is
// false when the time is not surrounded within skew on either side.
func (s *side) around(end int64, v float64, slack, skew time.Duration) (value float64, ok bool) {
	next, exact := slices.BinarySearchFunc(s.history, end, func(m mark, end int64) int { return cmp.Compare(m.end, end) })
	switch {
	case exact:
		value = s.history[next].value
	case next == 0 || next == len(s.history):
		return 0, false
	default:
		a, b := s.history[next-1], s.history[next]
		if time.Duration(b.end-a.end)*time.Second > 2*skew {
			return 0, false
		}
		part := float64(end-a.end) / float64(b.end-a.end)
		value = a.value*(1-part) + b.value*part
	}
	for _, m := range s.history {
		if max(m.end-end, end-m.end) <= int64(slack/time.Second) && math.Abs(m.value-v) < math.Abs(value-v) {
			value = m.value
		}
	}
	return value, true
}

// track is one query's record.
type track struct {
	since        time.Time
	main, shadow side
	compared     int64 // end of the value compared last

	counts  map[Outcome]uint64
	sum     float64    // of the differences
	last    Comparison // zero before the first
	worst   Comparison // of those outside of the tolerance
	current Outcome    // of the last comparison
	streak  int        // comparisons that found current
	verdict Outcome
	turned  time.Time // when verdict became what it is
}

func newTrack(now time.Time) *track {
	return &track{since: now, counts: map[Outcome]uint64{}, current: Waiting, verdict: Waiting, turned: now}
}

// judge compares what is new since the last time. The source whose newest value
// is older decides the time: by then the other is known around it.
func (t *track) judge(tol Tolerance, period time.Duration) Outcome {
	m, s := t.main.state(), t.shadow.state()
	switch {
	case m == Error || s == Error:
		return Error
	case m == Waiting || s == Waiting:
		return Waiting
	case m == Neither && s == Neither:
		return Neither
	}
	since := t.since.Unix()
	ahead := time.Duration(t.main.newest(since)-t.shadow.newest(since)) * time.Second
	switch {
	case s == Neither:
		return ifAfter(grace, ahead, OnlyMain)
	case m == Neither:
		return ifAfter(grace, -ahead, OnlyShadow)
	case ahead > keep:
		return OnlyMain
	case -ahead > keep:
		return OnlyShadow
	}
	return t.compare(tol, max(leastSkew, period), ahead)
}

// ifAfter returns o once something has lasted for longer than least.
func ifAfter(least, lasted time.Duration, o Outcome) Outcome {
	if lasted > least {
		return o
	}
	return Waiting
}

// compare holds the newest value of the source that is behind against the other's
// of its time.
func (t *track) compare(tol Tolerance, skew, ahead time.Duration) Outcome {
	late, early := &t.shadow, &t.main
	if ahead < 0 {
		late, early = early, late
	}
	at := late.history[len(late.history)-1] // judge has seen that there is one
	if at.end <= t.compared {
		return Waiting
	}
	slack := jitter
	if late.reading.Length > 0 && early.reading.Length > 0 {
		slack = 0 // buckets are of the same time, or they are not
	}
	other, ok := early.around(at.end, at.value, slack, skew)
	if !ok {
		return Waiting
	}
	c := tol.compare(other, at.value)
	if late == &t.main {
		c = tol.compare(at.value, other)
	}
	c.At = time.Unix(at.end, 0).UTC()
	t.compared, t.last = at.end, c
	t.sum += c.Difference
	if !c.outside {
		return Agree
	}
	if math.Abs(c.Difference) > math.Abs(t.worst.Difference) {
		t.worst = c
	}
	return Differ
}

// settle counts an outcome and reports whether the verdict has turned. One
// comparison that goes wrong is no verdict.
func (t *track) settle(o Outcome, now time.Time) (turned bool) {
	if o == Waiting {
		return false
	}
	t.counts[o]++
	if o != t.current {
		t.current, t.streak = o, 0
	}
	t.streak++
	if o == t.verdict || t.streak < 2 && (o.bad() || t.verdict.bad()) {
		return false
	}
	t.verdict, t.turned = o, now
	return true
}
