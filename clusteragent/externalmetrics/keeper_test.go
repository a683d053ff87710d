package externalmetrics

import (
	"encoding/base64"
	"errors"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus/testutil"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic/fake"
	clienttesting "k8s.io/client-go/testing"
)

// kept is a Keeper, what it works on and what it tells.
type kept struct {
	*Keeper
	client *fake.FakeDynamicClient
	told   []string // kind and reason
}

func keep(t *testing.T, objects ...runtime.Object) *kept {
	t.Helper()
	k := &kept{client: fake.NewSimpleDynamicClientWithCustomListKinds(runtime.NewScheme(),
		map[schema.GroupVersionResource]string{secrets: "SecretList", apiServices: "APIServiceList"}, objects...)}
	tell := func(by string) Tell {
		return func(object corev1.ObjectReference, reason, message string) {
			if message == "" {
				t.Error("an event without words")
			}
			k.told = append(k.told, object.Kind+" "+reason+by)
		}
	}
	var err error
	k.Keeper, err = NewKeeper(KeeperOptions{Client: k.client, Namespace: "ns", Secret: "tls", Service: "svc", Tell: tell(""), TellDone: tell(" (any replica)")})
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func (k *kept) wantTold(t *testing.T, want ...string) {
	t.Helper()
	if d := cmp.Diff(want, k.told); d != "" {
		t.Errorf("events (-want +got)\n%s", d)
	}
}

func secret(data map[string][]byte, annotations map[string]string) *unstructured.Unstructured {
	encoded := map[string]any{}
	for key, v := range data {
		encoded[key] = base64.StdEncoding.EncodeToString(v)
	}
	u := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls", "data": encoded}}
	u.SetNamespace("ns")
	u.SetName("tls")
	u.SetAnnotations(annotations)
	return u
}

func (k *kept) data(t *testing.T) map[string][]byte {
	t.Helper()
	u, err := k.client.Resource(secrets).Namespace("ns").Get(t.Context(), "tls", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	raw, _, _ := unstructured.NestedStringMap(u.Object, "data")
	data := map[string][]byte{}
	for key, v := range raw {
		if data[key], err = base64.StdEncoding.DecodeString(v); err != nil {
			t.Fatal(err)
		}
	}
	return data
}

func issued(t *testing.T, at time.Time, without ...string) map[string][]byte {
	t.Helper()
	data, err := issue(nil, []string{"svc.ns.svc"}, at)
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range without {
		delete(data, key)
	}
	return data
}

func apiService(service string) *unstructured.Unstructured {
	u := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService",
		"spec": map[string]any{"service": map[string]any{"namespace": "ns", "name": service}}}}
	u.SetName(APIServiceName)
	return u
}

