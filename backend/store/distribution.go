package store

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math"
	"slices"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"kelpie.dev/kelpie/metric"
	"kelpie.dev/kelpie/query"
)

// The parts of a distribution: series of the TSDB that differ in partLabel. A
// histogram keeps neither minimum nor maximum, and its buckets do not tell them
// exactly; so these are series of their own, with a sample at each histogram's
// millisecond. A series of points has no such label.
const (
	partBins = "bins"
	partMin  = "min"
	partMax  = "max"

	partsPerDistribution = 3
)

// part is the part of it that stands for the context.
func (it *item) part() string {
	if it.isDistribution {
		return partBins
	}
	return ""
}

// AppendDistributions writes sketches as Append writes points: a sketch is
// counted, refused or durable as a whole.
func (s *Store) AppendDistributions(ctx context.Context, ds []metric.Distribution) error {
	return s.AppendDistributionsTelling(ctx, ds, nil)
}

// AppendDistributionsTelling is AppendDistributions that tells of what it
// refuses, as AppendTelling does.
func (s *Store) AppendDistributionsTelling(ctx context.Context, ds []metric.Distribution, tell func(distribution int, reason string)) error {
	items := make([]item, len(ds))
	contexts := make([]metric.Series, len(ds))
	for i := range ds {
		d := &ds[i]
		contexts[i] = metric.Series{Name: d.Name, Host: d.Host, Tags: d.Tags}
		items[i] = item{Series: &contexts[i], isDistribution: true, sketches: d.Points}
	}
	return s.append(ctx, items, arrivals{distributions: ds, tell: tell})
}

// refusalOf is the reason not to take p, or "".
func (b *batch) refusalOf(p *metric.SketchPoint) string {
	s := &p.Sketch
	if reason := b.refusal(metric.Point{Time: p.Time}); reason != "" {
		return reason
	}
	for _, v := range [...]float64{s.Min, s.Max, s.Sum} {
		if math.IsNaN(v) || math.IsInf(v, 0) {
			return ReasonNotFinite
		}
	}
	last := len(s.Bins) - 1
	switch {
	case last < 0 || s.Count == 0:
		return ReasonEmpty
	case s.Bins[0].Key < -metric.SketchMaxKey, s.Bins[last].Key > metric.SketchMaxKey:
		return ReasonNotFinite
	case s.Min > s.Max:
		return ReasonInvalid
	}
	return ""
}

// sketch appends p with its minimum and maximum, all at one millisecond. It
// returns what point does.
func (b *batch) sketch(st *contextState, it *item, p *metric.SketchPoint) (reason string, err error) {
	if reason := b.refusalOf(p); reason != "" {
		return reason, nil
	}
	ms := st.timestamp(p.Time, b.now, false)
	reason, err = b.put(&st.ref, it, partBins, sample{ms: ms, histogram: histogramOf(&p.Sketch)})
	if reason != "" || err != nil {
		return reason, err
	}
	if reason, err = b.put(&st.extremes[0], it, partMin, sample{ms: ms, value: p.Sketch.Min}); reason != "" || err != nil {
		return reason, err
	}
	return b.put(&st.extremes[1], it, partMax, sample{ms: ms, value: p.Sketch.Max})
}

// Distributions implements query.DistributionSource. It yields a *LimitError
// for a selection beyond Options.MaxSelectSeries or MaxSelectPoints.
func (s *Store) Distributions(ctx context.Context, sel query.Selector, from, to int64) iter.Seq2[*metric.Distribution, error] {
	return func(yield func(*metric.Distribution, error) bool) {
		n := s.catalog.get(sel.Metric)
		if n == nil || !n.dist.Load() || from > to {
			return
		}
		s.mu.RLock()
		defer s.mu.RUnlock()
		r := distributionReader{store: s, sel: sel, from: from, to: to}
		if err := r.read(ctx, yield); err != nil {
			yield(nil, fmt.Errorf("select %s: %w", sel.Metric, err))
		}
	}
}

// distributionReader reads the distributions of one selection, one at a time.
type distributionReader struct {
	store    *Store
	sel      query.Selector
	from, to int64

	series, points int // read so far
	it, extremesIt chunkenc.Iterator
	h              *histogram.Histogram
	d              metric.Distribution // the current one; its memory serves the next
	times          []int64             // milliseconds of its points
}

