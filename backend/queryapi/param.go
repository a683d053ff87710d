package queryapi

import (
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"

	"kelpie.dev/kelpie/query"
)

// seconds reads a parameter in Unix seconds; some clients send a fraction.
func seconds(v url.Values, name string) (int64, error) {
	s := v.Get(name)
	if s == "" {
		return 0, fmt.Errorf("%s is required: Unix seconds", name)
	}
	f, err := strconv.ParseFloat(s, 64)
	if err != nil || !(f >= 0 && f < 1<<33) {
		return 0, fmt.Errorf("%s must be Unix seconds", name)
	}
	return int64(f), nil
}

// window reads the parameter window[seconds]: how far back to look.
func window(v url.Values, otherwise time.Duration) (time.Duration, error) {
	n, err := whole(v, "window[seconds]", int64(otherwise/time.Second), 1, 366*86400)
	if err != nil {
		return 0, errors.New("window[seconds] must be a number of seconds")
	}
	return time.Duration(n) * time.Second, nil
}

// whole reads a whole number within bounds.
func whole(v url.Values, name string, otherwise, least, most int64) (int64, error) {
	s := v.Get(name)
	if s == "" {
		return otherwise, nil
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n < least || n > most {
		return 0, fmt.Errorf("%s must be a whole number from %d to %d", name, least, most)
	}
	return n, nil
}

// flag reads a parameter that is true or false; nil when it is not given.
func flag(v url.Values, name string) (*bool, error) {
	s := v.Get(name)
	if s == "" {
		return nil, nil
	}
	b, err := strconv.ParseBool(s)
	if err != nil {
		return nil, fmt.Errorf("%s must be true or false", name)
	}
	return &b, nil
}

// scopeFilter reads a parameter that holds the scope of a query, such as
// "env:prod AND service:web*"; commas are AND.
func scopeFilter(v url.Values, name string) (query.Scope, error) {
	text := strings.TrimSpace(v.Get(name))
	if text == "" {
		return query.All{}, nil
	}
	const before = "m{"
	e, err := query.Parse(before + text + "}")
	var bad *query.Error
	switch {
	case errors.As(err, &bad):
		return nil, fmt.Errorf("%s: %s at %d, expected tags such as env:prod,service:web* or env:prod AND NOT service:web", name, bad.Message, max(0, bad.Offset-len(before)))
	case err != nil:
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	if q, ok := e.(*query.Query); ok && len(q.By) == 0 && len(q.Modifiers) == 0 && q.Aggregator.Name == "" {
		return q.Scope, nil
	}
	return nil, fmt.Errorf("%s must be tags such as env:prod,service:web* or env:prod AND NOT service:web", name)
}
