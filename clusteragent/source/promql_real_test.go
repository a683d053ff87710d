package source_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"kelpie.dev/kelpie/clusteragent/source"
)

// TestPromQLOfARealEngine asks Prometheus' own engine, behind the backend's copy
// of Prometheus' API.
func TestPromQLOfARealEngine(t *testing.T) {
	at, _ := backendAt(t, "127.0.0.1:0", t.TempDir())
	submit(t, at, "queue.depth", 40)
	ask := func(o source.PromQLOptions) *source.Poller {
		o.URL = "http://" + at + "/prometheus"
		q, err := source.NewPromQL(o)
		if err != nil {
			t.Fatal(err)
		}
		p, err := source.New(source.Options{Name: source.Prometheus, PromQL: q, SourceURL: o.URL, Period: time.Second, KeysHint: "the password"})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- p.Run(ctx) }()
		t.Cleanup(func() {
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
			q.CloseIdle()
		})
		return p
	}
	p := ask(source.PromQLOptions{User: "any", Password: "app"})
	sum, plain, ratio, none, bad := source.Key{Query: `sum({"queue.depth"}) / 4`}, source.Key{Query: `{"queue.depth", app="web"}`},
		source.Key{Query: `sum({"queue.depth"}) / 0`}, source.Key{Query: `{"queue.gone"}`}, source.Key{Query: `sum({"queue.depth"}`}
	p.Use("test", sum, plain, ratio, none, bad)
	until(t, p, sum, "a value", func(r source.Reading) bool { return r.Value == 10 && time.Since(r.At) < 10*time.Second })
	until(t, p, plain, "the sample's own time", func(r source.Reading) bool {
		return r.Value == 40 && r.At.Nanosecond() == 0 && time.Since(r.At) < time.Minute
	})
	for k, want := range map[source.Key]source.Reason{ratio: source.NotANumber, none: source.NoData, bad: source.QueryRejected} {
		until(t, p, k, string(want), func(r source.Reading) bool { return r.Err != nil && r.Err.Reason == want })
	}
	if r := p.Read(bad); !strings.Contains(r.Err.Error(), "parse error") {
		t.Errorf("bad PromQL: %v, want the engine's own words", r.Err)
	}

	stranger := ask(source.PromQLOptions{Bearer: "wrong"})
	stranger.Use("test", sum)
	until(t, stranger, sum, "refused", func(r source.Reading) bool {
		return r.Err != nil && r.Err.Reason == source.Unauthorized && strings.Contains(r.Err.Error(), "check the password")
	})
}