func (r *distributionReader) read(ctx context.Context, yield func(*metric.Distribution, error) bool) error {
	if r.store.db == nil {
		return ErrClosed
	}
	q, err := r.store.db.Querier(r.from*1000, r.to*1000+999)
	if err != nil {
		return err
	}
	defer func() { _ = q.Close() }()
	sets := make(map[string]*partSet, partsPerDistribution)
	hints := &storage.SelectHints{Start: r.from * 1000, End: r.to*1000 + 999}
	for _, part := range [...]string{partBins, partMin, partMax} {
		matchers, err := r.store.matchers(r.sel)
		if err == nil {
			matchers, err = add(matchers, labels.MatchEqual, partLabel, part)
		}
		if err != nil {
			return err
		}
		sets[part] = &partSet{set: q.Select(ctx, true, hints, matchers...)}
	}
	for bins := sets[partBins]; bins.next(); {
		if err := ctx.Err(); err != nil {
			return err
		}
		d, err := r.distribution(bins, sets[partMin], sets[partMax])
		if err != nil {
			return err
		}
		if d != nil && !yield(d, nil) {
			return nil
		}
	}
	return errors.Join(sets[partBins].set.Err(), sets[partMin].set.Err(), sets[partMax].set.Err())
}

// distribution reads the current one of bins; nil if it has no point or is not
// in the scope.
func (r *distributionReader) distribution(bins, minima, maxima *partSet) (*metric.Distribution, error) {
	m := decodeLabels(bins.series.Labels())
	if !r.sel.Scope.Match(query.TagsOf(m)) {
		return nil, nil
	}
	d := &r.d
	d.Name, d.Host, d.Tags, d.Points = m.Name, m.Host, m.Tags, d.Points[:0]
	if err := r.readBins(bins.series); err != nil || len(d.Points) == 0 {
		return nil, err
	}
	r.series++
	r.points += len(d.Points)
	switch limits := r.store.bounds.Load(); {
	case r.series > limits.MaxSelectSeries:
		return nil, &LimitError{What: "series", Limit: limits.MaxSelectSeries}
	case r.points > limits.MaxSelectPoints:
		return nil, &LimitError{What: "points", Limit: limits.MaxSelectPoints}
	}
	err := r.readExtremes(minima.find(bins.key), func(i int, v float64) { d.Points[i].Sketch.Min = v })
	if err != nil {
		return nil, err
	}
	return d, r.readExtremes(maxima.find(bins.key), func(i int, v float64) { d.Points[i].Sketch.Max = v })
}

// readBins fills r.d's points with the last histogram of each second.
func (r *distributionReader) readBins(series storage.Series) error {
	d := &r.d
	r.times = r.times[:0]
	r.it = series.Iterator(r.it)
	for kind := r.it.Next(); kind != chunkenc.ValNone; kind = r.it.Next() {
		if kind != chunkenc.ValHistogram {
			continue
		}
		var ms int64
		ms, r.h = r.it.AtHistogram(r.h)
		sec := ms / 1000
		if sec < r.from || sec > r.to {
			continue
		}
		last := len(r.times) - 1
		if last < 0 || r.times[last]/1000 != sec {
			last++
			r.times = append(r.times, ms)
			d.Points = slices.Grow(d.Points, 1)[:last+1] // with the bins that lie there
		}
		r.times[last], d.Points[last].Time = ms, sec
		sketchOf(&d.Points[last].Sketch, r.h)
	}
	return r.it.Err()
}

// readExtremes calls set for every point, by its millisecond, that series has a
// value for. Where it has none, as after a crash in the middle of a write that
// was never acknowledged, the value of the outermost bin stands.
func (r *distributionReader) readExtremes(series storage.Series, set func(i int, v float64)) error {
	if series == nil {
		return nil
	}
	r.extremesIt = series.Iterator(r.extremesIt)
	i := 0
	for r.extremesIt.Next() == chunkenc.ValFloat {
		ms, v := r.extremesIt.At()
		for i < len(r.times) && r.times[i] < ms {
			i++
		}
		if i < len(r.times) && r.times[i] == ms {
			set(i, v)
		}
	}
	return r.extremesIt.Err()
}

// partSet walks the series of one part, in the order of their other labels.
type partSet struct {
	set    storage.SeriesSet
	series storage.Series // the current one; nil after the last
	key    labels.Labels  // of it, without its part
	begun  bool
}

func (p *partSet) next() bool {
	p.begun, p.series, p.key = true, nil, labels.EmptyLabels()
	if !p.set.Next() {
		return false
	}
	p.series = p.set.At()
	p.key = labels.NewBuilder(p.series.Labels()).Del(partLabel).Labels()
	return true
}

// find returns the series with the given key, or nil. Keys must rise from call
// to call.
func (p *partSet) find(key labels.Labels) storage.Series {
	if !p.begun {
		p.next()
	}
	for p.series != nil && labels.Compare(p.key, key) < 0 {
		p.next()
	}
	if p.series == nil || labels.Compare(p.key, key) != 0 {
		return nil
	}
	return p.series
}
