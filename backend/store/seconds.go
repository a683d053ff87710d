package store

import (
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
)

// milliseconds since 1970. It is int64; by that name go vet would take the Seek of
// a chunk's iterator for one of io.Seeker that went wrong.
type milliseconds = int64

// seconds shows the last sample of each second, at the second, of what it wraps.
type seconds struct {
	in    chunkenc.Iterator
	begun bool
	ahead chunkenc.ValueType // of in's sample, which is not shown yet

	kind chunkenc.ValueType // of the shown sample
	ms   int64
	v    float64
	h    *histogram.Histogram
	fh   *histogram.FloatHistogram
}

// Next implements chunkenc.Iterator.
func (s *seconds) Next() chunkenc.ValueType {
	if !s.begun {
		s.begun = true
		s.ahead = s.in.Next()
	}
	if s.kind = s.ahead; s.kind == chunkenc.ValNone {
		return s.kind
	}
	s.ms = floorSecond(s.in.AtT())
	for s.ahead != chunkenc.ValNone && floorSecond(s.in.AtT()) == s.ms {
		switch s.kind = s.ahead; s.kind {
		case chunkenc.ValFloat:
			_, s.v = s.in.At()
		case chunkenc.ValHistogram:
			_, s.h = s.in.AtHistogram(nil)
		case chunkenc.ValFloatHistogram:
			_, s.fh = s.in.AtFloatHistogram(nil)
		}
		s.ahead = s.in.Next()
	}
	return s.kind
}

// Seek implements chunkenc.Iterator.
func (s *seconds) Seek(ms milliseconds) chunkenc.ValueType {
	if s.begun && s.kind != chunkenc.ValNone && s.ms >= ms {
		return s.kind
	}
	ms = -floorSecond(-ms) // what is shown at or after ms lies there
	if !s.begun || s.ahead != chunkenc.ValNone && s.in.AtT() < ms {
		s.begun = true
		s.ahead = s.in.Seek(ms)
	}
	return s.Next()
}

// At implements chunkenc.Iterator.
func (s *seconds) At() (int64, float64) { return s.ms, s.v }

// AtHistogram implements chunkenc.Iterator.
func (s *seconds) AtHistogram(h *histogram.Histogram) (int64, *histogram.Histogram) {
	if h == nil {
		return s.ms, s.h.Copy()
	}
	s.h.CopyTo(h)
	return s.ms, h
}

// AtFloatHistogram implements chunkenc.Iterator.
func (s *seconds) AtFloatHistogram(fh *histogram.FloatHistogram) (int64, *histogram.FloatHistogram) {
	switch {
	case s.kind == chunkenc.ValHistogram:
		return s.ms, s.h.ToFloat(fh)
	case fh == nil:
		return s.ms, s.fh.Copy()
	}
	s.fh.CopyTo(fh)
	return s.ms, fh
}

// AtT implements chunkenc.Iterator.
func (s *seconds) AtT() int64 { return s.ms }

// AtST implements chunkenc.Iterator. Points here have no start.
func (s *seconds) AtST() int64 { return 0 }

// Err implements chunkenc.Iterator.
func (s *seconds) Err() error { return s.in.Err() }
