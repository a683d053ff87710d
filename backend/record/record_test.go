package record

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"kelpie.dev/kelpie/metric"
)

const t0 = int64(1_700_000_000)

// clock is a time that a test sets.
type clock struct{ sec int64 }

func (c *clock) now() time.Time { return time.Unix(c.sec, 0) }

func open(t testing.TB, o Options) *Book {
	t.Helper()
	if o.Dir == "" {
		o.Dir = t.TempDir()
	}
	o.Log = slog.New(slog.DiscardHandler)
	b, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	b.db.NoSync, b.db.MaxBatchDelay = true, 0 // no test pulls the plug
	t.Cleanup(func() { _ = b.Close() })
	return b
}

func add(t *testing.T, b *Book, events ...metric.Event) []Event {
	t.Helper()
	added, refused, err := b.AddEvents(t.Context(), events)
	if err != nil || len(refused) > 0 {
		t.Fatalf("%v %v", refused, err)
	}
	return added
}

// titles lists the titles of the events that f selects.
func titles(t *testing.T, b *Book, f Filter) string {
	t.Helper()
	events, err := b.Events(t.Context(), f)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, e := range events {
		out = append(out, e.Title)
	}
	return strings.Join(out, " ")
}

func TestEventsAreListedNewestFirst(t *testing.T) {
	c := &clock{t0}
	b := open(t, Options{Now: c.now})
	add(t, b,
		metric.Event{Title: "b", Time: t0 - 10, Priority: "low", SourceType: "Jenkins", Tags: metric.NewTags("env:prod", "team:x")},
		metric.Event{Title: "c", Time: t0 - 5, Host: "Web-1", Tags: metric.NewTags("env:prod")},
		metric.Event{Title: "d"},
		metric.Event{Title: "a", Time: t0 - 60},
		metric.Event{Title: "e"})
	for _, tt := range []struct {
		f    Filter
		want string
	}{
		{Filter{To: t0}, "e d c b a"},
		{Filter{From: t0 - 10, To: t0 - 1}, "c b"},
		{Filter{From: t0 - 10, To: t0 - 10}, "b"},
		{Filter{From: t0 - 9, To: t0 - 6}, ""},
		{Filter{From: t0 + 1, To: t0 + 9}, ""},
		{Filter{From: t0, To: t0 - 1}, ""},
		{Filter{To: 1 << 62}, "e d c b a"},
		{Filter{To: t0, Priority: "low"}, "b"},
		{Filter{To: t0, Sources: []string{"jenkins", "x"}}, "b"},
		{Filter{To: t0, Tags: []string{"env:prod"}}, "c b"},
		{Filter{To: t0, Tags: []string{"env:prod", "team:x"}}, "b"},
		{Filter{To: t0, Tags: []string{"host:web-1"}}, "c"},
		{Filter{To: t0, Limit: 2}, "e d"},
		{Filter{To: t0, Limit: 2, Skip: 3}, "b a"},
	} {
		if got := titles(t, b, tt.f); got != tt.want {
			t.Errorf("%+v: %q, want %q", tt.f, got, tt.want)
		}
	}
}

