package payload_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"kelpie.dev/kelpie/metric/payload"
)

const timeseriesRequest = `{"data":{"type":"timeseries_request","attributes":{"from":1000,"to":2000,"interval":500,` +
	`"formulas":[{"formula":"a/b","limit":{"count":10,"order":"asc"}}],` +
	`"queries":[{"data_source":"metrics","query":"avg:m{*} by {host}","name":"a"},{"data_source":"metrics","query":"sum:n{*}","name":"b"}]}}}`

func TestDecodeFormulaRequest(t *testing.T) {
	got, err := payload.DecodeFormulaRequest([]byte(timeseriesRequest), "timeseries_request")
	want := &payload.FormulaRequest{
		Type: "timeseries_request", From: 1000, To: 2000, Interval: 500,
		Formulas: []payload.Formula{{Formula: "a/b", Limit: &payload.FormulaLimit{Count: 10, Order: "asc"}}},
		Queries:  []payload.FormulaQuery{{DataSource: "metrics", Query: "avg:m{*} by {host}", Name: "a"}, {DataSource: "metrics", Query: "sum:n{*}", Name: "b"}},
	}
	if d := cmp.Diff(want, got); err != nil || d != "" {
		t.Error(err, d)
	}
	change := func(old, replacement string) string {
		if !strings.Contains(timeseriesRequest, old) {
			t.Fatalf("the request has no %s", old)
		}
		return strings.Replace(timeseriesRequest, old, replacement, 1)
	}
	for _, tt := range []struct{ name, body, kind, want string }{
		{"not JSON", "{", "", "body is not JSON: "},
		{"another type", timeseriesRequest, "scalar_request", `data.type is "timeseries_request", expected "scalar_request"`},
		{"from", change(`"from":1000,`, ""), "", "data.attributes.from is required"},
		{"to", change(`"to":2000,`, ""), "", "data.attributes.to is required"},
		{"from is text", change(`"from":1000`, `"from":"x"`), "", "data.attributes.from is a JSON string"},
		{"fraction", change(`"to":2000`, `"to":20.5`), "", "data.attributes.to is a JSON number 20.5"},
		{"backwards", change(`"from":1000`, `"from":2000`), "", "data.attributes.from must be earlier than to"},
		{"far", change(`"to":2000`, `"to":9000000000000000`), "", "data.attributes.to must be"},
		{"interval", change(`"interval":500`, `"interval":-1`), "", "data.attributes.interval must be"},
		{"data source", change(`"metrics"`, `"logs"`), "", `data.attributes.queries[0].data_source is "logs"`},
		{"no text", change(`"sum:n{*}"`, `""`), "", "data.attributes.queries[1].query is required"},
		{"no name", change(`"name":"b"`, `"name":""`), "", "data.attributes.queries[1].name is required"},
		{"same name", change(`"name":"b"`, `"name":"a"`), "", `data.attributes.queries[1].name is "a", as that of another`},
		{"odd name", change(`"name":"b"`, `"name":"b c"`), "", `data.attributes.queries[1].name is "b c"`},
		{"order", change(`"asc"`, `"up"`), "", `data.attributes.formulas[0].limit.order is "up"`},
		{"count", change(`"count":10`, `"count":-1`), "", "data.attributes.formulas[0].limit.count must"},
		{"no formula", change(`"a/b"`, `""`), "", "data.attributes.formulas[0].formula is required"},
		{"no query", `{"data":{"type":"timeseries_request","attributes":{"from":1,"to":2}}}`, "", "data.attributes.queries must hold"},
		{"aggregator", `{"data":{"type":"scalar_request","attributes":{"from":1,"to":2,"queries":[{"data_source":"metrics","query":"m{*}","aggregator":"median"}]}}}`,
			"scalar_request", `data.attributes.queries[0].aggregator is "median", expected one of avg, min`},
	} {
		kind := tt.kind
		if kind == "" {
			kind = "timeseries_request"
		}
		if _, err := payload.DecodeFormulaRequest([]byte(tt.body), kind); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", tt.name, err, tt.want)
		}
	}
}

func TestResponsesHaveListsAndNoNulls(t *testing.T) {
	for _, tt := range []struct {
		response any
		want     string
	}{
		{&payload.TimeseriesResponse{}, `{"data":{"attributes":{"series":[],"times":[],"values":[]},"id":"0","type":"timeseries_response"}}`},
		{&payload.ScalarResponse{Numbers: []payload.NumberColumn{{Name: "a"}}},
			`{"data":{"attributes":{"columns":[{"name":"a","type":"number","values":[],"meta":{"unit":null}}]},"id":"0","type":"scalar_response"}}`},
	} {
		got, err := json.Marshal(tt.response)
		if err != nil || string(got) != tt.want {
			t.Errorf("got %s, %v; want %s", got, err, tt.want)
		}
	}
}

func FuzzDecodeFormulaRequest(f *testing.F) {
	f.Add([]byte(timeseriesRequest))
	f.Add([]byte(strings.ReplaceAll(timeseriesRequest, "timeseries_request", "scalar_request")))
	f.Fuzz(func(t *testing.T, body []byte) {
		for _, kind := range []string{"timeseries_request", "scalar_request"} {
			r, err := payload.DecodeFormulaRequest(body, kind)
			if (r == nil) == (err == nil) {
				t.Fatalf("%+v, %v", r, err)
			}
			if r != nil && (r.From >= r.To || len(r.Queries) == 0 || r.Interval < 0) {
				t.Errorf("accepted %+v", r)
			}
		}
	})
}
