package store

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"kelpie.dev/kelpie/metric"
	"kelpie.dev/kelpie/metric/payload"
	"kelpie.dev/kelpie/query"
)

const surveyed = 1_700_006_400

// scopeOf parses the scope of a query.
func scopeOf(t *testing.T, text string) query.Scope {
	t.Helper()
	e, err := query.Parse("m{" + text + "}")
	if err != nil {
		t.Fatal(err)
	}
	return e.(*query.Query).Scope
}

// fleet opens a store with a few contexts of two hosts.
func fleet(t *testing.T, dir string) *Store {
	t.Helper()
	s, err := Open(Options{Dir: dir, MinFree: -1, Now: func() time.Time { return time.Unix(surveyed+600, 0) }, MaxMetricNames: 9})
	if err != nil {
		t.Fatal(err)
	}
	var batch []metric.Series
	for i, tags := range [][]string{{"env:prod", "az:1", "pod:x"}, {"env:prod", "az:1", "svc:a", "svc:b"}, {"env:prod", "az:2", "canary"}} {
		for _, name := range []string{"hits", "bytes"}[:1+i%2] {
			batch = append(batch, metric.Series{Name: name, Host: []string{"A", "A", "b"}[i], Tags: metric.NewTags(tags...), Type: metric.Gauge, Interval: 10,
				Points: []metric.Point{{Time: surveyed + int64(i), Value: 1}}})
		}
	}
	if err := s.Append(t.Context(), batch); err != nil {
		t.Fatal(err)
	}
	d := metric.Distribution{Name: "latency", Host: "b", Tags: metric.NewTags("env:prod", "az:2"), Points: []metric.SketchPoint{{Time: surveyed + 9}}}
	var b metric.SketchBuilder
	b.Add(4, 1)
	d.Points[0].Sketch = b.Sketch()
	if err := s.AppendDistributions(t.Context(), []metric.Distribution{d}); err != nil {
		t.Fatal(err)
	}
	return s
}

func closed(t *testing.T, s *Store) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

func TestSurvey(t *testing.T) {
	s := fleet(t, t.TempDir())
	defer closed(t, s)
	for _, tt := range []struct {
		metric, scope string
		want          int
	}{
		{"hits", "*", 3}, {"hits", "env:prod", 3}, {"hits", "svc:a", 1}, {"hits", "svc:c", 0}, {"hits", "!svc:a", 2}, {"hits", "canary", 1},
		{"hits", "host:a AND NOT pod:x", 1}, {"hits", "az IN (1,2)", 3}, {"hits", "az:1 OR canary", 3}, {"hits", "pod:x OR canary", 2}, {"hits", "pod:*", 1},
		{"latency", "*", 1}, {"unknown", "*", 0},
	} {
		sel := query.Selector{Metric: tt.metric, Scope: scopeOf(t, tt.scope)}
		n, interval, err := s.Reach(t.Context(), sel, surveyed, surveyed+60)
		if err != nil || n != int64(tt.want) || tt.metric == "hits" && interval != 10 {
			t.Errorf("%s{%s}: %d contexts every %d s, %v; want %d", tt.metric, tt.scope, n, interval, err, tt.want)
		}
		found := 0
		for m, err := range s.Contexts(t.Context(), sel, surveyed, surveyed+60) {
			if err != nil || m.Name != tt.metric {
				t.Errorf("%+v, %v", m, err)
			}
			found++
		}
		if found != tt.want {
			t.Errorf("%s{%s}: yields %d contexts, want %d", tt.metric, tt.scope, found, tt.want)
		}
	}
}

func TestNames(t *testing.T) {
	s := fleet(t, t.TempDir())
	defer closed(t, s)
	for _, tt := range []struct {
		scope string
		since int64
		want  []string
	}{
		{"*", surveyed, []string{"bytes", "hits", "latency"}},
		{"*", surveyed + 601, []string{}}, // a new name counts as seen when it came
		{"env:prod AND NOT az:1", surveyed, []string{"hits", "latency"}},
		{"svc:a OR nothing:here", surveyed, []string{"bytes", "hits"}},
		{"env:dev", surveyed, []string{}},
	} {
		got, err := s.Names(t.Context(), scopeOf(t, tt.scope), time.Unix(tt.since, 0))
		if d := cmp.Diff(tt.want, got); err != nil || d != "" {
			t.Errorf("%s: %v %s", tt.scope, err, d)
		}
	}
}

