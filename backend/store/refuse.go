package store

import (
	"cmp"
	"errors"
	"math"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"

	"kelpie.dev/kelpie/metric"
)

// Reasons for which a point is refused, as the counter's label has them.
const (
	ReasonFuture      = "future"             // more than 10 minutes ahead
	ReasonPast        = "past"               // more than an hour behind
	ReasonNotFinite   = "not_finite"         // NaN or infinite
	ReasonEmpty       = "empty"              // a sketch without values
	ReasonCardinality = "series_limit"       // a new series of a metric at its limit
	ReasonTotal       = "total_series_limit" // a new series of a store at its limit
	ReasonNames       = "metric_name_limit"  // a new metric name of a store at its limit
	ReasonDuplicate   = "duplicate"          // that millisecond is taken
	ReasonTooOld      = "out_of_order"       // older than the TSDB still takes
	ReasonInvalid     = "invalid"            // a sketch that contradicts itself, or anything else the TSDB refuses
)

// overLimit is the reason not to create a series for it, or "". It comes before the
// catalog: a name without a series would be listed.
func (b *batch) overLimit(it *item, add additions) string {
	if b.s.limits.full(it) {
		return ReasonTotal
	}
	limit := b.s.bounds.Load().MaxMetricNames
	if _, coming := add.names[it.Name]; coming || b.s.catalog.get(it.Name) != nil || b.s.catalog.size()+len(add.names) < limit {
		return ""
	}
	b.s.limits.refuseName(it.Name, limit)
	return ReasonNames
}

// refusal is the reason not to take p, or "".
func (b *batch) refusal(p metric.Point) string {
	switch {
	case p.Time > b.now+int64(maxFuture.Seconds()):
		return ReasonFuture
	case p.Time < b.now-int64(maxPast.Seconds()):
		return ReasonPast
	case math.IsNaN(p.Value) || math.IsInf(p.Value, 0):
		return ReasonNotFinite
	}
	return ""
}

// refuseItem counts the points of an item that is not taken at all.
func (b *batch) refuseItem(it *item, reason string) {
	for _, p := range it.Points {
		b.refuse(cmp.Or(b.refusal(p), reason))
	}
	for i := range it.sketches {
		b.refuse(cmp.Or(b.refusalOf(&it.sketches[i]), reason))
	}
}

// refusedBy returns the reason for an error that concerns one point only, or "".
func refusedBy(err error) string {
	var bad histogram.Error
	switch {
	case errors.Is(err, errCardinality):
		return ReasonCardinality
	case errors.Is(err, errTotal):
		return ReasonTotal
	case errors.Is(err, storage.ErrDuplicateSampleForTimestamp):
		return ReasonDuplicate
	case errors.Is(err, storage.ErrTooOldSample), errors.Is(err, storage.ErrOutOfBounds), errors.Is(err, storage.ErrOutOfOrderSample):
		return ReasonTooOld
	case errors.Is(err, tsdb.ErrInvalidSample), errors.As(err, &bad):
		return ReasonInvalid
	}
	return ""
}
