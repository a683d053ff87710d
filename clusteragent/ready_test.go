package clusteragent

import (
	"context"
	"encoding/pem"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unsafe"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/dynamic/fake"
	"k8s.io/client-go/rest"
	clienttesting "k8s.io/client-go/testing"

	"kelpie.dev/kelpie/clusteragent/externalmetrics"
)

// A pod that is ready is asked: it must know all autoscalers, and have its port
// open, before it says so.
func TestReadyMeansSyncedAndServing(t *testing.T) {
	keeper, err := externalmetrics.NewKeeper(externalmetrics.KeeperOptions{
		Client: fake.NewSimpleDynamicClient(runtime.NewScheme()), Namespace: "ns", Secret: "tls", Service: "svc"})
	must(t, err)
	indexed := false
	a := &agent{cfg: Config{Enabled: true}, keeper: keeper, reach: &reach{}, indexed: func() bool { return indexed }}
	want := func(words string) {
		t.Helper()
		if err := a.ready(); (err == nil) != (words == "") || err != nil && !strings.Contains(err.Error(), words) {
			t.Errorf("ready = %v, want %q", err, words)
		}
	}
	want("waiting for the list of HorizontalPodAutoscalers")
	indexed = true
	want("not served yet")
	a.serving.Store(true)
	want("")
	off := &agent{}
	if err := off.ready(); err != nil {
		t.Errorf("without external metrics: %v, want ready", err)
	}
}

// An issuer may need minutes for the first certificate: that is no reason to end
// and be started again. A Secret of our own that cannot be written is.
func TestIssuerIsWaitedFor(t *testing.T) {
	for name, issued := range map[string]bool{"cert-manager's": true, "our own": false} {
		synctest.Test(t, func(t *testing.T) {
			client := fake.NewSimpleDynamicClient(runtime.NewScheme())
			client.PrependReactor("create", "secrets", func(clienttesting.Action) (bool, runtime.Object, error) {
				return true, nil, errors.New("no right to")
			})
			keeper, err := externalmetrics.NewKeeper(externalmetrics.KeeperOptions{Client: client, Namespace: "ns", Secret: "tls", Service: "svc", Issued: issued})
			must(t, err)
			a := &agent{cfg: Config{TLSIssued: issued}, keeper: keeper, proc: Process{Log: slog.New(slog.DiscardHandler)}}
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
			defer cancel()
			if err := a.certificate(ctx); (err == nil) != issued || issued != (ctx.Err() != nil) {
				t.Errorf("%s: %v, the test's ten minutes are over: %v", name, err, ctx.Err() != nil)
			}
		})
	}
}

// TestReachOfTheAPIServer follows a replica that is cut off, on a clock of the test.
func TestReachOfTheAPIServer(t *testing.T) {
	at, fault := time.Unix(1_800_000_000, 0), error(nil)
	r := &reach{look: func(context.Context) error { return fault }, log: slog.New(slog.DiscardHandler)}
	for _, s := range []struct {
		after time.Duration
		fault error
		lost  bool
	}{
		{0, nil, false},
		{30 * time.Second, nil, false}, // a machine that slept is not a replica that is cut off
		{3 * time.Second, errors.New("i/o timeout"), false},
		{6 * time.Second, errors.New("i/o timeout"), false},
		{3 * time.Second, errors.New("i/o timeout"), true},
		{3 * time.Second, nil, false},
	} {
		at, fault = at.Add(s.after), s.fault
		r.once(t.Context(), func() time.Time { return at })
		if err := r.lost(at); (err != nil) != s.lost || s.lost && !strings.Contains(err.Error(), "i/o timeout") {
			t.Errorf("at %s with %v: lost = %v, want lost %v with the cause", at.Format(time.TimeOnly), s.fault, err, s.lost)
		}
	}
}

// TestReachAfterClockStep: a replica that is cut off does not say for an hour that
// it is ready because its clock was set back by one.
func TestReachAfterClockStep(t *testing.T) {
	at, fault := time.Now(), error(nil)
	r := &reach{look: func(context.Context) error { return fault }, log: slog.New(slog.DiscardHandler)}
	r.once(t.Context(), func() time.Time { return at })
	later := at.Add(-time.Hour) // and twelve seconds later by the monotonic clock
	(*struct {
		wall uint64
		ext  int64
		loc  *time.Location
	})(unsafe.Pointer(&later)).ext += int64(time.Hour + 12*time.Second)
	fault = errors.New("i/o timeout")
	r.once(t.Context(), func() time.Time { return later })
	if err := r.lost(later); err == nil {
		t.Error("ready after 12 s without an answer, as the clock was set back")
	}
}

// TestReachHasItsOwnConnection: that of the watches, which outlives what it leads
// to, must not say that the API server is away.
func TestReachHasItsOwnConnection(t *testing.T) {
	from := make(chan string, 2)
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { from <- r.RemoteAddr }))
	server.EnableHTTP2 = true
	server.StartTLS()
	defer server.Close()
	config := &rest.Config{Host: server.URL, TLSClientConfig: rest.TLSClientConfig{
		CAData: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})}}
	shared, err := rest.HTTPClientFor(config)
	must(t, err)
	resp, err := shared.Get(server.URL)
	must(t, err)
	must(t, resp.Body.Close())
	r, err := newReach(config, slog.New(slog.DiscardHandler))
	must(t, err)
	must(t, r.look(t.Context()))
	if watches, own := <-from, <-from; watches == own {
		t.Errorf("both come from %s, by one connection", own)
	}
	shared.CloseIdleConnections()
}
