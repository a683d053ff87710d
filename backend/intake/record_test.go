package intake

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"kelpie.dev/kelpie/backend/record"
	"kelpie.dev/kelpie/metric"
)

// events lists titles, hosts and tags of what is kept, newest first.
func (f *fixture) events(t *testing.T) []string {
	t.Helper()
	all, err := f.book.Events(t.Context(), record.Filter{To: time.Now().Unix() + 3600})
	if err != nil {
		t.Fatal(err)
	}
	out := []string{}
	for _, e := range all {
		out = append(out, fmt.Sprintf("%s %s@%s {%s}", e.SourceType, e.Title, e.Host, e.Tags))
	}
	return out
}

func TestEventsOfClients(t *testing.T) {
	f := newFixture(t)
	if w := f.post("/intake/", []byte(`{"internalHostname":"web","host-tags":{"system":["Rack:R1"]}}`)); w.Code != http.StatusAccepted {
		t.Fatal(w.Body)
	}
	now := time.Now().Unix()
	w := f.post("/api/v1/events", fmt.Appendf(nil, `{"title":"deploy","text":"of v2","date_happened":%d,"host":"web","tags":["Env:Prod",null],"source_type_name":"jenkins","alert_type":"warning","priority":"low","aggregation_key":"k","device_name":"sda","x":1}`, now))
	added, err := f.book.Events(t.Context(), record.Filter{To: now + 1})
	if err != nil || len(added) != 1 {
		t.Fatalf("%v %v", added, err)
	}
	want := fmt.Sprintf(`{"event":{"id":%[1]d,"id_str":"%[1]d","title":"deploy","text":"of v2","date_happened":%[2]d,"priority":"low","alert_type":"warning","host":"web","source":"jenkins","source_type_name":"jenkins","aggregation_key":"k","tags":["device:sda","env:prod","rack:r1"],"url":"/api/v1/events/%[1]d"},"status":"ok"}`, added[0].ID, now)
	if w.Code != http.StatusAccepted || w.Body.String() != want {
		t.Errorf("answered %d %s\nwant %s", w.Code, w.Body, want)
	}
	w = f.post("/api/v2/events", []byte(`{"data":{"type":"event","attributes":{"title":"alert","message":"cpu","category":"alert","integration_id":"custom","tags":["a:b"],"attributes":{"status":"error","priority":"5"}}}}`))
	if w.Code != http.StatusAccepted || !strings.HasPrefix(w.Body.String(), `{"data":{"attributes":{"attributes":{"evt":{"id":"`) {
		t.Errorf("answered %d %s", w.Code, w.Body)
	}
	if d := cmp.Diff([]string{"custom alert@ {a:b,category:alert}", "jenkins deploy@web {device:sda,env:prod,rack:r1}"}, f.events(t)); d != "" {
		t.Error(d)
	}
}

func TestWhatAgentsSendToIntake(t *testing.T) {
	f := newFixture(t)
	now := time.Now().Unix()
	body := fmt.Appendf(nil, `{"apiKey":"","internalHostname":"Node-1","agentVersion":"7.81.0","os":"linux","meta":{"hostname":"x"},"gohai":"{}",
		"events":{"api":[{"msg_title":"a","timestamp":%d,"tags":["B:C"]},{"msg_title":"old","timestamp":5}],"jenkins":[{"msg_title":"b","host":"other"}]},
		"host-tags":{"system":["Env:Prod","kube_cluster_name:one"],"google cloud platform":["zone:z"]}}`, now)
	w := f.post("/intake/", encode(t, "zlib", body), "Content-Encoding", "deflate")
	if w.Code != http.StatusAccepted || w.Body.String() != `{"errors":["event \"old\": its time 5 is more than 18 hours in the past or 2 hours in the future"],"status":"ok"}` {
		t.Errorf("answered %d %s", w.Code, w.Body)
	}
	if d := cmp.Diff([]string{"jenkins b@other {}", " a@Node-1 {b:c}"}, f.events(t)); d != "" {
		t.Error(d)
	}
	hosts := f.book.Hosts()
	if len(hosts) != 1 || hosts[0].Name != "Node-1" || hosts[0].Agent != "7.81.0" || hosts[0].OS != "linux" || hosts[0].Tags.String() != "env:prod,kube_cluster_name:one,zone:z" {
		t.Errorf("hosts %+v", hosts)
	}
	// What says nothing of tags changes none; what says that there are none does.
	f.post("/intake/", []byte(`{"internalHostname":"node-1","events":{}}`))
	if got := f.book.HostTags("NODE-1"); len(got) != 3 {
		t.Errorf("tags %v", got)
	}
	f.post("/api/v2/host_metadata", []byte(`{"meta":{"hostname":"node-1"},"host-tags":{}}`))
	if got := f.book.HostTags("node-1"); len(got) != 0 {
		t.Errorf("tags %v", got)
	}
	for i, want := range []string{`{"status": "ok"}`, `{"errors":["host \"h1\": there are 2 hosts, which is the limit (KELPIE_MAX_HOSTS)"],"status":"ok"}`} {
		if w := f.post("/intake/", fmt.Appendf(nil, `{"internalHostname":"h%d","host-tags":{"system":["a"]}}`, i)); w.Body.String() != want {
			t.Errorf("answered %s", w.Body)
		}
	}
}

