package externalmetrics

import (
	"encoding/base64"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// Beside cert-manager's injector a bundle only grows; alone we hold it to ours.
func TestBundle(t *testing.T) {
	const year = 365 * 24 * time.Hour
	ours := string(issued(t, time.Now())[caCertKey])
	former := string(issued(t, time.Now().Add(-year))[caCertKey])
	for _, c := range []struct{ name, bundle, alone, beside string }{
		{"none", "", ours, ours},
		{"ours", ours, ours, ours},
		{"another", former, ours, former + ours},
		{"both", former + ours, ours, former + ours},
		{"both, ours first", ours + former, ours, ours + former},
		{"without its last newline", former[:len(former)-1], ours, former + ours},
		{"no certificate", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", ours, ours},
		{"words between", former + "words", ours, ours},
	} {
		for annotation, want := range map[string]string{"kelpie.dev/any": c.alone, "cert-manager.io/inject-ca-from": c.beside} {
			u := &unstructured.Unstructured{}
			u.SetAnnotations(map[string]string{annotation: "ns/name"})
			got, err := base64.StdEncoding.DecodeString(bundleFor(u, base64.StdEncoding.EncodeToString([]byte(c.bundle)), []byte(ours)))
			if err != nil || string(got) != want {
				t.Errorf("%s, annotated %s: %v\n%s\nwant\n%s", c.name, annotation, err, got, want)
			}
		}
	}
}
