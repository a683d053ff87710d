package shadow

import (
	"math"
	"testing"
	"time"

	"kelpie.dev/kelpie/clusteragent/source"
)

func TestTolerance(t *testing.T) {
	tol := Tolerance{Relative: 0.05, Absolute: 0.01}
	for _, c := range []struct {
		main, shadow, difference float64
		outside                  bool
	}{
		{0, 0, 0, false},
		{100, 100, 0, false},
		{100, 105, 5.0 / 105, false},
		{100, 106, 6.0 / 106, true},
		{100, 90, -0.1, true},
		{0, 0.01, 1, false}, // within the absolute bound, however large in parts
		{0, 0.02, 1, true},
		{-1, 1, 2, true},
		{-math.MaxFloat64, math.MaxFloat64, 2, true},
		{1e9, 1e9 + 1, 1e-9, false},
	} {
		got := tol.compare(c.main, c.shadow)
		if math.Abs(got.Difference-c.difference) > 1e-9 || got.outside != c.outside || got.Main != c.main || got.Shadow != c.shadow {
			t.Errorf("%v against %v: %+v, want difference %v, outside %v", c.main, c.shadow, got, c.difference, c.outside)
		}
	}
}

// begin is when the simulations begin, in the middle of a bucket.
var begin = time.Unix(1_000_007, 0)

// a source, simulated: what it says at a time.
type simulated func(now time.Time) source.Reading

// load is what is measured: a wave between 50 and 150 in ten minutes.
func load(at time.Time) float64 {
	return 100 + 50*math.Sin(2*math.Pi*float64(at.Unix()%600)/600)
}

// mean is the load's mean over the bucket that begins at.
func mean(at time.Time, length time.Duration) (v float64) {
	for i := range int(length / time.Second) {
		v += load(at.Add(time.Duration(i)*time.Second)) / length.Seconds()
	}
	return v
}

func pushed(value func(time.Time) float64) simulated {
	return func(now time.Time) source.Reading {
		return source.Reading{Value: value(now), At: now, Fetched: now, Attempted: now}
	}
}

// polled is a source that is asked each 30 s, phase off, for buckets of a length
// that it has late.
func polled(length, late, phase time.Duration, of func(float64) float64) simulated {
	return func(now time.Time) source.Reading {
		asked := now.Add(-phase).Truncate(30 * time.Second).Add(phase)
		at := asked.Add(-late).Truncate(length).Add(-length) // the newest is still filling
		return source.Reading{Value: of(mean(at, length)), At: at, Length: length, Fetched: asked, Attempted: asked}
	}
}

func same(v float64) float64 { return v }

func scaled(by float64) func(float64) float64 { return func(v float64) float64 { return v * by } }

func failing(reason source.Reason) simulated {
	return func(now time.Time) source.Reading {
		return source.Reading{Attempted: now, Err: &source.Error{Reason: reason, Message: "so it is"}}
	}
}

// until is one source up to a time after the begin, and another from then on.
func until(after time.Duration, first, then simulated) simulated {
	return func(now time.Time) source.Reading {
		if now.Before(begin.Add(after)) {
			return first(now)
		}
		return then(now)
	}
}

// trailing is the load's mean over the ten seconds up to now.
func trailing(now time.Time) float64 { return mean(now.Add(-10*time.Second), 10*time.Second) }

// simulate compares for a time, looking each second, and returns the record and
// the verdicts in turn.
func simulate(main, shadow simulated, lasts time.Duration) (*track, []Outcome) {
	tr := newTrack(begin)
	var turns []Outcome
	for now := begin; now.Before(begin.Add(lasts)); now = now.Add(time.Second) {
		tr.main.observe(main(now), now)
		tr.shadow.observe(shadow(now), now)
		if now.Sub(begin)%(30*time.Second) == 0 && tr.settle(tr.judge(Tolerance{Relative: 0.05, Absolute: 0.001}, 30*time.Second), now) {
			turns = append(turns, tr.verdict)
		}
	}
	return tr, turns
}

