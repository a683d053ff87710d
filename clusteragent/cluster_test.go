package clusteragent

import (
	"cmp"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/klog/v2"
	externalclient "k8s.io/metrics/pkg/client/external_metrics"
	"sigs.k8s.io/controller-runtime/pkg/envtest"
	ctrllog "sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/yaml"

	"kelpie.dev/kelpie/metric/payload"
)

// cluster is a real etcd and kube-apiserver with the aggregation layer on.
type cluster struct {
	config     *rest.Config
	kubeconfig string
	kube       *kubernetes.Clientset
	dynamic    dynamic.Interface
	external   externalclient.ExternalMetricsClient
	hostIP     string
	apiServer  *envtest.APIServer
	certDir    string // of apiServer
}

// TestMain silences the libraries, whose own words would drown a failure. Once,
// before anything runs: they read the logger without a lock.
func TestMain(m *testing.M) {
	klog.SetSlogLogger(slog.New(slog.DiscardHandler))
	ctrllog.SetLogger(klog.Background())
	os.Exit(m.Run())
}

func startCluster(t *testing.T) *cluster {
	t.Helper()
	if os.Getenv("KUBEBUILDER_ASSETS") == "" {
		t.Skip("KUBEBUILDER_ASSETS is not set: it names a directory with kube-apiserver and etcd; make test builds them")
	}
	dir := t.TempDir()
	c := &cluster{hostIP: hostIP(t), certDir: dir}
	frontProxy(t, dir)
	te := &envtest.Environment{ControlPlaneStopTimeout: 20 * time.Second, CRDs: []*apiextensionsv1.CustomResourceDefinition{crd(t)}}
	c.apiServer = te.ControlPlane.GetAPIServer()
	c.apiServer.CertDir = dir // outlives a restart
	te.ControlPlane.GetAPIServer().Configure().
		Set("requestheader-client-ca-file", filepath.Join(dir, "ca.crt")).
		Set("requestheader-allowed-names", "front-proxy").
		Set("requestheader-username-headers", "X-Remote-User").
		Set("requestheader-group-headers", "X-Remote-Group").
		Set("requestheader-extra-headers-prefix", "X-Remote-Extra-").
		Set("proxy-client-cert-file", filepath.Join(dir, "proxy.crt")).
		Set("proxy-client-key-file", filepath.Join(dir, "proxy.key")).
		Set("enable-aggregator-routing", "true")
	config, err := te.Start()
	if err != nil {
		t.Fatalf("start kube-apiserver: %v", err)
	}
	t.Cleanup(func() {
		if err := te.Stop(); err != nil {
			t.Errorf("stop kube-apiserver: %v", err)
		}
	})
	c.config = config
	c.kubeconfig = filepath.Join(dir, "kubeconfig")
	must(t, os.WriteFile(c.kubeconfig, te.KubeConfig, 0o600))
	c.kube, err = kubernetes.NewForConfig(config)
	must(t, err)
	c.dynamic, err = dynamic.NewForConfig(config)
	must(t, err)
	c.external, err = externalclient.NewForConfig(config)
	must(t, err)
	for _, ns := range []string{"datadog", "test"} {
		c.apply(t, "v1", "namespaces", fmt.Sprintf("apiVersion: v1\nkind: Namespace\nmetadata: {name: %s}", ns))
	}
	return c
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func crd(t *testing.T) *apiextensionsv1.CustomResourceDefinition {
	t.Helper()
	b, err := os.ReadFile("../charts/kelpie/crds/datadoghq.com_datadogmetrics.yaml")
	must(t, err)
	var out apiextensionsv1.CustomResourceDefinition
	must(t, yaml.UnmarshalStrict(b, &out))
	return &out
}

// installCRD installs it once more.
func (c *cluster) installCRD(t *testing.T) {
	t.Helper()
	_, err := envtest.InstallCRDs(c.config, envtest.CRDInstallOptions{CRDs: []*apiextensionsv1.CustomResourceDefinition{crd(t)}})
	must(t, err)
}

// hostIP returns an address that an EndpointSlice may hold: not loopback.
func hostIP(t *testing.T) string {
	t.Helper()
	addrs, err := net.InterfaceAddrs()
	must(t, err)
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok && n.IP.To4() != nil && n.IP.IsGlobalUnicast() {
			return n.IP.String()
		}
	}
	t.Skip("this machine has no IPv4 address but loopback, and an aggregated API needs one")
	return ""
}

