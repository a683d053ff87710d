package clusteragent

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/dynamic/fake"

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

// cert-manager may take as long as it likes: the pod is not ready, and lives.
func TestCertManagerIsWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		keeper, err := externalmetrics.NewKeeper(externalmetrics.KeeperOptions{
			Client: fake.NewSimpleDynamicClient(runtime.NewScheme()), Namespace: "ns", Secret: "tls", Service: "svc", Issued: true})
		must(t, err)
		a := &agent{cfg: Config{Enabled: true, TLSIssued: true}, keeper: keeper, reach: &reach{}, indexed: func() bool { return true },
			proc: Process{Log: slog.New(slog.DiscardHandler)}}
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		if err := a.certificate(ctx); err != nil || ctx.Err() == nil {
			t.Errorf("without Secret the wait ended with %v, context %v; want it to last an hour", err, ctx.Err())
		}
		if err := a.ready(); err == nil || !strings.Contains(err.Error(), "cert-manager is to fill it") {
			t.Errorf("ready = %v, want it to say what is waited for", err)
		}
	})
}
