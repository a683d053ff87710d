package record

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"kelpie.dev/kelpie/backend/store"
	"kelpie.dev/kelpie/metric"
	"kelpie.dev/kelpie/query"
	"kelpie.dev/kelpie/query/querytest"
)

// joined is a store below a book. It takes a series HOST as a host's tags and
// RAW as raw keys.
type joined struct {
	*Joined
	book  *Book
	inner querytest.Store
	clock *clock
}

func (j joined) Load(ctx context.Context, series []metric.Series, ds []metric.Distribution) error {
	var rest []metric.Series
	for _, s := range series {
		for _, p := range s.Points {
			j.clock.sec = max(j.clock.sec, p.Time)
		}
		var err error
		switch s.Name {
		case "HOST":
			err = j.book.SetHost(ctx, Host{Name: s.Host, Tags: s.Tags.Union()})
		case "RAW":
			keys := make(map[string]bool)
			for _, key := range []string{"method", "Method", "path"} {
				keys[key] = len(s.Tags.Values(key)) > 0
			}
			err = j.book.AddRawKeys(ctx, keys)
		default:
			rest = append(rest, s)
		}
		if err != nil {
			return err
		}
	}
	return j.inner.Load(ctx, rest, ds)
}

// stored is a store.Store that is loaded at the time of its newest point.
type stored struct {
	*store.Store
	clock *clock
}

func (s stored) Load(ctx context.Context, series []metric.Series, ds []metric.Distribution) error {
	for _, d := range ds {
		for _, p := range d.Points {
			s.clock.sec = max(s.clock.sec, p.Time)
		}
	}
	if err := s.AppendDistributions(ctx, ds); err != nil {
		return err
	}
	return s.Append(ctx, series)
}

func openStore(t testing.TB, c *clock) *store.Store {
	t.Helper()
	st, err := store.Open(store.Options{Dir: t.TempDir(), Now: c.now, MinFree: -1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = st.Close() })
	return st
}

// TestJoin runs this package's scripts, and the language's own beside a host
// with tags, over memory and over the store.
func TestJoin(t *testing.T) {
	for name, inner := range map[string]func(*testing.T, *clock) querytest.Store{
		"memory": func(*testing.T, *clock) querytest.Store { return &querytest.Memory{} },
		"store":  func(t *testing.T, c *clock) querytest.Store { return stored{openStore(t, c), c} },
	} {
		target := func(hosts ...Host) func(t *testing.T) querytest.Target {
			return func(t *testing.T) querytest.Target {
				c := &clock{querytest.Base}
				b := open(t, Options{Now: c.now})
				for _, h := range hosts {
					if err := b.SetHost(t.Context(), h); err != nil {
						t.Fatal(err)
					}
				}
				c.sec = 0 // scripts load what is long past first
				under := inner(t, c)
				return querytest.OnStore(joined{b.Join(under, nil), b, under, c})
			}
		}
		t.Run(name, func(t *testing.T) {
			querytest.Run(t, "testdata", querytest.Base, target())
			querytest.Run(t, "../../query/testdata", querytest.Base, target(Host{Name: "elsewhere", Tags: metric.NewTags("env:prod", "zone:z")}))
		})
	}
}

func TestWithoutHostsNothingIsJoined(t *testing.T) {
	b := open(t, Options{})
	scope := &query.Tag{Key: "a", Value: "b"}
	if p := b.Join(&querytest.Memory{}, nil).plan(scope); p != nil {
		t.Errorf("planned %+v", p)
	}
	if err := b.SetHost(t.Context(), Host{Name: "no tags"}); err != nil {
		t.Fatal(err)
	}
	if p := b.Join(&querytest.Memory{}, nil).plan(scope); p != nil {
		t.Errorf("planned %+v", p)
	}
}

func TestTagsOfAMetricHoldItsHostsTags(t *testing.T) {
	c := &clock{t0}
	st, b := openStore(t, c), open(t, Options{Now: c.now})
	if err := b.SetHost(t.Context(), Host{Name: "A", Tags: metric.NewTags("env:prod")}); err != nil {
		t.Fatal(err)
	}
	points := []metric.Point{{Time: t0, Value: 1}}
	err := st.Append(t.Context(), []metric.Series{{Name: "m", Host: "a", Tags: metric.NewTags("x:y"), Points: points}, {Name: "n", Host: "b", Points: points}})
	if err != nil {
		t.Fatal(err)
	}
	j := b.Join(st, st)
	for name, want := range map[string]string{"m": "env:prod,host:a,x:y", "n": "host:b"} {
		if got, err := j.Tags(t.Context(), name, time.Unix(t0-60, 0)); err != nil || got.String() != want {
			t.Errorf("%s: %v %v", name, got, err)
		}
	}
	if got, err := j.Hosts(t.Context(), "", time.Unix(t0-60, 0)); err != nil || !slices.Equal(got, []string{"a", "b"}) {
		t.Errorf("hosts %v %v", got, err)
	}
}

