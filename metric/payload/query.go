package payload

// QueryResponse is the body of GET /api/v1/query. Lists are never null on the
// wire: NewQueryResponse returns a response whose lists are empty instead.
type QueryResponse struct {
	Status      string        `json:"status"` // "ok" or "error"
	ResType     string        `json:"res_type"`
	RespVersion int           `json:"resp_version"`
	Query       string        `json:"query"`
	FromDate    int64         `json:"from_date"` // milliseconds
	ToDate      int64         `json:"to_date"`   // milliseconds
	Series      []QuerySeries `json:"series"`
	Values      []float64     `json:"values"`
	Times       []float64     `json:"times"`
	GroupBy     []string      `json:"group_by"`
	Message     string        `json:"message"`
	Error       string        `json:"error,omitempty"` // set when Status is "error"
}

// NewQueryResponse returns a response without series to query over [from, to]
// in Unix seconds: the answer when nothing matched, and the frame of all others.
func NewQueryResponse(query string, from, to int64) *QueryResponse {
	return &QueryResponse{
		Status: "ok", ResType: "time_series", RespVersion: 1, Query: query,
		FromDate: from * 1000, ToDate: to * 1000,
		Series: []QuerySeries{}, Values: []float64{}, Times: []float64{}, GroupBy: []string{},
	}
}

// QuerySeries is one series of a QueryResponse: one group of one query.
type QuerySeries struct {
	Metric      string         `json:"metric"`
	DisplayName string         `json:"display_name"`
	Expression  string         `json:"expression"`
	Scope       string         `json:"scope"`
	TagSet      []string       `json:"tag_set"`
	Aggr        *string        `json:"aggr"`     // space aggregator; nil for functions and arithmetic
	Interval    int64          `json:"interval"` // bucket width in seconds
	Length      int            `json:"length"`   // number of points
	QueryIndex  *int           `json:"query_index"`
	Start       int64          `json:"start"` // first point, milliseconds
	End         int64          `json:"end"`   // last point + interval - 1 s, milliseconds
	Pointlist   []QueryPoint   `json:"pointlist"`
	Unit        []*QueryUnit   `json:"unit"` // nil, or exactly [unit, per unit]
	Attributes  map[string]any `json:"attributes"`
}

// QueryPoint is [milliseconds, value]; a nil value is a bucket without data.
type QueryPoint [2]*float64

// QueryUnit describes a Datadog unit.
type QueryUnit struct {
	ID          int64   `json:"id"`
	Family      string  `json:"family"`
	Name        string  `json:"name"`
	ShortName   string  `json:"short_name"`
	Plural      string  `json:"plural"`
	ScaleFactor float64 `json:"scale_factor"`
}

// ErrorBody is the body of an error of Datadog's API. Clients accept further
// members; the list is what all of them read.
type ErrorBody struct {
	Errors []string `json:"errors"`
}
