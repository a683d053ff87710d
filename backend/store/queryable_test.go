package store

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"kelpie.dev/kelpie/metric"
)

// shop opens a store whose series have every kind of tag.
func shop(t *testing.T) *Store {
	t.Helper()
	s := fleet(t, t.TempDir())
	for i, tags := range [][]string{{"svc:a", "svc:b"}, {"svc:b"}, {"svc"}, {"svc:"}, nil} {
		write(t, s, one("shop.hits", "", tags, metric.Point{Time: surveyed, Value: float64(i)}))
	}
	return s
}

// asked returns the shown svc of shop.hits that the matcher selects.
func asked(t *testing.T, s *Store, m *labels.Matcher) []string {
	t.Helper()
	q, err := s.Queryable().Querier(surveyed*1000, surveyed*1000)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := q.Close(); err != nil {
			t.Error(err)
		}
	}()
	got := []string{}
	set := q.Select(t.Context(), true, nil, labels.MustNewMatcher(labels.MatchEqual, "__name__", "shop.hits"), m)
	for set.Next() {
		got = append(got, set.At().Labels().Get("svc"))
	}
	if err := set.Err(); err != nil {
		t.Error(err)
	}
	return got
}

// TestMatchersSeeWhatIsShown: whatever a matcher is, it selects just the series
// whose shown label it matches.
func TestMatchersSeeWhatIsShown(t *testing.T) {
	s := shop(t)
	defer closed(t, s)
	all := asked(t, s, labels.MustNewMatcher(labels.MatchRegexp, "svc", ".*"))
	if d := cmp.Diff([]string{"", "(empty)", "a,b", "b", "true"}, all); d != "" {
		t.Fatal(d)
	}
	for _, kind := range []labels.MatchType{labels.MatchEqual, labels.MatchNotEqual, labels.MatchRegexp, labels.MatchNotRegexp} {
		for _, text := range []string{"", "a", "b", "a,b", "true", "(empty)", `\(empty\)`, ".+", ".*b", "|b", "x", ".", "a,.*|true"} {
			m, err := labels.NewMatcher(kind, "svc", text)
			if err != nil {
				t.Fatal(err)
			}
			want := []string{}
			for _, v := range all {
				if m.Matches(v) {
					want = append(want, v)
				}
			}
			if d := cmp.Diff(want, asked(t, s, m)); d != "" {
				t.Errorf("%s: %s", m, d)
			}
		}
	}
}

func TestLabelsAreShown(t *testing.T) {
	s := shop(t)
	defer closed(t, s)
	q, err := s.Queryable().Querier(0, surveyed*2000)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = q.Close() }()
	values, _, err := q.LabelValues(t.Context(), "svc", nil, labels.MustNewMatcher(labels.MatchNotEqual, "svc", "true"))
	if d := cmp.Diff([]string{"(empty)", "a,b", "b"}, values); err != nil || d != "" {
		t.Error(err, d)
	}
	names, _, err := q.LabelNames(t.Context(), nil)
	if d := cmp.Diff([]string{"__host__", "__name__", "az", "canary", "env", "host", "pod", "svc"}, names); err != nil || d != "" {
		t.Error(err, d)
	}
}

// TestSecondsShowTheLastWrite also seeks to every millisecond around the points.
func TestSecondsShowTheLastWrite(t *testing.T) {
	s := shop(t)
	defer closed(t, s)
	for sec := range int64(3) {
		for v := range 3 {
			write(t, s, one("again", "", nil, metric.Point{Time: surveyed + 10*sec, Value: float64(10*v) + float64(sec)}))
		}
	}
	read := func(mint, maxt int64, seek int64) []string {
		q, err := s.Queryable().Querier(mint, maxt)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = q.Close() }()
		set := q.Select(t.Context(), false, nil, labels.MustNewMatcher(labels.MatchEqual, "__name__", "again"))
		var got []string
		for set.Next() {
			it := set.At().Iterator(nil)
			kind := it.Seek(seek)
			if again := it.Seek(seek); again != kind {
				t.Errorf("seeking twice gives %v, then %v", kind, again)
			}
			for ; kind != chunkenc.ValNone; kind = it.Next() {
				ms, v := it.At()
				got = append(got, fmt.Sprint(ms-surveyed*1000, ":", v))
			}
		}
		return got
	}
	const at = surveyed * 1000
	for _, tt := range []struct {
		mint, maxt, seek int64
		want             []string
	}{
		{at, at + 20_000, at, []string{"0:20", "10000:21", "20000:22"}},
		{at, at + 19_999, at + 1, []string{"10000:21"}},
		{at + 1, at + 20_000, at, []string{"10000:21", "20000:22"}},
		{at, at, at, []string{"0:20"}},
		{at, at + 20_000, at + 10_000, []string{"10000:21", "20000:22"}},
		{at, at + 20_000, at + 20_001, nil},
	} {
		if d := cmp.Diff(tt.want, read(tt.mint, tt.maxt, tt.seek)); d != "" {
			t.Errorf("from %d to %d, seeking %d: %s", tt.mint-at, tt.maxt-at, tt.seek-at, d)
		}
	}
}
