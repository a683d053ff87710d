package backend

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"kelpie.dev/kelpie/health"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// running is a backend that was started with Run.
type running struct {
	url, health string
	stop        context.CancelFunc
	done        chan error
	reload      chan os.Signal
}

// listen returns a listener on a free port of this machine.
func listen(t *testing.T) net.Listener {
	t.Helper()
	ln, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return ln
}

func start(t *testing.T, dir string, vars map[string]string) *running {
	t.Helper()
	r := begin(t, dir, vars)
	r.waitReady(t)
	return r
}

// begin is start for a backend that may not take data yet.
func begin(t *testing.T, dir string, vars map[string]string) *running {
	t.Helper()
	ln, hl := listen(t), listen(t)
	healthAddr := hl.Addr().String()
	if err := hl.Close(); err != nil { // Run listens there itself
		t.Fatal(err)
	}
	all := map[string]string{"KELPIE_DATA_DIR": dir, "DD_API_KEY": "ak", "DD_APP_KEY": "pk"}
	for k, v := range vars {
		all[k] = v
	}
	cfg, err := FromEnv(func(name string) (string, bool) { v, ok := all[name]; return v, ok })
	if err != nil {
		t.Fatal(err)
	}
	cfg.Health = healthAddr
	ctx, cancel := context.WithCancel(t.Context())
	r := &running{url: "http://" + ln.Addr().String(), health: healthAddr, stop: cancel, done: make(chan error, 1), reload: make(chan os.Signal)}
	go func() { r.done <- Run(ctx, cfg, Deps{Version: "test", Listener: ln, Reload: r.reload}) }()
	t.Cleanup(func() {
		cancel()
		http.DefaultClient.CloseIdleConnections()
	})
	return r
}

func (r *running) waitReady(t *testing.T) {
	t.Helper()
	r.waitFor(t, "ok")
}

// waitFor waits until the backend says of itself that it is ready, or why not.
func (r *running) waitFor(t *testing.T, want string) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); ; {
		var h health.Health
		err := health.Fetch(t.Context(), r.health, "/health", &h)
		if strings.Contains(h.Ready, want) && errors.Is(err, health.ErrUnhealthy) == (want != "ok") {
			return
		}
		select {
		case err := <-r.done:
			t.Fatalf("the backend ended: %v", err)
		case <-time.After(20 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			t.Fatalf("ready is %q, want %q: %v", h.Ready, want, err)
		}
	}
}

// end stops the backend and returns what Run returned.
func (r *running) end(t *testing.T) error {
	t.Helper()
	r.stop()
	select {
	case err := <-r.done:
		return err
	case <-time.After(30 * time.Second):
		t.Fatal("the backend does not end")
		return nil
	}
}

func (r *running) do(t *testing.T, method, path, body string) (int, string) {
	t.Helper()
	return r.doAs(t, "ak", "pk", method, path, body)
}

func (r *running) doAs(t *testing.T, apiKey, appKey, method, path, body string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, r.url+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("DD-API-KEY", apiKey)
	req.Header.Set("DD-APPLICATION-KEY", appKey)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(answer)
}

