package forward

import (
	"kelpie.dev/kelpie/metric"
	"kelpie.dev/kelpie/metric/payload"
)

// A Batch is what one flush hands over. The forwarder does not change it, and
// keeps nothing of it once it has been encoded. Points, events and checks are
// told apart in counts by their kind; an event or a check counts as one point.
type Batch struct {
	Fast          []metric.Series // of one second, for those who get them by Lane
	Series        []metric.Series // for all
	Doubled       []metric.Series // for those who do not get Fast, which says the same
	Lane          Lane            // in force at the time of all points of Fast and Doubled
	Distributions []metric.Distribution
	Events        []metric.Event
	Checks        []metric.ServiceCheck
}

// kind is what a payload holds. Each has a route of its own, and waits for no
// other: an intake that knows no sketches still gets series.
type kind uint8

const (
	kindSeries kind = iota
	kindSketches
	kindChecks
	kindEvents
	kinds = iota
)

// route is where payloads of one kind go, and the bounds the intake has for
// them (reference metrics-pipeline A4.2, A4.3 and A4.6).
type route struct {
	name      string // in labels, the status and file names
	path      string
	protobuf  bool // else JSON
	maxBody   int  // bytes as sent
	maxRaw    int  // bytes before compression
	maxPoints int  // 0 for no bound
}

// Bounds of payloads, as Datadog's intake has them: of series, and of any other
// kind.
const (
	MaxCompressed   = 512_000
	MaxUncompressed = 5_242_880
	MaxPoints       = 10_000

	MaxOtherCompressed   = 2_621_440
	MaxOtherUncompressed = 4_194_304
)

var routes = [kinds]route{
	kindSeries:   {"series", "/api/v2/series", true, MaxCompressed, MaxUncompressed, MaxPoints},
	kindSketches: {"sketches", "/api/beta/sketches", true, MaxOtherCompressed, MaxOtherUncompressed, 0},
	kindChecks:   {"service_checks", "/api/v1/check_run", false, MaxOtherCompressed, MaxOtherUncompressed, 0},
	kindEvents:   {"events", "/intake/", false, MaxOtherCompressed, MaxOtherUncompressed, 0},
}

func (k kind) String() string { return routes[k].name }

// audience is the endpoints that get a list.
type audience uint8

const (
	everyone audience = iota
	whoGetsSeconds
	whoGetsTens
)

// includes reports whether the i-th endpoint is among a.
func (a audience) includes(l Lane, i int) bool {
	return a == everyone || l.gets(i) == (a == whoGetsSeconds)
}

// list is items of one kind, as the encoder sees them. A body is the items in
// order, then end.
type list struct {
	to     audience
	kind   kind
	bounds *route
	n      int
	points func(i int) int
	item   func(dst []byte, i int, first bool) []byte // first of its body
	end    []byte
}

func one(int) int { return 1 }

// sketchesEnd is the payload's metadata, which is always there and always empty.
var sketchesEnd = payload.AppendSketches(nil, nil)

// lists returns what b holds of each kind. now is the time of events and checks
// that have none, host the name of their sender.
func (b *Batch) lists(now int64, host string) []list {
	events := payload.GroupEvents(b.Events)
	return []list{seriesList(whoGetsSeconds, b.Fast), seriesList(everyone, b.Series), seriesList(whoGetsTens, b.Doubled), {
		kind: kindSketches, bounds: &routes[kindSketches], n: len(b.Distributions), end: sketchesEnd,
		points: func(i int) int { return len(b.Distributions[i].Points) },
		item: func(dst []byte, i int, _ bool) []byte {
			dst = payload.AppendSketches(dst, b.Distributions[i:i+1])
			return dst[:len(dst)-len(sketchesEnd)]
		},
	}, {
		kind: kindChecks, bounds: &routes[kindChecks], n: len(b.Checks), points: one, end: payload.EndChecks(nil),
		item: func(dst []byte, i int, first bool) []byte {
			c := b.Checks[i]
			if c.Time == 0 {
				c.Time = now
			}
			return payload.AppendCheck(dst, &c, first)
		},
	}, {
		kind: kindEvents, bounds: &routes[kindEvents], n: len(events), points: one, end: payload.EndEvents(nil, host),
		item: func(dst []byte, i int, first bool) []byte {
			e := events[i]
			if e.Time == 0 {
				e.Time = now
			}
			var previous *metric.Event
			if !first {
				previous = &events[i-1]
			}
			return payload.AppendEvent(dst, &e, previous)
		},
	}}
}

func seriesList(to audience, series []metric.Series) list {
	return list{
		to: to, kind: kindSeries, bounds: &routes[kindSeries], n: len(series),
		points: func(i int) int { return len(series[i].Points) },
		item:   func(dst []byte, i int, _ bool) []byte { return payload.AppendV2(dst, series[i:i+1]) },
	}
}
