package state

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/datadriven"
	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/zstd"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/goleak"
	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/yaml"

	"kelpie.dev/kelpie/clusteragent/mirror"
	"kelpie.dev/kelpie/datadog"
	"kelpie.dev/kelpie/metric"
	"kelpie.dev/kelpie/metric/payload"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestScripts turns objects, as YAML, into series. Each command names the kind.
func TestScripts(t *testing.T) {
	datadriven.Walk(t, "testdata", func(t *testing.T, path string) {
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			var out strings.Builder
			r := &run{tags: metric.NewTags("kube_cluster_name:lab"), at: 1000, interval: 15, emit: func(s metric.Series) {
				fmt.Fprintf(&out, "%s{%s} %g\n", s.Name, s.Tags, s.Points[0].Value)
				if s.Type != metric.Gauge || s.Interval != 15 || s.Points[0].Time != 1000 || s.Host != "" {
					t.Errorf("%s: %+v, want a gauge of no host each 15 s at 1000", s.Name, s)
				}
			}}
			switch d.Cmd {
			case "deployment":
				workloadText(t, d.Input, r, deployments, pickDeployment)
			case "statefulset":
				workloadText(t, d.Input, r, statefulSets, pickStatefulSet)
			case "daemonset":
				workloadText(t, d.Input, r, daemonSets, pickDaemonSet)
			case "replicaset":
				workloadText(t, d.Input, r, replicaSets, pickReplicaSet)
			case "hpa":
				hpa := read[autoscalingv2.HorizontalPodAutoscaler](t, d.Input)
				if _, err := TrimAutoscaler(hpa); err != nil {
					t.Error(err)
				}
				r.autoscaler(hpa)
			default:
				t.Fatalf("%s: no command %q", d.Pos, d.Cmd)
			}
			return out.String()
		})
	})
}

func read[T any](t *testing.T, text string) *T {
	t.Helper()
	var v T
	if err := yaml.UnmarshalStrict([]byte(text), &v); err != nil {
		t.Fatal(err)
	}
	return &v
}

func workloadText[T any, O interface {
	*T
	mirror.Object
}](t *testing.T, text string, r *run, k kind, pick func(O) (workload, bool)) {
	t.Helper()
	o := O(read[T](t, text))
	if w, keep := pick(o); keep {
		r.workload(k, mirror.Key{Namespace: o.GetNamespace(), Name: o.GetName()}, w)
	}
}

// intake keeps the series that it is sent.
type intake struct {
	answer func(n int) error // to the n-th request, from 1; nil takes all

	mu    sync.Mutex // guards what follows
	asked int
	took  []metric.Series
}

// take returns what came since the last call.
func (in *intake) take() []metric.Series {
	in.mu.Lock()
	defer in.mu.Unlock()
	took := in.took
	in.took = nil
	return took
}

func (in *intake) Submit(_ context.Context, body datadog.SeriesBody) error {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.asked++
	if in.answer != nil {
		if err := in.answer(in.asked); err != nil {
			return err
		}
	}
	r, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1))
	if err != nil {
		return err
	}
	defer r.Close()
	raw, err := r.DecodeAll(body.Data, nil)
	if err != nil {
		return err
	}
	series, err := payload.DecodeV2(raw)
	in.took = append(in.took, series...)
	return err
}

// none is a cluster without autoscalers.
type none struct{ synced bool }

func (none) List() []any       { return nil }
func (n none) HasSynced() bool { return n.synced }

// The collector of a test watches nothing: its rows are given.
func newCollector(t *testing.T, o Options) *Collector {
	t.Helper()
	o.Apps, o.Autoscalers = &rest.RESTClient{}, none{true}
	c, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	for i := range c.sources {
		c.sources[i].rows = complete(func() bool { return true })
		c.sources[i].all = func(func(mirror.Key, workload) bool) {}
	}
	return c
}

// complete is no rows, and whether that is all.
type complete func() bool

func (complete) Run(ctx context.Context) { <-ctx.Done() }
func (c complete) Synced() bool          { return c() }
func (complete) Len() int                { return 0 }

