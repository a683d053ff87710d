package payload_test

import (
	"encoding/json"
	"strings"
	"testing"

	"kelpie.dev/kelpie/metric/payload"
)

func TestEditMetadata(t *testing.T) {
	const before = `{"description":"d","short_name":null,"integration":null,"statsd_interval":10,"per_unit":null,"type":"rate","unit":"byte"}`
	for _, tt := range []struct{ body, want, err string }{
		{`{}`, before, ""},
		{`{"description":"new","unit":null,"integration":"mine"}`, `{"description":"new","short_name":null,"integration":null,"statsd_interval":10,"per_unit":null,"type":"rate","unit":null}`, ""},
		{`{"description":"","statsd_interval":0,"per_unit":"second"}`, `{"description":null,"short_name":null,"integration":null,"statsd_interval":null,"per_unit":"second","type":"rate","unit":"byte"}`, ""},
		{`{"type":"histogram"}`, "", `type is "histogram", expected gauge`},
		{`{"statsd_interval":-1}`, "", "statsd_interval must be"},
		{`{"short_name":"` + strings.Repeat("x", 201) + `"}`, "", "short_name is longer than 200"},
		{`{"unit":3}`, "", "unit is a JSON number"},
		{`[`, "", "body is not JSON"},
	} {
		var m payload.MetricMetadata
		if err := json.Unmarshal([]byte(before), &m); err != nil {
			t.Fatal(err)
		}
		edited, err := payload.EditMetadata(m, []byte(tt.body))
		if tt.err != "" {
			if err == nil || !strings.Contains(err.Error(), tt.err) {
				t.Errorf("%s: %v, want %s", tt.body, err, tt.err)
			}
			continue
		}
		got, merr := json.Marshal(edited)
		if err != nil || merr != nil || string(got) != tt.want {
			t.Errorf("%s: %s, %v, want %s", tt.body, got, err, tt.want)
		}
		if still, _ := json.Marshal(m); string(still) != before {
			t.Errorf("%s: what was edited is now %s", tt.body, still)
		}
	}
}

func TestDecodeTagConfiguration(t *testing.T) {
	const ok = `{"data":{"type":"manage_tags","id":"m","attributes":{"tags":["env"],"metric_type":"gauge","aggregations":[{"space":"sum","time":"avg"}]}}}`
	e, err := payload.DecodeTagConfiguration([]byte(ok), "m")
	if err != nil || e.Tags[0] != "env" || *e.MetricType != "gauge" || e.Aggregations[0].Space != "sum" || e.IncludePercentiles != nil {
		t.Errorf("%+v, %v", e, err)
	}
	for _, tt := range []struct{ old, replacement, want string }{
		{"manage_tags", "metrics", `data.type is "metrics"`},
		{`"m"`, `"n"`, `data.id is "n", expected the name in the path, "m"`},
		{`"env"`, `""`, "data.attributes.tags[0]"},
		{`"sum"`, `"p95"`, "data.attributes.aggregations[0]"},
		{`["env"]`, `"env"`, "data.attributes.tags is a JSON string"},
	} {
		if _, err := payload.DecodeTagConfiguration([]byte(strings.Replace(ok, tt.old, tt.replacement, 1)), "m"); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %s", tt.replacement, err, tt.want)
		}
	}
}

func FuzzEditMetadata(f *testing.F) {
	f.Add([]byte(`{"description":"x","statsd_interval":10,"type":"gauge"}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		m, err := payload.EditMetadata(payload.MetricMetadata{}, body)
		if err == nil && m.StatsdInterval != nil && *m.StatsdInterval < 1 {
			t.Errorf("%+v", m)
		}
	})
}

func FuzzDecodeTagConfiguration(f *testing.F) {
	f.Add([]byte(`{"data":{"type":"manage_tags","id":"m","attributes":{"tags":["env"],"metric_type":"gauge"}}}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		e, err := payload.DecodeTagConfiguration(body, "m")
		if err == nil && len(e.Tags) > 1000 {
			t.Errorf("%d tags", len(e.Tags))
		}
	})
}