// frontProxy writes the authority and certificate with which the API server
// proves itself to aggregated servers.
func frontProxy(t *testing.T, dir string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	ca := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "front-proxy-ca"}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	leaf := &x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "front-proxy"}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(time.Hour), ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
	caDER, err := x509.CreateCertificate(rand.Reader, ca, ca, key.Public(), key)
	must(t, err)
	leafDER, err := x509.CreateCertificate(rand.Reader, leaf, ca, key.Public(), key)
	must(t, err)
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	must(t, err)
	for name, b := range map[string]*pem.Block{
		"ca.crt": {Type: "CERTIFICATE", Bytes: caDER}, "proxy.crt": {Type: "CERTIFICATE", Bytes: leafDER}, "proxy.key": {Type: "PRIVATE KEY", Bytes: keyDER},
	} {
		must(t, os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(b), 0o600))
	}
}

// apply creates or replaces the object in text.
func (c *cluster) apply(t *testing.T, groupVersion, resource, text string) {
	t.Helper()
	var u unstructured.Unstructured
	must(t, yaml.Unmarshal([]byte(text), &u.Object))
	_, err := c.resource(groupVersion, resource, u.GetNamespace()).Apply(t.Context(), u.GetName(), &u, metav1.ApplyOptions{FieldManager: "test", Force: true})
	must(t, err)
}

func (c *cluster) remove(t *testing.T, groupVersion, resource, ns, name string) {
	t.Helper()
	must(t, c.resource(groupVersion, resource, ns).Delete(t.Context(), name, metav1.DeleteOptions{}))
}

func (c *cluster) resource(groupVersion, resource, ns string) dynamic.ResourceInterface {
	group, version, ok := strings.Cut(groupVersion, "/")
	if !ok {
		group, version = "", groupVersion
	}
	r := c.dynamic.Resource(schemaOf(group, version, resource))
	if ns == "" {
		return r
	}
	return r.Namespace(ns)
}

// register makes the APIService as the chart does, with its Service, and points
// that to the listeners.
func (c *cluster) register(t *testing.T, listeners ...net.Listener) {
	t.Helper()
	c.apply(t, "v1", "services", `{apiVersion: v1, kind: Service, metadata: {namespace: datadog, name: datadog-cluster-agent}, spec: {ports: [{port: 8443}]}}`)
	c.route(t, "", listeners...)
	c.apply(t, "apiregistration.k8s.io/v1", "apiservices", `{apiVersion: apiregistration.k8s.io/v1, kind: APIService,
metadata: {name: v1beta1.external.metrics.k8s.io},
spec: {group: external.metrics.k8s.io, version: v1beta1, groupPriorityMinimum: 100, versionPriority: 100,
  service: {namespace: datadog, name: datadog-cluster-agent, port: 8443}}}`)
}

// route points a port of the Service to the listeners.
func (c *cluster) route(t *testing.T, port string, listeners ...net.Listener) {
	t.Helper()
	for i, ln := range listeners {
		slice := discoveryv1.EndpointSlice{
			ObjectMeta: metav1.ObjectMeta{Namespace: "datadog", Name: fmt.Sprintf("replica-%d", i),
				Labels: map[string]string{discoveryv1.LabelServiceName: "datadog-cluster-agent"}},
			AddressType: discoveryv1.AddressTypeIPv4,
			Endpoints:   []discoveryv1.Endpoint{{Addresses: []string{c.hostIP}, Conditions: discoveryv1.EndpointConditions{Ready: new(true)}}},
			Ports:       []discoveryv1.EndpointPort{{Name: &port, Port: new(int32(ln.Addr().(*net.TCPAddr).Port)), Protocol: new(corev1.ProtocolTCP)}},
		}
		_, err := c.kube.DiscoveryV1().EndpointSlices("datadog").Create(t.Context(), &slice, metav1.CreateOptions{})
		must(t, err)
	}
}

// replica is a running cluster agent.
type replica struct {
	stop   context.CancelFunc
	done   chan error
	health string
}

