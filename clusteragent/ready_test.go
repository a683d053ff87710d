package clusteragent

import (
	"strings"
	"testing"

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
	a := &agent{cfg: Config{Enabled: true}, keeper: keeper, indexed: func() bool { return indexed }}
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