// Only the leader sends, only complete state, and in the run after a change the
// new numbers.
func TestRuns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var leading, listed atomic.Bool
		var replicas atomic.Int32
		replicas.Store(3)
		in, reg := &intake{}, prometheus.NewRegistry()
		c := newCollector(t, Options{Intake: in, IsLeader: leading.Load, Registerer: reg})
		c.sources[0].all = func(yield func(mirror.Key, workload) bool) {
			n := replicas.Load()
			w, _ := pickDeployment(&appsv1.Deployment{Spec: appsv1.DeploymentSpec{Replicas: &n}})
			yield(mirror.Key{Namespace: "web", Name: "app"}, w)
		}
		c.sources[1].rows = complete(listed.Load)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- c.Run(ctx) }()
		period := func() []string {
			time.Sleep(DefaultPeriod)
			synctest.Wait()
			var got []string
			for _, s := range in.take() {
				if s.Name == "kubernetes_state.deployment.replicas_desired" || strings.HasSuffix(s.Name, ".count") {
					got = append(got, fmt.Sprintf("%s{%s} %g", s.Name, s.Tags, s.Points[0].Value))
				}
			}
			return got
		}
		check := func(when string, got []string, want ...string) {
			t.Helper()
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("%s (-want +got):\n%s", when, diff)
			}
		}
		const desired, count = "kubernetes_state.deployment.replicas_desired{kube_deployment:app,kube_namespace:web} ", "kubernetes_state.deployment.count{kube_namespace:web} 1"
		check("as follower", period())
		leading.Store(true)
		check("before the lists are complete", period())
		if got := c.Status().Waiting; got != "statefulsets" {
			t.Errorf("waits for %q, want statefulsets", got)
		}
		listed.Store(true)
		check("as leader", period(), desired+"3", count)
		replicas.Store(5)
		check("after it was scaled", period(), desired+"5", count)
		leading.Store(false)
		check("after the lease was lost", period())
		if s := c.Status(); s.Series != 8 || s.Dropped != 0 || s.Waiting != "" || s.LastSuccess.IsZero() {
			t.Errorf("status %+v, want 8 series and no loss", s)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		const metrics = `
# HELP kelpie_kubernetes_state_runs_total Periods, by what was done: sent, not_leader, not_synced.
# TYPE kelpie_kubernetes_state_runs_total counter
kelpie_kubernetes_state_runs_total{result="not_leader"} 2
kelpie_kubernetes_state_runs_total{result="not_synced"} 1
kelpie_kubernetes_state_runs_total{result="sent"} 2
`
		if err := testutil.GatherAndCompare(reg, strings.NewReader(metrics), "kelpie_kubernetes_state_runs_total"); err != nil {
			t.Error(err)
		}
	})
}

// What the intake does not take is tried again, in order, where that can help,
// and counted by reason where it cannot.
func TestDelivery(t *testing.T) {
	down := errors.New("no route to host")
	for _, c := range []struct {
		name    string
		answer  func(n int) error
		minutes int
		took    int // of three bodies of one point
		dropped map[string]int
	}{
		{"taken", nil, 1, 3, nil},
		{"down for two attempts", func(n int) error {
			if n <= 2 {
				return down
			}
			return nil
		}, 1, 3, nil},
		{"refused", func(n int) error {
			if n == 1 {
				return &datadog.APIError{Status: http.StatusForbidden}
			}
			return nil
		}, 1, 2, map[string]int{"refused": 1}},
		{"too large", func(int) error { return &datadog.APIError{Status: http.StatusRequestEntityTooLarge} }, 1, 0, map[string]int{"refused": 3}},
		{"unwell for a minute", func(n int) error {
			if n <= 5 {
				return &datadog.APIError{Status: http.StatusServiceUnavailable}
			}
			return nil
		}, 5, 3, nil},
		{"asked to wait", func(n int) error {
			if n <= 2 {
				return &datadog.APIError{Status: http.StatusTooManyRequests, RetryAfter: time.Hour}
			}
			return nil
		}, 5, 3, nil},
		{"down for good", func(int) error { return down }, 30, 0, map[string]int{"too_old": 3}},
		{"down at the end", func(int) error { return down }, 1, 0, map[string]int{"shutdown": 3}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				in := &intake{answer: c.answer}
				col := newCollector(t, Options{Intake: in, IsLeader: func() bool { return true }})
				for i := range 3 {
					bodies, lost := col.encoder.Encode([]metric.Series{{Name: "m", Points: []metric.Point{{Time: int64(i)}}}})
					if lost > 0 {
						t.Fatal("a point did not fit")
					}
					col.outbox.put(time.Now(), bodies)
				}
				ctx, cancel := context.WithCancel(t.Context())
				done := make(chan struct{})
				go func() { defer close(done); col.outbox.run(ctx) }()
				time.Sleep(time.Duration(c.minutes) * time.Minute)
				cancel()
				<-done
				took := in.take()
				if len(took) != c.took || !slices.IsSortedFunc(took, func(a, b metric.Series) int { return int(a.Points[0].Time - b.Points[0].Time) }) {
					t.Errorf("the intake took %v, want %d in order", took, c.took)
				}
				total := 0
				for _, reason := range []string{"refused", "too_old", "shutdown", "queue_full", "too_large"} {
					got := int(testutil.ToFloat64(col.tel.dropped.WithLabelValues(reason)))
					if got != c.dropped[reason] {
						t.Errorf("dropped as %s: %d, want %d", reason, got, c.dropped[reason])
					}
					total += got
				}
				if s := col.Status(); s.Queued != 0 || s.Dropped != uint64(total) {
					t.Errorf("status %+v, want nothing queued and %d dropped", s, total)
				}
			})
		})
	}
}

