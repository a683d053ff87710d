package metadata

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const token = "0123456789abcdef0123456789abcdef"

// newIndex returns an index that asks nobody.
func newIndex(t testing.TB) *Index {
	t.Helper()
	client, err := kubernetes.NewForConfig(&rest.Config{Host: "http://127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	return NewIndex(client)
}

func endpoints(ns, name, service string, pods ...string) *discoveryv1.EndpointSlice {
	s := &discoveryv1.EndpointSlice{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name, Labels: map[string]string{discoveryv1.LabelServiceName: service}}}
	for _, p := range pods {
		podName, on, _ := strings.Cut(p, "@")
		s.Endpoints = append(s.Endpoints, discoveryv1.Endpoint{TargetRef: &corev1.ObjectReference{Kind: "Pod", Namespace: ns, Name: podName}, NodeName: &on})
	}
	return s
}

// fill gives x the first lists.
func fill(t testing.TB, x *Index) {
	t.Helper()
	selectorless := &discoveryv1.EndpointSlice{ObjectMeta: metav1.ObjectMeta{Namespace: "web", Name: "by-hand", Labels: map[string]string{discoveryv1.LabelServiceName: "by-hand"}},
		Endpoints: []discoveryv1.Endpoint{{Addresses: []string{"192.0.2.1"}}}}
	for _, err := range []error{
		x.slices.Store().Replace([]any{
			endpoints("web", "shop-1", "shop", "shop-a@node-1", "shop-b@node-2"),
			endpoints("web", "shop-ipv6", "shop", "shop-a@node-1"),
			endpoints("web", "all-1", "all", "shop-a@node-1", "other@node-1"),
			endpoints("db", "store-1", "store", "shop-a@node-1"), selectorless,
		}, "1"),
		x.nodes.Store().Replace([]any{
			&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "node-1", UID: "uid-1", Labels: map[string]string{"zone": "a"}, Annotations: map[string]string{aliasAnnotation: "m1", "x": "y"}}},
			&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "bare"}},
		}, "1"),
		x.namespaces.Store().Replace([]any{
			&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "web", Labels: map[string]string{"team": "shop"}}},
			&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "kube-system", UID: "cluster-uid"}},
		}, "1"),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
}

