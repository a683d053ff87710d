package doctor_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
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

	"github.com/DataDog/datadog-operator/api/datadoghq/v1alpha1"
	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/util/retry"
	apiregistrationv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"

	"kelpie.dev/kelpie/cli/apitest"
	"kelpie.dev/kelpie/cli/release"
)

// lab is a real API server, and real HTTP servers that it proxies to in the
// place of the pods.
type lab struct {
	t       *testing.T
	objects client.Client
	config  string // a kubeconfig file
	cluster *release.Cluster
	ip      string // of this machine, which the API server agrees to proxy to
	api     *apitest.API

	mu           sync.Mutex // guards all below
	agent        release.AgentStatus
	clusterAgent release.ClusterAgentStatus
	backend      string // JSON
	refusal      string // what the policy says instead of that; empty means nothing
	value        string // what the external metrics API answers; empty means HTTP 500
}

// set changes what the servers answer, until the test ends.
func (l *lab) set(t *testing.T, change func()) {
	t.Helper()
	l.mu.Lock()
	agent, clusterAgent, value, refusal := l.agent, l.clusterAgent, l.value, l.refusal
	change()
	l.mu.Unlock()
	t.Cleanup(func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.agent, l.clusterAgent, l.value, l.refusal = agent, clusterAgent, value, refusal
	})
}

// startLab skips the test where no API server or no address can be had.
func startLab(t *testing.T) *lab {
	t.Helper()
	if os.Getenv("KUBEBUILDER_ASSETS") == "" {
		t.Skip("needs a kube-apiserver and an etcd: set KUBEBUILDER_ASSETS to the folder that holds both")
	}
	l := &lab{t: t, ip: ownAddress(t), api: apitest.New(apiKey, appKey), value: "4500m"}
	env := &envtest.Environment{CRDDirectoryPaths: []string{"../../charts/kelpie/crds"}, ErrorIfCRDPathMissing: true}
	env.ControlPlane.GetAPIServer().Configure().Set("enable-aggregator-routing", "true")
	cfg, err := env.Start()
	if err != nil {
		t.Fatalf("start kube-apiserver and etcd: %v", err)
	}
	t.Cleanup(func() {
		if err := env.Stop(); err != nil {
			t.Errorf("stop kube-apiserver and etcd: %v", err)
		}
	})
	l.config = filepath.Join(t.TempDir(), "kubeconfig")
	if err := os.WriteFile(l.config, env.KubeConfig, 0o600); err != nil {
		t.Fatal(err)
	}
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{appsv1.AddToScheme, autoscalingv2.AddToScheme, corev1.AddToScheme,
		discoveryv1.AddToScheme, apiregistrationv1.AddToScheme, v1alpha1.AddToScheme} {
		if err := add(scheme); err != nil {
			t.Fatal(err)
		}
	}
	if l.objects, err = client.New(cfg, client.Options{Scheme: scheme}); err != nil {
		t.Fatal(err)
	}
	if l.cluster, err = release.Connect(cfg); err != nil {
		t.Fatal(err)
	}
	return l
}

// ownAddress returns an address of this machine that is not loopback: the API
// server refuses to proxy to those.
func ownAddress(t *testing.T) string {
	t.Helper()
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range addrs {
		if n, is := a.(*net.IPNet); is && n.IP.To4() != nil && n.IP.IsGlobalUnicast() {
			return n.IP.String()
		}
	}
	t.Skip("needs an IPv4 address other than loopback, for the API server to proxy to")
	return ""
}

// listen serves h at this machine's address and returns the port.
func (l *lab) listen(h http.Handler, cert *tls.Certificate) int32 {
	l.t.Helper()
	ln, err := net.Listen("tcp", net.JoinHostPort(l.ip, "0"))
	if err != nil {
		l.t.Fatal(err)
	}
	srv := httptest.NewUnstartedServer(h)
	if err := srv.Listener.Close(); err != nil {
		l.t.Fatal(err)
	}
	srv.Listener = ln
	if cert != nil {
		srv.TLS = &tls.Config{Certificates: []tls.Certificate{*cert}, MinVersion: tls.VersionTLS12}
		srv.StartTLS()
	} else {
		srv.Start()
	}
	l.t.Cleanup(srv.Close)
	return int32(ln.Addr().(*net.TCPAddr).Port)
}

