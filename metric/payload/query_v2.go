package payload

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Limits of one request of the v2 query API.
const (
	MaxFormulaQueries = 100
	MaxFormulas       = 100
)

// A FormulaRequest is the body of POST /api/v2/query/timeseries or /scalar: named
// queries, and what to compute of them.
type FormulaRequest struct {
	Type     string // "timeseries_request" or "scalar_request"
	From, To int64  // milliseconds since 1970; From is inclusive, To is not
	Interval int64  // milliseconds; 0 leaves the choice to the server. Not of scalars
	Formulas []Formula
	Queries  []FormulaQuery
}

// A Formula is an expression over the names of queries.
type Formula struct {
	Formula string        `json:"formula"`
	Limit   *FormulaLimit `json:"limit"`
}

// A FormulaLimit keeps the first Count groups by their values.
type FormulaLimit struct {
	Count int64  `json:"count"` // 0 keeps all
	Order string `json:"order"` // "asc" or "desc"; "" means "desc"
}

// A FormulaQuery is one named query.
type FormulaQuery struct {
	DataSource string `json:"data_source"` // "metrics" is the only one
	Query      string `json:"query"`
	Name       string `json:"name"`       // "" where there is no formula
	Aggregator string `json:"aggregator"` // of scalars: how a group's points become its value
}

// formulaEnvelope is a FormulaRequest on the wire.
type formulaEnvelope struct {
	Data struct {
		Type       string `json:"type"`
		Attributes struct {
			From     *int64         `json:"from"`
			To       *int64         `json:"to"`
			Interval int64          `json:"interval"`
			Formulas []Formula      `json:"formulas"`
			Queries  []FormulaQuery `json:"queries"`
		} `json:"attributes"`
	} `json:"data"`
}

// Aggregators of scalar queries.
var scalarAggregators = []string{"avg", "min", "max", "sum", "last", "percentile", "mean", "l2norm", "area"}

// DecodeFormulaRequest reads a request of the given type, and names the part
// that is to blame where it is not one. Members that it does not know are ignored.
func DecodeFormulaRequest(body []byte, kind string) (*FormulaRequest, error) {
	var e formulaEnvelope
	if err := json.Unmarshal(body, &e); err != nil {
		return nil, jsonError(err)
	}
	a := &e.Data.Attributes
	r := &FormulaRequest{Type: e.Data.Type, Interval: a.Interval, Formulas: a.Formulas, Queries: a.Queries}
	switch {
	case r.Type != kind:
		return nil, fmt.Errorf("data.type is %q, expected %q", clip(r.Type), kind)
	case a.From == nil:
		return nil, errors.New("data.attributes.from is required: milliseconds since 1970")
	case a.To == nil:
		return nil, errors.New("data.attributes.to is required: milliseconds since 1970")
	}
	r.From, r.To = *a.From, *a.To
	if err := r.validate(); err != nil {
		return nil, fmt.Errorf("data.attributes.%w", err)
	}
	return r, nil
}

func (r *FormulaRequest) validate() error {
	const farthest = 1 << 43 // milliseconds; about the year 2248
	switch {
	case r.From < 0 || r.From > farthest:
		return errors.New("from must be milliseconds since 1970")
	case r.To < 0 || r.To > farthest:
		return errors.New("to must be milliseconds since 1970")
	case r.From >= r.To:
		return errors.New("from must be earlier than to")
	case r.Interval < 0 || r.Interval > 366*86400*1000:
		return errors.New("interval must be from 0 to 31622400000 milliseconds")
	case len(r.Queries) == 0:
		return errors.New("queries must hold at least one query")
	case len(r.Queries) > MaxFormulaQueries:
		return fmt.Errorf("queries holds %d queries, more than %d", len(r.Queries), MaxFormulaQueries)
	case len(r.Formulas) > MaxFormulas:
		return fmt.Errorf("formulas holds %d formulas, more than %d", len(r.Formulas), MaxFormulas)
	}
	for i := range r.Queries {
		if err := r.validateQuery(i); err != nil {
			return fmt.Errorf("queries[%d].%w", i, err)
		}
	}
	for i := range r.Formulas {
		if err := r.Formulas[i].validate(); err != nil {
			return fmt.Errorf("formulas[%d].%w", i, err)
		}
	}
	return nil
}