func TestHosts(t *testing.T) {
	s := fleet(t, t.TempDir())
	defer closed(t, s)
	got, err := s.HostTags(t.Context(), time.Unix(surveyed, 0))
	want := map[string]metric.Tags{"a": {"az:1", "env:prod"}, "b": {"az:2", "env:prod"}}
	if d := cmp.Diff(want, got); err != nil || d != "" {
		t.Error(err, d)
	}
	for host, want := range map[string]int64{"a": surveyed + 1, "b": surveyed + 9, "c": 0} {
		if at, err := s.LastReported(t.Context(), host, time.Unix(surveyed-60, 0)); err != nil || at != want {
			t.Errorf("%s reported at %d, %v; want %d", host, at, err, want)
		}
	}
}

func TestMetadataOutlivesSubmissionsAndProcesses(t *testing.T) {
	dir := t.TempDir()
	s := fleet(t, dir)
	text, count, every := "what it is", "count", int64(30)
	set := payload.MetricMetadata{Description: &text, Type: &count, StatsdInterval: &every, Unit: &text, PerUnit: &count}
	edit := func(name string, m payload.MetricMetadata) error {
		return s.EditMetadata(name, func(payload.MetricMetadata) (payload.MetricMetadata, error) { return m, nil })
	}
	for name, m := range map[string]payload.MetricMetadata{"hits": set, "latency": set} {
		if err := edit(name, m); err != nil {
			t.Fatal(err)
		}
	}
	closed(t, s)
	s = fleet(t, dir) // which submits again
	defer closed(t, s)
	if d := cmp.Diff(set, s.Metadata("hits")); d != "" {
		t.Error(d)
	}
	m, _, _ := s.Describe("hits")
	if m.Type != metric.Count || m.Interval != 30 || m.Unit != text {
		t.Errorf("hits is described as %+v", m)
	}
	found, err := s.Select(t.Context(), query.Selector{Metric: "hits", Scope: query.All{}}, surveyed, surveyed+60)
	if err != nil || len(found) != 3 || found[0].Type != metric.Count || found[0].Interval != 30 || found[0].Unit != text+"/count" {
		t.Errorf("queries see %+v, %v", found, err)
	}
	if err := edit("hits", payload.MetricMetadata{}); err != nil {
		t.Fatal(err)
	}
	if m, _, _ := s.Describe("hits"); m.Type != metric.Gauge || m.Interval != 10 || m.Unit != "" {
		t.Errorf("with nothing set, hits is described as %+v", m)
	}
	var limit *LimitError
	for i := range 9 {
		err = edit(fmt.Sprint("other", i), set)
	}
	if !errors.As(err, &limit) || limit.Limit != 9 {
		t.Errorf("one more than the limit: %v", err)
	}
}

func TestTagConfigurations(t *testing.T) {
	dir := t.TempDir()
	s := fleet(t, dir)
	c := payload.TagConfiguration{Tags: []string{"env"}, MetricType: "gauge", CreatedAt: time.Unix(surveyed, 0).UTC()}
	edit := func(name string, to *payload.TagConfiguration, err error) (was *payload.TagConfiguration, got error) {
		got = s.EditTagConfiguration(name, func(old *payload.TagConfiguration) (*payload.TagConfiguration, error) {
			was = old
			return to, err
		})
		return was, got
	}
	if was, err := edit("hits", &c, nil); was != nil || err != nil {
		t.Errorf("%+v, %v", was, err)
	}
	refused := errors.New("no")
	if was, err := edit("hits", nil, refused); was == nil || !errors.Is(err, refused) {
		t.Errorf("%+v, %v", was, err)
	}
	closed(t, s)
	s = fleet(t, dir)
	defer closed(t, s)
	if d := cmp.Diff(map[string]payload.TagConfiguration{"hits": c}, s.TagConfigurations()); d != "" {
		t.Error(d)
	}
	if _, err := edit("hits", nil, nil); err != nil || len(s.TagConfigurations()) != 0 {
		t.Errorf("after its removal: %+v, %v", s.TagConfigurations(), err)
	}
}