// start runs a cluster agent; env is in addition to what every replica gets.
func (c *cluster) start(t *testing.T, name string, ln net.Listener, env map[string]string) *replica {
	t.Helper()
	port := freePort(t)
	all := map[string]string{
		"DD_EXTERNAL_METRICS_PROVIDER_ENABLED": "true", "DD_API_KEY": "api", "DD_APP_KEY": "app", "DD_POD_NAMESPACE": "datadog",
		"DD_POD_NAME": name, "DD_HEALTH_PORT": fmt.Sprint(port), "DD_LEADER_LEASE_DURATION": "3", "KELPIE_SHUTDOWN_LINGER": "0",
		"DD_EXTERNAL_METRICS_PROVIDER_POLLING_INTERVAL": "1", "KELPIE_KEY_SECRET_HINT": "datadog/datadog-secret",
	}
	for k, v := range env {
		all[k] = v
	}
	cfg, err := FromEnv(func(k string) (string, bool) { v, ok := all[k]; return v, ok })
	must(t, err)
	cfg.Kubeconfig = cmp.Or(env["kubeconfig"], c.kubeconfig)
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	r := &replica{stop: cancel, done: make(chan error, 1), health: fmt.Sprintf("127.0.0.1:%d", port)}
	log := slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelInfo})).With("replica", name)
	go func() { r.done <- Run(ctx, cfg, Process{Version: "test", Log: log, Listener: ln}) }()
	t.Cleanup(func() { r.kill(t) })
	return r
}

func (r *replica) kill(t *testing.T) {
	t.Helper()
	r.stop()
	select {
	case err := <-r.done:
		if err != nil {
			t.Errorf("cluster agent ended with %v", err)
		}
		r.done <- nil
	case <-time.After(30 * time.Second):
		t.Error("cluster agent did not end within 30 s")
	}
}

func freePort(t *testing.T) int {
	t.Helper()
	ln := listen(t)
	must(t, ln.Close())
	return ln.Addr().(*net.TCPAddr).Port
}

func listen(t *testing.T) net.Listener {
	t.Helper()
	ln, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp4", "0.0.0.0:0")
	must(t, err)
	return ln
}

// eventually polls check until it returns "" and fails with its last words.
func eventually(t *testing.T, within time.Duration, check func() string) {
	t.Helper()
	deadline := time.Now().Add(within)
	for {
		why := check()
		if why == "" {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("after %s: %s", within, why)
		}
		select {
		case <-t.Context().Done():
			t.Fatal(why)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// backend is a query API whose answers a test sets.
type backend struct {
	*httptest.Server
	mu     sync.Mutex
	values map[string]float64 // by query; others have no data
	status int                // of every answer; 0 means 200
	frozen time.Time          // newest point's time; zero means now
	asked  map[string]int
	limit  bool // answers name a rate limit
}

func newBackend(t *testing.T) *backend {
	t.Helper()
	b := &backend{values: map[string]float64{}, asked: map[string]int{}}
	b.Server = httptest.NewServer(b)
	t.Cleanup(b.Close)
	return b
}

func (b *backend) set(f func(b *backend)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	f(b)
}

// ServeHTTP answers /api/v1/query. It pushes nothing: the stream is a stranger
// to it, as to a proxy that lets only Datadog's API through.
func (b *backend) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path != "/api/v1/query" {
		http.NotFound(w, r)
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.status != 0 {
		w.WriteHeader(b.status)
		_ = json.NewEncoder(w).Encode(payload.ErrorBody{Errors: []string{"Forbidden"}})
		return
	}
	if b.limit {
		for name, value := range map[string]string{"Limit": "1000000", "Remaining": "999000", "Period": "3600", "Reset": "1800"} {
			w.Header().Set("X-RateLimit-"+name, value)
		}
	}
	newest := time.Now()
	if !b.frozen.IsZero() {
		newest = b.frozen
	}
	resp := payload.NewQueryResponse(r.FormValue("query"), 0, 0)
	for i, q := range split(r.FormValue("query")) {
		b.asked[q]++
		v, ok := b.values[q]
		if !ok {
			continue
		}
		s := payload.QuerySeries{Metric: "m", Scope: "*", Interval: 10, QueryIndex: &i}
		for _, at := range []time.Time{newest.Add(-10 * time.Second), newest} {
			ms := float64(at.UnixMilli())
			s.Pointlist = append(s.Pointlist, payload.QueryPoint{&ms, &v})
		}
		resp.Series = append(resp.Series, s)
	}
	_ = json.NewEncoder(w).Encode(resp)
}

// split cuts a batch at the commas outside of brackets.
func split(batch string) []string {
	var out []string
	depth, start := 0, 0
	for i, c := range batch {
		switch c {
		case '{', '(':
			depth++
		case '}', ')':
			depth--
		case ',':
			if depth == 0 {
				out = append(out, batch[start:i])
				start = i + 1
			}
		}
	}
	return append(out, batch[start:])
}
