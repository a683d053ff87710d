package payload

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"kelpie.dev/kelpie/metric"
)

var testEvents = []metric.Event{
	{Title: "first", Text: "of api\n\"quoted\" <b>", Time: 1_700_000_000, Host: "h", Priority: "normal", AlertType: "info"},
	{Title: "build", Text: "é", Time: 1_700_000_001, Priority: "low", SourceType: "jenkins", AlertType: "error", AggregationKey: "k", Tags: metric.Tags{"a:b", "c"}},
	{Title: "second", Time: 1_700_000_002, Priority: "normal", AlertType: "warning"},
}

func eventsBody(events []metric.Event, host string) []byte {
	var body []byte
	for i := range events {
		var previous *metric.Event
		if i > 0 {
			previous = &events[i-1]
		}
		body = AppendEvent(body, &events[i], previous)
	}
	return EndEvents(body, host)
}

func TestEvents(t *testing.T) {
	grouped := GroupEvents(testEvents)
	body := eventsBody(grouped, "node-1")
	const want = `{"apiKey":"","events":{` +
		`"api":[{"msg_title":"first","msg_text":"of api\n\"quoted\" \u003cb\u003e","timestamp":1700000000,"priority":"normal","host":"h","alert_type":"info"},` +
		`{"msg_title":"second","msg_text":"","timestamp":1700000002,"priority":"normal","host":"","alert_type":"warning"}],` +
		`"jenkins":[{"msg_title":"build","msg_text":"é","timestamp":1700000001,"priority":"low","host":"","tags":["a:b","c"],"alert_type":"error","aggregation_key":"k","source_type_name":"jenkins"}]},` +
		`"internalHostname":"node-1"}`
	if diff := cmp.Diff(want, string(body)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	got, host, err := DecodeEvents(body)
	if diff := cmp.Diff([]metric.Event{testEvents[0], testEvents[2], testEvents[1]}, got, emptyIsNil); diff != "" || host != "node-1" || err != nil {
		t.Errorf("host %q, %v (-want +got):\n%s", host, err, diff)
	}
	if testEvents[1].Title != "build" {
		t.Error("GroupEvents modified its argument")
	}
}

// emptyIsNil takes no tags for no tags.
var emptyIsNil = cmp.Transformer("tags", func(t metric.Tags) []string { return append([]string{}, t...) })

func TestDecodeEvents(t *testing.T) {
	for body, want := range map[string]string{ // titles with their sources, or what the error says
		`{}`:                          "",
		`{"events":null}`:             "",
		`{"internalHostname":"h"}`:    "",
		`{"host-tags":{"system":[]}}`: "", // host metadata travels on the same path
		`{"events":{"b":[{"msg_title":"x"},{"msg_title":"y","source_type_name":"z"}],"a":null}}`: "x/b y/z",
		`{"events":{"api":[{"msg_title":"x","timestamp":1.6,"tags":["b","a",null,"b"]}]}}`:       "x/",
		`{"events":{"api":[{"timestamp":-1}]}}`:                                                  "out of range",
		`{"events":{"api":[{"timestamp":"now"}]}}`:                                               "not a number",
		`{"events":{"api":{}}}`: "expected array",
		`{"events":[]}`:         "decode events",
		`{"events":{"api":[` + strings.Repeat(`{},`, MaxSeries) + `{}]}}`: "more than 100000",
		``:  "decode events",
		`[`: "decode events",
	} {
		events, _, err := DecodeEvents([]byte(body))
		var got []string
		for _, e := range events {
			got = append(got, e.Title+"/"+e.SourceType)
		}
		if err != nil {
			if len(want) < 5 || !strings.Contains(err.Error(), want) {
				t.Errorf("%.80s: %v, want %q", body, err, want)
			}
		} else if diff := cmp.Diff(want, strings.Join(got, " ")); diff != "" {
			t.Errorf("%.80s (-want +got):\n%s", body, diff)
		}
	}
}

func FuzzDecodeEvents(f *testing.F) {
	f.Add(eventsBody(GroupEvents(testEvents), "h"))
	f.Add([]byte(`{"events":{"a":[{"msg_title":"x","timestamp":"1","tags":[null]}],"api":null},"x":[[]]}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		events, host, err := DecodeEvents(body)
		if err != nil || len(events) == 0 {
			return
		}
		again := eventsBody(GroupEvents(events), host)
		got, gotHost, err := DecodeEvents(again)
		if diff := cmp.Diff(GroupEvents(events), got, emptyIsNil); err != nil || host != gotHost || diff != "" {
			t.Errorf("%s: %v, hosts %q and %q (-want +got):\n%s", again, err, host, gotHost, diff)
		}
	})
}

var testChecks = []metric.ServiceCheck{
	{Name: "up", Status: metric.CheckOK, Time: 1_700_000_000, Host: "h"},
	{Name: "db", Status: metric.CheckUnknown, Time: 1_700_000_001, Message: "a \"b\"\n", Tags: metric.Tags{"a:b"}},
}

func checksBody(checks []metric.ServiceCheck) []byte {
	var body []byte
	for i := range checks {
		body = AppendCheck(body, &checks[i], i == 0)
	}
	return EndChecks(body)
}

func TestChecks(t *testing.T) {
	body := checksBody(testChecks)
	const want = `[{"check":"up","host_name":"h","timestamp":1700000000,"status":0,"message":"","tags":null},` +
		`{"check":"db","host_name":"","timestamp":1700000001,"status":3,"message":"a \"b\"\n","tags":["a:b"]}]`
	if diff := cmp.Diff(want, string(body)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	got, err := DecodeChecks(body)
	if diff := cmp.Diff(testChecks, got, emptyIsNil); err != nil || diff != "" {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
}

func TestDecodeChecks(t *testing.T) {
	for body, want := range map[string]string{ // names, or what the error says
		`[]`:                                   "",
		`null`:                                 "",
		` {"check":"a","status":2,"new":[1]} `: "a",
		`[{"check":"a","timestamp":1.5}]`:      "a",
		`[{"check":"a"},{"status":1}]`:         "checks[1]: check is missing",
		`[{"check":"a","status":4}]`:           "status 4: expected 0 to 3",
		`[{"check":"a","status":-1}]`:          "decode service checks",
		`[{"check":"a","timestamp":-5}]`:       "out of range",
		`[` + strings.Repeat(`{"check":"a"},`, MaxSeries) + `{}]`: "more than 100000",
		``:       "decode service checks",
		`"x"`:    "expected array",
		`[{}] x`: "decode service checks",
	} {
		checks, err := DecodeChecks([]byte(body))
		var got []string
		for _, c := range checks {
			got = append(got, c.Name)
		}
		if err != nil {
			if len(want) < 5 || !strings.Contains(err.Error(), want) {
				t.Errorf("%.80s: %v, want %q", body, err, want)
			}
		} else if diff := cmp.Diff(want, strings.Join(got, " ")); diff != "" {
			t.Errorf("%.80s (-want +got):\n%s", body, diff)
		}
	}
}

func FuzzDecodeChecks(f *testing.F) {
	f.Add(checksBody(testChecks))
	f.Add([]byte(`{"check":"a","status":3,"timestamp":"9","tags":[null,"b"]}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		checks, err := DecodeChecks(body)
		if err != nil || len(checks) == 0 {
			return
		}
		again := checksBody(checks)
		if !json.Valid(again) {
			t.Fatalf("%q is not JSON", again)
		}
		got, err := DecodeChecks(again)
		if diff := cmp.Diff(checks, got, emptyIsNil); err != nil || diff != "" {
			t.Errorf("%s: %v (-want +got):\n%s", again, err, diff)
		}
	})
}

func TestDecodeEventV2(t *testing.T) {
	for body, want := range map[string]metric.Event{
		`{"data":{"attributes":{"title":"t","message":"m","timestamp":"2023-11-14T22:13:20.6Z","host":"h","aggregation_key":"k","tags":["a:b"],"category":"change"}}}`: {
			Title: "t", Text: "m", Time: 1_700_000_001, Host: "h", AggregationKey: "k", Tags: metric.Tags{"a:b", "category:change"}},
		`{"data":{"attributes":{"title":"t","attributes":{"status":"warn","priority":"4"}}}}`: {
			Title: "t", Text: `{"status":"warn","priority":"4"}`, AlertType: "warning", Priority: "low"},
		`{"data":{"attributes":{"title":"t","message":"m","attributes":null}}}`: {Title: "t", Text: "m"},
	} {
		got, err := DecodeEventV2([]byte(body))
		if d := cmp.Diff(want, got, emptyIsNil); err != nil || d != "" {
			t.Errorf("%s: %v %s", body, err, d)
		}
	}
}

func TestDecodeHost(t *testing.T) {
	for body, want := range map[string]HostMetadata{
		`{}`:                       {},
		`{"internalHostname":"h"}`: {Name: "h"},
		`{"internalHostname":"h","host-tags":null}`:                                                            {Name: "h"},
		`{"hostname":"i","agent_metadata":{},"os":{},"agentVersion":7,"meta":[]}`:                              {Name: "i"},
		`{"internalHostname":"h","host-tags":{}}`:                                                              {Name: "h", HasTags: true},
		`{"meta":{"hostname":"m"},"agentVersion":"7","os":"linux","host-tags":{"x":["b",null],"y":["a","b"]}}`: {Name: "m", Agent: "7", OS: "linux", HasTags: true, Tags: metric.Tags{"a", "b"}},
	} {
		got, err := DecodeHost([]byte(body))
		if d := cmp.Diff(want, got, emptyIsNil); err != nil || d != "" {
			t.Errorf("%s: %v %s", body, err, d)
		}
	}
}

// A body of the smallest events, or of sources without any, costs many times its
// size.
func TestDecodeEventsIsBounded(t *testing.T) {
	for _, body := range []string{
		`{"events":{"a":[{}` + strings.Repeat(",{}", MaxSeries) + `]}}`,
		`{"events":{"a":[]` + strings.Repeat(`,"a":[{}]`, MaxSeries/2) + `}}`,
		`{"events":{"a":[]` + strings.Repeat(`,"a":[]`, MaxSeries) + `}}`,
	} {
		if _, _, err := DecodeEvents([]byte(body)); err == nil || !strings.Contains(err.Error(), "more than 100000") {
			t.Errorf("%.40s…: %v", body, err)
		}
	}
	body := `{"internalHostname":"h","host-tags":{"a":["t"` + strings.Repeat(`,"t"`, MaxSeries) + `]}}`
	if _, err := DecodeHost([]byte(body)); err == nil || !strings.Contains(err.Error(), "more than 100000") {
		t.Errorf("host tags: %v", err)
	}
}

// FuzzDecodeRecords reads events of the API and hosts' metadata: what is taken is
// text that is an event again, and canonical tags.
func FuzzDecodeRecords(f *testing.F) {
	f.Add([]byte(`{"title":"t","text":"x","date_happened":1700000000.4,"tags":["b","a",null]}`))
	f.Add([]byte(`{"data":{"type":"event","attributes":{"title":"t","timestamp":"2023-11-14T22:13:20Z","tags":["b"],"attributes":{"status":"ok"}}}}`))
	f.Add([]byte(`{"internalHostname":"h","meta":{"hostname":"x"},"host-tags":{"system":["b","a"]}}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		for _, decode := range []func([]byte) (metric.Event, error){DecodeEvent, DecodeEventV2} {
			e, err := decode(body)
			if err != nil {
				continue
			}
			if e.Title == "" {
				t.Error("an event without a title")
			}
			if d := cmp.Diff([]string(metric.NewTags(e.Tags...)), append([]string{}, e.Tags...)); d != "" && len(e.Tags) > 0 {
				t.Error(d)
			}
			if text, err := json.Marshal(NewAPIEvent(1, &e)); err != nil || !json.Valid(text) {
				t.Errorf("%v %s", err, text)
			}
		}
		if h, err := DecodeHost(body); err == nil && len(h.Tags) > 0 {
			if d := cmp.Diff([]string(metric.NewTags(h.Tags...)), []string(h.Tags)); d != "" || !h.HasTags {
				t.Error(d)
			}
		}
	})
}