// Any scope over random series and hosts selects what it matches of the union.
func TestJoinSelectsWhatTheUnionMatches(t *testing.T) {
	b := open(t, Options{Now: (&clock{t0}).now})
	word := rapid.SampledFrom([]string{"k:1", "k:2", "j:1", "j:2", "bare", "host:h1", "K:1", "k:1_"})
	var leaf, scopes *rapid.Generator[query.Scope]
	leaf = rapid.OneOf(
		rapid.Just[query.Scope](query.All{}),
		rapid.Map(rapid.SampledFrom([]query.Tag{{Key: "k", Value: "1"}, {Key: "k", Value: "2"}, {Key: "j", Value: "1"}, {Key: "j", Value: "*"}, {Key: "host", Value: "h1"}}), func(v query.Tag) query.Scope { return &v }),
		rapid.Just[query.Scope](&query.Bare{Value: "bare"}),
		rapid.Just[query.Scope](&query.In{Key: "k", Values: []string{"1", "3"}}))
	scopes = rapid.Deferred(func() *rapid.Generator[query.Scope] {
		terms := rapid.SliceOfN(scopes, 2, 3)
		return rapid.OneOf(leaf, leaf, leaf,
			rapid.Map(scopes, func(s query.Scope) query.Scope { return &query.Not{X: s} }),
			rapid.Map(terms, func(s []query.Scope) query.Scope { return &query.And{Terms: s} }),
			rapid.Map(terms, func(s []query.Scope) query.Scope { return &query.Or{Terms: s} }))
	})
	if err := b.AddRawKeys(t.Context(), map[string]bool{"k": true, "K": true}); err != nil {
		t.Fatal(err)
	}
	rapid.Check(t, func(t *rapid.T) {
		hosts := []string{"h1", "h2", "h3"}
		for _, h := range hosts {
			var tags metric.Tags
			for _, tag := range rapid.SliceOfN(word, 0, 2).Draw(t, "tags of "+h) {
				tags = tags.Union(metric.NormalizeTag(tag))
			}
			if err := b.SetHost(context.Background(), Host{Name: h, Tags: tags}); err != nil {
				t.Fatal(err)
			}
		}
		var m querytest.Memory
		want := make(map[string]bool)
		scope := scopes.Draw(t, "scope")
		for i := range 6 {
			s := metric.Series{Name: "m", Host: rapid.SampledFrom(append(hosts, "")).Draw(t, "host"), Points: []metric.Point{{Time: t0}},
				Tags: metric.NewTags(append(rapid.SliceOfN(word, 0, 3).Draw(t, "tags"), fmt.Sprint("id:", i))...)}
			if err := m.Load(context.Background(), []metric.Series{s}, nil); err != nil {
				t.Fatal(err)
			}
			var normalized metric.Tags
			for _, tag := range s.Tags {
				normalized = normalized.Union(metric.NormalizeTag(tag))
			}
			s.Tags = normalized.Union(b.HostTags(s.Host)...)
			if scope.Match(query.TagsOf(s)) {
				want[s.Tags.String()] = true
			}
		}
		got := make(map[string]bool)
		found, err := b.Join(&m, nil).Select(context.Background(), query.Selector{Metric: "m", Scope: scope}, t0, t0)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range found {
			if got[s.Tags.String()] {
				t.Fatalf("selected twice: %v", s.Tags)
			}
			got[s.Tags.String()] = true
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Fatalf("%s: (-want +got)\n%s", scope, d)
		}
	})
}

func BenchmarkJoinedSelect(b *testing.B) {
	c := &clock{t0}
	st, book := openStore(b, c), open(b, Options{Now: c.now})
	series := make([]metric.Series, 10_000)
	for i := range series {
		series[i] = metric.Series{Name: "m", Host: fmt.Sprint("h", i%100), Tags: metric.NewTags(fmt.Sprint("pod:", i), "app:x"), Points: []metric.Point{{Time: t0, Value: 1}}}
	}
	if err := st.Append(b.Context(), series); err != nil {
		b.Fatal(err)
	}
	bench := func(name string, scope query.Scope) {
		b.Run(name, func(b *testing.B) {
			j := book.Join(st, st)
			for b.Loop() {
				if _, err := j.Select(b.Context(), query.Selector{Metric: "m", Scope: scope}, t0, t0); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	bench("no host tags", query.All{})
	for i := range 100 {
		if err := book.SetHost(b.Context(), Host{Name: fmt.Sprint("h", i), Tags: metric.NewTags("cluster:c", fmt.Sprint("rack:", i/5))}); err != nil {
			b.Fatal(err)
		}
	}
	bench("all", query.All{})
	bench("one rack", &query.Tag{Key: "rack", Value: "3"})
}
