package nginx

import (
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"kelpie.dev/kelpie/agent/check"
	"kelpie.dev/kelpie/agent/check/fetch"
	"kelpie.dev/kelpie/metric"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// page has the layout that nginx's documentation of stub_status shows.
const page = "Active connections: 291 \nserver accepts handled requests\n 16630948 16630946 31070465 \nReading: 6 Writing: 179 Waiting: 106 \n"

func TestParse(t *testing.T) {
	for _, c := range []struct {
		name, page string
		want       status
		err        string
	}{
		{"nginx", page, status{291, 16630948, 16630946, 31070465, 6, 179, 106}, ""},
		{"lines of Windows", strings.ReplaceAll(page, "\n", "\r\n"), status{291, 16630948, 16630946, 31070465, 6, 179, 106}, ""},
		{"Tengine", "Active connections: 1 \nserver accepts handled requests request_time\n 2 3 4 5\nReading: 6 Writing: 7 Waiting: 8 \n", status{1, 2, 3, 4, 6, 7, 8}, ""},
		{"another page", "<!DOCTYPE html>" + strings.Repeat("x", 100), status{}, "set nginx_status_url to a location with the directive stub_status"},
		{"cut", page[:60], status{}, "not nginx's stub_status"},
		{"too large", strings.Replace(page, "291", strings.Repeat("9", 30), 1), status{}, "a number that is too large"},
		{"empty", "", status{}, "not nginx's stub_status"},
	} {
		got, err := parse([]byte(c.page))
		if got != c.want {
			t.Errorf("%s: %+v, want %+v", c.name, got, c.want)
		}
		if c.err == "" && err != nil || c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)) {
			t.Errorf("%s: %v, want %q", c.name, err, c.err)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(page))
	f.Add([]byte("Active connections: 1 \nserver accepts handled requests request_time\n 2 3 4 5\nReading: 6 Writing: 7 Waiting: 8 \n"))
	f.Fuzz(func(t *testing.T, page []byte) {
		if s, err := parse(page); err == nil && (s.active < 0 || s.waiting < 0) {
			t.Errorf("%+v", s)
		}
	})
}

func TestCheck(t *testing.T) {
	answers := []string{page, strings.NewReplacer("16630948", "16630978", "16630946", "16630973", "31070465", "31070765").Replace(page), "not found"}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if answers[0] == "not found" {
			w.WriteHeader(http.StatusNotFound)
		}
		_, _ = io.WriteString(w, answers[0])
		answers = answers[1:]
	}))
	defer server.Close()
	host, port, _ := strings.Cut(strings.TrimPrefix(server.URL, "http://"), ":")
	trial, err := check.NewTrial(Kind(), check.Instance{
		Values: map[string]any{"nginx_status_url": server.URL + "/nginx_status", "tags": []string{"team:a"}}, Access: fetch.Access{File: true},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer trial.Close()
	tags := metric.NewTags("team:a")
	checkTags := tags.Union("nginx_host:"+host, "port:"+port)
	var got map[string]float64
	for run := range 2 {
		series, checks, err := trial.Run(t.Context(), time.Unix(int64(1000+15*run), 0))
		if err != nil {
			t.Fatal(err)
		}
		got = map[string]float64{}
		for _, s := range series {
			got[s.Name] = s.Points[0].Value
			if s.Type != metric.Gauge || !cmp.Equal(s.Tags, tags) {
				t.Errorf("%+v", s)
			}
		}
		want := []metric.ServiceCheck{{Name: "nginx.can_connect", Status: metric.CheckOK, Time: int64(1000 + 15*run), Tags: checkTags}}
		if d := cmp.Diff(want, checks); d != "" {
			t.Errorf("(-want +got)\n%s", d)
		}
	}
	want := map[string]float64{
		"nginx.net.connections": 291, "nginx.net.conn_opened_per_s": 2, "nginx.net.conn_dropped_per_s": 0.2, "nginx.net.request_per_s": 20,
		"nginx.net.reading": 6, "nginx.net.writing": 179, "nginx.net.waiting": 106,
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-want +got)\n%s", d)
	}
	series, checks, err := trial.Run(t.Context(), time.Unix(1030, 0))
	if err == nil || len(series) != 0 || len(checks) != 1 || checks[0].Status != metric.CheckCritical || !strings.Contains(checks[0].Message, "404") {
		t.Errorf("without the page: %v %v %v", series, checks, err)
	}
}

// TestRealNginx asks an nginx whose status page KELPIE_NGINX_STATUS_URL names.
func TestRealNginx(t *testing.T) {
	url := os.Getenv("KELPIE_NGINX_STATUS_URL")
	if url == "" {
		t.Skip("KELPIE_NGINX_STATUS_URL names no status page of a running nginx")
	}
	trial, err := check.NewTrial(Kind(), check.Instance{Values: map[string]any{"nginx_status_url": url}, Access: fetch.Access{File: true}})
	if err != nil {
		t.Fatal(err)
	}
	defer trial.Close()
	start := time.Now()
	if series, _, err := trial.Run(t.Context(), start); err != nil || len(series) != 4 {
		t.Fatalf("%v %v", series, err)
	}
	if series, _, err := trial.Run(t.Context(), start.Add(15*time.Second)); err != nil || len(series) != 7 {
		t.Fatalf("%v %v", series, err)
	}
}

func TestConfiguration(t *testing.T) {
	for want, values := range map[string]map[string]any{
		`key "nginx_status_url" is missing`:                 {},
		`key "nginx_status_url": expected a URL`:            {"nginx_status_url": "localhost:80"},
		`key "nginx_status_url": expected a string`:         {"nginx_status_url": 80},
		`keys "use_plus_api" and "use_vts": only the stub_`: {"nginx_status_url": "http://x", "use_vts": true},
		`key "tls_ca_cert" reads a file of the agent`:       {"nginx_status_url": "http://x", "tls_ca_cert": "/etc/passwd"},
	} {
		if _, err := check.NewTrial(Kind(), check.Instance{Values: values}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %v, want %q", values, err, want)
		}
	}
}
