package source

import (
	"net/url"
	"time"
)

// Bounds of one request, as Datadog's own client keeps them: its API refuses
// much longer request lines.
const (
	maxBatchQueries = 35
	maxBatchChars   = 7000
	perQueryChars   = 16 // separators and parameters, counted per query
)

// Key names one thing to ask: a query's text over a window that ends now, of a
// source. A Poller is one source and knows its keys without its name.
type Key struct {
	Source Name
	Query  string
	Window time.Duration
}

// cost is how much of a request's length a query takes.
func cost(query string) int { return len(url.QueryEscape(query)) + perQueryChars }

// tooLong reports whether a query fits into no request at all.
func tooLong(query string) bool { return cost(query) >= maxBatchChars }

// batches groups keys into requests: one window each, at most limit queries and
// fewer than maxBatchChars characters. Keys keep their order within a window.
func batches(keys []Key, limit int) [][]Key {
	open := map[time.Duration]int{} // window → index of its unfinished batch
	var out [][]Key
	var chars []int
	for _, k := range keys {
		c := cost(k.Query)
		i, ok := open[k.Window]
		if !ok || len(out[i]) >= limit || chars[i]+c >= maxBatchChars {
			i = len(out)
			out, chars = append(out, nil), append(chars, 0)
			open[k.Window] = i
		}
		out[i] = append(out[i], k)
		chars[i] += c
	}
	return out
}