// What waits for the intake is bounded, and the oldest go first.
func TestFullOutboxDropsTheOldest(t *testing.T) {
	col := newCollector(t, Options{Intake: &intake{}, IsLeader: func() bool { return true }})
	big := make([]byte, maxQueued/4)
	for i := range 6 {
		col.outbox.put(time.Unix(int64(i), 0), []datadog.SeriesBody{{Data: big, Points: 1}})
	}
	if got := testutil.ToFloat64(col.tel.dropped.WithLabelValues("queue_full")); got != 2 {
		t.Errorf("dropped %g points, want 2", got)
	}
	if it, _ := col.outbox.next(); it.at.Unix() != 2 {
		t.Errorf("the oldest left is number %d, want 2", it.at.Unix())
	}
}

// Ten thousand Deployments cost a few megabytes in memory and in transit.
func TestTenThousandDeployments(t *testing.T) {
	const n = 10_000
	heap := func() int64 {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	in := &intake{}
	col := newCollector(t, Options{Intake: in, IsLeader: func() bool { return true }})
	before := heap()
	rows := map[mirror.Key]workload{}
	replicas := int32(3)
	for i := range n {
		name := fmt.Sprintf("application-with-a-usual-name-%05d", i)
		w, _ := pickDeployment(&appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{
			"app.kubernetes.io/name": name, "tags.datadoghq.com/service": name, "pod-template-hash": strings.Repeat("x", 1000)}},
			Spec: appsv1.DeploymentSpec{Replicas: &replicas}})
		rows[mirror.Key{Namespace: "team", Name: name}] = w
	}
	each := (heap() - before) / n
	t.Logf("%d bytes for each Deployment with two standard labels", each)
	if each > 600 {
		t.Errorf("a Deployment takes %d bytes, want at most 600", each)
	}
	col.sources[0].all = func(yield func(mirror.Key, workload) bool) {
		for k, w := range rows {
			if !yield(k, w) {
				return
			}
		}
	}
	series := col.collect(time.Unix(1000, 0))
	bytes := col.Status().Queued
	t.Logf("a run: %d series in %d bytes and %d bodies", series, bytes, len(col.outbox.queue))
	if want := n*7 + 1; series != want || bytes > 2<<20 || testutil.ToFloat64(col.tel.dropped.WithLabelValues("queue_full")) > 0 {
		t.Errorf("a run is %d series in %d bytes, want %d in at most 2 MiB", series, bytes, want)
	}
	for {
		it, ok := col.outbox.next()
		if !ok {
			break
		}
		if err := in.Submit(t.Context(), it.body); err != nil {
			t.Fatal(err)
		}
	}
	if took := in.take(); len(took) != series {
		t.Errorf("%d series arrived, want %d", len(took), series)
	}
	runtime.KeepAlive(rows)
}

func TestOptions(t *testing.T) {
	ok := Options{Apps: &rest.RESTClient{}, Autoscalers: none{}, Intake: &intake{}, IsLeader: func() bool { return false }}
	for name, spoil := range map[string]func(*Options){
		"Apps": func(o *Options) { o.Apps = nil }, "Intake": func(o *Options) { o.Intake = nil }, "period": func(o *Options) { o.Period = time.Millisecond },
	} {
		o := ok
		spoil(&o)
		if _, err := New(o); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("without a usable %s: %v", name, err)
		}
	}
	if c, err := New(ok); err != nil || c.o.Period != 15*time.Second {
		t.Errorf("New: %v", err)
	}
}
