package pki

import (
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"net"
	"testing"
	"time"
)

var now = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func TestIssuedCertificateVerifiesForItsNamesOnly(t *testing.T) {
	ca, err := NewAuthority("lab-ca", now)
	if err != nil {
		t.Fatal(err)
	}
	pair, err := ca.Issue(Request{
		CommonName:    "system:node:node1",
		Organizations: []string{"system:nodes"},
		DNSNames:      []string{"node1"},
		IPs:           []net.IP{net.IPv4(10, 244, 0, 1)},
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tls.X509KeyPair(pair.Cert, pair.Key); err != nil {
		t.Fatalf("certificate and key do not fit: %v", err)
	}
	leaf := parse(t, pair.Cert)
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(ca.CertPEM()) {
		t.Fatal("the authority's certificate is not PEM")
	}
	for name, ok := range map[string]bool{"node1": true, "10.244.0.1": true, "node2": false, "10.244.0.2": false} {
		_, err := leaf.Verify(x509.VerifyOptions{DNSName: name, Roots: roots, CurrentTime: now})
		if (err == nil) != ok {
			t.Errorf("verify for %s: got %v, want ok %v", name, err, ok)
		}
	}
	if got := leaf.Subject.Organization; len(got) != 1 || got[0] != "system:nodes" {
		t.Errorf("organization = %v", got)
	}
	expired := x509.VerifyOptions{DNSName: "node1", Roots: roots, CurrentTime: now.Add(2 * lifetime)}
	if _, err := leaf.Verify(expired); err == nil {
		t.Error("certificate verifies after its lifetime")
	}
}

func TestIssueNeedsAName(t *testing.T) {
	ca, err := NewAuthority("lab-ca", now)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ca.Issue(Request{}); err == nil {
		t.Fatal("a certificate without a name was issued")
	}
}

func TestAuthoritiesDoNotTrustEachOther(t *testing.T) {
	first, err := NewAuthority("lab-ca", now)
	if err != nil {
		t.Fatal(err)
	}
	second, err := NewAuthority("lab-ca", now)
	if err != nil {
		t.Fatal(err)
	}
	pair, err := second.Issue(Request{CommonName: "admin"})
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(first.CertPEM())
	_, err = parse(t, pair.Cert).Verify(x509.VerifyOptions{Roots: roots, CurrentTime: now})
	if err == nil {
		t.Fatal("a certificate of another authority verifies")
	}
}

func TestSigningKeyHalvesBelongTogether(t *testing.T) {
	pair, err := NewSigningKey()
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.ParseECPrivateKey(block(t, pair.Key))
	if err != nil {
		t.Fatal(err)
	}
	public, err := x509.ParsePKIXPublicKey(block(t, pair.Cert))
	if err != nil {
		t.Fatal(err)
	}
	if got, ok := public.(*ecdsa.PublicKey); !ok || !private.PublicKey.Equal(got) {
		t.Fatal("the public key is not the private key's")
	}
}

func parse(t *testing.T, data []byte) *x509.Certificate {
	t.Helper()
	cert, err := x509.ParseCertificate(block(t, data))
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func block(t *testing.T, data []byte) []byte {
	t.Helper()
	b, rest := pem.Decode(data)
	if b == nil || len(rest) != 0 {
		t.Fatalf("not exactly one PEM block: %q", data)
	}
	return b.Bytes
}
