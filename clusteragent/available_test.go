package clusteragent

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/rest"
	externalclient "k8s.io/metrics/pkg/client/external_metrics"

	"kelpie.dev/kelpie/clusteragent/reference"
	"kelpie.dev/kelpie/health"
)

// reader reads metrics all the time, as autoscalers do, and keeps what failed.
type reader struct {
	mu     sync.Mutex
	reads  int
	failed []string
}

// read starts readers of the metrics, which end with the test.
func (c *cluster) read(t *testing.T, metrics map[string]string) *reader {
	t.Helper()
	// The controller's own account: the test's administrator is asked no questions.
	const hpa = "system:serviceaccount:kube-system:horizontal-pod-autoscaler"
	c.apply(t, "rbac.authorization.k8s.io/v1", "clusterroles", `{apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRole, metadata: {name: external-metrics-reader},
rules: [{apiGroups: [external.metrics.k8s.io], resources: ["*"], verbs: [get, list, watch]}]}`)
	c.apply(t, "rbac.authorization.k8s.io/v1", "clusterrolebindings", `{apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRoleBinding, metadata: {name: external-metrics-reader},
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: external-metrics-reader}, subjects: [{apiGroup: rbac.authorization.k8s.io, kind: User, name: "`+hpa+`"}]}`)
	config := rest.CopyConfig(c.config)
	config.QPS, config.Impersonate = -1, rest.ImpersonationConfig{UserName: hpa, Groups: []string{"system:authenticated"}}
	client, err := externalclient.NewForConfig(config)
	must(t, err)
	r := &reader{}
	for name, selector := range metrics { // once the role is known to the API server
		sel, err := labels.Parse(selector)
		must(t, err)
		eventually(t, 10*time.Second, func() string {
			if _, err := client.NamespacedMetrics("test").List(name, sel); err != nil {
				return err.Error()
			}
			return ""
		})
	}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	t.Cleanup(func() { cancel(); wg.Wait() })
	for name, selector := range metrics {
		sel, err := labels.Parse(selector)
		must(t, err)
		wg.Go(func() {
			for tick := time.NewTicker(50 * time.Millisecond); ; {
				select {
				case <-ctx.Done():
					tick.Stop()
					return
				case <-tick.C:
				}
				began := time.Now()
				list, err := client.NamespacedMetrics("test").List(name, sel)
				if err == nil && len(list.Items) != 1 {
					err = fmt.Errorf("%d items", len(list.Items))
				}
				r.mu.Lock()
				r.reads++
				if err != nil || time.Since(began) > 10*time.Second {
					r.failed = append(r.failed, fmt.Sprintf("%s %s after %s: %v", began.Format(time.StampMilli), name, time.Since(began).Round(time.Millisecond), err))
				}
				r.mu.Unlock()
			}
		})
	}
	return r
}

// wantUnharmed fails when a read has failed since the last call, or took longer
// than an autoscaler's controller should wait.
func (r *reader) wantUnharmed(t *testing.T, during string) {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.failed) > 0 {
		t.Errorf("%s: %d of %d reads failed, want none; the first: %s", during, len(r.failed), r.reads, strings.Join(r.failed[:min(5, len(r.failed))], "\n"))
	}
	if r.reads == 0 {
		t.Errorf("%s: nothing was read", during)
	}
	r.reads, r.failed = 0, nil
}

// probe does for the replicas' endpoints what kubelet and endpoint controller do
// with what /ready says.
func (c *cluster) probe(t *testing.T, replicas ...*replica) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	t.Cleanup(func() { cancel(); wg.Wait() })
	wg.Go(func() {
		for tick := time.NewTicker(time.Second); ; {
			select {
			case <-ctx.Done():
				tick.Stop()
				return
			case <-tick.C:
			}
			for i, r := range replicas {
				if err := c.setReady(ctx, i, ready(ctx, r)); err != nil && ctx.Err() == nil {
					t.Logf("set readiness of replica %d: %v", i, err) // the API server may be the one at fault
				}
			}
		}
	})
}

func ready(ctx context.Context, r *replica) bool {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+r.health+"/ready", http.NoBody)
	if err != nil {
		return false
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return false
	}
	_ = resp.Body.Close()
	return resp.StatusCode == http.StatusOK
}

func (c *cluster) setReady(ctx context.Context, i int, is bool) error {
	slices := c.kube.DiscoveryV1().EndpointSlices("datadog")
	s, err := slices.Get(ctx, fmt.Sprintf("replica-%d", i), metav1.GetOptions{})
	if err != nil || *s.Endpoints[0].Conditions.Ready == is {
		return err
	}
	s.Endpoints[0].Conditions.Ready = new(is)
	_, err = slices.Update(ctx, s, metav1.UpdateOptions{})
	return err
}