func TestDataOutlivesTheProcess(t *testing.T) {
	dir := t.TempDir()
	now := time.Now().Unix()
	b := start(t, dir, nil)
	code, body := b.do(t, "POST", "/api/v1/series", fmt.Sprintf(`{"series":[{"metric":"m","type":"gauge","points":[[%d,42]],"tags":["a:b"]}]}`, now))
	if code != http.StatusAccepted {
		t.Fatalf("%d %s", code, body)
	}
	ask := func(b *running) {
		t.Helper()
		code, body := b.do(t, "GET", fmt.Sprintf("/api/v1/query?from=%d&to=%d&query=avg:m{a:b}", now-60, now+1), "")
		if code != http.StatusOK || !strings.Contains(body, fmt.Sprintf(`[%d,42]`, now*1000)) {
			t.Errorf("%d %s", code, body)
		}
	}
	ask(b)
	var st Status
	if err := health.Fetch(t.Context(), b.health, "/status", &st); err != nil {
		t.Fatal(err)
	}
	if st.Store == nil || st.Store.Series != 1 || st.Store.Accepted != 1 || st.Store.WALBytes == 0 || st.AcceptedPerSec <= 0 || len(st.SlowestQueries) != 1 {
		t.Errorf("status is %+v", st)
	}
	var page bytes.Buffer
	if err := st.Print(&page); err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"series            1 of 1 metrics", "points accepted   1 (", "write-ahead log", "series over 1m1s  avg:m{a:b}"} {
		if !strings.Contains(page.String(), text) {
			t.Errorf("status lacks %q:\n%s", text, page.String())
		}
	}
	if code, body := b.do(t, "GET", "/api/v1/none", ""); code != 404 || body != `{"errors":["Not found"]}` {
		t.Errorf("unknown route: %d %s", code, body)
	}
	metrics := scrape(t, b)
	for _, line := range []string{
		`kelpie_backend_requests_total{code="202",route="POST /api/v1/series"} 1`, `kelpie_backend_points_accepted_total 1`,
		`kelpie_backend_series 1`, `kelpie_backend_writable 1`, `kelpie_backend_query_duration_seconds_count 1`, `prometheus_tsdb_head_series 1`,
	} {
		if !strings.Contains(metrics, line+"\n") {
			t.Errorf("metrics lack %s", line)
		}
	}
	if err := b.end(t); err != nil {
		t.Errorf("Run: %v", err)
	}
	b = start(t, dir, nil)
	ask(b)
	if err := b.end(t); err != nil {
		t.Errorf("Run: %v", err)
	}
}

func scrape(t *testing.T, b *running) string {
	t.Helper()
	resp, err := http.Get("http://" + b.health + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}

func TestRequestsUnderWayFinishAtShutdown(t *testing.T) {
	b := start(t, t.TempDir(), nil)
	pr, pw := io.Pipe()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, b.url+"/api/v1/series", pr)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("DD-API-KEY", "ak")
	// The body is sent once the server has asked for it: it is then at work.
	req.Header.Set("Expect", "100-continue")
	transport := &http.Transport{ExpectContinueTimeout: time.Minute}
	defer transport.CloseIdleConnections()
	answered := make(chan string, 1)
	go func() {
		resp, err := transport.RoundTrip(req)
		if err != nil {
			answered <- err.Error()
			return
		}
		_ = resp.Body.Close()
		answered <- resp.Status
	}()
	if _, err := pw.Write([]byte(`{"series":`)); err != nil { // the server is reading the body
		t.Fatal(err)
	}
	b.stop()
	b.waitFor(t, "shutting down") // nobody is to send more
	if _, err := pw.Write([]byte(`[]}`)); err != nil {
		t.Fatal(err)
	}
	if err := pw.Close(); err != nil {
		t.Fatal(err)
	}
	if got := <-answered; got != "202 Accepted" {
		t.Errorf("the request got %s", got)
	}
	if err := b.end(t); err != nil {
		t.Error(err)
	}
}

func TestMaxConnectionsHoldsMoreBack(t *testing.T) {
	b := start(t, t.TempDir(), map[string]string{"KELPIE_MAX_CONNECTIONS": "2"})
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
			resp, err := client.Get(b.url + "/api/v1/validate?api_key=ak")
			if err != nil {
				t.Error(err)
				return
			}
			_ = resp.Body.Close()
			if resp.StatusCode != http.StatusOK {
				t.Errorf("got %s", resp.Status)
			}
		})
	}
	wg.Wait()
	if err := b.end(t); err != nil {
		t.Error(err)
	}
}

