package externalmetrics

import (
	"encoding/base64"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// Against one who overwrites each write at once, ours become rare; one that lasts
// ends the dispute.
func TestDisputeSlowsDown(t *testing.T) {
	var d dispute
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	var waits []time.Duration
	for range 12 {
		wait := d.wait(now)
		waits = append(waits, wait)
		now = now.Add(wait)
		d.wrote(now)
	}
	want := []time.Duration{0, 0, 0, 1, 2, 4, 8, 16, 32, 60, 60, 60}
	for i := range want {
		want[i] *= time.Second
	}
	if !slices.Equal(waits, want) {
		t.Errorf("waits before each write:\n%v, want\n%v", waits, want)
	}
	if got := d.lasts(now.Add(20 * time.Second)); got != 40*time.Second || !d.on() {
		t.Errorf("20 s after a write: looks again in %s, disputed %v; want 40 s, true", got, d.on())
	}
	if got := d.lasts(now.Add(time.Minute)); got != 0 || d.on() {
		t.Errorf("a minute after a write: looks again in %s, disputed %v; want 0, false", got, d.on())
	}
}

// A certificate that is renewed now and then is no dispute.
func TestRareWritesAreNoDispute(t *testing.T) {
	var d dispute
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for range 10 {
		if got := d.wait(now); got != 0 {
			t.Fatalf("waits %s", got)
		}
		d.wrote(now)
		now = now.Add(time.Hour)
	}
}

func TestWhoOverwritesTheBundleIsNamed(t *testing.T) {
	k := keep(t, apiService("svc"))
	services := k.client.Resource(apiServices)
	if err := k.Ensure(t.Context()); err != nil {
		t.Fatal(err)
	}
	overwrite := func() {
		t.Helper()
		u := apiService("svc")
		if err := unstructured.SetNestedField(u.Object, "Zm9yZWlnbg==", "spec", "caBundle"); err != nil {
			t.Fatal(err)
		}
		u.SetManagedFields([]metav1.ManagedFieldsEntry{
			{Manager: "helm", FieldsV1: metav1.NewFieldsV1(`{"f:spec":{"f:service":{}}}`)},
			{Manager: "keda", FieldsV1: metav1.NewFieldsV1(`{"f:spec":{"f:caBundle":{}}}`)},
		})
		if _, err := services.Update(t.Context(), u, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	for i := range disputeAfter - 1 {
		overwrite()
		if err := k.Register(t.Context()); err != nil || k.Registration() != "" {
			t.Fatalf("after write %d: %v, said %q; want nothing", i+1, err, k.Registration())
		}
	}
	overwrite()
	again := errDisputed{}
	if err := k.Register(t.Context()); !errors.As(err, &again) || again.wait <= 0 {
		t.Errorf("after write %d: %v, want when to look again", disputeAfter, err)
	}
	overwrite()
	if err := k.Register(t.Context()); !errors.As(err, &again) || again.wait <= 0 || again.wait > time.Second {
		t.Errorf("overwritten again: %v, want to look again within a second", err)
	}
	if said := k.Registration(); !strings.Contains(said, `field manager "keda"`) || !strings.Contains(said, "--enable-apiservice-patching=false") {
		t.Errorf("said %q; want who it is and how to stop it", said)
	}
	if testutil.ToFloat64(k.ours) != 0 {
		t.Error("the gauge says that we are registered and trusted")
	}
	u, err := services.Get(t.Context(), APIServiceName, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if bundle, _, _ := unstructured.NestedString(u.Object, "spec", "caBundle"); bundle != "Zm9yZWlnbg==" {
		t.Error("the other's write was answered at once: the two would do nothing else")
	}
	k.dispute.last = k.dispute.last.Add(-disputeWait)
	if err := k.Register(t.Context()); !errors.As(err, &again) {
		t.Errorf("a minute later: %v, want when to look again", err)
	}
	u, err = services.Get(t.Context(), APIServiceName, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	want := base64.StdEncoding.EncodeToString(k.data(t)[caCertKey])
	if bundle, _, _ := unstructured.NestedString(u.Object, "spec", "caBundle"); bundle != want {
		t.Errorf("a minute later caBundle = %q, want ours", bundle)
	}
	k.dispute.last = k.dispute.last.Add(-disputeWait)
	if err := k.Register(t.Context()); err != nil || k.Registration() != "" {
		t.Errorf("once ours has lasted: %v, said %q; want nothing", err, k.Registration())
	}
}