func TestServiceChecks(t *testing.T) {
	f := newFixture(t)
	now := time.Now().Unix()
	body := fmt.Sprintf(`[{"check":"nginx.can_connect","host_name":"h","timestamp":%d,"status":2,"message":"refused","tags":["Env:Prod"]},{"check":"old","timestamp":1,"status":0,"tags":null}]`, now)
	w := f.post("/api/v1/check_run", encode(t, "zstd", []byte(body)), "Content-Encoding", "zstd")
	if w.Code != http.StatusAccepted || w.Body.String() != `{"errors":["service check \"old\": its time 1 is more than 10 minutes from now"],"status":"ok"}` {
		t.Errorf("answered %d %s", w.Code, w.Body)
	}
	if w := f.post("/api/v2/service_checks", []byte(`{"check":"nginx.can_connect","host_name":"h","status":0,"tags":["env:prod"]}`)); w.Code != http.StatusAccepted || w.Body.String() != `{"status": "ok"}` {
		t.Errorf("answered %d %s", w.Code, w.Body)
	}
	all, err := f.book.Checks(t.Context(), "nginx.can_connect")
	if err != nil || len(all) != 1 || all[0].Status != metric.CheckOK || len(all[0].Runs) == 0 || all[0].Tags.String() != "env:prod" {
		t.Errorf("%+v %v", all, err)
	}
	many := make([]string, 0, 30)
	for i := range 30 {
		many = append(many, fmt.Sprintf(`{"check":"c%d","status":0}`, i))
	}
	w = f.post("/api/v1/check_run", []byte("["+strings.Join(many, ",")+"]"))
	if w.Code != http.StatusAccepted || strings.Count(w.Body.String(), "KELPIE_MAX_CHECKS") != maxLines || !strings.Contains(w.Body.String(), `"and 8 more"`) {
		t.Errorf("answered %d %s", w.Code, w.Body)
	}
}

func TestSeriesAnswerTellsWhatWasRefused(t *testing.T) {
	f := newFixture(t)
	w := f.post("/api/v2/series", []byte(`{"series":[{"metric":"ok"},{"metric":"123"},{"metric":"m","tags":["x`+manyTags()+`"]}]}`))
	if w.Code != http.StatusAccepted || w.Body.String() != `{"errors":["\"123\": its name has no letter, or more than 200 characters","\"m\": it has more than 500 tags"]}` {
		t.Errorf("answered %d %s", w.Code, w.Body)
	}
	w = f.post("/api/v2/series", []byte(`{"series":[`+strings.TrimSuffix(strings.Repeat(`{"metric":"1"},`, 100), ",")+`]}`))
	if !strings.HasSuffix(w.Body.String(), `"and 80 more"]}`) || strings.Count(w.Body.String(), "no letter") != maxLines {
		t.Errorf("answered %s", w.Body)
	}
	if got := testutil.ToFloat64(f.in.metrics.series.WithLabelValues(reasonName)); got != 101 {
		t.Errorf("counted %v", got)
	}
}