func TestRunFails(t *testing.T) {
	taken := listen(t)
	defer func() { _ = taken.Close() }()
	free := listen(t)
	freeAddr := free.Addr().String()
	if err := free.Close(); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name string
		edit func(*Config)
		want string
	}{
		{"API keys", func(c *Config) { c.APIKeys.Keys = nil }, "set DD_API_KEY"},
		{"application keys", func(c *Config) { c.AppKeys.Keys = nil }, "set DD_APP_KEY"},
		{"data directory", func(c *Config) { c.DataDir = "/dev/null/x" }, "KELPIE_DATA_DIR must be writable"},
		{"address", func(c *Config) { c.Listen = taken.Addr().String() }, "set KELPIE_LISTEN"},
		{"OTLP address", func(c *Config) { c.OTLPListen = taken.Addr().String() }, "set KELPIE_OTLP_LISTEN"},
		{"health address", func(c *Config) { c.Health = taken.Addr().String() }, "set DD_HEALTH_PORT"},
		{"retention", func(c *Config) { c.Retention = time.Second }, "KELPIE_RETENTION"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cfg, err := FromEnv(func(name string) (string, bool) {
				v, ok := map[string]string{"DD_API_KEY": "ak", "DD_APP_KEY": "pk", "KELPIE_DATA_DIR": t.TempDir(), "KELPIE_LISTEN": "127.0.0.1:0"}[name]
				return v, ok
			})
			if err != nil {
				t.Fatal(err)
			}
			cfg.Health = freeAddr
			tt.edit(&cfg)
			if err := Run(t.Context(), cfg, Deps{}); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Run: %v; want %s", err, tt.want)
			}
		})
	}
}

func TestFromEnv(t *testing.T) {
	env := map[string]string{
		"KELPIE_DATA_DIR": "/d", "KELPIE_LISTEN": ":1", "DD_HEALTH_PORT": "2", "DD_API_KEY": "a", "KELPIE_API_KEYS": "b c", "KELPIE_RETENTION": "48h",
	}
	c, err := FromEnv(func(name string) (string, bool) { v, ok := env[name]; return v, ok })
	if err != nil {
		t.Fatal(err)
	}
	if c.DataDir != "/d" || c.Listen != ":1" || c.Health != ":2" || len(c.APIKeys.Keys) != 3 || c.Retention != 48*time.Hour || c.MinFree != 64<<20 {
		t.Errorf("got %+v", c)
	}
	for _, bad := range []map[string]string{{"KELPIE_MAX_CONNECTIONS": "many"}, {"KELPIE_QUERY_MAX_SERIES": "-1"}, {"KELPIE_RETENTION": "5m"}, {"KELPIE_RATE_LIMITS": "query=1"}, {"KELPIE_QUERY_BUDGET": "-1"}} {
		_, err := FromEnv(func(name string) (string, bool) { v, ok := bad[name]; return v, ok })
		for name := range bad {
			if err == nil || !strings.Contains(err.Error(), name) {
				t.Errorf("%v: %v, want an error that names the variable", bad, err)
			}
		}
	}
}

