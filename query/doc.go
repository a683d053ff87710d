// Package query is Datadog's metric query language: its grammar, its meaning,
// and the one definition of what a query's value is.
//
// It owns the text (Parse, ParseBatch, String), the analysis (Check, CheckValue,
// GroupBy, Queries, Lookback, Pointwise) and the evaluation, over a window (Eval) or at an instant (Value),
// of series that a Source selects. It does not know where series are stored,
// who asks, or what time it is: the caller gives the window or the instant.
//
// # Grammar
//
//	batch    = expr *( "," expr )
//	expr     = term *( ("+"|"-") term )
//	term     = factor *( ("*"|"/") factor )
//	factor   = number | "(" expr ")" | "-" factor | call | query
//	call     = name "(" expr *( "," arg ) ")"
//	query    = [ aggr ":" ] metric "{" scope "}" [ "by" keys ] *( "." modifier )
//	aggr     = "avg" | "sum" | "min" | "max" | "count" | "stddev" | "pNN[.NN]"
//	         | "count(v: v" cmp number ")"
//	scope    = symbolic | functional
//	symbolic = item *( "," item )             item = [ "!" ] tag
//	functional = and *( "OR" and )            and = not *( "AND" not )
//	not      = "NOT" not | "(" functional ")" | tag
//	tag      = "*" | key ":" value | value | key [ "NOT" ] "IN" "(" value *( "," value ) ")"
//	modifier = "as_count()" | "as_rate()" | "rollup(" [method] [","] [seconds] ")"
//	         | "fill(" mode [ "," seconds ] ")" | "weighted()"
//	keys     = "{" key *( "," key ) "}"
//	arg      = ["-"] number | 'text' | "text" | word | keys
//
// Names of metrics keep their case; tags and keys are lower-cased, as they are
// stored. Values may hold "*". Words such as AND may be written and; the symbols
// "," and "!" do not mix with them. Check refuses, with its place, what parses
// and cannot have a value: an unknown function, an argument that is none.
//
// # Functions
//
// The first argument is the expression that a function is of. In brackets is
// what may be left out; null is a point without a value.
//
//	abs log2 log10(q)               of what is not positive, a logarithm is null
//	clamp_min clamp_max(q, x)       x in the place of what is beyond, and of null
//	cutoff_min cutoff_max(q, x)     null in the place of what is beyond
//	is_greater is_less(q, x)  is_between(q, low, high)     1 or 0
//	default_zero(q)  exclude_null(q)
//	count_nonzero count_nonzero_finite count_not_null(q)   how many groups
//	top(q, n [, 'max|mean|min|sum|last|l2norm|area' [, 'asc|desc']])
//	{top,bottom}{5,10,15,20}[_{mean,min,max,last,l2norm,area}](q)
//	per_second per_minute per_hour derivative diff monotonic_diff dt throughput cumsum integral(q)
//	ewma_{3,5,7,10,20} median_{3,5,7,9} rollingavg_{5,13,21,29} autosmooth(q)
//	timeshift(q, -seconds)  hour_before day_before week_before month_before(q)
//	calendar_shift(q, '-1d|-1w|-1mo', 'zone')
//	moving_rollup(q, seconds [, 'avg|sum|min|max|median|count'])
//	rollup(q, aggr, seconds)  aggr(q, {key})               aggregate once more
//	trend_line robust_trend piecewise_constant(q)
//	anomalies(q, 'basic|agile|robust', dev)  forecast(q, 'linear|seasonal', dev)
//	outliers(q, 'DBSCAN|MAD', tolerance [, percent])
//
// The functions of a family stand in one file, each with what it computes.
//
// # Evaluation
//
// For every query: contexts are selected by name and scope; each is rolled up
// into buckets aligned to the epoch; gaps are bridged where several contexts are
// aggregated; contexts are aggregated by group. Then functions and arithmetic
// apply from the inside out. Reference: metrics-pipeline B3. diff and
// monotonic_diff of a query are taken of each context, before it is aggregated.
//
// At an instant (Value) a function that looks back is given its argument's values
// at instants a trailing window apart. Lookback says how far that goes, Pointwise
// whether it goes anywhere, and CheckValue what has no value at an instant.
//
// Distributions take no part in the middle of that: all sketches of a bucket and
// a group are merged, over time and contexts at once, and the aggregator reads
// the merged one. So avg is the mean of the values and not of means, a
// percentile is that of all values, within metric.SketchAccuracy, and nothing is
// interpolated. The method of a rollup has no say; count alone knows as_count
// and as_rate. A metric that has sketches in the window is read as a
// distribution; a percentile of one that has only points is an error.
package query