// status serves a role's /status.
func (l *lab) status(get func() any) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		l.mu.Lock()
		body, err := json.Marshal(get())
		l.mu.Unlock()
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(body)
	})
}

// externalMetrics serves external.metrics.k8s.io as the provider does.
func (l *lab) externalMetrics(w http.ResponseWriter, r *http.Request) {
	l.mu.Lock()
	value, refusal := l.value, l.refusal
	l.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	const group = "/apis/external.metrics.k8s.io/v1beta1"
	var body any
	switch {
	case r.URL.Path == group:
		body = map[string]any{"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": "external.metrics.k8s.io/v1beta1",
			"resources": []any{map[string]any{"name": "externalmetrics", "singularName": "", "namespaced": true, "kind": "ExternalMetricValueList", "verbs": []string{"get"}}}}
	case !strings.HasPrefix(r.URL.Path, group+"/namespaces/"):
		http.NotFound(w, r)
		return
	case refusal != "":
		w.WriteHeader(http.StatusForbidden)
		body = metav1.Status{TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: metav1.StatusFailure,
			Code: http.StatusForbidden, Reason: metav1.StatusReasonForbidden, Message: refusal}
	case value == "":
		status := apierrors.NewInternalError(errNoValue).Status()
		w.WriteHeader(http.StatusInternalServerError)
		status.Kind, status.APIVersion = "Status", "v1"
		body = status
	default:
		body = map[string]any{"kind": "ExternalMetricValueList", "apiVersion": "external.metrics.k8s.io/v1beta1", "metadata": map[string]any{},
			"items": []any{map[string]any{"metricName": "m", "metricLabels": nil, "timestamp": time.Now().UTC().Format(time.RFC3339), "value": value}}}
	}
	_ = json.NewEncoder(w).Encode(body) // the client sees a cut answer
}

// certificate makes a certificate for the provider's Service, and returns the
// PEM text to trust it by.
func (l *lab) certificate(name string) (cert *tls.Certificate, ca []byte) {
	l.t.Helper()
	now := time.Now()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		l.t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		l.t.Fatal(err)
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

// create makes an object with its status.
func (l *lab) create(obj client.Object) {
	l.t.Helper()
	status := obj.DeepCopyObject().(client.Object)
	if err := l.objects.Create(l.t.Context(), obj); err != nil {
		l.t.Fatalf("create %T %s: %v", obj, obj.GetName(), err)
	}
	status.SetResourceVersion(obj.GetResourceVersion())
	status.SetUID(obj.GetUID())
	if hasStatus(obj) {
		if err := l.objects.Status().Update(l.t.Context(), status); err != nil {
			l.t.Fatalf("set the status of %T %s: %v", obj, obj.GetName(), err)
		}
	}
}

// hasStatus reports whether the test, and not the API server, sets obj's status.
func hasStatus(obj client.Object) bool {
	switch obj.(type) {
	case *corev1.Pod, *appsv1.Deployment, *appsv1.StatefulSet, *appsv1.DaemonSet, *autoscalingv2.HorizontalPodAutoscaler:
		return true
	default:
		return false
	}
}

// edit changes an object and its status until the test ends.
func edit[T client.Object](t *testing.T, l *lab, obj T, namespace, name string, change func(T)) {
	t.Helper()
	key := client.ObjectKey{Namespace: namespace, Name: name}
	write := func(ctx context.Context, change func(T)) {
		t.Helper()
		// The API server's own controllers write to some objects, too.
		err := retry.RetryOnConflict(retry.DefaultBackoff, func() error {
			if err := l.objects.Get(ctx, key, obj); err != nil {
				return err
			}
			change(obj)
			status := obj.DeepCopyObject().(client.Object)
			if err := l.objects.Update(ctx, obj); err != nil || !hasStatus(obj) {
				return err
			}
			status.SetResourceVersion(obj.GetResourceVersion())
			return l.objects.Status().Update(ctx, status)
		})
		if err != nil {
			t.Fatalf("change %T %s: %v", obj, name, err)
		}
	}
	var before T
	write(t.Context(), func(o T) {
		before = o.DeepCopyObject().(T)
		change(o)
	})
	t.Cleanup(func() {
		write(context.WithoutCancel(t.Context()), func(o T) {
			version := o.GetResourceVersion()
			restore(before, o)
			o.SetResourceVersion(version)
		})
	})
}
