package dialect

import (
	"errors"
	"fmt"
	"math"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"kelpie.dev/kelpie/metric"
)

// Bounds of one series of remote write. Names and values are kept as they are,
// so that they are not cut either.
const (
	maxWriteName  = 512       // bytes of a metric's name
	maxLabelValue = 2048      // bytes of a label's name or value
	maxLabels     = 500       // of a series
	maxAllLabels  = 2_000_000 // of a body
)

// staleMarker is the NaN by which Prometheus says that a series has ended.
const staleMarker = 0x7ff0000000000002

// Fields of prometheus.WriteRequest and io.prometheus.write.v2.Request.
const (
	writeSeriesV1  = 1
	writeSymbolsV2 = 4
	writeSeriesV2  = 5

	seriesLabels       = 1 // messages of name and value; in version 2 references to symbols
	seriesSamples      = 2
	seriesHistogramsV1 = 4
	seriesHistogramsV2 = 3
	seriesMetadataV2   = 5
	metadataUnitV2     = 4

	sampleValue = 1
	sampleTime  = 2
)

// RemoteWrite translates a body of Prometheus remote write, version 1 or 2, as
// of now. Labels are tags and names are names, both as they are: Batch.Raw has
// the keys of tags that Datadog would have written otherwise. A sample is a
// gauge, that of a counter too, which goes on counting as Prometheus' own
// functions expect. A native histogram is a distribution of what was added.
// Exemplars and metadata but for units are passed over.
func (t *Translator) RemoteWrite(body []byte, v2 bool, now time.Time) (*Batch, error) {
	t.mu.Lock()
	t.sweep(now)
	t.mu.Unlock()
	b := &Batch{t: t, now: now, Raw: make(map[string]bool)}
	w := writing{b: b, v2: v2}
	if err := w.request(body); err != nil {
		b.Undo()
		return nil, fmt.Errorf("decode remote write: %w", err)
	}
	return b, nil
}

// writing is one body on its way.
type writing struct {
	b       *Batch
	v2      bool
	symbols []string
	tags    map[[2]uint32]string // of pairs of symbols, so that each is made once
	series  int
	labels  int
}

func (w *writing) request(body []byte) error {
	series := protowire.Number(writeSeriesV1)
	if w.v2 {
		series, w.tags = writeSeriesV2, make(map[[2]uint32]string)
		if err := w.readSymbols(body); err != nil {
			return err
		}
	}
	return eachField(body, func(f field) error {
		if f.num != series || f.typ != protowire.BytesType {
			return nil
		}
		r, err := w.read(f.bytes)
		if err == nil {
			err = w.take(r)
		}
		if err != nil {
			return fmt.Errorf("timeseries[%d]: %w", w.series, err)
		}
		w.series++
		return nil
	})
}

// readSymbols reads the strings that series refer to. They may come after what
// refers to them.
func (w *writing) readSymbols(body []byte) error {
	err := eachField(body, func(f field) error {
		if f.num != writeSymbolsV2 {
			return nil
		}
		if len(w.symbols) == maxMessages {
			return ErrTooMuch
		}
		w.symbols = append(w.symbols, string(f.bytes))
		return nil
	})
	if err == nil && len(w.symbols) > 0 && w.symbols[0] != "" {
		err = errors.New("the first symbol is not empty")
	}
	return err
}

// written is a series as it is on the wire.
type written struct {
	labels     []string // names and values in turn
	refs       []uint32 // likewise, of version 2
	unit       uint64   // reference
	points     []metric.Point
	histograms [][]byte
	stale      int
	notFinite  int
}

func (w *writing) read(body []byte) (written, error) {
	var r written
	histograms := protowire.Number(seriesHistogramsV1)
	if w.v2 {
		histograms = seriesHistogramsV2
	}
	err := eachField(body, func(f field) (err error) {
		switch {
		case f.num == seriesLabels && w.v2:
			r.refs, err = f.appendUint32s(r.refs)
		case f.num == seriesLabels:
			r.labels, err = appendLabel(r.labels, f.bytes)
		case f.num == seriesSamples:
			err = r.sample(f.bytes)
		case f.num == histograms:
			r.histograms = append(r.histograms, f.bytes)
		case f.num == seriesMetadataV2 && w.v2:
			err = eachField(f.bytes, func(m field) error {
				if m.num == metadataUnitV2 {
					r.unit = m.varint
				}
				return nil
			})
		}
		if w.b.Points+r.count() > maxPoints || w.labels+(len(r.labels)+len(r.refs))/2 > maxAllLabels {
			return ErrTooMuch
		}
		return err
	})
	w.b.Points += r.count()
	w.labels += (len(r.labels) + len(r.refs)) / 2
	return r, err
}

func (r *written) count() int {
	return len(r.points) + len(r.histograms) + r.stale + r.notFinite
}

func (r *written) sample(body []byte) error {
	var p metric.Point
	err := eachField(body, func(f field) error {
		switch f.num {
		case sampleValue:
			p.Value = math.Float64frombits(f.fixed)
		case sampleTime:
			p.Time = secondOf(int64(f.varint))
		}
		return nil
	})
	switch {
	case err != nil:
		return fmt.Errorf("samples[%d]: %w", len(r.points), err)
	case math.Float64bits(p.Value) == staleMarker:
		r.stale++
	case !finite(p.Value):
		r.notFinite++
	default:
		r.points = append(r.points, p)
	}
	return nil
}

// secondOf is the second that a time in milliseconds lies in.
func secondOf(ms int64) int64 { return int64(math.Floor(float64(ms) / 1000)) }

func appendLabel(labels []string, body []byte) ([]string, error) {
	var name, value string
	err := eachField(body, func(f field) error {
		switch f.num {
		case 1:
			name = string(f.bytes)
		case 2:
			value = string(f.bytes)
		}
		return nil
	})
	return append(labels, name, value), err
}

// take adds a series to the batch. What concerns it alone is no error.
func (w *writing) take(r written) error {
	b := w.b
	b.Stale += r.stale
	s, err := w.context(&r)
	if errors.Is(err, errReference) {
		return err
	}
	if err != nil {
		b.refuse(r.count()-r.stale, s.Name, "%v", err)
		return nil
	}
	if r.notFinite > 0 {
		b.refuse(r.notFinite, s.Name, "a value is not a finite number")
	}
	if len(r.points) > 0 {
		s.Points = r.points
		b.Samples += len(r.points)
		b.Series = append(b.Series, s)
	}
	for _, body := range r.histograms {
		if err := b.nativeHistogram(&s, body); err != nil {
			return err
		}
	}
	if b.bins > maxBins {
		return ErrTooMuch
	}
	return nil
}
