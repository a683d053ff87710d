package source

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

func TestSetRoutesEachQueryToItsSource(t *testing.T) {
	reg := prometheus.NewRegistry()
	dd, f := start(t, answer)
	dd.opts.Name, dd.opts.Registerer = Datadog, reg
	dd.tel = newTelemetry(dd.opts)
	prom := promAt(t, PromQLOptions{}, func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(vectorOf("99"))) })
	prom.opts.Registerer, prom.opts.Second = reg, true
	prom.tel = newTelemetry(prom.opts)
	s, err := NewSet(Datadog, map[Name]*Poller{Datadog: dd, Prometheus: prom})
	if err != nil {
		t.Fatal(err)
	}
	told := map[string]int{}
	done := make(chan string, 100)
	s.Subscribe(func(owner string) { done <- owner })
	own, named, promql, none := key(1), key(1), Key{Source: Prometheus, Query: "sum(up)", Window: time.Hour}, Key{Source: Kelpie, Query: "avg:m{*}"}
	named.Source = Datadog
	s.Use("own", own)
	s.Use("named", named)
	s.Use("promql", promql)
	s.Use("none", none)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	s.AwaitAll(ctx)
	for range 3 {
		told[<-done]++
	}
	if told["own"] != 1 || told["named"] != 1 || told["promql"] != 1 {
		t.Errorf("told %v, want each owner once", told)
	}
	for k, want := range map[Key]float64{own: 1, named: 1, promql: 99} {
		if r := s.Await(ctx, k); r.Err != nil || r.Value != want {
			t.Errorf("%+v: %+v, want %v", k, r, want)
		}
	}
	r := s.Read(none)
	if _, why := r.Current(time.Now(), Limits{MaxAge: time.Minute}); why == nil || why.Reason != NotConfigured || !strings.Contains(why.Error(), "KELPIE_SOURCE_KELPIE_API_KEY") {
		t.Errorf("a source that is not configured: %v, want the setting that is missing", why)
	}
	if keys := s.Keys(); len(keys) != 1 || keys[0] != key(1) {
		t.Errorf("the main source's queries: %v, want the one that two name", keys)
	}
	if got := f.sizes(); len(got) != 1 || got[0] != 1 {
		t.Errorf("requests %v, want one for the query that two name", got)
	}
	if n := testutil.ToFloat64(dd.tel.value.WithLabelValues("prometheus:sum(up)")); n != 99 {
		t.Errorf("the series of the second source shows %v, want 99", n)
	}
	if others := s.Others(); s.Status().Name == "" && len(others) != 1 || others[0].Name != Prometheus {
		t.Errorf("others: %+v, want Prometheus", others)
	}
	s.Use("promql", own) // its query moves to another source
	if prom.Status().Queries != 0 || dd.Status().Queries != 1 {
		t.Errorf("queries: %d at Prometheus, %d at Datadog; want 0 and 1", prom.Status().Queries, dd.Status().Queries)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if _, err := NewSet(Kelpie, map[Name]*Poller{Datadog: dd}); err == nil || !strings.Contains(err.Error(), "KELPIE_SOURCE_KELPIE_API_KEY") {
		t.Errorf("a main source that is not configured: %v", err)
	}
}

func TestParseName(t *testing.T) {
	for text, want := range map[string]Name{"": "", "kelpie": Kelpie, "datadog": Datadog, "prometheus": Prometheus} {
		if n, err := ParseName(text); err != nil || n != want {
			t.Errorf("ParseName(%q) = %q, %v", text, n, err)
		}
	}
	if _, err := ParseName("Graphite"); err == nil || !strings.Contains(err.Error(), `"Graphite": write kelpie, datadog or prometheus`) {
		t.Errorf("ParseName(Graphite): %v", err)
	}
}