func (r *FormulaRequest) validateQuery(i int) error {
	q := &r.Queries[i]
	switch {
	case q.DataSource != "metrics":
		return fmt.Errorf(`data_source is %q: only "metrics" is there`, clip(q.DataSource))
	case q.Query == "":
		return errors.New("query is required")
	case q.Name == "" && len(r.Formulas) > 0:
		return errors.New("name is required where there are formulas")
	case q.Name != "" && !isFormulaName(q.Name):
		return fmt.Errorf("name is %q: expected a letter, then letters, digits and underscores", clip(q.Name))
	case q.Name != "" && slices.ContainsFunc(r.Queries[:i], func(o FormulaQuery) bool { return o.Name == q.Name }):
		return fmt.Errorf("name is %q, as that of another query", clip(q.Name))
	case r.Type == "scalar_request" && !slices.Contains(scalarAggregators, q.Aggregator):
		return fmt.Errorf("aggregator is %q, expected one of %s", clip(q.Aggregator), strings.Join(scalarAggregators, ", "))
	}
	return nil
}

func (f *Formula) validate() error {
	switch {
	case f.Formula == "":
		return errors.New("formula is required")
	case f.Limit == nil:
		return nil
	case f.Limit.Count < 0:
		return errors.New("limit.count must not be negative")
	case f.Limit.Order != "" && f.Limit.Order != "asc" && f.Limit.Order != "desc":
		return fmt.Errorf("limit.order is %q, expected asc or desc", clip(f.Limit.Order))
	}
	return nil
}

// isFormulaName reports whether s can be read as a name in a formula.
func isFormulaName(s string) bool {
	for i := range len(s) {
		c := s[i]
		letter := c|0x20 >= 'a' && c|0x20 <= 'z'
		if !letter && (i == 0 || c != '_' && (c < '0' || c > '9')) {
			return false
		}
	}
	return s != ""
}

// jsonError says what is wrong with a body in its own terms, not in those of Go.
func jsonError(err error) error {
	var wrong *json.UnmarshalTypeError
	if errors.As(err, &wrong) {
		return fmt.Errorf("%s is a JSON %s, expected another kind of value", cmp.Or(wrong.Field, "body"), wrong.Value)
	}
	return fmt.Errorf("body is not JSON: %w", err)
}

// clip bounds what an error repeats of a request.
func clip(s string) string {
	if r := []rune(s); len(r) > 60 {
		return string(r[:60]) + "…"
	}
	return s
}

// A TimeseriesResponse is the answer to a timeseries_request. Values[i] belongs
// to Series[i], and Values[i][j] to Times[j].
type TimeseriesResponse struct {
	Series []TimeseriesSeries
	Times  []int64 // milliseconds
	Values [][]*float64
}

// A TimeseriesSeries is one group of one formula.
type TimeseriesSeries struct {
	GroupTags  []string     `json:"group_tags"`
	QueryIndex int          `json:"query_index"` // of the formula; of the query where there is no formula
	Unit       []*QueryUnit `json:"unit"`        // nil, or exactly [unit, per unit]
}

// MarshalJSON implements json.Marshaler: the document that the API answers.
func (r *TimeseriesResponse) MarshalJSON() ([]byte, error) {
	return json.Marshal(document("timeseries_response", struct {
		Series []TimeseriesSeries `json:"series"`
		Times  []int64            `json:"times"`
		Values [][]*float64       `json:"values"`
	}{filled(r.Series), filled(r.Times), filled(r.Values)}))
}

// A ScalarResponse is the answer to a scalar_request: a table by columns, first
// those of group keys, then those of numbers.
type ScalarResponse struct {
	Groups  []GroupColumn
	Numbers []NumberColumn
}

// A GroupColumn holds the values of a group key, row by row.
type GroupColumn struct {
	Name   string     `json:"name"`
	Type   string     `json:"type"` // "group"
	Values [][]string `json:"values"`
}

// A NumberColumn holds the values of a formula, row by row.
type NumberColumn struct {
	Name   string     `json:"name"`
	Type   string     `json:"type"` // "number"
	Values []*float64 `json:"values"`
	Meta   ScalarMeta `json:"meta"`
}

// ScalarMeta describes a NumberColumn.
type ScalarMeta struct {
	Unit []*QueryUnit `json:"unit"` // nil, or exactly [unit, per unit]
}

// MarshalJSON implements json.Marshaler: the document that the API answers.
func (r *ScalarResponse) MarshalJSON() ([]byte, error) {
	columns := make([]any, 0, len(r.Groups)+len(r.Numbers))
	for _, c := range r.Groups {
		c.Type, c.Values = "group", filled(c.Values)
		columns = append(columns, c)
	}
	for _, c := range r.Numbers {
		c.Type, c.Values = "number", filled(c.Values)
		columns = append(columns, c)
	}
	return json.Marshal(document("scalar_response", map[string]any{"columns": columns}))
}

// document is a JSON:API document of one resource.
func document(kind string, attributes any) any {
	return map[string]any{"data": map[string]any{"id": "0", "type": kind, "attributes": attributes}}
}

// filled makes a nil list an empty one, as the wire has it.
func filled[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}