// The comparison is fair: what is the same but for when it is known agrees, and
// what is not the same differs.
func TestFairComparison(t *testing.T) {
	push := pushed(trailing)
	for _, c := range []struct {
		name         string
		main, shadow simulated
		want         Outcome // of each comparison
	}{
		{"pushed, and Datadog's buckets of 10 s, a minute late", push, polled(10*time.Second, time.Minute, 7*time.Second, same), Agree},
		{"pushed, and buckets of 10 s, ten minutes late", push, polled(10*time.Second, 10*time.Minute, 0, same), Agree},
		{"pushed by agents that flush every ten seconds", func(now time.Time) source.Reading {
			return source.Reading{Value: trailing(now), At: now.Truncate(10 * time.Second)}
		},
			polled(10*time.Second, time.Minute, 0, same), Agree},
		{"the other way round", polled(10*time.Second, time.Minute, 3*time.Second, same), push, Agree},
		{"both polled, one later, in another phase", polled(30*time.Second, 0, 0, same), polled(30*time.Second, 2*time.Minute, 13*time.Second, same), Agree},
		{"both polled for buckets of 10 s, of which each sees every third", polled(10*time.Second, 0, 0, same), polled(10*time.Second, 40*time.Second, 0, same), Agree},
		{"15 % more", push, polled(10*time.Second, time.Minute, 0, scaled(1.15)), Differ},
		{"3 % more", push, polled(10*time.Second, time.Minute, 0, scaled(1.03)), Agree},
		{"half", polled(30*time.Second, 0, 0, same), polled(30*time.Second, time.Minute, 0, scaled(0.5)), Differ},
		{"an hour late", push, polled(10*time.Second, time.Hour, 0, same), OnlyMain},
		{"no data at the shadow", push, failing(source.NoData), OnlyMain},
		{"no data at the main source", failing(source.NoData), push, OnlyShadow},
		{"no data at both", failing(source.NoData), failing(source.NoData), Neither},
		{"the shadow refuses the query", push, failing(source.QueryRejected), Error},
		{"the shadow is down", push, failing(source.SourceUnavailable), Error},
		{"the main source is down", failing(source.RateLimited), push, Error},
		{"the shadow is never asked", push, func(time.Time) source.Reading { return source.Reading{} }, Waiting},
		{"the shadow sees it a minute and a half later", push, until(90*time.Second, failing(source.NoData), polled(10*time.Second, time.Minute, 0, same)), Agree},
	} {
		tr, _ := simulate(c.main, c.shadow, 20*time.Minute)
		var all uint64
		for _, n := range tr.counts {
			all += n
		}
		if tr.verdict != c.want || tr.counts[c.want] != all || c.want != Waiting && all < 10 {
			t.Errorf("%s: %s of %v (last %+v, worst %+v), want %s", c.name, tr.verdict, tr.counts, tr.last, tr.worst, c.want)
		}
	}
}

// Whichever source is late, the difference is the shadow's less the main one's.
func TestDifferenceHasASign(t *testing.T) {
	late, half := polled(10*time.Second, time.Minute, 0, same), pushed(func(now time.Time) float64 { return trailing(now) / 2 })
	if tr, _ := simulate(late, half, 10*time.Minute); tr.last.Main < 1.5*tr.last.Shadow || tr.last.Difference > -0.4 || tr.sum > 0 {
		t.Errorf("a shadow of half, the main source late: %+v", tr.last)
	}
	if tr, _ := simulate(half, late, 10*time.Minute); tr.last.Shadow < 1.5*tr.last.Main || tr.last.Difference < 0.4 || tr.sum < 0 {
		t.Errorf("a shadow of twice, and late: %+v", tr.last)
	}
}

// Buckets are held against those of their own time, however close a neighbour is.
func TestBucketsHaveNoSlack(t *testing.T) {
	zigzag := func(by time.Duration) simulated {
		return func(now time.Time) source.Reading {
			at := now.Truncate(10 * time.Second)
			return source.Reading{Value: float64(100 + 100*(at.Add(by).Unix()/10%2)), At: at, Length: 10 * time.Second}
		}
	}
	if tr, _ := simulate(zigzag(0), zigzag(10*time.Second), 10*time.Minute); tr.verdict != Differ || tr.counts[Agree] != 0 {
		t.Errorf("%s of %v, want each bucket to differ", tr.verdict, tr.counts)
	}
}

