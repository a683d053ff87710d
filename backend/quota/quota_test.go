package quota

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

// at returns a quota whose clock shows *sec.
func at(t *testing.T, o Options, sec *int64) *Quota {
	t.Helper()
	o.Now = func() time.Time { return time.Unix(*sec, 0) }
	o.Registerer = prometheus.NewRegistry()
	q, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	return q
}

func TestTakeCountsByCalendarPeriods(t *testing.T) {
	sec := int64(7190) // ten seconds before an hour ends
	q := at(t, Options{Rates: "query=2/3600"}, &sec)
	take := func(key, kind string) string {
		h := http.Header{}
		ok := q.Take(h, key, kind)
		return fmt.Sprint(ok, " ", h.Get("X-RateLimit-Remaining"), "/", h.Get("X-RateLimit-Limit"), " in ", h.Get("X-RateLimit-Reset"), " of ", h.Get("X-RateLimit-Period"), " ", h.Get("X-RateLimit-Name"))
	}
	var got []string
	for _, key := range []string{"a", "a", "a", "b"} {
		got = append(got, take(key, Query))
	}
	got = append(got, take("a", Metrics))
	sec = 7200
	got = append(got, take("a", Query))
	want := []string{
		"true 1/2 in 10 of 3600 query", "true 0/2 in 10 of 3600 query", "false 0/2 in 10 of 3600 query", "true 1/2 in 10 of 3600 query",
		"true 35999/36000 in 10 of 3600 metrics", "true 1/2 in 3600 of 3600 query",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	if n := testutil.ToFloat64(q.limited.WithLabelValues(Query)); n != 1 {
		t.Errorf("counted %v refusals", n)
	}
	q = at(t, Options{Rates: Off}, &sec)
	h := http.Header{}
	if !q.Take(h, "a", Query) || len(h) != 0 {
		t.Errorf("switched off, it answers %v", h)
	}
}

func TestRatesThatCannotBeUsed(t *testing.T) {
	for _, text := range []string{"query", "query=1", "query=0/60", "query=1/0", "query=x/60", "other=1/60", "query=1/90000", "off,query=1/2"} {
		if _, err := New(Options{Rates: text}); err == nil || !strings.Contains(err.Error(), "expected") {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestSpend(t *testing.T) {
	sec := int64(1000)
	q := at(t, Options{MaxCost: 500, Budget: 1000}, &sec)
	for _, step := range []struct {
		at   int64
		key  string
		cost Cost
		want string
	}{
		{1000, "a", Of(50, 95, 10), ""},
		{1000, "a", Of(51, 95, 10), "would read about 510 points of 51 series, more than the 500 that are allowed: narrow its scope or its time range"},
		{1030, "a", Of(40, 100, 10), ""},
		{1040, "a", Of(20, 100, 10), "would read about 200 points of 20 series, and this application key has read 900 of the 1000 that it may in a minute: ask again in 20 s"},
		{1040, "b", Of(20, 100, 10), ""},
		{1040, "a", Of(10, 100, 10), ""},
		{1059, "a", Of(1, 10, 10), "would read about 1 points of 1 series, and this application key has read 1000 of the 1000 that it may in a minute: ask again in 1 s"},
		{1060, "a", Of(50, 100, 10), ""},
		{5000, "a", Of(50, 100, 10), ""},
	} {
		sec = step.at
		err := q.Spend(step.key, step.cost)
		if (err == nil) != (step.want == "") || err != nil && err.Error() != step.want {
			t.Errorf("at %d: %v, want %q", step.at, err, step.want)
		}
		var costs *CostError
		if err != nil && !errors.As(err, &costs) {
			t.Errorf("at %d: the error is a %T", step.at, err)
		}
	}
	if r, m := testutil.ToFloat64(q.costs.WithLabelValues(limitRequest)), testutil.ToFloat64(q.costs.WithLabelValues(limitBudget)); r != 1 || m != 2 {
		t.Errorf("counted %v and %v refusals, want 1 and 2", r, m)
	}
}

func TestCostDoesNotOverflow(t *testing.T) {
	huge := Of(1<<40, 1<<40, 1)
	if sum := huge.Add(huge).Add(huge); sum.Points < huge.Points || huge.Points <= 0 {
		t.Errorf("costs %d and %d", huge.Points, sum.Points)
	}
	sec := int64(0)
	if err := at(t, Options{MaxCost: 1}, &sec).Spend("a", huge); err == nil {
		t.Error("what costs the most is allowed")
	}
}

// Keys that are idle for long leave no trace, so that ever new keys do not add up.
func TestIdleKeysAreForgotten(t *testing.T) {
	sec := int64(0)
	q := at(t, Options{}, &sec)
	for i := range 1000 {
		sec += 3700
		q.Take(http.Header{}, fmt.Sprint("key-", i), Query)
		if err := q.Spend(fmt.Sprint("key-", i), Cost{1, 1}); err != nil {
			t.Fatal(err)
		}
	}
	if len(q.keys) > 3 {
		t.Errorf("%d keys are remembered", len(q.keys))
	}
}

func FuzzRates(f *testing.F) {
	f.Add("query=1600/3600,metrics=1/1")
	f.Add("off")
	f.Fuzz(func(t *testing.T, text string) {
		if q, err := New(Options{Rates: text}); err == nil && q.rates != nil && len(q.rates) != 3 {
			t.Errorf("%q gives %v", text, q.rates)
		}
	})
}
