package check

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"kelpie.dev/kelpie/agent/origin"
	"kelpie.dev/kelpie/metric"
)

// fakeCheck does what its instance's key "do" says.
type fakeCheck struct {
	do     string
	closed func()
}

func (c *fakeCheck) Close() { c.closed() }

func (c *fakeCheck) Run(ctx context.Context, s *Sender) error {
	switch c.do {
	case "panic":
		panic("out of cheese")
	case "fail":
		s.Gauge("partial", 1)
		return errors.New("nobody answers: start it")
	case "hang":
		<-ctx.Done()
		return ctx.Err()
	case "slow":
		time.Sleep(40 * time.Second)
	}
	s.Gauge("ran", 1, "did:"+c.do)
	return nil
}

// lab is a runner whose runs are recorded. It runs in a synctest bubble.
type lab struct {
	*Runner
	mu     sync.Mutex
	runs   map[string][]time.Duration // since the start, by what was done
	series []metric.Series
	open   int
	cancel context.CancelFunc
	ended  chan error
}

func startLab(t *testing.T, o Options) *lab {
	t.Helper()
	l := &lab{runs: map[string][]time.Duration{}, ended: make(chan error, 1)}
	kind := Kind{Name: "fake", New: func(i *Instance) (Check, error) {
		var c struct {
			Do string `json:"do"`
		}
		if err := i.Decode(&c); err != nil {
			return nil, err
		}
		if c.Do == "" {
			return nil, errors.New(`key "do" is missing`)
		}
		l.mu.Lock()
		defer l.mu.Unlock()
		l.open++
		return &fakeCheck{do: c.Do, closed: func() {
			l.mu.Lock()
			defer l.mu.Unlock()
			l.open--
		}}, nil
	}}
	cloud := kind
	cloud.Name, cloud.NoHost, cloud.FileOnly = "cloud", true, true
	broken := Kind{Name: "broken", New: func(*Instance) (Check, error) { panic("cannot read") }}
	o.Kinds = []Kind{kind, cloud, broken}
	o.Host = "node"
	var err error
	if l.Runner, err = New(o); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	l.cancel = cancel
	start := time.Now()
	go func() {
		l.ended <- l.Run(ctx, func(_ context.Context, series []metric.Series, _ []metric.ServiceCheck) {
			l.mu.Lock()
			defer l.mu.Unlock()
			for _, s := range series {
				did := strings.Join(s.Tags.Values("did"), "")
				l.runs[did] = append(l.runs[did], time.Since(start))
			}
			l.series = append(l.series, series...)
		})
	}()
	return l
}

// stop ends the runner and looks that nothing is left.
func (l *lab) stop(t *testing.T) {
	t.Helper()
	l.cancel()
	if err := <-l.ended; err != nil {
		t.Error(err)
	}
	if l.open != 0 {
		t.Errorf("%d checks were not closed", l.open)
	}
}

func defaults(does ...string) (out []Instance) {
	for _, do := range does {
		out = append(out, Instance{Check: "fake", Values: map[string]any{"do": do}})
	}
	return out
}

func TestInstancesRunApartAndNoneDelaysAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		registry := prometheus.NewRegistry()
		l := startLab(t, Options{Defaults: defaults("a", "b", "c", "slow", "panic", "fail", "hang"), Registerer: registry})
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		status := l.Status()
		l.stop(t)
		starts := map[time.Duration]bool{}
		for _, do := range []string{"a", "b", "c"} {
			times := l.runs[do]
			if len(times) != 40 {
				t.Errorf("%s ran %d times in 10 minutes, want 40", do, len(times))
			}
			for i := 1; i < len(times); i++ {
				if d := times[i] - times[i-1]; d != DefaultInterval {
					t.Fatalf("%s ran %s after the run before", do, d)
				}
			}
			if times[0] > maxFirstWait {
				t.Errorf("the first run of %s was after %s", do, times[0])
			}
			starts[times[0]] = true
		}
		if len(starts) != 3 {
			t.Errorf("checks start at the same moment: %v", starts)
		}
		// A run of 40 s takes the place of two more.
		if n := len(l.runs["slow"]); n != 13 {
			t.Errorf("the slow check ran %d times, want 13 in 10 minutes", n)
		}
		got := map[string]string{}
		for _, i := range status.Instances {
			got[i.LastError] = fmt.Sprintf("%d runs, %d failures, %d series", i.Runs, i.Failures, i.Series)
		}
		want := map[string]string{
			"": "13 runs, 0 failures, 1 series", // of several; the last in order is overwritten below
			"the check panicked: out of cheese: this is a defect of the check, please report it": "40 runs, 40 failures, 0 series",
			"nobody answers: start it":  "40 runs, 40 failures, 1 series",
			"context deadline exceeded": "",
		}
		delete(got, "")
		delete(want, "")
		if hang := got["context deadline exceeded"]; !strings.Contains(hang, "0 series") || strings.HasPrefix(hang, "0 runs") {
			t.Errorf("a check that hangs should end at its limit and be run again: %q", hang)
		}
		got["context deadline exceeded"] = ""
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("status (-want +got)\n%s", d)
		}
		if n := testutil.ToFloat64(l.metrics.panics.WithLabelValues("fake")); n != 40 {
			t.Errorf("%v panics counted, want 40", n)
		}
	})
}

