package clusteragent

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/envtest"

	"kelpie.dev/kelpie/clusteragent/externalmetrics"
)

const aggregated = "apiregistration.k8s.io/v1"

// authority is an authority of the installation's own, as cert-manager's users
// make one: a self-signed certificate, and an issuer that signs with it.
const authority = `
{apiVersion: cert-manager.io/v1, kind: Issuer, metadata: {namespace: datadog, name: self}, spec: {selfSigned: {}}}
---
{apiVersion: cert-manager.io/v1, kind: Certificate, metadata: {namespace: datadog, name: authority},
 spec: {isCA: true, commonName: house-authority, secretName: authority, privateKey: {algorithm: ECDSA, size: 256}, issuerRef: {name: self, kind: Issuer, group: cert-manager.io}}}
---
{apiVersion: cert-manager.io/v1, kind: Issuer, metadata: {namespace: datadog, name: house}, spec: {ca: {secretName: authority}}}
`

// TestCertManager runs cert-manager's own controllers (lab/certmanager) over what
// the chart renders, and a cluster agent that may do what the chart lets it.
func TestCertManager(t *testing.T) {
	program, crds := os.Getenv("KELPIE_CERT_MANAGER"), os.Getenv("KELPIE_CERT_MANAGER_CRDS")
	if program == "" || crds == "" {
		t.Skip("KELPIE_CERT_MANAGER and KELPIE_CERT_MANAGER_CRDS are not set: make certmanager-test sets them")
	}
	c := startCluster(t)
	_, err := envtest.InstallCRDs(c.config, envtest.CRDInstallOptions{Paths: []string{crds}, ErrorIfPathMissing: true})
	must(t, err)
	b := newBackend(t)
	b.set(func(b *backend) { b.values["avg:rps{kube_namespace:test}.rollup(30)"] = 5 })
	ln := listen(t)
	env := c.installChart(t, "clusterAgent.metricsProvider.enabled=true,clusterAgent.metricsProvider.certManager.enabled=true,"+
		"clusterAgent.metricsProvider.certManager.issuerRef.name=house")
	c.route(t, "metricsapi", ln)
	c.apply(t, hpas, "horizontalpodautoscalers", hpaText("app", "rps", "{matchLabels: {kube_namespace: test}}"))
	tls := env["KELPIE_TLS_SECRET"]
	secret := c.record(t, "v1", "secrets", "datadog", tls)
	registration := c.record(t, aggregated, "apiservices", "", externalmetrics.APIServiceName)
	env["DD_EXTERNAL_METRICS_PROVIDER_ENDPOINT"] = b.URL
	env["kubeconfig"] = c.impersonate(t, "system:serviceaccount:datadog:datadog-cluster-agent")
	r := c.start(t, "a", ln, env)

	c.wantWaiting(t, r, tls)
	c.startCertManager(t, program)
	c.applyAll(t, strings.NewReader(authority))
	c.wantAvailable(t)
	c.wantValue(t, 20*time.Second, "rps", "kube_namespace=test", "5")
	first := c.wantCertificate(t, ln, tls)
	registration.wantSteady(t, "once registered")

	// Somebody's edit has two who mend it, and must agree.
	stranger, err := os.ReadFile(filepath.Join(c.certDir, "ca.crt"))
	must(t, err)
	_, err = c.resource(aggregated, "apiservices", "").Patch(t.Context(), externalmetrics.APIServiceName, types.MergePatchType,
		fmt.Appendf(nil, `{"spec":{"caBundle":%q}}`, encoded(stranger)), metav1.PatchOptions{FieldManager: "somebody"})
	must(t, err)
	c.wantCertificate(t, ln, tls)
	registration.wantSteady(t, "after an edit")

	// The same authority, another key: no read may fail.
	c.renew(t, "datadog-cluster-agent")
	var second served
	eventually(t, 20*time.Second, func() string {
		if got, err := c.ask("rps", "kube_namespace=test"); err != nil || got != "5" {
			t.Errorf("while the certificate is renewed: %s, %v, want 5", got, err)
		}
		if second = c.serves(t, ln); bytes.Equal(second.leaf, first.leaf) {
			return "the renewed certificate is not served"
		}
		return ""
	})
	c.wantCertificate(t, ln, tls)

	// A Secret that is lost is cert-manager's to bring back.
	c.remove(t, "v1", "secrets", "datadog", tls)
	wantOther(t, "certificate that is served, after that of the Secret is lost", second.leaf, func() []byte { return c.serves(t, ln).leaf })
	before := c.wantCertificate(t, ln, tls)

	// Another authority: registered once it has signed.
	c.renew(t, "authority")
	wantOther(t, "authority", before.authority, func() []byte { return c.data(t, "authority")[corev1.TLSCertKey] })
	c.renew(t, "datadog-cluster-agent")
	wantOther(t, "authority of the certificate", before.authority, func() []byte { return c.data(t, tls)["ca.crt"] })
	after := c.wantCertificate(t, ln, tls)
	c.wantValue(t, 10*time.Second, "rps", "kube_namespace=test", "5")
	registration.wantSteady(t, "after a change of authority")

	edited := slices.Concat(stranger, first.authority) // the injector only adds, and neither takes away
	want := []string{"", encoded(first.authority), encoded(stranger), encoded(edited), encoded(slices.Concat(edited, after.authority))}
	if diff := cmp.Diff(want, registration.bundles()); diff != "" {
		t.Errorf("values of caBundle, one after the other (-want +got):\n%s", diff)
	}
	t.Logf("the APIService had %d versions, and was written by %v", registration.versions(), registration.managers())
	if got := secret.managers(); !slices.Equal(got, []string{"cert-manager-certificates-issuing"}) {
		t.Errorf("the Secret was written by %v, want cert-manager alone", got)
	}
	var s Status
	if err := c.status(t, r, &s); err != nil || s.Registration != "" || s.Certificate != "" {
		t.Errorf("in the end the status says %q and %q (%v), want nothing", s.Registration, s.Certificate, err)
	}
	if len(r.done) > 0 {
		t.Error("the cluster agent has ended")
	}
}

// wantWaiting wants a replica to say that nobody has filled the Secret yet.
func (c *cluster) wantWaiting(t *testing.T, r *replica, secret string) {
	t.Helper()
	eventually(t, 20*time.Second, func() string {
		var s Status
		if err := c.status(t, r, &s); err != nil {
			return err.Error()
		}
		if s.Serving || !strings.Contains(s.Certificate, "does not exist yet, and cert-manager is to fill it") {
			return "serving without certificate, or not saying what is waited for: " + s.Certificate
		}
		return ""
	})
	eventually(t, 20*time.Second, func() string {
		events, err := c.kube.CoreV1().Events("datadog").List(t.Context(), metav1.ListOptions{FieldSelector: "involvedObject.kind=Secret,reason=ServingCertificate,involvedObject.name=" + secret})
		if err != nil || len(events.Items) == 0 {
			return fmt.Sprintf("the Secret is not told that it is waited for: %v", err)
		}
		return ""
	})
}

// wantOther waits until get returns something else than before.
func wantOther(t *testing.T, what string, before []byte, get func() []byte) {
	t.Helper()
	eventually(t, 20*time.Second, func() string {
		if bytes.Equal(get(), before) {
			return "there is no other " + what
		}
		return ""
	})
}
