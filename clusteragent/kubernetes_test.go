package clusteragent

import (
	"cmp"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/zstd"
	appsv1 "k8s.io/api/apps/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"kelpie.dev/kelpie/health"
	"kelpie.dev/kelpie/metric/payload"
)

// intake is a series intake that keeps the newest value of each series, and who
// sent it.
type intake struct {
	*httptest.Server
	mu     sync.Mutex
	values map[string]float64 // by name{tags}
	posts  map[string]int     // by API key
}

func newIntake(t *testing.T) *intake {
	t.Helper()
	in := &intake{values: map[string]float64{}, posts: map[string]int{}}
	in.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		d, err := zstd.NewReader(r.Body, zstd.WithDecoderConcurrency(1))
		if err != nil {
			t.Error(err)
			return
		}
		defer d.Close()
		raw, err := io.ReadAll(d)
		if err != nil {
			t.Error(err)
		}
		series, err := payload.DecodeV2(raw)
		if err != nil {
			t.Error(err)
		}
		in.mu.Lock()
		defer in.mu.Unlock()
		in.posts[r.Header.Get("DD-API-KEY")]++
		for _, s := range series {
			in.values[s.Name+"{"+s.Tags.String()+"}"] = s.Points[0].Value
		}
		w.WriteHeader(http.StatusAccepted)
	}))
	t.Cleanup(in.Close)
	return in
}

func (in *intake) want(t *testing.T, within time.Duration, series string, value float64) {
	t.Helper()
	eventually(t, within, func() string {
		in.mu.Lock()
		defer in.mu.Unlock()
		if got, ok := in.values[series]; !ok || got != value {
			return fmt.Sprintf("%s is %g (known: %v), want %g", series, got, ok, value)
		}
		return ""
	})
}

func (in *intake) requests(key string) int {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.posts[key]
}

const agentsToken = "token-of-agents-and-cluster-agent"

// metadata asks a replica as a node agent does.
func (c *cluster) metadata(t *testing.T, port int, path, token string) (int, string) {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}} // as Datadog's do
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, fmt.Sprintf("https://127.0.0.1:%d%s", port, path), nil)
	must(t, err)
	r.Header.Set("Authorization", "Bearer "+token)
	resp, err := client.Do(r)
	if err != nil {
		return 0, err.Error()
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	must(t, err)
	return resp.StatusCode, strings.TrimSpace(string(body))
}

func (c *cluster) wantMetadata(t *testing.T, port int, path, want string) {
	t.Helper()
	eventually(t, 20*time.Second, func() string {
		status, got := c.metadata(t, port, path, agentsToken)
		if diff := gocmp.Diff(want, got); status != http.StatusOK || diff != "" {
			return fmt.Sprintf("%s: %d (-want +got):\n%s", path, status, diff)
		}
		return ""
	})
}

// What the node agents' side needs of the cluster, against a real API server:
// state by the leader alone, metadata by all replicas, without external metrics.
func TestStateAndMetadata(t *testing.T) {
	c := startCluster(t)
	in := newIntake(t)
	env := func(port int, key string) map[string]string {
		return map[string]string{
			"DD_EXTERNAL_METRICS_PROVIDER_ENABLED": "false", "DD_DD_URL": in.URL, "DD_API_KEY": key, "DD_CLUSTER_NAME": "lab",
			"KELPIE_KUBERNETES_STATE_INTERVAL": "1", "DD_CLUSTER_AGENT_AUTH_TOKEN": agentsToken, "DD_CLUSTER_AGENT_CMD_PORT": fmt.Sprint(port),
		}
	}
	portA, portB := freePort(t), freePort(t)
	first := c.start(t, "a", nil, env(portA, "of-a"))
	eventually(t, 20*time.Second, func() string {
		var s Status
		if err := health.Fetch(t.Context(), first.health, "/status", &s); err != nil || s.State == nil || s.State.LastRun.IsZero() {
			return fmt.Sprintf("the first replica does not lead and look: %v, %+v", err, s)
		}
		return ""
	})
	second := c.start(t, "b", nil, env(portB, "of-b"))

	t.Run("state", func(t *testing.T) { c.state(t, in) })
	t.Run("metadata", func(t *testing.T) { c.metadataOfAll(t, portA, portB) })

	if n := in.requests("of-b"); n != 0 {
		t.Errorf("the follower sent %d times", n)
	}
	if got := c.counter(t, second, `kelpie_kubernetes_state_runs_total{result="not_leader"}`); got == "absent" || got == "0" {
		t.Errorf("runs of the follower = %s, want some", got)
	}
	var s Status
	must(t, health.Fetch(t.Context(), first.health, "/status", &s))
	if s.State == nil || s.State.Series == 0 || s.State.Dropped != 0 || s.Metadata == nil || !s.Metadata.Complete || !s.Leader {
		t.Errorf("status of the leader: %+v, %+v", s.State, s.Metadata)
	}
	first.kill(t)
	eventually(t, 20*time.Second, func() string {
		if in.requests("of-b") == 0 {
			return "the new leader sends nothing"
		}
		return ""
	})
}