func TestEventsAndChecksAndHostsOutliveTheProcess(t *testing.T) {
	c := &clock{t0}
	o := Options{Dir: t.TempDir(), Now: c.now}
	b := open(t, o)
	e := add(t, b, metric.Event{Title: "t", Text: "x", Tags: metric.NewTags("a:b")})[0]
	check := metric.ServiceCheck{Name: "up", Status: metric.CheckCritical, Time: t0, Host: "h", Message: "down", Tags: metric.NewTags("a:b")}
	if refused, err := b.AddChecks(t.Context(), []metric.ServiceCheck{check}); err != nil || refused != nil {
		t.Fatal(refused, err)
	}
	if err := b.SetHost(t.Context(), Host{Name: "H", Agent: "7", OS: "linux", Tags: metric.NewTags("env:prod")}); err != nil {
		t.Fatal(err)
	}
	if err := b.AddRawKeys(t.Context(), map[string]bool{"le": true}); err != nil {
		t.Fatal(err)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	b = open(t, o)
	got, ok, err := b.Event(e.ID)
	want := Event{ID: e.ID, Event: metric.Event{Title: "t", Text: "x", Time: t0, Priority: "normal", AlertType: "info", Tags: metric.NewTags("a:b")}}
	if d := cmp.Diff(want, got); !ok || err != nil || d != "" {
		t.Errorf("%v %v %s", ok, err, d)
	}
	if _, ok, err := b.Event(e.ID + 1); ok || err != nil {
		t.Errorf("an event that is not there: %v %v", ok, err)
	}
	checks, err := b.Checks(t.Context(), "up")
	if d := cmp.Diff([]Check{{ServiceCheck: check, Since: t0, Runs: []Run{{t0, metric.CheckCritical}}}}, checks); err != nil || d != "" {
		t.Errorf("%v %s", err, d)
	}
	if got := b.HostTags("h"); got.String() != "env:prod" {
		t.Errorf("the host has tags %v", got)
	}
	if d := cmp.Diff([]Host{{Name: "H", Agent: "7", OS: "linux", Tags: metric.NewTags("env:prod"), Seen: t0}}, b.Hosts()); d != "" {
		t.Error(d)
	}
	if !b.raw.has("le") || b.events.Load() != 1 || b.checks.Load() != 1 || b.eventBytes.Load() == 0 {
		t.Errorf("loaded %v, %d events of %d bytes, %d checks", b.raw.all, b.events.Load(), b.eventBytes.Load(), b.checks.Load())
	}
}

func TestOldestEventsMakeRoom(t *testing.T) {
	c := &clock{t0}
	reg := prometheus.NewRegistry()
	b := open(t, Options{Now: c.now, MaxEvents: 3, Registerer: reg})
	for i := range 5 {
		add(t, b, metric.Event{Title: fmt.Sprint(i), Time: t0 + int64(i)})
	}
	if got := titles(t, b, Filter{To: t0 + 9}); got != "4 3 2" {
		t.Errorf("kept %q", got)
	}
	if n := testutil.ToFloat64(b.metrics.dropped.WithLabelValues(kindEvent)); n != 2 {
		t.Errorf("counted %v dropped", n)
	}
	b = open(t, Options{Now: c.now, MaxEventBytes: 3000})
	for i := range 20 {
		add(t, b, metric.Event{Title: fmt.Sprint(i), Text: strings.Repeat("x", 800)})
	}
	if n := b.eventBytes.Load(); n > 3000 || n < 1500 {
		t.Errorf("%d bytes of events", n)
	}
	if got := titles(t, b, Filter{To: t0}); got != "19 18" && got != "19 18 17" {
		t.Errorf("kept %q", got)
	}
}

func TestEventsBeyondTheirBounds(t *testing.T) {
	c := &clock{t0}
	b := open(t, Options{Now: c.now})
	tags := make([]string, 300)
	for i := range tags {
		tags[i] = fmt.Sprint("t:", i)
	}
	added, refused, err := b.AddEvents(t.Context(), []metric.Event{
		{Title: "past", Time: t0 - 18*3600 - 1}, {Title: "future", Time: t0 + 2*3600 + 1},
		{Title: strings.Repeat("ü", 600), Text: strings.Repeat("€", 5000), AggregationKey: strings.Repeat("k", 200), Tags: metric.NewTags(tags...), Host: strings.Repeat("h", 300)},
		{Title: "fine\xff", Priority: "urgent"},
	})
	if err != nil || len(refused) != 2 || !strings.Contains(refused[0], `event "past": its time`) || len(added) != 2 {
		t.Fatalf("%d added, refused %v, %v", len(added), refused, err)
	}
	e := added[0]
	if e.Title != strings.Repeat("ü", 500) || e.Text != strings.Repeat("€", 4000) || len(e.AggregationKey) != 100 || len(e.Tags) != maxEventTags || len(e.Host) != 255 {
		t.Errorf("kept %+v", e)
	}
	if e := added[1]; e.Title != "fine\uFFFD" || e.Priority != "normal" {
		t.Errorf("kept %+v", e)
	}
	if n := testutil.ToFloat64(b.metrics.refused.WithLabelValues(kindEvent, reasonTime)); n != 2 {
		t.Errorf("counted %v refused", n)
	}
	if n := testutil.ToFloat64(b.metrics.cut.WithLabelValues(kindEvent)); n != 2 {
		t.Errorf("counted %v cut", n)
	}
}

func TestChecksKeepTheirHistory(t *testing.T) {
	c := &clock{t0}
	b := open(t, Options{Now: c.now})
	run := func(at int64, s metric.CheckStatus) {
		t.Helper()
		if _, err := b.AddChecks(t.Context(), []metric.ServiceCheck{{Name: "up", Host: "h", Time: at, Status: s}}); err != nil {
			t.Fatal(err)
		}
	}
	state := func() Check {
		t.Helper()
		all, err := b.Checks(t.Context(), "up")
		if err != nil || len(all) != 1 {
			t.Fatal(all, err)
		}
		return all[0]
	}
	run(t0-30, 0)
	run(t0-15, 2)
	run(t0, 2)
	run(t0-20, 1) // late
	if d := cmp.Diff([]Run{{t0, 2}, {t0 - 15, 2}, {t0 - 20, 1}, {t0 - 30, 0}}, state().Runs); d != "" || state().Since != t0-15 || state().Status != 2 {
		t.Errorf("since %d %s", state().Since, d)
	}
	for i := range 40 {
		run(t0+int64(i), 0)
	}
	if s := state(); len(s.Runs) != keptRuns || s.Since != t0 || s.Time != t0+39 {
		t.Errorf("%+v", s)
	}
}

func TestChecksBeyondTheirBounds(t *testing.T) {
	c := &clock{t0}
	b := open(t, Options{Now: c.now, MaxChecks: 2})
	refused, err := b.AddChecks(t.Context(), []metric.ServiceCheck{
		{Name: "old", Time: t0 - 601}, {Name: "a", Host: "1", Message: strings.Repeat("m", 900)}, {Name: "a", Host: "2"}, {Name: "a", Host: "3"}, {Name: "a", Host: "1", Status: 1},
	})
	if err != nil || len(refused) != 2 || !strings.Contains(refused[0], `"old"`) || !strings.Contains(refused[1], "KELPIE_MAX_CHECKS") {
		t.Fatalf("%v %v", refused, err)
	}
	all, err := b.Checks(t.Context(), "")
	if err != nil || len(all) != 2 {
		t.Errorf("%d checks, %v", len(all), err)
	}
	if n := testutil.ToFloat64(b.metrics.refused.WithLabelValues(kindCheck, reasonLimit)); n != 1 {
		t.Errorf("counted %v", n)
	}
}

func TestHostsBeyondTheirLimit(t *testing.T) {
	c := &clock{t0}
	b := open(t, Options{Now: c.now, MaxHosts: 1})
	if err := b.SetHost(t.Context(), Host{Name: "a"}); err != nil {
		t.Fatal(err)
	}
	var limit *LimitError
	if err := b.SetHost(t.Context(), Host{Name: "b"}); !errors.As(err, &limit) || !strings.Contains(err.Error(), "there are 1 hosts, which is the limit (KELPIE_MAX_HOSTS)") {
		t.Errorf("got %v", err)
	}
	if err := b.SetHost(t.Context(), Host{Name: "A", Tags: metric.NewTags("x:y")}); err != nil || b.HostTags("a").String() != "x:y" {
		t.Errorf("%v %v", err, b.HostTags("a"))
	}
}

func TestForget(t *testing.T) {
	c := &clock{t0}
	b := open(t, Options{Now: c.now, Retention: time.Hour, MaxEvents: 10_000})
	many := make([]metric.Event, 2500)
	for i := range many {
		many[i].Title = "old"
	}
	add(t, b, many...)
	checks := []metric.ServiceCheck{{Name: "old"}, {Name: "other"}}
	if _, err := b.AddChecks(t.Context(), checks); err != nil {
		t.Fatal(err)
	}
	if err := b.SetHost(t.Context(), Host{Name: "old", Tags: metric.NewTags("a:b")}); err != nil {
		t.Fatal(err)
	}
	c.sec += 3601
	add(t, b, metric.Event{Title: "new"})
	if _, err := b.AddChecks(t.Context(), checks[1:]); err != nil {
		t.Fatal(err)
	}
	if err := b.SetHost(t.Context(), Host{Name: "new"}); err != nil {
		t.Fatal(err)
	}
	if err := b.Forget(t.Context()); err != nil {
		t.Fatal(err)
	}
	all, err := b.Checks(t.Context(), "")
	if err != nil || len(all) != 1 || all[0].Name != "other" || b.checks.Load() != 1 {
		t.Errorf("checks %v %v", all, err)
	}
	if got := titles(t, b, Filter{To: c.sec}); got != "new" || b.events.Load() != 1 || b.eventBytes.Load() > 300 {
		t.Errorf("events %q, %d of %d bytes", got, b.events.Load(), b.eventBytes.Load())
	}
	if h := b.Hosts(); len(h) != 1 || h[0].Name != "new" || b.HostTags("old") != nil {
		t.Errorf("hosts %v", h)
	}
}

func TestNothingIsKeptWhereNothingMayBeWritten(t *testing.T) {
	full := errors.New("disk is full")
	b := open(t, Options{Writable: func() error { return full }})
	_, _, err1 := b.AddEvents(t.Context(), []metric.Event{{Title: "t"}})
	_, err2 := b.AddChecks(t.Context(), []metric.ServiceCheck{{Name: "c"}})
	err3 := b.SetHost(t.Context(), Host{Name: "h"})
	err4 := b.AddRawKeys(t.Context(), map[string]bool{"k": true})
	for i, err := range []error{err1, err2, err3, err4} {
		if !errors.Is(err, full) {
			t.Errorf("%d: %v", i, err)
		}
	}
}

func TestOpenSaysWhatIsWrong(t *testing.T) {
	for want, o := range map[string]Options{
		"data directory is not set":     {},
		"must not be negative":          {Dir: t.TempDir(), MaxEvents: -1},
		"KELPIE_DATA_DIR must be writa": {Dir: "/dev/null/x"},
	} {
		if _, err := Open(o); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
}

func TestRunEnds(t *testing.T) {
	b := open(t, Options{})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := b.Run(ctx); err != nil {
		t.Error(err)
	}
}
