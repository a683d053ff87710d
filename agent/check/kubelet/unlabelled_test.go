package kubelet

import (
	"context"
	"os"
	"regexp"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"kelpie.dev/kelpie/agent/check"
	"kelpie.dev/kelpie/agent/check/fetch"
)

// cgroupsOnly answers as a kubelet does whose cAdvisor cannot ask the container
// runtime: its containers have no labels but that of their control group.
type cgroupsOnly struct{ recorded }

var containerLabels = regexp.MustCompile(`container="[^"]+",(.*)image="[^"]*",name="[^"]*",namespace="[^"]*",pod="[^"]*"`)

func (c cgroupsOnly) Get(ctx context.Context, path string, limit int64) ([]byte, error) {
	page, err := c.recorded.Get(ctx, path, limit)
	return containerLabels.ReplaceAll(page, []byte(`container="",${1}image="",name="",namespace="",pod=""`)), err
}

// TestContainersKnownByTheirCgroups holds that both kinds of kubelets give the
// same series of a container.
func TestContainersKnownByTheirCgroups(t *testing.T) {
	run := func(pages recorded, as Kubelet) []string {
		trial, err := check.NewTrial(Kind(as, readPods(t)), check.Instance{Access: fetch.Access{File: true}})
		if err != nil {
			t.Fatal(err)
		}
		defer trial.Close()
		var lines []string
		for i, page := range []string{"cadvisor-1.txt", "cadvisor-2.txt"} {
			pages["/metrics/cadvisor"], pages["/stats/summary"] = page, "summary.json"
			series, _, err := trial.Run(t.Context(), time.Unix(1_700_000_100+15*int64(i), 0))
			if err != nil {
				t.Fatal(err)
			}
			for i := range series {
				lines = append(lines, describe(&series[i]))
			}
		}
		slices.Sort(lines)
		return lines
	}
	labelled, bare := recorded{}, recorded{}
	want, got := run(labelled, labelled), run(bare, cgroupsOnly{bare})
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("with labels (-) and without (+):\n%s", diff)
	}
	page, err := os.ReadFile("testdata/cadvisor-2.txt")
	if err != nil || !containerLabels.Match(page) {
		t.Errorf("nothing was taken away from the page: %v", err)
	}
}