func (c *cluster) state(t *testing.T, in *intake) {
	t.Helper()
	const pods = `selector: {matchLabels: {app: app}}, template: {metadata: {labels: {app: app}}, spec: {containers: [{name: c, image: i}]}}`
	c.apply(t, "apps/v1", "deployments", `{apiVersion: apps/v1, kind: Deployment, metadata: {name: app, namespace: test, labels: {tags.datadoghq.com/env: prod}}, spec: {replicas: 3, `+pods+`}}`)
	c.apply(t, "apps/v1", "statefulsets", `{apiVersion: apps/v1, kind: StatefulSet, metadata: {name: store, namespace: test}, spec: {serviceName: s, replicas: 2, `+pods+`}}`)
	c.apply(t, "apps/v1", "daemonsets", `{apiVersion: apps/v1, kind: DaemonSet, metadata: {name: proxy, namespace: test}, spec: {`+pods+`}}`)
	c.apply(t, "apps/v1", "replicasets", `{apiVersion: apps/v1, kind: ReplicaSet, metadata: {name: rs, namespace: test}, spec: {replicas: 1, `+pods+`}}`)
	c.apply(t, hpas, "horizontalpodautoscalers", hpaText("state", "m", "{}"))
	const cluster = "cluster_name:lab,"
	const app = "{" + cluster + "env:prod,kube_cluster_name:lab,kube_deployment:app,kube_namespace:test}"
	const rest = "kube_cluster_name:lab,kube_"
	in.want(t, 5*time.Second, "kubernetes_state.deployment.replicas_desired"+app, 3)
	in.want(t, 5*time.Second, "kubernetes_state.deployment.rollingupdate.max_surge"+app, 1)
	in.want(t, 5*time.Second, "kubernetes_state.statefulset.replicas_desired{"+cluster+rest+"namespace:test,kube_stateful_set:store}", 2)
	in.want(t, 5*time.Second, "kubernetes_state.daemonset.desired{"+cluster+rest+"daemon_set:proxy,kube_namespace:test}", 0)
	in.want(t, 5*time.Second, "kubernetes_state.replicaset.replicas_desired{"+cluster+rest+"namespace:test,kube_replica_set:rs}", 1)
	const hpa = "{" + cluster + "horizontalpodautoscaler:state,kube_cluster_name:lab,kube_namespace:test}"
	in.want(t, 5*time.Second, "kubernetes_state.hpa.max_replicas"+hpa, 5)

	// Scaled, and run: there are no controllers here, so that the test is them.
	scale, err := c.kube.AppsV1().Deployments("test").GetScale(t.Context(), "app", metav1.GetOptions{})
	must(t, err)
	scale.Spec.Replicas = 7
	_, err = c.kube.AppsV1().Deployments("test").UpdateScale(t.Context(), "app", scale, metav1.UpdateOptions{})
	must(t, err)
	d, err := c.kube.AppsV1().Deployments("test").Get(t.Context(), "app", metav1.GetOptions{})
	must(t, err)
	d.Status = appsv1.DeploymentStatus{Replicas: 7, UpdatedReplicas: 6, ReadyReplicas: 5, AvailableReplicas: 4, UnavailableReplicas: 3}
	_, err = c.kube.AppsV1().Deployments("test").UpdateStatus(t.Context(), d, metav1.UpdateOptions{})
	must(t, err)
	for name, value := range map[string]float64{"replicas_desired": 7, "replicas": 7, "replicas_updated": 6, "replicas_ready": 5, "replicas_available": 4, "replicas_unavailable": 3} {
		in.want(t, 5*time.Second, "kubernetes_state.deployment."+name+app, value)
	}
	h, err := c.kube.AutoscalingV2().HorizontalPodAutoscalers("test").Get(t.Context(), "state", metav1.GetOptions{})
	must(t, err)
	h.Status.DesiredReplicas, h.Status.CurrentReplicas = 4, 2
	_, err = c.kube.AutoscalingV2().HorizontalPodAutoscalers("test").UpdateStatus(t.Context(), h, metav1.UpdateOptions{})
	must(t, err)
	in.want(t, 5*time.Second, "kubernetes_state.hpa.desired_replicas"+hpa, 4)
	in.want(t, 5*time.Second, "kubernetes_state.hpa.current_replicas"+hpa, 2)
	must(t, c.kube.AppsV1().Deployments("test").Delete(t.Context(), "app", metav1.DeleteOptions{}))
	gone, stays := "kubernetes_state.deployment.replicas"+app, "kubernetes_state.hpa.max_replicas"+hpa
	eventually(t, 10*time.Second, func() string {
		in.mu.Lock()
		defer in.mu.Unlock()
		_, sent := in.values[gone]
		if _, run := in.values[stays]; run && !sent {
			return ""
		}
		delete(in.values, gone) // and look at the next run
		delete(in.values, stays)
		return "a Deployment that is gone is still sent, or nothing is"
	})
}

