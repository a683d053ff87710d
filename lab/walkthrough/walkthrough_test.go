package walkthrough

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// TestWalkthrough runs every row of the table on a real cluster, in both modes.
// It needs a lab: make test brings one up, and sets the variables.
func TestWalkthrough(t *testing.T) {
	kubeconfig := os.Getenv("KELPIE_WALKTHROUGH_KUBECONFIG")
	if kubeconfig == "" {
		t.Skip("no cluster: make walkthrough brings one up and sets KELPIE_WALKTHROUGH_KUBECONFIG")
	}
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	for _, mode := range []Mode{Inline, CRD} {
		ok := t.Run(string(mode), func(t *testing.T) {
			r, err := New(Options{
				Mode: mode, Root: root, Kubeconfig: kubeconfig, Out: t.Output(),
				Bin:      []string{filepath.Join(root, "bin"), os.Getenv("KELPIE_WALKTHROUGH_BIN")},
				Registry: os.Getenv("KELPIE_WALKTHROUGH_REGISTRY"), Tag: os.Getenv("KELPIE_WALKTHROUGH_TAG"),
			})
			if err != nil {
				t.Fatal(err)
			}
			if err := r.Clean(t.Context()); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 4*time.Minute)
				defer cancel()
				if err := r.Clean(ctx); err != nil {
					t.Error(err)
				}
			})
			// The commands that a step leaves running end with this context.
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Minute)
			defer cancel()
			for _, step := range Steps(mode) {
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
			t.Logf("first request → queryable %s; load → 5 replicas %s; load's end → 1 replica %s",
				r.First.Round(100*time.Millisecond), r.Up.Round(time.Second), r.Down.Round(time.Second))
		})
		if !ok {
			return
		}
	}
}