func (c *cluster) leader(t *testing.T, replicas ...*replica) (leaders []string) {
	t.Helper()
	for _, r := range replicas {
		var s Status
		if err := health.Fetch(t.Context(), r.health, "/status", &s); err == nil && s.Leader {
			leaders = append(leaders, s.Replica)
		}
	}
	return leaders
}

// wantWritten waits for an object's status to show the value.
func (c *cluster) wantWritten(t *testing.T, within time.Duration, name, want string) {
	t.Helper()
	eventually(t, within, func() string {
		u, err := c.resource(metrics, "datadogmetrics", "test").Get(t.Context(), name, metav1.GetOptions{})
		if err != nil {
			return err.Error()
		}
		if v, _, _ := unstructured.NestedString(u.Object, "status", "currentValue"); v != want {
			return fmt.Sprintf("status of %s has value %s, want %s", name, v, want)
		}
		return ""
	})
}

const (
	rateQuery   = "avg:flask.request.rate{kube_namespace:test}"
	inlineQuery = "avg:queue.depth{app:web}.rollup(30)"
)

// oneOfEach makes a DatadogMetric and a plain metric that autoscalers read, and
// waits for both.
func (c *cluster) oneOfEach(t *testing.T, b *backend) {
	t.Helper()
	b.set(func(b *backend) { b.values[rateQuery], b.values[inlineQuery] = 12, 7 })
	c.apply(t, metrics, "datadogmetrics", metricText("rate", rateQuery, ""))
	c.apply(t, hpas, "horizontalpodautoscalers", hpaText("crd", "datadogmetric@test:rate", "{}"))
	c.apply(t, hpas, "horizontalpodautoscalers", hpaText("inline", "queue.depth", `{matchLabels: {app: web}}`))
	c.wantValue(t, 20*time.Second, "datadogmetric@test:rate", "", "12")
	c.wantValue(t, 20*time.Second, "queue.depth", "app=web", "7")
}

func (c *cluster) wantOneGenerated(t *testing.T) {
	t.Helper()
	list, err := c.resource(metrics, "datadogmetrics", "datadog").List(t.Context(), metav1.ListOptions{})
	must(t, err)
	if len(list.Items) != 1 || list.Items[0].GetName() != reference.AutogenName(inlineQuery) {
		t.Errorf("%d generated objects, want one and the right one: %+v", len(list.Items), list.Items)
	}
}

// TestReplicas: of three replicas the leader is cut off from the API server, and
// then another one killed, while autoscalers read.
func TestReplicas(t *testing.T) {
	c := startCluster(t)
	b := newBackend(t)
	f := newFaulty(t, c)
	listeners := []net.Listener{listen(t), listen(t), listen(t)}
	c.register(t, listeners...)
	for i := 1; i < 3; i++ {
		must(t, c.setReady(t.Context(), i, false)) // until they are there
	}
	env := map[string]string{
		"DD_EXTERNAL_METRICS_PROVIDER_ENDPOINT": b.URL, "DD_EXTERNAL_METRICS_PROVIDER_USE_DATADOGMETRIC_CRD": "true",
		"KELPIE_SHUTDOWN_LINGER": "3",
	}
	behind := map[string]string{"kubeconfig": f.kubeconfig}
	for k, v := range env {
		behind[k] = v
	}
	first := c.start(t, "a", listeners[0], behind)
	c.wantAvailable(t)
	others := []*replica{c.start(t, "b", listeners[1], env), c.start(t, "c", listeners[2], env)}
	all := append([]*replica{first}, others...)
	c.oneOfEach(t, b)
	c.probe(t, all...)
	eventually(t, 30*time.Second, func() string {
		for _, r := range all {
			if !ready(t.Context(), r) {
				return r.health + " is not ready"
			}
		}
		if got := c.leader(t, all...); len(got) != 1 || got[0] != "a" {
			return fmt.Sprintf("leaders %v, want a, which was first", got)
		}
		return ""
	})
	time.Sleep(2 * time.Second) // for the API server to see all endpoints
	r := c.read(t, map[string]string{"datadogmetric@test:rate": "", "queue.depth": "app=web"})

	f.set(func(f *faulty) { f.hang() })
	b.set(func(b *backend) { b.values[rateQuery] = 40 })
	eventually(t, 20*time.Second, func() string {
		if got := c.leader(t, others...); len(got) != 1 {
			return fmt.Sprintf("leaders among the others %v, want one", got)
		}
		return ""
	})
	c.wantWritten(t, 15*time.Second, "rate", "40")
	eventually(t, 30*time.Second, func() string {
		if ready(t.Context(), first) {
			return "the replica that is cut off says that it is ready"
		}
		return ""
	})
	r.wantUnharmed(t, "the leader was cut off")
	c.wantOneGenerated(t)

	f.set(func(f *faulty) { f.heal() })
	var leads string
	eventually(t, 60*time.Second, func() string {
		if !ready(t.Context(), first) {
			return "the replica that was cut off is not ready again"
		}
		got := c.leader(t, all...)
		if len(got) != 1 {
			return fmt.Sprintf("leaders %v, want one", got)
		}
		leads = got[0]
		return ""
	})
	r.wantUnharmed(t, "it came back")

	must(t, c.setReady(t.Context(), int(leads[0]-'a'), false)) // as for a pod that is deleted
	all[leads[0]-'a'].kill(t)
	b.set(func(b *backend) { b.values[rateQuery] = 50 })
	c.wantWritten(t, 30*time.Second, "rate", "50")
	r.wantUnharmed(t, "the leader was ended")
	c.wantOneGenerated(t)
}

