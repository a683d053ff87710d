package source_test

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"kelpie.dev/kelpie/backend"
	"kelpie.dev/kelpie/clusteragent/source"
	"kelpie.dev/kelpie/datadog"
)

// backendAt runs a real backend until stop is called, which waits for its end.
func backendAt(t *testing.T, address, dir string) (at string, stop func()) {
	t.Helper()
	ln, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	settings := map[string]string{"KELPIE_DATA_DIR": dir, "DD_API_KEY": "api", "DD_APP_KEY": "app", "DD_HEALTH_PORT": "0", "KELPIE_MIN_FREE_BYTES": "-1"}
	cfg, err := backend.FromEnv(func(name string) (string, bool) { v, ok := settings[name]; return v, ok })
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- backend.Run(ctx, cfg, backend.Deps{Version: "test", Listener: ln}) }()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	t.Cleanup(stop)
	return ln.Addr().String(), stop
}

// submit sends one point of now.
func submit(t *testing.T, at, metric string, value float64) {
	t.Helper()
	body := fmt.Sprintf(`{"series":[{"metric":%q,"type":3,"points":[{"timestamp":%d,"value":%g}],"tags":["app:web"]}]}`, metric, time.Now().Unix(), value)
	var last error
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+at+"/api/v2/series", bytes.NewReader([]byte(body)))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("DD-API-KEY", "api")
		req.Header.Set("Content-Type", "application/json")
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			last = err
			continue
		}
		_ = resp.Body.Close() // only the status counts
		if resp.StatusCode == http.StatusAccepted {
			return
		}
		last = fmt.Errorf("HTTP %d", resp.StatusCode)
	}
	t.Fatalf("submit %s: %v", metric, last)
}

// until waits for what ok tells of the readings of a query.
func until(t *testing.T, p *source.Poller, k source.Key, what string, ok func(source.Reading) bool) {
	t.Helper()
	for deadline := time.Now().Add(15 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		r := p.Read(k)
		if ok(r) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: %s: %+v (error: %v), status %+v", k.Query, what, r, r.Err, p.Status())
		}
	}
}

// TestValuesArePushed goes through the life of a stream: values come as they
// change, queries come and go, the backend dies and comes back, and meanwhile
// the poller says what it meets.
func TestValuesArePushed(t *testing.T) {
	dir := t.TempDir()
	at, stop := backendAt(t, "127.0.0.1:0", dir)
	client, err := datadog.New(datadog.Options{BaseURL: "http://" + at, APIKey: "api", AppKey: "app", Timeout: 5 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	p, err := source.New(source.Options{
		Querier: client, Stream: source.OpenStream("http://"+at, "api", "app"), SourceURL: "http://" + at, Period: time.Hour,
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	value := func(want float64) func(source.Reading) bool {
		return func(r source.Reading) bool { return r.Err == nil && !r.At.IsZero() && r.Value == want }
	}
	fails := func(reason source.Reason, words string) func(source.Reading) bool {
		return func(r source.Reading) bool {
			return r.Err != nil && r.Err.Reason == reason && strings.Contains(r.Err.Error(), words)
		}
	}
	queue := source.Key{Query: "max:queue{app:web}.rollup(max, 60)", Window: 5 * time.Minute}
	submit(t, at, "queue", 7)
	p.Use("hpa/a", queue)
	until(t, p, queue, "the value that was there", value(7))
	for deadline := time.Now().Add(10 * time.Second); !p.Status().Streaming; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("no stream: %+v", p.Status())
		}
	}
	submit(t, at, "queue", 9)
	until(t, p, queue, "a value that came", value(9))

	missing := source.Key{Query: "avg:nothing{*}", Window: 5 * time.Minute}
	several := source.Key{Query: "max:queue{*} by {app,host}.rollup(max, 60)", Window: 5 * time.Minute}
	bad := source.Key{Query: "avg:queue{app:web", Window: 5 * time.Minute}
	twice := source.Key{Query: queue.Query, Window: time.Hour}
	p.Use("hpa/b", missing, bad, twice)
	until(t, p, missing, "no data", fails(source.NoData, "check the metric name"))
	until(t, p, twice, "another window of the same query", value(9))
	submit(t, at, "nothing", 1)
	until(t, p, missing, "data that comes at last", value(1))
	p.Use("hpa/c", several)
	until(t, p, several, "one group is one value", value(9))

	graph := source.Key{Query: "cumsum(max:queue{*})", Window: 5 * time.Minute}
	p.Use("hpa/d", graph)
	until(t, p, graph, "no value at an instant, so it is polled", func(r source.Reading) bool { return r.Err == nil && r.Value > 0 })

	stop()
	until(t, p, queue, "the backend is gone", fails(source.SourceUnavailable, "check that it runs"))
	if p.Status().Streaming || p.Status().StreamError == "" {
		t.Errorf("status without a backend: %+v", p.Status())
	}
	if v, err := p.Read(queue).Current(time.Now(), source.Limits{MaxAge: time.Minute}); err != nil || v != 9 {
		t.Errorf("a fresh value does not survive the source: %v, %v", v, err)
	}
	backendAt(t, at, dir)
	submit(t, at, "queue", 11)
	until(t, p, queue, "the backend is back", value(11))
}

func TestStreamWithWrongKeysFallsBack(t *testing.T) {
	at, _ := backendAt(t, "127.0.0.1:0", t.TempDir())
	client, err := datadog.New(datadog.Options{BaseURL: "http://" + at, APIKey: "api", AppKey: "wrong", Timeout: 5 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	p, err := source.New(source.Options{Querier: client, Stream: source.OpenStream("http://"+at, "api", "wrong"), SourceURL: "http://" + at, Period: 200 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	k := source.Key{Query: "avg:queue{*}", Window: 5 * time.Minute}
	p.Use("hpa/a", k)
	until(t, p, k, "the keys are refused", func(r source.Reading) bool { return r.Err != nil && r.Err.Reason == source.Unauthorized })
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
