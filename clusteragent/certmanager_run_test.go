package clusteragent

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/tools/clientcmd"
)

// installChart creates what the chart renders, and returns the environment that it
// gives the cluster agent's certificate.
func (c *cluster) installChart(t *testing.T, set string) map[string]string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Getenv("HELM"), "template", "datadog", "../charts/kelpie", "--namespace", "datadog",
		"--set", "agents.enabled=false,backend.enabled=false,"+set)
	cmd.Stderr = t.Output()
	out, err := cmd.Output()
	must(t, err)
	env := map[string]string{}
	for _, u := range c.applyAll(t, bytes.NewReader(out)) {
		if u.GetKind() != "Deployment" {
			continue
		}
		containers, _, _ := unstructured.NestedSlice(u.Object, "spec", "template", "spec", "containers")
		vars, _, _ := unstructured.NestedSlice(containers[0].(map[string]any), "env")
		for _, v := range vars {
			name, value := v.(map[string]any)["name"].(string), v.(map[string]any)["value"]
			if strings.HasPrefix(name, "KELPIE_TLS_") || name == "KELPIE_APISERVICE_SERVICE" {
				env[name] = value.(string)
			}
		}
	}
	return env
}

// applyAll creates the objects in text.
func (c *cluster) applyAll(t *testing.T, text io.Reader) (all []unstructured.Unstructured) {
	t.Helper()
	for dec := yaml.NewYAMLOrJSONDecoder(text, 4096); ; {
		var u unstructured.Unstructured
		err := dec.Decode(&u.Object)
		if errors.Is(err, io.EOF) {
			return all
		}
		must(t, err)
		if len(u.Object) == 0 {
			continue
		}
		resource, _ := meta.UnsafeGuessKindToResource(u.GroupVersionKind())
		_, err = c.resource(u.GetAPIVersion(), resource.Resource, u.GetNamespace()).Apply(t.Context(), u.GetName(), &u, metav1.ApplyOptions{FieldManager: "helm"})
		must(t, err)
		all = append(all, u)
	}
}

// impersonate returns a kubeconfig with the rights of user.
func (c *cluster) impersonate(t *testing.T, user string) string {
	t.Helper()
	config, err := clientcmd.LoadFromFile(c.kubeconfig)
	must(t, err)
	for _, a := range config.AuthInfos {
		a.Impersonate = user
	}
	file := filepath.Join(t.TempDir(), "kubeconfig")
	must(t, clientcmd.WriteToFile(*config, file))
	return file
}

func (c *cluster) startCertManager(t *testing.T, program string) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	cmd := exec.CommandContext(ctx, program, "-kubeconfig", c.kubeconfig)
	cmd.Stdout, cmd.Stderr = t.Output(), t.Output()
	cmd.Cancel, cmd.WaitDelay = func() error { return cmd.Process.Signal(os.Interrupt) }, 20*time.Second
	must(t, cmd.Start())
	t.Cleanup(func() {
		cancel()
		if err := cmd.Wait(); err != nil && !errors.Is(err, context.Canceled) {
			t.Errorf("cert-manager ended with %v", err)
		}
	})
}

// renew asks cert-manager for a new certificate as its cmctl does.
func (c *cluster) renew(t *testing.T, name string) {
	t.Helper()
	certificates := c.resource("cert-manager.io/v1", "certificates", "datadog")
	eventually(t, 10*time.Second, func() string {
		u, err := certificates.Get(t.Context(), name, metav1.GetOptions{})
		if err != nil {
			return err.Error()
		}
		conditions, _, _ := unstructured.NestedSlice(u.Object, "status", "conditions")
		conditions = slices.DeleteFunc(conditions, func(c any) bool { return c.(map[string]any)["type"] == "Issuing" })
		conditions = append(conditions, map[string]any{"type": "Issuing", "status": "True", "reason": "ManuallyTriggered", "message": "by the test",
			"lastTransitionTime": time.Now().UTC().Format(time.RFC3339), "observedGeneration": u.GetGeneration()})
		must(t, unstructured.SetNestedSlice(u.Object, conditions, "status", "conditions"))
		if _, err := certificates.UpdateStatus(t.Context(), u, metav1.UpdateOptions{FieldManager: "cmctl"}); err != nil {
			return err.Error() // a conflict with cert-manager
		}
		return ""
	})
}

// data returns what is in a Secret, which may be gone for a while.
func (c *cluster) data(t *testing.T, secret string) map[string][]byte {
	t.Helper()
	var data map[string][]byte
	eventually(t, 20*time.Second, func() string {
		s, err := c.kube.CoreV1().Secrets("datadog").Get(t.Context(), secret, metav1.GetOptions{})
		if err != nil {
			return err.Error()
		}
		data = s.Data
		return ""
	})
	return data
}