// Another installer that takes the APIService over ends all scaling without a
// word of its own.
func TestTakeOverIsSeenAndSaid(t *testing.T) {
	k := keep(t, apiService("svc"))
	services := k.client.Resource(apiServices)
	register := func(wantRegistered float64, words string) {
		t.Helper()
		if err := errors.Join(k.Ensure(t.Context()), k.Register(t.Context())); err != nil {
			t.Fatal(err)
		}
		said := k.Registration()
		if testutil.ToFloat64(k.ours) != wantRegistered || (said == "") != (words == "") || !strings.Contains(said, words) {
			t.Errorf("registered %v, said %q; want %v, %q", testutil.ToFloat64(k.ours), said, wantRegistered, words)
		}
	}
	put := func(service string) {
		t.Helper()
		if _, err := services.Update(t.Context(), apiService(service), metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	bundle := func() string {
		t.Helper()
		u, err := services.Get(t.Context(), APIServiceName, metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		b, _, _ := unstructured.NestedString(u.Object, "spec", "caBundle")
		return b
	}
	register(1, "")
	if want := base64.StdEncoding.EncodeToString(k.data(t)[caCertKey]); bundle() != want {
		t.Errorf("caBundle = %q, want the authority in the Secret", bundle())
	}
	put("keda-operator-metrics-apiserver")
	register(0, `points to service "ns/keda-operator-metrics-apiserver", not to ours (ns/svc)`)
	register(0, "another external metrics server owns it")
	if bundle() != "" {
		t.Error("the other's registration was changed: two that mend it would do nothing else")
	}
	k.wantTold(t, "APIService ExternalMetricsNotRegistered")
	k.Retell() // as to a new leader
	k.wantTold(t, "APIService ExternalMetricsNotRegistered", "APIService ExternalMetricsNotRegistered")
	put("svc")
	register(1, "")
	if err := services.Delete(t.Context(), APIServiceName, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	register(0, "there is no APIService")
}

func TestSecretEditedByHandIsRepaired(t *testing.T) {
	whole := issued(t, time.Now())
	other := issued(t, time.Now())
	for name, c := range map[string]struct {
		edit map[string][]byte
		kept bool // the authority
	}{
		"no certificate":    {map[string][]byte{corev1.TLSCertKey: nil}, true},
		"text for a key":    {map[string][]byte{corev1.TLSPrivateKeyKey: []byte("changed by hand")}, true},
		"another's pair":    {map[string][]byte{corev1.TLSCertKey: other[corev1.TLSCertKey], corev1.TLSPrivateKeyKey: other[corev1.TLSPrivateKeyKey]}, true},
		"another authority": {map[string][]byte{caCertKey: other[caCertKey]}, false},
		"no authority":      {map[string][]byte{caCertKey: nil}, false},
		"emptied": {map[string][]byte{corev1.TLSCertKey: nil, corev1.TLSPrivateKeyKey: nil, caCertKey: nil,
			caKeyKey: nil}, false},
	} {
		t.Run(name, func(t *testing.T) {
			data := maps.Clone(whole)
			maps.Copy(data, c.edit)
			k := keep(t, secret(data, nil))
			if err := k.Ensure(t.Context()); err != nil {
				t.Fatal(err)
			}
			now := k.data(t)
			if _, err := usable(now, "svc.ns.svc", time.Now()); err != nil {
				t.Errorf("the Secret is still of no use: %v", err)
			}
			if got := string(now[caCertKey]) == string(whole[caCertKey]); got != c.kept {
				t.Errorf("authority kept: %v, want %v", got, c.kept)
			}
			if cert, _ := k.CurrentCertKeyContent(); string(cert) != string(now[corev1.TLSCertKey]) {
				t.Error("what is served is not what is in the Secret")
			}
			k.wantTold(t, "Secret ServingCertificateReplaced (any replica)")
			if wrong, _ := k.Certificate(); wrong != "" {
				t.Errorf("after the repair the status says %q", wrong)
			}
		})
	}
}

// What cert-manager fills is not ours to write: it would write it back.
func TestBrokenSecretOfCertManagerIsRefused(t *testing.T) {
	theirs := map[string]string{certManager: "external-metrics"}
	good := issued(t, time.Now(), caKeyKey)
	k := keep(t, secret(good, theirs))
	if err := k.Ensure(t.Context()); err != nil {
		t.Fatal(err)
	}
	bad := maps.Clone(good)
	bad[caCertKey] = []byte{}
	if _, err := k.client.Resource(secrets).Namespace("ns").Update(t.Context(), secret(bad, theirs), metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		err := k.Ensure(t.Context())
		if err == nil || !strings.Contains(err.Error(), `mend the Certificate "external-metrics"`) || !strings.Contains(err.Error(), "ca.crt holds no certificate") {
			t.Errorf("Ensure = %v, want what is wrong and whom to mend it with", err)
		}
	}
	if d := cmp.Diff(bad, k.data(t)); d != "" {
		t.Errorf("the Secret was written to (-want +got)\n%s", d)
	}
	if cert, _ := k.CurrentCertKeyContent(); string(cert) != string(good[corev1.TLSCertKey]) {
		t.Error("the good certificate is no longer served")
	}
	k.wantTold(t, "Secret ServingCertificate")
}

// Where cert-manager is told to fill the Secret, nobody else makes or renews one,
// whether it is there already or not.
func TestSecretIsLeftToCertManager(t *testing.T) {
	absent := keep(t)
	absent.opts.Issued = true
	if err := absent.Ensure(t.Context()); err == nil || !strings.Contains(err.Error(), "cert-manager is to fill it") {
		t.Errorf("without Secret Ensure = %v, want it to wait for cert-manager", err)
	}
	if _, err := absent.client.Resource(secrets).Namespace("ns").Get(t.Context(), "tls", metav1.GetOptions{}); err == nil {
		t.Error("a Secret was made")
	}
	const day, year = 24 * time.Hour, 365 * 24 * time.Hour
	data := issued(t, time.Now().Add(30*day-year)) // one of our own from before, which we would renew
	k := keep(t, secret(data, nil))
	k.opts.Issued = true
	if err := k.Ensure(t.Context()); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(data, k.data(t)); d != "" {
		t.Errorf("the Secret was written to (-want +got)\n%s", d)
	}
	if cert, _ := k.CurrentCertKeyContent(); string(cert) != string(data[corev1.TLSCertKey]) {
		t.Error("the certificate that is there is not served")
	}
}

func TestCertificateThatEnds(t *testing.T) {
	const day, year = 24 * time.Hour, 365 * 24 * time.Hour
	for _, c := range []struct {
		name    string
		left    time.Duration
		without []string
		wrong   string // said in status
		renewed bool
	}{
		{"ours, far", 100 * day, nil, "", false},
		{"ours, soon", 30 * day, nil, "", true},
		{"another's, far", 15 * day, []string{caKeyKey}, "", false},
		{"another's, soon", 13 * day, []string{caKeyKey}, "its authority's key is not there", false},
	} {
		data := issued(t, time.Now().Add(c.left-year), c.without...)
		k := keep(t, secret(data, nil))
		if err := k.Ensure(t.Context()); err != nil {
			t.Fatal(err)
		}
		wrong, ends := k.Certificate()
		renewed := time.Until(ends) > 300*day
		if (wrong == "") != (c.wrong == "") || !strings.Contains(wrong, c.wrong) || renewed != c.renewed {
			t.Errorf("%s: said %q, renewed %v; want %q, %v", c.name, wrong, renewed, c.wrong, c.renewed)
		}
		if got := testutil.ToFloat64(k.expires); got != float64(ends.Unix()) {
			t.Errorf("%s: the metric says %v, want %v", c.name, got, ends.Unix())
		}
		if c.wrong != "" {
			k.wantTold(t, "Secret ServingCertificate")
		}
	}
	// A renewal that is refused is said, and the certificate serves until its end.
	data := issued(t, time.Now().Add(30*day-year))
	k := keep(t, secret(data, nil))
	k.client.PrependReactor("update", "secrets", func(clienttesting.Action) (bool, runtime.Object, error) {
		return true, nil, errors.New("forbidden by whom it pleases")
	})
	err := k.Ensure(t.Context())
	wrong, _ := k.Certificate()
	if err == nil || !strings.Contains(wrong, "forbidden") || !strings.Contains(wrong, "its certificate ends") {
		t.Errorf("Ensure = %v, said %q; want the refusal and its reason", err, wrong)
	}
	if cert, _ := k.CurrentCertKeyContent(); string(cert) != string(data[corev1.TLSCertKey]) {
		t.Error("a certificate that is still good is not served")
	}
}