// node is the pods of a node, with origin's own tags.
type node struct {
	mu         sync.Mutex
	pods       []origin.Pod
	index      *origin.Index
	generation uint64
	used       int
}

func (n *node) set(pods ...origin.Pod) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.pods, n.index = pods, origin.NewIndex(pods, origin.TagOptions{})
	n.generation++
}

func (n *node) Snapshot() ([]origin.Pod, uint64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.pods, n.generation
}

func (n *node) Use() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.used++
}

func (n *node) Lookup(e origin.Entity, _ time.Time) (*origin.Levels, origin.Result) {
	n.mu.Lock()
	defer n.mu.Unlock()
	levels, _ := n.index.Lookup(e)
	return levels, origin.Found
}

func runningPod(name, checks string) origin.Pod {
	status := origin.ContainerStatus{Name: "app", ContainerID: "containerd://" + name}
	status.State.Running = &struct {
		StartedAt string `json:"startedAt"`
	}{}
	return origin.Pod{
		Metadata: origin.Metadata{Name: name, Namespace: "test", UID: name, Annotations: map[string]string{"ad.datadoghq.com/app.checks": checks}},
		Spec:     origin.PodSpec{Containers: []origin.Container{{Name: "app", Image: "shop:1"}}},
		Status:   origin.PodStatus{Phase: "Running", PodIP: "10.0.0.1", ContainerStatuses: []origin.ContainerStatus{status}},
	}
}

func TestPodsComeChangeAndGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pods := &node{}
		pods.set()
		l := startLab(t, Options{Pods: pods, Cardinality: origin.Orchestrator, Tags: metric.NewTags("kube_cluster_name:lab"), Defaults: defaults("own")})
		sources := func() (out []string) {
			time.Sleep(discoverEvery + DefaultInterval)
			synctest.Wait()
			for _, i := range l.Status().Instances {
				out = append(out, fmt.Sprintf("%s %v", i.Source, i.Runs > 0))
			}
			return out
		}
		steps := []struct {
			pods []origin.Pod
			want []string
		}{
			{nil, []string{"default true"}},
			{
				[]origin.Pod{runningPod("web", `{"fake":{"instances":[{"do":"one","tags":["team:a"],"min_collection_interval":5}]}}`)},
				[]string{"default true", "pod test/web container app true"},
			},
			{
				[]origin.Pod{runningPod("web", `{"fake":{"instances":[{"do":"two"},{"do":"two"}]}}`), runningPod("db", `{"cloud":{"instances":[{"do":"x"}]}}`)},
				[]string{"default true", "pod test/web container app true", "pod test/web container app true"},
			},
			{[]origin.Pod{runningPod("web", "")}, []string{"default true"}},
		}
		for i, step := range steps {
			pods.set(step.pods...)
			if d := cmp.Diff(step.want, sources()); d != "" {
				t.Errorf("step %d (-want +got)\n%s", i, d)
			}
			if l.mu.Lock(); l.open != len(step.want) {
				t.Errorf("step %d: %d checks are open, want %d", i, l.open, len(step.want))
			}
			l.mu.Unlock()
		}
		if pods.used == 0 {
			t.Error("nobody told that the pods are used")
		}
		l.stop(t)
		one := l.series[slices.IndexFunc(l.series, func(s metric.Series) bool { return s.Tags.Has("did:one") })]
		one.Points = nil
		want := metric.Series{
			Name: "ran", Host: "node", Type: metric.Gauge, Interval: 5,
			Tags: metric.NewTags("did:one", "team:a", "kube_cluster_name:lab", "kube_namespace:test", "pod_name:web", "pod_phase:running",
				"kube_container_name:app", "image_name:shop", "short_image:shop", "image_tag:1"),
		}
		if d := cmp.Diff(want, one); d != "" {
			t.Errorf("a series of a pod's check (-want +got)\n%s", d)
		}
	})
}

