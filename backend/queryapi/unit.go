package queryapi

import (
	"strings"

	"kelpie.dev/kelpie/metric/payload"
)

// units are those of Datadog's units that agents submit with a number of their
// own. Any other is passed on by its name.
var units = map[string]payload.QueryUnit{
	"bit":         {ID: 1, Family: "bytes", Name: "bit", ShortName: "b", Plural: "bits", ScaleFactor: 0.125},
	"byte":        {ID: 2, Family: "bytes", Name: "byte", ShortName: "B", Plural: "bytes", ScaleFactor: 1},
	"nanosecond":  {ID: 8, Family: "time", Name: "nanosecond", ShortName: "ns", Plural: "nanoseconds", ScaleFactor: 1e-9},
	"microsecond": {ID: 9, Family: "time", Name: "microsecond", ShortName: "μs", Plural: "microseconds", ScaleFactor: 1e-6},
	"millisecond": {ID: 10, Family: "time", Name: "millisecond", ShortName: "ms", Plural: "milliseconds", ScaleFactor: 1e-3},
	"second":      {ID: 11, Family: "time", Name: "second", ShortName: "s", Plural: "seconds", ScaleFactor: 1},
	"percent":     {ID: 17, Family: "percentage", Name: "percent", ShortName: "%", Plural: "percent", ScaleFactor: 1},
}

// unit returns nil, or the two elements that the API has: a unit, and per what.
// A name such as "byte/second" has both.
func unit(name string) []*payload.QueryUnit {
	if name == "" {
		return nil
	}
	name, per, rated := strings.Cut(name, "/")
	if !rated {
		return []*payload.QueryUnit{unitNamed(name), nil}
	}
	return []*payload.QueryUnit{unitNamed(name), unitNamed(per)}
}

func unitNamed(name string) *payload.QueryUnit {
	u, ok := units[name]
	if !ok {
		u = payload.QueryUnit{Name: name, ShortName: name, Plural: name, ScaleFactor: 1}
	}
	return &u
}
