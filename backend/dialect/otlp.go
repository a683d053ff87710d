package dialect

import (
	"fmt"
	"math"
	"strconv"
	"time"

	collector "go.opentelemetry.io/proto/slim/otlp/collector/metrics/v1"
	otlp "go.opentelemetry.io/proto/slim/otlp/metrics/v1"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"kelpie.dev/kelpie/metric"
)

// OTLP translates the body of an ExportMetricsServiceRequest, in protobuf or in
// JSON, as of now:
//
//	gauge                        gauge
//	sum, delta                   count
//	sum, cumulative, monotonic   count: what was added since the point before
//	sum, cumulative, else        gauge
//	histogram of any kind        distribution, of what was added
//	summary                      counts NAME.count and NAME.sum, gauges NAME.quantile
//
// What cannot be decoded is an error; more than fits is ErrTooMuch. Points that
// are not taken are counted, with a line each.
func (t *Translator) OTLP(body []byte, isJSON bool, now time.Time) (*Batch, error) {
	var req collector.ExportMetricsServiceRequest
	decode, form := unmarshal, "protobuf"
	if isJSON {
		decode, form = unmarshalJSON, "JSON"
	}
	if err := decode(body, &req); err != nil {
		return nil, fmt.Errorf("decode OTLP %s: %w", form, err)
	}
	t.mu.Lock()
	t.sweep(now)
	t.mu.Unlock()
	b := &Batch{t: t, now: now}
	for _, rm := range req.GetResourceMetrics() {
		r := resourceOf(rm.GetResource().GetAttributes())
		for _, sm := range rm.GetScopeMetrics() {
			for _, m := range sm.GetMetrics() {
				if err := b.otlpMetric(&r, sm.GetScope().GetName(), m); err != nil {
					b.Undo()
					return nil, err
				}
			}
		}
	}
	return b, nil
}

// otlpContext is what points of one metric share.
type otlpContext struct {
	b     *Batch
	r     *resource
	scope string
	name  string
	unit  string
}

func (b *Batch) otlpMetric(r *resource, scope string, m *otlp.Metric) error {
	c := otlpContext{b: b, r: r, scope: scope, name: m.GetName(), unit: unitOf(m.GetUnit())}
	before := b.Points
	switch data := m.GetData().(type) {
	case *otlp.Metric_Gauge:
		b.Points += len(data.Gauge.GetDataPoints())
	case *otlp.Metric_Sum:
		b.Points += len(data.Sum.GetDataPoints())
	case *otlp.Metric_Histogram:
		b.Points += len(data.Histogram.GetDataPoints())
	case *otlp.Metric_ExponentialHistogram:
		b.Points += len(data.ExponentialHistogram.GetDataPoints())
	case *otlp.Metric_Summary:
		b.Points += len(data.Summary.GetDataPoints())
	}
	switch {
	case b.Points > maxPoints:
		return ErrTooMuch
	case c.name == "" && b.Points > before:
		b.refuse(b.Points-before, "", "it has no name")
		return nil
	}
	switch data := m.GetData().(type) {
	case *otlp.Metric_Gauge:
		c.numbers(data.Gauge.GetDataPoints(), otlp.AggregationTemporality_AGGREGATION_TEMPORALITY_UNSPECIFIED, false)
	case *otlp.Metric_Sum:
		t := data.Sum.GetAggregationTemporality()
		if t == otlp.AggregationTemporality_AGGREGATION_TEMPORALITY_UNSPECIFIED {
			b.refuse(b.Points-before, c.name, "its temporality is not specified")
			return nil
		}
		c.numbers(data.Sum.GetDataPoints(), t, data.Sum.GetIsMonotonic())
	case *otlp.Metric_Histogram:
		for _, p := range data.Histogram.GetDataPoints() {
			c.histogram(p, data.Histogram.GetAggregationTemporality(), explicitOf(p), p.GetAttributes())
		}
	case *otlp.Metric_ExponentialHistogram:
		for _, p := range data.ExponentialHistogram.GetDataPoints() {
			c.histogram(p, data.ExponentialHistogram.GetAggregationTemporality(), exponentialOf(p), p.GetAttributes())
		}
	case *otlp.Metric_Summary:
		c.summaries(data.Summary.GetDataPoints())
	}
	if b.bins > maxBins {
		return ErrTooMuch
	}
	return nil
}