func TestFilesAndTheirMistakes(t *testing.T) {
	dir := t.TempDir()
	for path, text := range map[string]string{
		"fake.d/conf.yaml":           "init_config: {tags: [shared:1], service: shop}\ninstances:\n- do: from-file\n  tags: [own:1]\n  speed: 11\n- do: second\n  name: named\n  empty_default_hostname: true\n",
		"fake.d/conf.yaml.example":   "not read",
		"fake.d/.hidden.yaml":        "not read",
		"fake.d/interval.yaml":       "instances: [{do: x, min_collection_interval: 0.1}]",
		"fake.d/kind.yaml":           "instances: [{do: x, min_collection_interval: often}]",
		"fake.d/missing.yaml":        "instances: [{}]",
		"fake.d/syntax.yaml":         "instances: [",
		"fake.d/twice.yaml":          "instances: [{do: x}]\ninstances: [{do: y}]",
		"fake.d/variable.yaml":       "instances: [{do: \"%%host%%\"}]",
		"fake.d/template.yaml":       "ad_identifiers: [x]\ninstances: [{do: x}]",
		"cloud.yaml":                 "instances: [{do: cloudy}]",
		"redis.yaml":                 "instances: [{}]",
		"broken.yaml":                "instances: [{}]",
		"README":                     "not read",
		"fake.d/big.yaml":            "#" + strings.Repeat("x", maxFile),
		"notes.d/not-yaml.txt":       "not read",
		"fake.d/subfolder/conf.yaml": "not read",
	} {
		path = filepath.Join(dir, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	synctest.Test(t, func(t *testing.T) {
		l := startLab(t, Options{Dir: dir, Defaults: defaults("default")})
		time.Sleep(time.Minute)
		synctest.Wait()
		status := l.Status()
		l.stop(t)
		var got []string
		for _, i := range status.Instances {
			got = append(got, fmt.Sprintf("%s %s %s %d series %q", i.Check, i.Name, strings.TrimPrefix(i.Source, "file "+dir), i.Series, i.Warnings))
		}
		want := []string{
			`cloud  /cloud.yaml 1 series []`,
			`fake  /fake.d/conf.yaml 1 series ["key \"speed\" is not one that this check reads, and is ignored"]`,
			`fake named /fake.d/conf.yaml 1 series []`,
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("instances (-want +got)\n%s", d)
		}
		got = nil
		for _, p := range status.Problems {
			got = append(got, strings.ReplaceAll(p.Check+": "+strings.TrimPrefix(p.Source, "file "+dir)+": "+p.Error, dir, ""))
		}
		slices.Sort(got)
		want = []string{
			`broken: /broken.yaml: the check failed while it read its configuration: cannot read: this is a defect of the check, please report it`,
			`fake: /fake.d/big.yaml: the file has 1048577 bytes: expected at most 1048576`,
			`fake: /fake.d/interval.yaml: key "min_collection_interval": expected 1 to 86400 seconds`,
			`fake: /fake.d/kind.yaml: key "min_collection_interval": expected a number, found string`,
			`fake: /fake.d/missing.yaml: key "do" is missing`,
			`fake: /fake.d/syntax.yaml: not YAML: yaml: line 1: did not find expected node content`,
			`fake: /fake.d/template.yaml: key "ad_identifiers": this agent knows no pods: set DD_KUBERNETES_KUBELET_HOST, or remove the key`,
			"fake: /fake.d/twice.yaml: not YAML: yaml: unmarshal errors:\n  line 2: key \"instances\" already set in map",
			`fake: /fake.d/variable.yaml: instance 1: key "do": variable %%host%% needs a container to stand for: add ad_identifiers with the image's name, or write the value`,
			`redis: /redis.yaml: there is no check "redis": expected one of broken, cloud, fake; what exports Prometheus metrics, openmetrics can read`,
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("problems (-want +got)\n%s", d)
		}
		hosts := map[string]string{}
		for _, s := range l.series {
			hosts[strings.Join(s.Tags, ",")] = s.Host
		}
		wantHosts := map[string]string{
			"did:cloudy": "",
			"did:from-file,own:1,service:shop,shared:1": "node",
			"did:second,service:shop,shared:1":          "",
		}
		if d := cmp.Diff(wantHosts, hosts); d != "" {
			t.Errorf("hosts by tags (-want +got)\n%s", d)
		}
	})
}

func TestMorePodsThanLimits(t *testing.T) {
	many := `{"fake":{"instances":[` + strings.Repeat(`{"do":"x"},`, maxPodInstances) + `{"do":"x"}]}}`
	var pods []origin.Pod
	for i := range maxDiscovered/maxPodInstances + 1 {
		pods = append(pods, runningPod(fmt.Sprint("p", i), many))
	}
	found, problems := newTestDiscovery().instances(pods)
	if len(found) > maxDiscovered || len(found) < maxDiscovered-maxPodInstances {
		t.Errorf("%d instances of all pods", len(found))
	}
	if want := len(pods) + 1; len(problems) != want {
		t.Errorf("%d problems, want one of each pod and one of the last: %d", len(problems), want)
	}
	large := runningPod("large", strings.Repeat(" ", maxAnnotation+1))
	if found, problems := newTestDiscovery().instances([]origin.Pod{large}); len(found) != 0 || len(problems) != 1 {
		t.Errorf("a large annotation was read: %v %v", found, problems)
	}
}
