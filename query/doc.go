// Package query is Datadog's metric query language: its grammar, its meaning,
// and the one definition of what a query's value is.
//
// It owns the text (Parse, ParseBatch, String), the analysis (Check, GroupBy,
// Queries) and the evaluation, over a window (Eval) or at an instant (Value),
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
// "," and "!" do not mix with them. The whole grammar parses; what Eval cannot
// do yet, Check names with its position.
//
// # Evaluation
//
// For every query: contexts are selected by name and scope; each is rolled up
// into buckets aligned to the epoch; gaps are bridged where several contexts are
// aggregated; contexts are aggregated by group. Then functions and arithmetic
// apply from the inside out. Reference: metrics-pipeline B3.
//
// Distributions take no part in the middle of that: all sketches of a bucket and
// a group are merged, over time and contexts at once, and the aggregator reads
// the merged one. So avg is the mean of the values and not of means, a
// percentile is that of all values, within metric.SketchAccuracy, and nothing is
// interpolated. The method of a rollup has no say; count alone knows as_count
// and as_rate. A metric that has sketches in the window is read as a
// distribution; a percentile of one that has only points is an error.
package query