// served is a certificate in use.
type served struct {
	leaf      []byte // DER
	authority []byte // PEM, as in ca.crt
}

// serves returns what is served at ln.
func (c *cluster) serves(t *testing.T, ln net.Listener) served {
	t.Helper()
	d := tls.Dialer{Config: &tls.Config{InsecureSkipVerify: true}} // wantCertificate verifies
	conn, err := d.DialContext(t.Context(), "tcp", fmt.Sprintf("127.0.0.1:%d", ln.Addr().(*net.TCPAddr).Port))
	must(t, err)
	defer func() { _ = conn.Close() }()
	return served{leaf: conn.(*tls.Conn).ConnectionState().PeerCertificates[0].Raw}
}

// wantCertificate waits until three agree: what is served, the Secret, and what the
// APIService trusts, which is the authority that has signed.
func (c *cluster) wantCertificate(t *testing.T, ln net.Listener, secret string) served {
	t.Helper()
	var s served
	eventually(t, 20*time.Second, func() string {
		s = c.serves(t, ln)
		data := c.data(t, secret)
		s.authority = data["ca.crt"]
		if block, _ := pem.Decode(data[corev1.TLSCertKey]); block == nil || !bytes.Equal(block.Bytes, s.leaf) {
			return "the Secret's certificate is not the one that is served"
		}
		u, err := c.resource(aggregated, "apiservices", "").Get(t.Context(), "v1beta1.external.metrics.k8s.io", metav1.GetOptions{})
		if err != nil {
			return err.Error()
		}
		if trusted, err := base64.StdEncoding.DecodeString(bundle(u)); err != nil || !bytes.Contains(trusted, s.authority) {
			return "the Secret's ca.crt is not in caBundle"
		}
		leaf, err := x509.ParseCertificate(s.leaf)
		if err != nil {
			return err.Error()
		}
		roots := x509.NewCertPool()
		roots.AppendCertsFromPEM(s.authority)
		if _, err := leaf.Verify(x509.VerifyOptions{Roots: roots, DNSName: "datadog-cluster-agent.datadog.svc"}); err != nil {
			return err.Error()
		}
		if leaf.Issuer.CommonName != "house-authority" {
			return "the certificate comes from " + leaf.Issuer.String()
		}
		return ""
	})
	return s
}

func encoded(b []byte) string { return base64.StdEncoding.EncodeToString(b) }

func bundle(u *unstructured.Unstructured) string {
	s, _, _ := unstructured.NestedString(u.Object, "spec", "caBundle")
	return s
}

// recorded is all versions of one object.
type recorded struct {
	mu  sync.Mutex
	all []*unstructured.Unstructured
}

// record watches an object until the test ends.
func (c *cluster) record(t *testing.T, groupVersion, resource, ns, name string) *recorded {
	t.Helper()
	w, err := c.resource(groupVersion, resource, ns).Watch(context.WithoutCancel(t.Context()), metav1.ListOptions{FieldSelector: "metadata.name=" + name})
	must(t, err)
	r, done := &recorded{}, make(chan struct{})
	go func() {
		defer close(done)
		for e := range w.ResultChan() {
			if u, ok := e.Object.(*unstructured.Unstructured); ok {
				r.mu.Lock()
				r.all = append(r.all, u)
				r.mu.Unlock()
			}
		}
	}()
	t.Cleanup(func() { w.Stop(); <-done })
	return r
}

func (r *recorded) versions() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.all)
}

// bundles returns the values that caBundle had, one after the other.
func (r *recorded) bundles() (values []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, u := range r.all {
		values = append(values, bundle(u))
	}
	return slices.Compact(values)
}

// managers returns who has written the object.
func (r *recorded) managers() (names []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, u := range r.all {
		for _, m := range u.GetManagedFields() {
			names = append(names, m.Manager)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// wantSteady wants caBundle to stay as it is for 10 s.
func (r *recorded) wantSteady(t *testing.T, when string) {
	t.Helper()
	before := len(r.bundles())
	time.Sleep(10 * time.Second)
	if after := len(r.bundles()); after != before {
		t.Errorf("%s, caBundle changed %d times in 10 s, want never", when, after-before)
	}
}

// status reads what a replica says of itself.
func (c *cluster) status(t *testing.T, r *replica, s *Status) error {
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+r.health+"/status", nil)
	must(t, err)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	return json.NewDecoder(resp.Body).Decode(s)
}