// point is what every kind of point has.
type point interface {
	GetTimeUnixNano() uint64
	GetStartTimeUnixNano() uint64
	GetFlags() uint32
}

// at returns a point's time in nanoseconds, and false when it says that there is
// no value.
func (c *otlpContext) at(p point) (at int64, ok bool) {
	if p.GetFlags()&uint32(otlp.DataPointFlags_DATA_POINT_FLAGS_NO_RECORDED_VALUE_MASK) != 0 {
		c.b.Stale++
		return 0, false
	}
	if p.GetTimeUnixNano() == 0 {
		return c.b.now.UnixNano(), true
	}
	return int64(min(p.GetTimeUnixNano(), math.MaxInt64)), true
}

// emit adds one point of a series.
func (c *otlpContext) emit(name string, tags metric.Tags, typ metric.Type, at, interval int64, v float64) {
	c.b.Series = append(c.b.Series, metric.Series{Name: name, Host: c.r.host, Tags: tags, Type: typ, Interval: interval, Unit: c.unit,
		Points: []metric.Point{{Time: at / 1e9, Value: v}}})
}

// added emits what a cumulative stream added, as a count.
func (c *otlpContext) added(name string, tags metric.Tags, p stream) {
	key := c.b.t.key("n", name, c.r.key, c.scope, tags.String())
	if d, seconds, ok := c.b.advance(key, name, p); ok {
		c.emit(name, tags, metric.Count, p.at, seconds, d.value)
	}
}

func (c *otlpContext) numbers(points []*otlp.NumberDataPoint, t otlp.AggregationTemporality, monotonic bool) {
	for _, p := range points {
		at, ok := c.at(p)
		if !ok {
			continue
		}
		v := p.GetAsDouble()
		if i, isInt := p.GetValue().(*otlp.NumberDataPoint_AsInt); isInt {
			v = float64(i.AsInt)
		}
		if p.GetValue() == nil || !finite(v) {
			c.b.refuse(1, c.name, "a value is missing or not a finite number")
			continue
		}
		tags := c.r.with(p.GetAttributes())
		start := int64(min(p.GetStartTimeUnixNano(), math.MaxInt64))
		switch {
		case t == otlp.AggregationTemporality_AGGREGATION_TEMPORALITY_DELTA:
			c.emit(c.name, tags, metric.Count, at, secondsBetween(start, at), v)
		case t == otlp.AggregationTemporality_AGGREGATION_TEMPORALITY_CUMULATIVE && monotonic:
			c.added(c.name, tags, stream{start: start, at: at, value: v})
		default:
			c.emit(c.name, tags, metric.Gauge, at, 0, v)
		}
	}
}

func secondsBetween(start, at int64) int64 {
	if start <= 0 || start >= at {
		return 0
	}
	return int64(math.Round(float64(at-start) / 1e9))
}

func explicitOf(p *otlp.HistogramDataPoint) *histogram {
	return &histogram{bounds: p.GetExplicitBounds(), counts: floats(p.GetBucketCounts()), count: float64(p.GetCount()),
		sum: p.GetSum(), hasSum: p.Sum != nil, min: orNaN(p.Min), max: orNaN(p.Max)}
}

func exponentialOf(p *otlp.ExponentialHistogramDataPoint) *histogram {
	h := &histogram{exponential: true, scale: p.GetScale(), zero: float64(p.GetZeroCount()), zeroWidth: p.GetZeroThreshold(),
		count: float64(p.GetCount()), sum: p.GetSum(), hasSum: p.Sum != nil, min: orNaN(p.Min), max: orNaN(p.Max)}
	h.positive = span{p.GetPositive().GetOffset(), floats(p.GetPositive().GetBucketCounts())}
	h.negative = span{p.GetNegative().GetOffset(), floats(p.GetNegative().GetBucketCounts())}
	return h
}