func get(h http.Handler, path, auth string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	if u, err := url.ParseRequestURI(path); err == nil {
		r.URL = u
	}
	if auth != "" {
		r.Header.Set("Authorization", auth)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

// The exact JSON that Datadog's node agents and ours read.
func TestAnswers(t *testing.T) {
	x := newIndex(t)
	h := newHandler(x, token, nil)
	asked := []struct {
		path, want string
		status     int
		early      int // status before the lists are complete
	}{
		{"/version", `{"Major":7,"Minor":85,"Patch":0,"Pre":"","Meta":"kelpie","Commit":""}`, 200, 200},
		{"/api/v1/tags/pod/node-1/web/shop-a", `["kube_service:all","kube_service:shop"]`, 200, 503},
		{"/api/v1/tags/pod/node-1/web/alone", `[]`, 200, 503},
		{"/api/v1/tags/pod/node-1", `{"Nodes":{"node-1":{"services":{"db":{"shop-a":{"store":{}}},"web":{"other":{"all":{}},"shop-a":{"all":{},"shop":{}}}}}}}`, 200, 503},
		{"/api/v1/tags/pod/unknown", `{"Nodes":{"unknown":{"services":{}}}}`, 200, 503},
		{"/api/v1/tags/node/node-1", `{"zone":"a"}`, 200, 503},
		{"/api/v1/tags/node/bare", `{}`, 200, 503},
		{"/api/v1/tags/node/gone", `{"error":"no node \"gone\" in this cluster"}`, 404, 503},
		{"/api/v1/annotations/node/node-1", `{"cluster.k8s.io/machine":"m1"}`, 200, 503},
		{"/api/v1/uid/node/node-1", `{"uid":"uid-1"}`, 200, 503},
		{"/api/v1/tags/namespace/web", `{"team":"shop"}`, 200, 503},
		{"/api/v1/tags/namespace/gone", `{"error":"no namespace \"gone\" in this cluster"}`, 404, 503},
		{"/api/v1/cluster/id", `"cluster-uid"`, 200, 503},
		{"/api/v1/clusterchecks/status", `{"error":"no such path: this cluster agent serves /version and, below /api/v1, tags, annotations, uid and cluster/id"}`, 404, 404},
	}
	for _, a := range asked {
		if got := get(h, a.path, "Bearer "+token); got.Code != a.early {
			t.Errorf("%s before the lists are complete: %d, want %d", a.path, got.Code, a.early)
		}
	}
	fill(t, x)
	for _, a := range asked {
		got := get(h, a.path, "Bearer "+token)
		if diff := cmp.Diff(a.want, strings.TrimSpace(got.Body.String())); diff != "" || got.Code != a.status {
			t.Errorf("%s: %d, want %d (-want +got):\n%s", a.path, got.Code, a.status, diff)
		}
		for _, auth := range []string{"", "Bearer ", "Basic " + token, "Bearer " + token[1:], "Bearer " + token + "0", token} {
			got := get(h, a.path, auth)
			if got.Code != http.StatusUnauthorized && got.Code != http.StatusForbidden || strings.Contains(got.Body.String(), "shop") {
				t.Errorf("%s with %q: %d %s, want nothing", a.path, auth, got.Code, got.Body)
			}
		}
	}
	if got := get(h, "/"+strings.Repeat("a", maxPath), "Bearer "+token); got.Code != http.StatusRequestURITooLong {
		t.Errorf("a long path: %d", got.Code)
	}
}

// A pod's services follow the slices.
func TestIndexFollows(t *testing.T) {
	x := newIndex(t)
	fill(t, x)
	s := x.slices.Store()
	check := func(when string, want ...string) {
		t.Helper()
		if diff := cmp.Diff(want, x.Services("web", "shop-a")); diff != "" {
			t.Errorf("%s: services (-want +got):\n%s", when, diff)
		}
	}
	check("at first", "all", "shop")
	if err := s.Update(endpoints("web", "shop-1", "shop", "shop-b@node-2")); err != nil {
		t.Fatal(err)
	}
	check("in one of two slices", "all", "shop")
	if err := s.Delete(endpoints("web", "shop-ipv6", "shop")); err != nil {
		t.Fatal(err)
	}
	check("left the service", "all")
	if err := s.Replace(nil, "2"); err != nil {
		t.Fatal(err)
	}
	if got := x.Services("web", "shop-a"); len(got) > 0 {
		t.Errorf("services %q of nothing", got)
	}
	if len(x.byPod) > 0 || len(x.byNode) > 0 {
		t.Errorf("postings %v, %v are left of nothing", x.byPod, x.byNode)
	}
}

// Ten thousand pods behind a service each cost a few megabytes.
func TestTenThousandPods(t *testing.T) {
	const n = 10_000
	heap := func() int64 {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	x := newIndex(t)
	before := heap()
	for i := range n / 50 {
		pods := make([]string, 50)
		for j := range pods {
			pods[j] = "application-6c9f5d7b8d-" + strconv.Itoa(i*50+j) + "@node-" + strconv.Itoa(j)
		}
		if err := x.slices.Store().Add(endpoints("web", "slice-"+strconv.Itoa(i), "service-"+strconv.Itoa(i), pods...)); err != nil {
			t.Fatal(err)
		}
	}
	each := (heap() - before) / n
	t.Logf("%d bytes for each pod", each)
	if each > 600 {
		t.Errorf("a pod takes %d bytes, want at most 600", each)
	}
	if got := len(x.OnNode("node-7")["web"]); got != n/50 {
		t.Errorf("%d pods on a node, want %d", got, n/50)
	}
}

func TestServesTLS(t *testing.T) {
	x := newIndex(t)
	fill(t, x)
	s, err := NewServer(ServerOptions{Index: x, Token: token, Registerer: prometheus.NewRegistry()})
	if err != nil {
		t.Fatal(err)
	}
	ln, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- s.Serve(ctx, ln) }()
	ask := func(scheme string, most uint16) (int, error) {
		client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true,
			TLSClientConfig: &tls.Config{InsecureSkipVerify: true, MaxVersion: most}}} // as Datadog's node agents do
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, scheme+"://"+ln.Addr().String()+"/version", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer "+token)
		resp, err := client.Do(r)
		if err != nil {
			return 0, err
		}
		defer func() { _ = resp.Body.Close() }()
		_, err = io.Copy(io.Discard, resp.Body)
		return resp.StatusCode, err
	}
	if status, err := ask("https", tls.VersionTLS13); status != http.StatusOK || err != nil {
		t.Errorf("by TLS 1.3: %d, %v", status, err)
	}
	if status, err := ask("https", tls.VersionTLS12); err == nil {
		t.Errorf("by TLS 1.2: %d, want a refusal", status)
	}
	if status, err := ask("http", 0); err == nil && status < 400 {
		t.Errorf("without TLS: %d, want a refusal", status)
	}
	stop()
	if err := <-done; err != nil {
		t.Errorf("Serve: %v", err)
	}
}

func TestOptions(t *testing.T) {
	_, err := NewServer(ServerOptions{Index: newIndex(t), Token: "short-secret"})
	if err == nil || strings.Contains(err.Error(), "short-secret") {
		t.Errorf("a short token: %v, want an error without it", err)
	}
}

// Whatever the path, the answer is JSON, and without the token it is a refusal.
func FuzzPath(f *testing.F) {
	for _, path := range []string{
		"/version", "/api/v1/tags/pod/node-1/web/shop-a", "/api/v1/tags/pod/node-1", "/api/v1/tags/pod//web/", "/api/v1/tags/node/%2e%2e/x",
		"/api/v1/tags/node/node%2F1", "/api/v1/../../version", "/api/v1/tags/namespace/%00", "//", "/%zz", "/api/v1/tags/node/%ff",
	} {
		f.Add(path)
	}
	x := newIndex(f)
	fill(f, x)
	h := newHandler(x, token, nil)
	f.Fuzz(func(t *testing.T, path string) {
		if got := get(h, path, "Bearer x"); got.Code != http.StatusForbidden {
			t.Fatalf("%q with a wrong token: %d", path, got.Code)
		}
		got := get(h, path, "Bearer "+token)
		redirect := got.Code/100 == 3 // to the same path, cleaned
		if !redirect && !json.Valid(got.Body.Bytes()) {
			t.Fatalf("%q: %d %q, want JSON", path, got.Code, got.Body)
		}
	})
}