func (c *cluster) metadataOfAll(t *testing.T, ports ...int) {
	t.Helper()
	c.apply(t, "v1", "nodes", `{apiVersion: v1, kind: Node, metadata: {name: node-1, labels: {zone: a}}}`)
	c.apply(t, "v1", "namespaces", `{apiVersion: v1, kind: Namespace, metadata: {name: labelled, labels: {team: web}}}`)
	slice := func(service string, pods ...string) string {
		s := discoveryv1.EndpointSlice{TypeMeta: metav1.TypeMeta{APIVersion: "discovery.k8s.io/v1", Kind: "EndpointSlice"}, AddressType: "IPv4",
			ObjectMeta: metav1.ObjectMeta{Namespace: "test", Name: service, Labels: map[string]string{discoveryv1.LabelServiceName: service}}}
		text, err := json.Marshal(s)
		must(t, err)
		var endpoints []string
		for i, p := range pods {
			endpoints = append(endpoints, fmt.Sprintf(`{"addresses":["10.0.0.%d"],"nodeName":"node-1","targetRef":{"kind":"Pod","namespace":"test","name":%q}}`, i+1, p))
		}
		return strings.Replace(string(text), `"endpoints":null`, `"endpoints":[`+strings.Join(endpoints, ",")+`]`, 1)
	}
	c.apply(t, "discovery.k8s.io/v1", "endpointslices", slice("shop", "app-1", "app-2"))
	c.apply(t, "discovery.k8s.io/v1", "endpointslices", slice("all", "app-1"))
	for _, port := range ports {
		c.wantMetadata(t, port, "/api/v1/tags/node/node-1", `{"zone":"a"}`)
		c.wantMetadata(t, port, "/api/v1/tags/namespace/labelled", `{"kubernetes.io/metadata.name":"labelled","team":"web"}`)
		c.wantMetadata(t, port, "/api/v1/tags/pod/node-1/test/app-1", `["kube_service:all","kube_service:shop"]`)
		c.wantMetadata(t, port, "/api/v1/tags/pod/node-1", `{"Nodes":{"node-1":{"services":{"test":{"app-1":{"all":{},"shop":{}},"app-2":{"shop":{}}}}}}}`)
		if status, body := c.metadata(t, port, "/api/v1/tags/pod/node-1", "x"+agentsToken[1:]); status != http.StatusForbidden {
			t.Errorf("with a wrong token: %d %s", status, body)
		}
	}
	c.apply(t, "discovery.k8s.io/v1", "endpointslices", slice("shop", "app-2"))
	c.remove(t, "v1", "nodes", "", "node-1")
	for _, port := range ports {
		c.wantMetadata(t, port, "/api/v1/tags/pod/node-1/test/app-1", `["kube_service:all"]`)
		eventually(t, 10*time.Second, func() string {
			if status, body := c.metadata(t, port, "/api/v1/tags/node/node-1", agentsToken); status != http.StatusNotFound {
				return fmt.Sprintf("a node that is gone: %d %s", status, cmp.Or(body, "(empty)"))
			}
			return ""
		})
	}
}
