package origin

import (
	"context"
	"encoding/pem"
	"errors"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// answers are a cluster agent's, by path.
var answers = map[string]string{
	"/api/v1/tags/pod/node-1":           `{"Nodes":{"node-1":{"services":{"db":{"shop-a":{"store":{}}},"web":{"shop-a":{"shop":{},"all":{}}}}}}}`,
	"/api/v1/tags/node/node-1":          `{"zone":"a"}`,
	"/api/v1/tags/namespace/web":        `{"team":"shop"}`,
	"/api/v1/tags/namespace/bad":        `["no object"]`,
	"/api/v1/tags/namespace/a%2F..%2Fb": `{"escaped":"yes"}`,
}

func TestClusterAgent(t *testing.T) {
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		answer, ok := answers[r.URL.EscapedPath()]
		switch {
		case r.Header.Get("Authorization") != "Bearer secret-token":
			w.WriteHeader(http.StatusForbidden)
		case r.URL.Path == "/api/v1/tags/namespace/long":
			_, _ = io.WriteString(w, `{"x":"`+strings.Repeat("x", maxLabels)+`"}`)
		case r.URL.Path == "/api/v1/tags/namespace/elsewhere":
			http.Redirect(w, r, "https://elsewhere.test/", http.StatusFound)
		case !ok:
			w.WriteHeader(http.StatusNotFound)
		default:
			_, _ = io.WriteString(w, answer)
		}
	}))
	server.Config.ErrorLog = log.New(io.Discard, "", 0) // refused certificates are the point
	server.StartTLS()
	defer server.Close()
	ca := filepath.Join(t.TempDir(), "ca.crt")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	open := func(o ClusterAgentOptions) *ClusterAgent {
		t.Helper()
		c, err := OpenClusterAgent(o)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(c.Close)
		return c
	}
	c := open(ClusterAgentOptions{URL: strings.TrimPrefix(server.URL, "https://") + "/", Token: "secret-token", Node: "node-1", CAFile: ca})
	services, err := c.Services(t.Context())
	if diff := cmp.Diff(map[string][]string{"db/shop-a": {"store"}, "web/shop-a": {"all", "shop"}}, services); diff != "" || err != nil {
		t.Errorf("services: %v (-want +got):\n%s", err, diff)
	}
	if labels, err := c.NodeLabels(t.Context()); err != nil || labels["zone"] != "a" {
		t.Errorf("labels of the node: %v, %v", labels, err)
	}
	for namespace, want := range map[string]string{"web": "team", "a/../b": "escaped"} {
		if labels, err := c.NamespaceLabels(t.Context(), namespace); err != nil || labels[want] == "" {
			t.Errorf("labels of namespace %s: %v, %v", namespace, labels, err)
		}
	}
	for namespace, want := range map[string]string{"bad": "decode", "long": "longer than", "gone": "404", "elsewhere": "302"} {
		if _, err := c.NamespaceLabels(t.Context(), namespace); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("namespace %s: error %v, want one with %q", namespace, err, want)
		}
	}
	wrong := open(ClusterAgentOptions{URL: server.URL, Token: "other-token", Node: "node-1", Insecure: true})
	if _, err := wrong.Services(t.Context()); err == nil || !strings.Contains(err.Error(), "DD_CLUSTER_AGENT_AUTH_TOKEN") || strings.Contains(err.Error(), "other-token") {
		t.Errorf("with a wrong token: %v", err)
	}
	for about, o := range map[string]ClusterAgentOptions{
		"plain HTTP": {URL: "http://dca:5005", Node: "n", Insecure: true}, "no address": {Node: "n", Insecure: true},
		"no node": {URL: "dca:5005", Insecure: true}, "no CA": {URL: "dca:5005", Node: "n", CAFile: "/absent"},
	} {
		if _, err := OpenClusterAgent(o); err == nil {
			t.Errorf("%s is no error", about)
		}
	}
}

