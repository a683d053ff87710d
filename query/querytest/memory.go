// Package querytest holds an implementation of the query language to the
// scripts in query/testdata.
//
// It owns the script format (see Run) and the simplest possible Source, in
// memory. It does not know what it tests: a store or a running backend joins in
// by being a Target.
package querytest

import (
	"cmp"
	"context"
	"iter"
	"maps"
	"math"
	"slices"
	"strings"

	"kelpie.dev/kelpie/metric"
	"kelpie.dev/kelpie/query"
)

// Memory is a query.DistributionSource and query.PacedSource that scans everything
// it was given. The zero value is empty. It must not be loaded and read at the same time.
type Memory struct {
	byName        map[string]map[string]*metric.Series // metric name, then the rest of the context
	distributions map[string]*metric.Distribution      // by the whole context
}

// Load adds series and distributions. Of two points of a context at the same
// second, the later loaded stays.
func (m *Memory) Load(_ context.Context, series []metric.Series, distributions []metric.Distribution) error {
	if m.byName == nil {
		m.byName = map[string]map[string]*metric.Series{}
		m.distributions = map[string]*metric.Distribution{}
	}
	for _, d := range distributions {
		key := strings.Join([]string{d.Name, d.Host, d.Tags.String()}, "\x00")
		if old := m.distributions[key]; old != nil {
			d.Points = mergeSketches(old.Points, d.Points)
		}
		m.distributions[key] = &d
	}
	for _, s := range series {
		contexts := m.byName[s.Name]
		if contexts == nil {
			contexts = map[string]*metric.Series{}
			m.byName[s.Name] = contexts
		}
		key := strings.Join([]string{s.Host, s.Device, s.Tags.String()}, "\x00")
		c := contexts[key]
		if c == nil {
			c = &metric.Series{}
			contexts[key] = c
		}
		points := merge(c.Points, s.Points)
		*c = s
		c.Points = points
	}
	return nil
}

// merge returns old and more in order of time; more wins a tie.
func merge(old, more []metric.Point) []metric.Point {
	all := slices.Concat(more, old)
	slices.SortStableFunc(all, func(a, b metric.Point) int { return cmp.Compare(a.Time, b.Time) })
	return slices.CompactFunc(all, func(a, b metric.Point) bool { return a.Time == b.Time })
}

func mergeSketches(old, more []metric.SketchPoint) []metric.SketchPoint {
	all := slices.Concat(more, old)
	slices.SortStableFunc(all, func(a, b metric.SketchPoint) int { return cmp.Compare(a.Time, b.Time) })
	return slices.CompactFunc(all, func(a, b metric.SketchPoint) bool { return a.Time == b.Time })
}

// Distributions implements query.DistributionSource.
func (m *Memory) Distributions(_ context.Context, sel query.Selector, from, to int64) iter.Seq2[*metric.Distribution, error] {
	return func(yield func(*metric.Distribution, error) bool) {
		for _, key := range slices.Sorted(maps.Keys(m.distributions)) {
			d := *m.distributions[key]
			if d.Name != sel.Metric || !sel.Scope.Match(query.TagsOf(metric.Series{Host: d.Host, Tags: d.Tags})) {
				continue
			}
			d.Points = slices.DeleteFunc(slices.Clone(d.Points), func(p metric.SketchPoint) bool { return p.Time < from || p.Time > to })
			if len(d.Points) > 0 && !yield(&d, nil) {
				return
			}
		}
	}
}

// Select implements query.Source.
func (m *Memory) Select(_ context.Context, sel query.Selector, from, to int64) ([]metric.Series, error) {
	var out []metric.Series
	for _, s := range m.byName[sel.Metric] {
		if !sel.Scope.Match(query.TagsOf(*s)) {
			continue
		}
		first, _ := slices.BinarySearchFunc(s.Points, from, compareTime)
		end, _ := slices.BinarySearchFunc(s.Points, to+1, compareTime)
		if first < end {
			selected := *s
			selected.Points = s.Points[first:end]
			out = append(out, without(selected, sel))
		}
	}
	return out, nil
}

// without returns s less all that a Source may leave out.
func without(s metric.Series, sel query.Selector) metric.Series {
	if sel.Untagged {
		s.Host, s.Device, s.Tags = "", "", nil
	}
	if newest := s.Points[len(s.Points)-1].Time; sel.Trailing != 0 {
		first, _ := slices.BinarySearchFunc(s.Points, newest-sel.Trailing, compareTime)
		s.Points = s.Points[first:]
	}
	return s
}

// Settled implements query.SettledSource: nothing is.
func (m *Memory) Settled(string) (before int64, state any) { return math.MinInt64 / 2, nil }

// Pace implements query.PacedSource.
func (m *Memory) Pace(name string) (longest int64) {
	for _, s := range m.byName[name] {
		longest = max(longest, s.Interval)
	}
	return longest
}

func compareTime(p metric.Point, t int64) int { return cmp.Compare(p.Time, t) }
