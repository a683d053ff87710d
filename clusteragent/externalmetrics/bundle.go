package externalmetrics

import (
	"bytes"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// inject begins the annotations that have cert-manager's injector write caBundle.
const inject = "cert-manager.io/inject-"

// bundleFor returns the caBundle, in base64, that an APIService with this bundle
// should have. It is the authority alone, but beside cert-manager's injector, which
// only ever adds to a bundle: what we would take away it would put back, and a
// replica that serves with the former authority's certificate is to be trusted too.
func bundleFor(u *unstructured.Unstructured, bundle string, authority []byte) string {
	for name := range u.GetAnnotations() {
		if strings.HasPrefix(name, inject) {
			old, _ := base64.StdEncoding.DecodeString(bundle) // the API server holds no other
			return base64.StdEncoding.EncodeToString(join(old, authority))
		}
	}
	return base64.StdEncoding.EncodeToString(authority)
}

// join returns bundle with the certificates of authority that are not in it. One
// that holds anything but certificates is of no use, to the injector either.
func join(bundle, authority []byte) []byte {
	has, ok := certificates(bundle)
	if !ok {
		return authority
	}
	out := bundle
	wants, _ := certificates(authority)
	for _, c := range wants {
		if !slices.ContainsFunc(has, c.Equal) {
			out = append(append(bytes.TrimRight(slices.Clip(out), "\n"), '\n'), pemBlock("CERTIFICATE", c.Raw)...)
		}
	}
	return out
}

// certificates reads PEM, and tells whether there is something, and nothing else.
func certificates(text []byte) (all []*x509.Certificate, ok bool) {
	for {
		block, rest := pem.Decode(text)
		if block == nil {
			return all, len(all) > 0 && len(bytes.TrimSpace(text)) == 0
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, false
		}
		all, text = append(all, c), rest
	}
}
