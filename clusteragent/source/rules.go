package source

import "time"

// Rules derive a query's window and age limits from what its owner asked for.
// The names are those of Datadog's settings (external_metrics_provider.*).
type Rules struct {
	MaxAge        time.Duration // oldest acceptable point when a metric does not say
	QueryValidity time.Duration // how much longer a point serves between two polls
	BucketSize    time.Duration // smallest window
	MaxTimeWindow time.Duration // largest window
	Rollup        time.Duration // rollup of generated queries
}

// defaultMaxAge leaves room for the point that is read: the second newest
// bucket's start is up to two rollups old.
func (r Rules) defaultMaxAge() time.Duration { return max(r.MaxAge, 3*r.Rollup) }

// Limits returns the age limits of a metric whose own maxAge is given, or 0.
func (r Rules) Limits(maxAge time.Duration) Limits {
	if maxAge <= 0 {
		maxAge = r.defaultMaxAge()
	}
	return Limits{MaxAge: maxAge, Grace: r.QueryValidity}
}

// Window returns the window to query for a metric with the given own settings,
// each 0 when unset: timeWindow, else maxAge, raised to what a point needs to
// be seen and capped at MaxTimeWindow.
func (r Rules) Window(timeWindow, maxAge time.Duration) time.Duration {
	w := timeWindow
	if w <= 0 {
		w = maxAge
	}
	return min(max(w, r.defaultMaxAge(), r.BucketSize), r.MaxTimeWindow)
}