func floats(in []uint64) []float64 {
	if len(in) > maxBuckets+1 {
		in = in[:maxBuckets+1] // one more than validate takes
	}
	out := make([]float64, len(in))
	for i, v := range in {
		out[i] = float64(v)
	}
	return out
}

func orNaN(v *float64) float64 {
	if v == nil {
		return math.NaN()
	}
	return *v
}

// histogram takes one point of a histogram.
func (c *otlpContext) histogram(p point, t otlp.AggregationTemporality, h *histogram, attributes []*keyValue) {
	at, ok := c.at(p)
	if !ok {
		return
	}
	if err := h.validate(); err != nil {
		c.b.refuse(1, c.name, "%v", err)
		return
	}
	tags := c.r.with(attributes)
	switch t {
	case otlp.AggregationTemporality_AGGREGATION_TEMPORALITY_DELTA:
	case otlp.AggregationTemporality_AGGREGATION_TEMPORALITY_CUMULATIVE:
		h.min, h.max = math.NaN(), math.NaN() // those of all time
		key := c.b.t.key("h", c.name, c.r.key, c.scope, tags.String())
		d, _, ok := c.b.advance(key, c.name, stream{start: int64(min(p.GetStartTimeUnixNano(), math.MaxInt64)), at: at, histogram: h})
		if !ok {
			return
		}
		h = d.histogram
	default:
		c.b.refuse(1, c.name, "its temporality is not specified")
		return
	}
	c.b.distribution(metric.Distribution{Name: c.name, Host: c.r.host, Tags: tags}, at/1e9, h)
}

// distribution adds h to the batch, unless it counts nothing.
func (b *Batch) distribution(d metric.Distribution, sec int64, h *histogram) {
	s := h.sketch()
	if s.Count == 0 {
		if h.count > 0 {
			b.refuse(1, d.Name, "its buckets do not tell where its values are")
		}
		return
	}
	b.bins += len(s.Bins)
	d.Points = []metric.SketchPoint{{Time: sec, Sketch: s}}
	b.Distributions = append(b.Distributions, d)
}

func (c *otlpContext) summaries(points []*otlp.SummaryDataPoint) {
	for _, p := range points {
		at, ok := c.at(p)
		if !ok {
			continue
		}
		if !finite(p.GetSum()) {
			c.b.refuse(1, c.name, "its sum is not a finite number")
			continue
		}
		tags := c.r.with(p.GetAttributes())
		start := int64(min(p.GetStartTimeUnixNano(), math.MaxInt64))
		counts := *c
		counts.unit = ""
		counts.added(c.name+".count", tags, stream{start: start, at: at, value: float64(p.GetCount())})
		c.added(c.name+".sum", tags, stream{start: start, at: at, value: p.GetSum()})
		for i, q := range p.GetQuantileValues() {
			if i == 100 {
				c.b.refuse(1, c.name, "it has more than 100 quantiles")
				break
			}
			if finite(q.GetValue()) { // NaN where nothing was observed
				c.emit(c.name+".quantile", tags.Union("quantile:"+strconv.FormatFloat(q.GetQuantile(), 'g', -1, 64)), metric.Gauge, at, 0, q.GetValue())
			}
		}
	}
}

// OTLPAnswer is the body of an ExportMetricsServiceResponse to what b brought.
func (b *Batch) OTLPAnswer(isJSON bool) ([]byte, error) {
	var resp collector.ExportMetricsServiceResponse
	if b.Refused > 0 {
		text := ""
		for i, line := range b.Lines {
			if i > 0 {
				text += "; "
			}
			text += line
		}
		resp.PartialSuccess = &collector.ExportMetricsPartialSuccess{RejectedDataPoints: int64(min(b.Refused, b.Points)), ErrorMessage: text}
	}
	if isJSON {
		return protojson.Marshal(&resp)
	}
	return proto.Marshal(&resp)
}
