package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/goleak"

	"kelpie.dev/kelpie/metric"
	"kelpie.dev/kelpie/query"
)

func TestMain(m *testing.M) {
	if dir := childDir(); dir != "" {
		runChild(dir)
		return
	}
	goleak.VerifyTestMain(m)
}

const t0 = 1_700_000_000

// fixed is a clock that stands at t0 until it is moved.
type fixed struct{ sec int64 }

func (f *fixed) now() time.Time { return time.Unix(f.sec, 0) }

func open(t *testing.T, o Options) *Store {
	t.Helper()
	if o.Dir == "" {
		o.Dir = t.TempDir()
	}
	s, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func write(t *testing.T, s *Store, series ...metric.Series) {
	t.Helper()
	if err := s.Append(t.Context(), series); err != nil {
		t.Fatal(err)
	}
}

func one(name, host string, tags []string, points ...metric.Point) metric.Series {
	return metric.Series{Name: name, Host: host, Tags: metric.NewTags(tags...), Type: metric.Gauge, Interval: 10, Points: points}
}

// read returns the selected points by context, written "host|tags".
func read(t *testing.T, s *Store, name, scope string) map[string][]metric.Point {
	t.Helper()
	got, err := s.Select(t.Context(), parseSelector(t, name, scope), t0-7200, t0+7200)
	if err != nil {
		t.Fatal(err)
	}
	out := make(map[string][]metric.Point)
	for _, m := range got {
		key := m.Host + "|" + m.Tags.String()
		if out[key] != nil {
			t.Errorf("context %s came twice", key)
		}
		out[key] = m.Points
	}
	return out
}

func active(t *testing.T, s *Store, since int64, tags ...string) []string {
	t.Helper()
	scope := "*"
	if len(tags) > 0 {
		scope = strings.Join(tags, ",")
	}
	got, err := s.Names(t.Context(), parseSelector(t, "m", scope).Scope, time.Unix(since, 0))
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func parseSelector(t testing.TB, name, scope string) query.Selector {
	t.Helper()
	e, err := query.Parse("avg:" + name + "{" + scope + "}")
	if err != nil {
		t.Fatal(err)
	}
	return query.Selector{Metric: name, Scope: e.(*query.Query).Scope}
}

// benchBatch is one point each of n contexts as pods send them.
func benchBatch(n int) []metric.Series {
	batch := make([]metric.Series, n)
	for i := range batch {
		batch[i] = one("bench.requests", fmt.Sprint("node-", i%50), []string{
			"env:prod", "kube_namespace:test", fmt.Sprint("kube_deployment:web-", i%100), fmt.Sprint("pod_name:web-", i), "kube_service:a", "kube_service:b",
		}, metric.Point{Time: t0, Value: float64(i)})
	}
	return batch
}

func TestLastWriteOfASecondWins(t *testing.T) {
	dir, clock := t.TempDir(), &fixed{t0}
	o := Options{Dir: dir, Now: clock.now, MinFree: -1}
	s := open(t, o)
	at := func(sec int64, v float64) metric.Series {
		return one("m", "h", []string{"a:b"}, metric.Point{Time: sec, Value: v})
	}
	write(t, s, at(t0, 1), at(t0, 2))       // twice in a batch
	write(t, s, at(t0, 3))                  // again
	write(t, s, at(t0+10, 4), at(t0+20, 5)) // in order
	clock.sec += 30
	write(t, s, at(t0, 6))                 // out of order, rewrites
	write(t, s, at(t0, 6.25), at(t0, 6.5)) // and at once again
	clock.sec++
	write(t, s, at(t0, 6.75)) // within the same millisecond's worth of age
	if got := read(t, s, "m", "*")["h|a:b"][0].Value; got != 6.75 {
		t.Errorf("the late second holds %v, want the last write 6.75", got)
	}
	clock.sec += 30
	write(t, s, at(t0, 7), at(t0+5, 8)) // out of order, rewrites and fills
	want := map[string][]metric.Point{"h|a:b": {{Time: t0, Value: 7}, {Time: t0 + 5, Value: 8}, {Time: t0 + 10, Value: 4}, {Time: t0 + 20, Value: 5}}}
	if d := cmp.Diff(want, read(t, s, "m", "*")); d != "" {
		t.Error(d)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, o)
	clock.sec += 30
	write(t, s, at(t0+20, 9), at(t0+10, 10)) // rewrites what another process wrote
	want["h|a:b"][2].Value, want["h|a:b"][3].Value = 10, 9
	if d := cmp.Diff(want, read(t, s, "m", "*")); d != "" {
		t.Error("after reopening:", d)
	}
}

func TestRefusedPointsDoNotHarmTheirNeighbours(t *testing.T) {
	reg := prometheus.NewRegistry()
	s := open(t, Options{Now: (&fixed{t0}).now, Registerer: reg, MinFree: -1})
	nan := 0.0
	write(t, s,
		one("m", "", nil, metric.Point{Time: t0 - 3601, Value: 1}, metric.Point{Time: t0, Value: 2}, metric.Point{Time: t0 + 601, Value: 3}),
		one("m", "", []string{"bad:nan"}, metric.Point{Time: t0, Value: nan / nan}),
		one("m", "", []string{"edge:yes"}, metric.Point{Time: t0 - 3600, Value: 4}, metric.Point{Time: t0 + 600, Value: 5}),
		one("never", "", nil, metric.Point{Time: t0 - 90000, Value: 1}),
		one("empty", "", nil))
	want := map[string][]metric.Point{"|": {{Time: t0, Value: 2}}, "|edge:yes": {{Time: t0 - 3600, Value: 4}, {Time: t0 + 600, Value: 5}}}
	if d := cmp.Diff(want, read(t, s, "m", "*")); d != "" {
		t.Error(d)
	}
	expect := `
# HELP kelpie_backend_points_accepted_total Points written durably. The sketch of one bucket is one point.
# TYPE kelpie_backend_points_accepted_total counter
kelpie_backend_points_accepted_total 3
# HELP kelpie_backend_points_refused_total Points discarded although their batch was acknowledged, by reason.
# TYPE kelpie_backend_points_refused_total counter
kelpie_backend_points_refused_total{reason="duplicate"} 0
kelpie_backend_points_refused_total{reason="empty"} 0
kelpie_backend_points_refused_total{reason="future"} 1
kelpie_backend_points_refused_total{reason="invalid"} 0
kelpie_backend_points_refused_total{reason="metric_name_limit"} 0
kelpie_backend_points_refused_total{reason="not_finite"} 1
kelpie_backend_points_refused_total{reason="out_of_order"} 0
kelpie_backend_points_refused_total{reason="past"} 2
kelpie_backend_points_refused_total{reason="series_limit"} 0
kelpie_backend_points_refused_total{reason="total_series_limit"} 0
`
	if err := testutil.GatherAndCompare(reg, strings.NewReader(expect), "kelpie_backend_points_accepted_total", "kelpie_backend_points_refused_total"); err != nil {
		t.Error(err)
	}
	if got := active(t, s, 0); !cmp.Equal(got, []string{"m"}) {
		t.Errorf("active metrics are %v: a metric without a stored point must not be listed", got)
	}
}

func TestLatePointOfAnotherContextIsKept(t *testing.T) {
	clock := &fixed{t0}
	s := open(t, Options{Now: clock.now, MinFree: -1})
	write(t, s, one("m", "ahead", nil, metric.Point{Time: t0 + 600, Value: 1}))
	write(t, s, one("m", "late", nil, metric.Point{Time: t0 - 3600, Value: 2}, metric.Point{Time: t0 - 3590, Value: 3}))
	if got := len(read(t, s, "m", "host:late")["late|"]); got != 2 {
		t.Errorf("%d of 2 points an hour behind were kept", got)
	}
}

func TestSeriesLimit(t *testing.T) {
	var log bytes.Buffer
	clock := &fixed{t0}
	dir := t.TempDir()
	o := Options{Dir: dir, Now: clock.now, MaxMetricSeries: 2, MinFree: -1, Log: slog.New(slog.NewTextHandler(&log, nil))}
	s := open(t, o)
	for i := range 4 {
		write(t, s, one("many", "", []string{fmt.Sprintf("id:%d", i)}, metric.Point{Time: t0, Value: 1}),
			one("other", "", nil, metric.Point{Time: t0 + int64(i), Value: 1}))
	}
	if got := len(read(t, s, "many", "*")); got != 2 {
		t.Errorf("stored %d series, want the limit 2", got)
	}
	if got := len(read(t, s, "other", "*")["|"]); got != 4 {
		t.Errorf("the other metric has %d points, want 4", got)
	}
	st := s.Stats()
	if st.Refused[ReasonCardinality] != 2 || st.RefusedSeries["many"] != 2 {
		t.Errorf("stats are %+v, want 2 refused of many", st)
	}
	if !strings.Contains(log.String(), "metric=many") || !strings.Contains(log.String(), "id:2") {
		t.Errorf("the log does not name what was refused:\n%s", log.String())
	}
	// A lower limit does not take back what was accepted.
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	o.MaxMetricSeries = 1
	s = open(t, o)
	if got := len(read(t, s, "many", "*")); got != 2 {
		t.Errorf("%d series after reopening with a lower limit, want 2", got)
	}
}

func TestCatalogSurvivesRestart(t *testing.T) {
	dir, clock := t.TempDir(), &fixed{t0}
	o := Options{Dir: dir, Now: clock.now, MinFree: -1}
	s := open(t, o)
	m := one("App.Requests", "web-1", []string{"env:prod", "env:eu", "canary"}, metric.Point{Time: t0, Value: 1})
	m.Type, m.Unit = metric.Rate, "byte"
	write(t, s, m)
	m.Type, m.Unit, m.Interval = metric.Unspecified, "", 0
	m.Points[0].Time += 10
	write(t, s, m) // says nothing: what is known stays
	check := func(s *Store) {
		t.Helper()
		got, _, ok := s.Describe("App.Requests")
		want := metric.Series{Name: "App.Requests", Type: metric.Rate, Interval: 10, Unit: "byte"}
		if d := cmp.Diff(want, got); !ok || d != "" {
			t.Errorf("known %v: %s", ok, d)
		}
		for _, tt := range []struct {
			since int64
			tags  []string
			want  int
		}{
			{t0 + 10, nil, 1}, {t0 + 11, nil, 0}, {t0, []string{"host:web-1", "env:eu"}, 1},
			{t0, []string{"env:e*"}, 1}, {t0, []string{"host:web-2"}, 0}, {t0, []string{"canary"}, 1}, {t0, []string{"env"}, 0},
		} {
			if got := active(t, s, tt.since, tt.tags...); len(got) != tt.want {
				t.Errorf("active since %d with %v: %v, want %d", tt.since, tt.tags, got, tt.want)
			}
		}
		if got, err := s.Hosts(t.Context(), "EB", time.Unix(t0, 0)); err != nil || !cmp.Equal(got, []string{"web-1"}) {
			t.Errorf("hosts %v, %v", got, err)
		}
		if got := s.Search("requ"); len(got) != 1 {
			t.Errorf("search: %v", got)
		}
		tags, err := s.Tags(t.Context(), "App.Requests", time.Unix(t0, 0))
		if err != nil || !cmp.Equal(tags, metric.NewTags("canary", "env:eu", "env:prod", "host:web-1")) {
			t.Errorf("tags %v, %v", tags, err)
		}
		series, err := s.Select(t.Context(), parseSelector(t, "App.Requests", "env:eu,host:web-1"), t0, t0+10)
		if err != nil || len(series) != 1 || series[0].Type != metric.Rate || series[0].Interval != 10 || series[0].Unit != "byte" {
			t.Errorf("selected %+v, %v", series, err)
		}
	}
	check(s)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	check(open(t, o))
}

func TestFullDiskRefusesWritesAndServesReads(t *testing.T) {
	s := open(t, Options{Now: (&fixed{t0}).now, MinFree: -1})
	write(t, s, one("m", "", nil, metric.Point{Time: t0, Value: 1}))
	s.opts.MinFree = 1 << 62
	s.checkSpace()
	err := s.Append(t.Context(), []metric.Series{one("m", "", nil, metric.Point{Time: t0 + 1, Value: 1})})
	if !errors.Is(err, ErrNoSpace) {
		t.Errorf("append on a full disk: %v, want ErrNoSpace", err)
	}
	if !errors.Is(s.Ready(), ErrNoSpace) {
		t.Error("a store on a full disk says that it is ready")
	}
	if got := len(read(t, s, "m", "*")); got != 1 {
		t.Error("a full disk must not stop reading")
	}
	s.opts.MinFree = 1
	s.checkSpace()
	write(t, s, one("m", "", nil, metric.Point{Time: t0 + 1, Value: 1}))
}

func TestClosedStore(t *testing.T) {
	s := open(t, Options{Now: (&fixed{t0}).now, MinFree: -1})
	write(t, s, one("m", "", nil, metric.Point{Time: t0, Value: 1}))
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := s.Append(t.Context(), nil); !errors.Is(err, ErrClosed) {
		t.Errorf("append: %v", err)
	}
	if _, err := s.Select(t.Context(), query.Selector{Metric: "m", Scope: query.All{}}, 0, 1); !errors.Is(err, ErrClosed) {
		t.Errorf("select: %v", err)
	}
	if err := s.Ready(); !errors.Is(err, ErrClosed) {
		t.Errorf("ready: %v", err)
	}
}

func TestPanicInTheTSDBEndsRun(t *testing.T) {
	s := open(t, Options{Now: (&fixed{t0}).now, MinFree: -1})
	s.opts.Now = func() time.Time { panic("preallocate: no space left on device") }
	err := s.Append(t.Context(), []metric.Series{one("m", "", nil, metric.Point{Time: t0, Value: 1})})
	if !errors.Is(err, ErrUnavailable) {
		t.Errorf("append: %v, want ErrUnavailable", err)
	}
	if err := s.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "no space left") {
		t.Errorf("Run: %v, want the cause", err)
	}
	s.mu.Lock()
	_ = s.closeDB() // this one holds no lock; the next Close leaves it alone
	s.mu.Unlock()
}

// TestFailedReopeningEndsRun makes the reopening after a failed write fail: only
// a new process can go on, and it must get the catalog.
func TestFailedReopeningEndsRun(t *testing.T) {
	o := Options{Dir: t.TempDir(), Now: (&fixed{t0}).now, MinFree: -1}
	s := open(t, o)
	write(t, s, one("m", "h", nil, metric.Point{Time: t0, Value: 1}))
	wal := filepath.Join(o.Dir, "tsdb", "wal")
	if err := os.Rename(wal, wal+".away"); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(wal, nil, 0o600); err != nil { // a file in the directory's place
		t.Fatal(err)
	}
	s.fail(errors.New("no space left on device"))
	s.heal()
	if err := s.Ready(); !errors.Is(err, ErrClosed) {
		t.Errorf("ready without a database: %v", err)
	}
	if err := s.Run(t.Context()); !errors.Is(err, ErrUnavailable) {
		t.Errorf("Run: %v, want ErrUnavailable", err)
	}
	for range 2 {
		if err := s.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	}
	if err := errors.Join(os.Remove(wal), os.Rename(wal+".away", wal)); err != nil {
		t.Fatal(err)
	}
	if got := len(read(t, open(t, o), "m", "*")); got != 1 {
		t.Errorf("%d contexts after a restart, want 1", got)
	}
}

func TestSelectLimits(t *testing.T) {
	s := open(t, Options{Now: (&fixed{t0}).now, MinFree: -1, MaxSelectSeries: 2, MaxSelectPoints: 3})
	write(t, s, one("m", "a", nil, metric.Point{Time: t0, Value: 1}, metric.Point{Time: t0 + 1, Value: 1}),
		one("m", "b", nil, metric.Point{Time: t0, Value: 1}, metric.Point{Time: t0 + 1, Value: 1}),
		one("m", "c", nil, metric.Point{Time: t0, Value: 1}))
	for _, tt := range []struct {
		to   int64
		what string
	}{{t0, "series"}, {t0 + 1, "points"}} {
		_, err := s.Select(t.Context(), query.Selector{Metric: "m", Scope: query.All{}}, t0, tt.to)
		var limit *LimitError
		if !errors.As(err, &limit) || limit.What != tt.what {
			t.Errorf("select to %d: %v, want a limit on %s", tt.to, err, tt.what)
		}
	}
}

func TestConcurrentAppendsOfNewContexts(t *testing.T) {
	s := open(t, Options{Now: (&fixed{t0}).now, MinFree: -1})
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			for i := range 50 {
				series := []metric.Series{
					one("m", "", []string{fmt.Sprintf("shared:%d", i)}, metric.Point{Time: t0 + int64(w), Value: float64(w)}),
					one("m", "", []string{fmt.Sprintf("own:%d-%d", w, i)}, metric.Point{Time: t0, Value: 1}),
				}
				if err := s.Append(t.Context(), series); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	got := read(t, s, "m", "*")
	if len(got) != 50+8*50 {
		t.Errorf("%d contexts, want %d", len(got), 50+8*50)
	}
	for i := range 50 {
		if n := len(got[fmt.Sprintf("|shared:%d", i)]); n != 8 {
			t.Errorf("shared:%d has %d points, want 8", i, n)
		}
	}
}

func TestRunStopsWithItsContext(t *testing.T) {
	s := open(t, Options{})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestOptionsAreValidated(t *testing.T) {
	for _, o := range []Options{{}, {Dir: "x", Retention: time.Minute}, {Dir: "x", RetentionBytes: -1}, {Dir: "x", MaxMetricSeries: -1}} {
		if _, err := Open(o); err == nil {
			t.Errorf("Open(%+v) succeeded", o)
		}
	}
}

func TestAppendTellsWhatItRefuses(t *testing.T) {
	clock := &fixed{t0}
	s := open(t, Options{Now: clock.now, MinFree: -1, MaxMetricSeries: 1})
	var told []string
	tell := func(i int, reason string) { told = append(told, fmt.Sprint(i, " ", reason)) }
	now := metric.Point{Time: t0, Value: 1}
	err := s.AppendTelling(t.Context(), []metric.Series{
		{Name: "m", Tags: metric.NewTags("a:1"), Points: []metric.Point{now, {Time: t0 - 4000}, {Time: t0, Value: math.NaN()}}},
		{Name: "m", Tags: metric.NewTags("a:2"), Points: []metric.Point{now, now}},
		{Name: "future", Points: []metric.Point{{Time: t0 + 4000}}},
		{Name: "n", Points: []metric.Point{now}},
	}, tell)
	if d := cmp.Diff([]string{"0 past", "0 not_finite", "1 series_limit", "1 series_limit", "2 future"}, told); err != nil || d != "" {
		t.Errorf("%v %s", err, d)
	}
	told = nil
	err = s.AppendDistributionsTelling(t.Context(), []metric.Distribution{{Name: "d", Points: []metric.SketchPoint{{Time: t0}}}}, tell)
	if d := cmp.Diff([]string{"0 empty"}, told); err != nil || d != "" {
		t.Errorf("%v %s", err, d)
	}
}
