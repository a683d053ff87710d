package queryapi

import (
	"context"
	"maps"
	"math"
	"slices"

	"kelpie.dev/kelpie/metric/payload"
	"kelpie.dev/kelpie/query"
)

// answerTimeseries evaluates everything that is asked and lays it on one time
// axis: the union of all buckets.
func (a *API) answerTimeseries(ctx context.Context, q *question) (any, int, error) {
	resp := &payload.TimeseriesResponse{}
	if q.empty {
		return resp, 0, nil
	}
	var all []query.Result
	axis := make(map[int64]int)
	for i, e := range q.asked {
		results, err := a.opts.Cache.Eval(ctx, a.opts.Source, e, q.win)
		if err != nil {
			return nil, 0, err
		}
		results = limited(results, q.limitOf(i), func(r query.Result) float64 { return reduce(r, "avg") })
		for _, r := range results {
			resp.Series = append(resp.Series, payload.TimeseriesSeries{GroupTags: append([]string{}, r.Tags...), QueryIndex: i, Unit: unit(r.Unit)})
			for _, p := range r.Points {
				axis[p.Time] = 0
			}
		}
		all = append(all, results...)
	}
	for i, t := range slices.Sorted(maps.Keys(axis)) {
		axis[t] = i
		resp.Times = append(resp.Times, t*1000)
	}
	for _, r := range all {
		values := make([]*float64, len(resp.Times))
		for _, p := range r.Points {
			values[axis[p.Time]] = number(p.Value)
		}
		resp.Values = append(resp.Values, values)
	}
	return resp, len(all), nil
}

// number is v on the wire, where null stands for what is not a number.
func number(v float64) *float64 {
	if math.IsNaN(v) || math.IsInf(v, 0) {
		return nil
	}
	return &v
}

// reduce makes one value of a result's points, by the name of an aggregator of
// scalar queries. Null points do not count; without any other it is NaN. The
// area is signed, in units of the value times seconds.
func reduce(r query.Result, aggregator string) float64 {
	n, sum, squares, last := 0, 0.0, 0.0, math.NaN()
	least, most := math.Inf(1), math.Inf(-1)
	for _, p := range r.Points {
		if p.Null() {
			continue
		}
		n++
		sum += p.Value
		squares += p.Value * p.Value
		least, most, last = min(least, p.Value), max(most, p.Value), p.Value
	}
	if n == 0 {
		return math.NaN()
	}
	switch aggregator {
	case "sum":
		return sum
	case "min":
		return least
	case "max":
		return most
	case "last", "percentile": // a percentile has one point, of all the window
		return last
	case "l2norm":
		return math.Sqrt(squares)
	case "area":
		return sum * float64(r.Interval)
	default: // avg, mean
		return sum / float64(n)
	}
}