// A verdict turns when it is found twice, and back likewise.
func TestVerdictTurnsOnTheSecond(t *testing.T) {
	good, bad := polled(30*time.Second, 0, 0, same), polled(30*time.Second, 0, 0, scaled(3))
	_, turns := simulate(good, until(5*time.Minute, good, until(5*time.Minute+29*time.Second, bad, good)), 10*time.Minute)
	if len(turns) != 1 || turns[0] != Agree {
		t.Errorf("one comparison that goes wrong: turns %v, want none but to agree", turns)
	}
	tr, turns := simulate(good, until(5*time.Minute, good, until(10*time.Minute, bad, good)), 20*time.Minute)
	if len(turns) != 3 || turns[1] != Differ || turns[2] != Agree {
		t.Errorf("five minutes of thrice as much: turns %v, want agree, differ, agree", turns)
	}
	if w := tr.worst; math.Abs(w.Difference-2.0/3) > 1e-9 || w.At.Before(begin.Add(4*time.Minute)) || w.At.After(begin.Add(10*time.Minute)) {
		t.Errorf("worst: %+v, want two thirds, between the minutes 4 and 10", w)
	}
}

// A value is compared once.
func TestNothingNewIsNothing(t *testing.T) {
	still := source.Reading{Value: 1, At: begin, Length: 30 * time.Second}
	tr, _ := simulate(func(time.Time) source.Reading { return still }, func(time.Time) source.Reading { return still }, 10*time.Minute)
	if tr.counts[Agree] != 1 {
		t.Errorf("a value that stays for ten minutes was compared %v times, want once", tr.counts)
	}
}

// A bucket that fills is the last value that it had, and between two lies what
// lies between.
func TestWhatASourceHadAtATime(t *testing.T) {
	var s side
	for i, v := range []float64{1, 2, 3} {
		s.observe(source.Reading{Value: v, At: begin, Length: 10 * time.Second}, begin.Add(time.Duration(i)*time.Second))
	}
	s.observe(source.Reading{Value: 9, At: begin.Add(-time.Minute), Length: 10 * time.Second}, begin.Add(4*time.Second)) // a source that starts again
	if len(s.history) != 1 || s.history[0].value != 3 {
		t.Errorf("history %v, want the last value alone", s.history)
	}
	s.observe(source.Reading{Value: 7, At: begin.Add(40 * time.Second), Length: 10 * time.Second}, begin.Add(time.Minute))
	for _, c := range []struct {
		after, slack, skew time.Duration
		v, want            float64 // -1 for none
	}{
		{10 * time.Second, 0, time.Minute, 0, 3},
		{20 * time.Second, 0, time.Minute, 0, 4}, // between the two
		{50 * time.Second, 0, time.Minute, 0, 7},
		{20 * time.Second, 10 * time.Second, time.Minute, 0, 3},
		{20 * time.Second, 10 * time.Second, time.Minute, 9, 4}, // 7 is too far away in time
		{20 * time.Second, 0, 20 * time.Second, 0, 4},
		{20 * time.Second, 0, 19 * time.Second, 0, -1}, // a gap of 40 s
		{9 * time.Second, time.Minute, time.Minute, 0, -1},
		{51 * time.Second, time.Minute, time.Minute, 0, -1},
	} {
		got, ok := s.around(begin.Add(c.after).Unix(), c.v, c.slack, c.skew)
		if !ok {
			got = -1
		}
		if math.Abs(got-c.want) > 1e-9 {
			t.Errorf("around %s, slack %s, within %s, close to %v: %v, want %v", c.after, c.slack, c.skew, c.v, got, c.want)
		}
	}
}

// A value that is pushed each second must not be remembered each second for long.
func TestHistoryIsThinned(t *testing.T) {
	var s side
	at := time.Unix(1_800_000_000, 0)
	for range 2 * int(keep/time.Second) {
		at = at.Add(time.Second)
		s.observe(source.Reading{Value: float64(at.Unix()), At: at}, at)
	}
	if n := len(s.history); n < 130 || n > 160 {
		t.Errorf("%d values remembered, want about 60 of the last minute and 84 of the quarter of an hour", n)
	}
	for _, ago := range []time.Duration{0, 30 * time.Second, 5 * time.Minute, 14 * time.Minute} {
		want := float64(at.Add(-ago).Unix())
		if got, ok := s.around(int64(want), want, 0, leastSkew); !ok || got != want {
			t.Errorf("%s ago: %v, %v; want %v", ago, got, ok, want)
		}
	}
}