// TestGrafanaAndScopes goes through everything that Run wires: a key that may
// read lists only, PromQL over what the intake took, and the counters.
func TestGrafanaAndScopes(t *testing.T) {
	file := filepath.Join(t.TempDir(), "app-keys")
	if err := os.WriteFile(file, []byte("lists scopes=metrics_read # of the catalogue\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	b := start(t, t.TempDir(), map[string]string{"KELPIE_APP_KEYS_FILE": file, "KELPIE_RATE_LIMITS": "query=100/60"})
	now := time.Now().Unix()
	if code, body := b.do(t, "POST", "/api/v1/series", fmt.Sprintf(`{"series":[{"metric":"queue.depth","type":"gauge","points":[[%d,42]],"tags":["env:prod"]}]}`, now)); code != http.StatusAccepted {
		t.Fatalf("%d %s", code, body)
	}
	grafana := func(key, path string) (int, http.Header, string) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, b.url+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.SetBasicAuth("grafana", key)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = resp.Body.Close() }()
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, resp.Header, string(body)
	}
	query := "/prometheus/api/v1/query?query=" + url.QueryEscape(`sum by (env) ({"queue.depth"})`)
	code, h, body := grafana("pk", query)
	if code != 200 || !strings.Contains(body, `{"metric":{"env":"prod"},"value":[`) || !strings.Contains(body, `,"42"]`) || h.Get("X-RateLimit-Limit") != "100" {
		t.Errorf("%d %v %s", code, h, body)
	}
	if code, _, body := grafana("lists", query); code != http.StatusForbidden || !strings.Contains(body, "timeseries_query") {
		t.Errorf("a key for lists: %d %s", code, body)
	}
	if code, _, body := grafana("lists", "/prometheus/api/v1/label/env/values"); code != 200 || body != `{"status":"success","data":["prod"]}` {
		t.Errorf("a list: %d %s", code, body)
	}
	value := "/api/kelpie/v1/value?query=" + url.QueryEscape("sum:queue.depth{*}")
	if code, body := b.do(t, "GET", value, ""); code != 200 || !strings.Contains(body, `"value":42`) {
		t.Errorf("a value: %d %s", code, body)
	}
	if _, h, _ := grafana("pk", query); h.Get("X-RateLimit-Remaining") != "97" {
		t.Errorf("a value is a query like the others: %s of 100 remain, want 97", h.Get("X-RateLimit-Remaining"))
	}
	if code, body := b.do(t, "GET", "/prometheus/api/v1/labels", ""); code != 200 || !strings.Contains(body, `"env"`) {
		t.Errorf("Datadog's headers: %d %s", code, body)
	}
	resp, err := http.Get("http://" + b.health + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	metrics, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{
		`kelpie_backend_keys_refused_total{kind="scope"} 1`, `kelpie_backend_promql_requests_total{outcome="success"} 4`,
		`kelpie_backend_requests_total{code="200",route="GET /prometheus/api/v1/query"} 2`, `kelpie_backend_rate_limited_total{kind="query"} 0`,
	} {
		if !strings.Contains(string(metrics), line) {
			t.Errorf("metrics lack %s", line)
		}
	}
	var st Status
	if err := health.Fetch(t.Context(), b.health, "/status", &st); err != nil || len(st.SlowestQueries) != 2 || !strings.Contains(st.SlowestQueries[0].Query, "queue.depth") {
		t.Errorf("%v %+v", err, st.SlowestQueries)
	}
	if err := b.end(t); err != nil {
		t.Error(err)
	}
}

func TestRecentRemembersWarnings(t *testing.T) {
	var out bytes.Buffer
	r := newRecent(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelError}))
	log := slog.New(r).With("part", "x")
	log.Info("not kept")
	for i := range keptLines + 5 {
		log.Warn("kept", "i", i, "error", errors.New("e"))
	}
	lines := r.lines()
	if len(lines) != keptLines || lines[0].Attrs["i"] != "5" || lines[0].Attrs["part"] != "x" || lines[0].Attrs["error"] != "e" {
		t.Errorf("remembered %+v", lines)
	}
	if out.Len() != 0 {
		t.Errorf("passed on what the log's level excludes: %s", out.String())
	}
	if _, err := json.Marshal(lines); err != nil {
		t.Error(err)
	}
}

// TestOnlyTheStoreImportsTheTSDB keeps the TSDB behind one door. PromQL's engine
// and its words come in by a second one.
func TestOnlyTheStoreImportsTheTSDB(t *testing.T) {
	out, err := exec.Command("go", "list", "-f", `{{.ImportPath}} {{join .Imports " "}} {{join .TestImports " "}} {{join .XTestImports " "}}`, "./...").Output()
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.SplitSeq(strings.TrimSpace(string(out)), "\n") {
		pkg, imports, _ := strings.Cut(line, " ")
		uses := strings.Contains(imports+" ", "prometheus/prometheus/tsdb")
		if owner := strings.HasSuffix(pkg, "/backend/store"); uses != owner {
			t.Errorf("%s imports the TSDB: %v", pkg, uses)
		}
	}
}

func TestAnswersTellWhatTheStoreRefuses(t *testing.T) {
	b := start(t, t.TempDir(), map[string]string{"KELPIE_MAX_SERIES_PER_METRIC": "1"})
	now := time.Now().Unix()
	code, body := b.do(t, "POST", "/api/v2/series", fmt.Sprintf(`{"series":[{"metric":"m","tags":["a:1"],"points":[{"timestamp":%[1]d,"value":1},{"timestamp":5,"value":1},{"timestamp":6,"value":1}]},
		{"metric":"m","tags":["a:2"],"points":[{"timestamp":%[1]d,"value":1}]}]}`, now))
	const want = `{"errors":["\"m\": 2 points refused: more than an hour old","\"m\": 1 point refused: the metric has as many series as it may have (KELPIE_MAX_SERIES_PER_METRIC)"]}`
	if code != http.StatusAccepted || body != want {
		t.Errorf("%d %s", code, body)
	}
	if err := b.end(t); err != nil {
		t.Error(err)
	}
}