// TestAPIServerComesAndGoes: watches that expire, an API server that is slow,
// gone and restarted, and a CRD that goes and comes.
func TestAPIServerComesAndGoes(t *testing.T) {
	c := startCluster(t)
	b := newBackend(t)
	f := newFaulty(t, c)
	ln := listen(t)
	c.register(t, ln)
	r := c.start(t, "a", ln, map[string]string{
		"kubeconfig": f.kubeconfig, "DD_EXTERNAL_METRICS_PROVIDER_ENDPOINT": b.URL, "DD_EXTERNAL_METRICS_PROVIDER_USE_DATADOGMETRIC_CRD": "true",
	})
	c.wantAvailable(t)
	c.oneOfEach(t, b)
	// appears shows that what is made now is seen.
	appears := func(name string, within time.Duration) {
		t.Helper()
		b.set(func(b *backend) { b.values["avg:"+name+"{*}"] = 3 })
		c.apply(t, metrics, "datadogmetrics", metricText(name, "avg:"+name+"{*}", ""))
		c.apply(t, hpas, "horizontalpodautoscalers", hpaText(name, "datadogmetric@test:"+name, "{}"))
		c.wantValue(t, within, "datadogmetric@test:"+name, "", "3")
		c.wantWritten(t, within, name, "3")
	}
	// calm fails when the API server is asked more often than a person would find decent.
	calm := func(during string, elapsed time.Duration) {
		t.Helper()
		if n, most := f.count(), 50+int(10*elapsed.Seconds()); n > most {
			t.Errorf("%s: %d requests in %s, want at most %d", during, n, elapsed.Round(time.Second), most)
		}
	}
	timed := func(during string, do func()) {
		t.Helper()
		f.count()
		began := time.Now()
		do()
		calm(during, time.Since(began))
		eventually(t, 10*time.Second, func() string {
			if !ready(t.Context(), r) {
				return "after " + during + ": not ready"
			}
			return ""
		})
	}

	timed("watches that expire", func() {
		f.set(func(f *faulty) { f.expired = 6; f.end() })
		appears("expired", 60*time.Second)
		f.set(func(f *faulty) {
			if f.expired != 0 {
				t.Errorf("%d of 6 watches did not begin anew", f.expired)
			}
		})
	})
	timed("a slow API server", func() {
		f.set(func(f *faulty) { f.delay = time.Second })
		appears("slow", 60*time.Second)
		f.set(func(f *faulty) { f.heal() })
	})
	timed("an API server out of reach", func() {
		f.set(func(f *faulty) { f.refuse() })
		for range 30 { // the value goes on being read, through the real one
			c.wantValue(t, 0, "datadogmetric@test:rate", "", "12")
			time.Sleep(500 * time.Millisecond)
		}
		if ready(t.Context(), r) {
			t.Error("ready without an API server, want a replica that says so")
		}
		f.set(func(f *faulty) { f.heal() })
		appears("back", 60*time.Second)
	})
	timed("a restart", func() {
		f.set(func(f *faulty) { f.refuse() }) // it waits for the streams that are open
		must(t, c.apiServer.Stop())
		c.apiServer.CertDir = c.certDir
		must(t, c.apiServer.Start())
		f.set(func(f *faulty) { f.heal() })
		c.wantAvailable(t)
		appears("restarted", 60*time.Second)
	})
	timed("without the CRD", func() {
		const crds = "apiextensions.k8s.io/v1"
		c.remove(t, crds, "customresourcedefinitions", "", "datadogmetrics.datadoghq.com")
		c.wantError(t, "datadogmetric@test:rate", "", 404, `no DatadogMetric "rate"`)
		c.wantValue(t, 5*time.Second, "queue.depth", "app=web", "7") // needs no object
		time.Sleep(5 * time.Second)
		c.installCRD(t)
		eventually(t, 60*time.Second, func() string {
			_, err := c.resource(metrics, "datadogmetrics", "test").List(t.Context(), metav1.ListOptions{})
			if err != nil {
				return err.Error()
			}
			return ""
		})
		appears("installed", 90*time.Second)
	})
	c.wantValue(t, 5*time.Second, "queue.depth", "app=web", "7")
}
