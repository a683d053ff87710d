package walkthrough

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// TestKEDA runs KEDA's own operator and metrics server beside Kelpie on a real
// cluster. make keda-test brings one up, and sets the variables.
func TestKEDA(t *testing.T) {
	kubeconfig := os.Getenv("KELPIE_KEDA_KUBECONFIG")
	if kubeconfig == "" {
		t.Skip("no cluster: make keda-test brings one up and sets KELPIE_KEDA_KUBECONFIG")
	}
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	r, err := New(Options{
		Mode: CRD, Root: root, Kubeconfig: kubeconfig, Out: t.Output(),
		Bin:      []string{filepath.Join(root, "bin"), os.Getenv("KELPIE_KEDA_BIN")},
		Registry: os.Getenv("KELPIE_KEDA_REGISTRY"), Tag: os.Getenv("KELPIE_KEDA_KELPIE_TAG"), KEDATag: os.Getenv("KELPIE_KEDA_TAG"),
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Minute)
	defer cancel()
	defer r.sh.stopBackground() // the lab goes down with all else
	for _, step := range KEDASteps() {
		if !t.Run(step.Row+" "+step.Title, func(t *testing.T) {
			began := time.Now()
			if err := step.Do(ctx, r); err != nil {
				t.Fatal(err)
			}
			t.Logf("took %s", time.Since(began).Round(100*time.Millisecond))
		}) {
			return // each row stands on the ones before
		}
	}
}