// cluster is a Cluster that changes.
type cluster struct {
	mu       sync.Mutex
	services map[string][]string
	labels   map[string]string
	err      error
	hang     bool
	asked    []string
}

func (c *cluster) set(change func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	change()
}

func (c *cluster) count(what string) (n int) {
	c.set(func() {
		for _, s := range c.asked {
			if s == what {
				n++
			}
		}
		c.asked = nil
	})
	return n
}

func (c *cluster) Services(ctx context.Context) (map[string][]string, error) {
	c.mu.Lock()
	c.asked = append(c.asked, "services")
	hang, services, err := c.hang, c.services, c.err
	c.mu.Unlock()
	if hang {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return services, err
}

func (c *cluster) NamespaceLabels(_ context.Context, namespace string) (map[string]string, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.asked = append(c.asked, namespace)
	return c.labels, c.err
}

// TestClusterTags holds that what the cluster knows becomes tags soon after a
// pod appears, stands while the cluster agent fails, and is asked for rarely.
func TestClusterTags(t *testing.T) {
	labels, err := ParseTagMap(`{"team":"team"}`)
	if err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		src, c := &source{}, &cluster{services: map[string][]string{"ns/a": {"svc"}}, labels: map[string]string{"team": "x"}}
		src.pods.Store(&[]Pod{pod("a")})
		tagger := running(t, TaggerOptions{Source: src, Cluster: c, Tags: TagOptions{NamespaceLabels: labels}})
		has := func(about string, tags ...string) {
			t.Helper()
			l, _ := tagger.Lookup(Entity{PodUID: "uid-a"}, time.Now())
			for _, tag := range tags {
				if l == nil || !l.At(Low).Has(tag) {
					t.Errorf("%s: no tag %s", about, tag)
				}
			}
		}
		inUse(tagger, 3*time.Second)
		has("a new pod", "kube_service:svc", "team:x")
		g := tagger.Generation()
		inUse(tagger, 20*time.Minute)
		if tagger.Generation() != g {
			t.Error("the generation changes though nothing does")
		}
		if services := c.count("services"); services < 15 || services > 22 {
			t.Errorf("services were asked for %d times in 20 minutes", services)
		}
		inUse(tagger, 20*time.Minute)
		if n := c.count("ns"); n < 3 || n > 5 {
			t.Errorf("a namespace's labels were asked for %d times in 20 minutes", n)
		}
		c.set(func() { c.err = errors.New("no cluster agent") })
		inUse(tagger, 20*time.Minute)
		has("without a cluster agent", "kube_service:svc", "team:x")
		if n := c.count("services"); n < 3 || n > 7 {
			t.Errorf("a cluster agent that fails was asked %d times in 20 minutes", n)
		}
		c.set(func() { c.err, c.services = nil, map[string][]string{"ns/a": {"other"}} })
		inUse(tagger, 2*clusterMax)
		has("with a cluster agent again", "kube_service:other")
		time.Sleep(10 * time.Minute)
		c.count("")
		time.Sleep(time.Hour)
		if n := c.count("services"); n != 0 {
			t.Errorf("the cluster agent was asked %d times for nobody", n)
		}
	})
}

// TestClusterHangs holds that no sample waits for the cluster agent.
func TestClusterHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src := &source{}
		src.pods.Store(&[]Pod{pod("a")})
		tagger := running(t, TaggerOptions{Source: src, Cluster: &cluster{hang: true}})
		tagger.Use()
		synctest.Wait()
		if l, result := tagger.Lookup(Entity{PodUID: "uid-a"}, time.Now()); result != Found || !l.At(Low).Has("kube_namespace:ns") {
			t.Errorf("result %d while the cluster agent does not answer", result)
		}
		src.pods.Store(&[]Pod{pod("a"), pod("b")})
		inUse(tagger, 20*time.Second)
		if _, result := tagger.Lookup(Entity{PodUID: "uid-b"}, time.Now()); result != Found {
			t.Errorf("a new pod: result %d while the cluster agent does not answer", result)
		}
	})
}
