package kubelet

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"
	"sigs.k8s.io/yaml"

	"kelpie.dev/kelpie/agent/check"
	"kelpie.dev/kelpie/agent/check/fetch"
	"kelpie.dev/kelpie/agent/origin"
	"kelpie.dev/kelpie/metric"
)

// recorded answers with files of testdata.
type recorded map[string]string // file by path

func (r recorded) Get(_ context.Context, path string, _ int64) ([]byte, error) {
	if r[path] == "" {
		return nil, errors.New("ask the kubelet for " + path + ": HTTP 503")
	}
	return os.ReadFile("testdata/" + r[path])
}

// pods are those of testdata/pods.yaml, with origin's own tags.
type pods struct {
	list  []origin.Pod
	index *origin.Index
}

func readPods(t testing.TB) *pods {
	t.Helper()
	text, err := os.ReadFile("testdata/pods.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var list origin.PodList
	if err := yaml.Unmarshal(text, &list); err != nil {
		t.Fatal(err)
	}
	return &pods{list.Items, origin.NewIndex(list.Items, origin.TagOptions{})}
}

func (p *pods) Snapshot() ([]origin.Pod, uint64) { return p.list, 1 }
func (p *pods) Use()                             {}
func (p *pods) Lookup(e origin.Entity, _ time.Time) (*origin.Levels, origin.Result) {
	levels, _ := p.index.Lookup(e)
	return levels, origin.Found
}

// TestScript runs testdata/script.txt. Its command is
//
//	run at=SECONDS [cadvisor=FILE] [changes]  prints what the check submits, or
//	    of it only what is a change per second
//
// A series is "NAME VALUE of POD/CONTAINER at LEVEL OTHER-TAGS".
func TestScript(t *testing.T) {
	kubelet := recorded{}
	trial, err := check.NewTrial(Kind(kubelet, readPods(t)), check.Instance{Access: fetch.Access{File: true}})
	if err != nil {
		t.Fatal(err)
	}
	defer trial.Close()
	datadriven.RunTest(t, "testdata/script.txt", func(t *testing.T, d *datadriven.TestData) string {
		var at int64
		var cadvisor string
		d.ScanArgs(t, "at", &at)
		d.MaybeScanArgs(t, "cadvisor", &cadvisor)
		delete(kubelet, "/stats/summary")
		if kubelet["/metrics/cadvisor"] = cadvisor; cadvisor != "" {
			kubelet["/stats/summary"] = "summary.json"
		}
		series, checks, err := trial.Run(t.Context(), time.Unix(at, 0))
		var lines []string
		for i := range series {
			if s := &series[i]; !d.HasArg("changes") || isChange(s.Name) {
				lines = append(lines, describe(s))
			}
			if series[i].Type != metric.Gauge {
				t.Errorf("%s is a %s", series[i].Name, series[i].Type)
			}
		}
		slices.Sort(lines)
		for _, c := range checks {
			lines = append(lines, fmt.Sprintf("check %s %d %s", c.Name, c.Status, c.Message))
		}
		if w := trial.Warnings(); w != nil {
			lines = append(lines, "warning: "+w.Error())
		}
		if err != nil {
			lines = append(lines, "error: "+err.Error())
		}
		return strings.Join(lines, "\n") + "\n"
	})
}

func isChange(name string) bool {
	for _, families := range []map[string][]output{containerFamilies, networkFamilies} {
		for _, outputs := range families {
			if slices.ContainsFunc(outputs, func(o output) bool { return o.rate && o.name == name }) {
				return true
			}
		}
	}
	return false
}

// describe tells the level by the tag that only it has.
func describe(s *metric.Series) string {
	first := func(key string) string { return strings.Join(s.Tags.Values(key), ",") }
	level := "low"
	switch {
	case first("container_id") != "":
		level = "high"
	case first("pod_name") != "":
		level = "orchestrator"
	}
	var more []string
	for _, key := range []string{"device", "device_name", "interface", "reason"} {
		if v := first(key); v != "" {
			more = append(more, key+":"+v)
		}
	}
	who := strings.Trim(first("kube_namespace")+"/"+first("pod_name")+"/"+first("kube_container_name"), "/")
	return strings.TrimSpace(fmt.Sprintf("%s %.10g of %s at %s %s", s.Name, s.Points[0].Value, who, level, strings.Join(more, " ")))
}

func TestQuantity(t *testing.T) {
	for text, want := range map[string]float64{
		"1": 1, "500m": 0.5, "1.5": 1.5, "128Mi": 128 << 20, "1Gi": 1 << 30, "1k": 1e3, "2M": 2e6, "1e3": 1e3, "1E3": 1e3, "2E": 2e18, "100n": 1e-7, "5u": 5e-6, "0": 0,
	} {
		if got, ok := quantity(text); !ok || math.Abs(got-want) > 1e-12*want {
			t.Errorf("quantity(%q) = %v, %v, want %v", text, got, ok, want)
		}
	}
	for _, text := range []string{"", "m", "1x", "0x10", "1_000", "Inf", "NaN", "1MiB", "1e999", "1e400E"} {
		if got, ok := quantity(text); ok {
			t.Errorf("quantity(%q) = %v, want none", text, got)
		}
	}
}

func FuzzQuantity(f *testing.F) {
	for _, seed := range []string{"1", "500m", "1.5Gi", "1e3", "2E", "-1", "0x1p3"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if v, ok := quantity(text); ok && (math.IsNaN(v) || math.IsInf(v, 0)) {
			t.Errorf("quantity(%q) = %v", text, v)
		}
	})
}

// bytesOf answers every path with the same bytes.
type bytesOf []byte

func (b bytesOf) Get(context.Context, string, int64) ([]byte, error) { return b, nil }

func FuzzUsage(f *testing.F) {
	page, err := os.ReadFile("testdata/cadvisor-1.txt")
	if err != nil {
		f.Fatal(err)
	}
	summary, err := os.ReadFile("testdata/summary.json")
	if err != nil {
		f.Fatal(err)
	}
	// Short inputs are minimized in no time, and long ones never.
	for _, family := range bytes.SplitAfter(page, []byte("# HELP "))[1:] {
		f.Add(append([]byte("# HELP "), bytes.TrimSuffix(family, []byte("# HELP "))...))
	}
	f.Add(summary)
	f.Add([]byte(`{"pods":[{"podRef":{"name":"web-7b9f6c8d5x-x2k4m","namespace":"shop"},"containers":[null,{"name":"app","rootfs":{"usedBytes":-1}}]}]}`))
	f.Add([]byte("machine_cpu_cores NaN\ncontainer_spec_cpu_quota{namespace=\"shop\",pod=\"web-7b9f6c8d5x-x2k4m\",container=\"app\"} 1\n"))
	p := readPods(f)
	f.Fuzz(func(t *testing.T, answer []byte) {
		trial, err := check.NewTrial(Kind(bytesOf(answer), p), check.Instance{Access: fetch.Access{File: true}})
		if err != nil {
			t.Fatal(err)
		}
		defer trial.Close()
		series, _, _ := trial.Run(t.Context(), time.Unix(1700000100, 0))
		for _, s := range series {
			if v := s.Points[0].Value; math.IsNaN(v) || math.IsInf(v, 0) {
				t.Errorf("%s is %v", s.Name, v)
			}
		}
	})
}
