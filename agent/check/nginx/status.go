package nginx

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"
)

// status is what the page says.
type status struct {
	active                     float64 // connections now, the waiting ones included
	accepts, handled, requests float64 // since nginx started
	reading, writing, waiting  float64 // connections by what they do
}

// layout is the page of ngx_http_stub_status_module. Tengine has a fourth
// total, the time spent on requests.
var layout = regexp.MustCompile(`^\s*Active connections:\s+(\d+)\s+server accepts handled requests(?: request_time)?\s+(\d+)\s+(\d+)\s+(\d+)(?:\s+\d+)?\s+Reading:\s+(\d+)\s+Writing:\s+(\d+)\s+Waiting:\s+(\d+)\s*$`)

func parse(page []byte) (status, error) {
	m := layout.FindSubmatch(page)
	if m == nil {
		return status{}, fmt.Errorf("the page is not nginx's stub_status, it begins %q: set nginx_status_url to a location with the directive stub_status", page[:min(len(page), 60)])
	}
	var s status
	for i, field := range []*float64{&s.active, &s.accepts, &s.handled, &s.requests, &s.reading, &s.writing, &s.waiting} {
		n, err := strconv.ParseUint(string(m[i+1]), 10, 64)
		if err != nil {
			return status{}, errors.New("the stub_status page holds a number that is too large")
		}
		*field = float64(n)
	}
	return s, nil
}
