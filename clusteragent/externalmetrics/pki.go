package externalmetrics

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// Keys of the certificate's Secret beside those of kubernetes.io/tls.
const (
	caCertKey = "ca.crt"
	caKeyKey  = "ca.key"
)

const (
	caLife      = 10 * 365 * 24 * time.Hour
	certLife    = 365 * 24 * time.Hour
	renewBefore = 60 * 24 * time.Hour
	warnBefore  = 14 * 24 * time.Hour // of another's; earlier if it lives for less than ten weeks
	backdate    = time.Hour           // clocks of nodes differ
)

// issue returns the Secret's data with a new serving certificate for names. It
// keeps the authority in old if that is whole and lives longer than the
// certificate, so that nobody who trusts it notices.
func issue(old map[string][]byte, names []string, now time.Time) (map[string][]byte, error) {
	ca, err := authority(old, now)
	if err != nil {
		return nil, err
	}
	key, keyPEM, err := newKey()
	if err != nil {
		return nil, err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, fmt.Errorf("certificate serial: %w", err)
	}
	cert := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: names[0]}, DNSNames: names,
		NotBefore: now.Add(-backdate), NotAfter: now.Add(certLife),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, cert, ca.cert, key.Public(), ca.key)
	if err != nil {
		return nil, fmt.Errorf("sign serving certificate: %w", err)
	}
	return map[string][]byte{
		corev1.TLSCertKey: pemBlock("CERTIFICATE", der), corev1.TLSPrivateKeyKey: keyPEM, caCertKey: ca.certPEM, caKeyKey: ca.keyPEM,
	}, nil
}

// issuer is an authority that can sign.
type issuer struct {
	cert            *x509.Certificate
	key             *ecdsa.PrivateKey
	certPEM, keyPEM []byte
}

// authority returns the one in old, or a new one.
func authority(old map[string][]byte, now time.Time) (issuer, error) {
	if pair, err := tls.X509KeyPair(old[caCertKey], old[caKeyKey]); err == nil && pair.Leaf.IsCA && now.Add(certLife).Before(pair.Leaf.NotAfter) {
		if k, ok := pair.PrivateKey.(*ecdsa.PrivateKey); ok {
			return issuer{cert: pair.Leaf, key: k, certPEM: old[caCertKey], keyPEM: old[caKeyKey]}, nil
		}
	}
	key, keyPEM, err := newKey()
	if err != nil {
		return issuer{}, err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return issuer{}, fmt.Errorf("authority serial: %w", err)
	}
	ca := &x509.Certificate{
		// The serial in the name keeps two authorities apart in one bundle.
		SerialNumber: serial, Subject: pkix.Name{CommonName: "kelpie-external-metrics-ca-" + serial.Text(36)},
		NotBefore: now.Add(-backdate), NotAfter: now.Add(caLife), IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, ca, ca, key.Public(), key)
	if err != nil {
		return issuer{}, fmt.Errorf("sign authority: %w", err)
	}
	return issuer{cert: ca, key: key, certPEM: pemBlock("CERTIFICATE", der), keyPEM: keyPEM}, nil
}

func newKey() (*ecdsa.PrivateKey, []byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("generate key: %w", err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, nil, fmt.Errorf("encode key: %w", err)
	}
	return key, pemBlock("PRIVATE KEY", der), nil
}

func pemBlock(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

// usable checks that a Secret's data serve for name: the key is the
// certificate's, and the certificate is the authority's, for name, and valid.
// It returns the certificate.
func usable(data map[string][]byte, name string, now time.Time) (*x509.Certificate, error) {
	pair, err := tls.X509KeyPair(data[corev1.TLSCertKey], data[corev1.TLSPrivateKeyKey])
	if err != nil {
		return nil, fmt.Errorf("its certificate and key are not a pair: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(data[caCertKey]) {
		return nil, errors.New("its ca.crt holds no certificate")
	}
	chain := x509.NewCertPool()
	for _, der := range pair.Certificate[1:] {
		if c, err := x509.ParseCertificate(der); err == nil {
			chain.AddCert(c)
		}
	}
	_, err = pair.Leaf.Verify(x509.VerifyOptions{Roots: roots, Intermediates: chain, DNSName: name, CurrentTime: now,
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}})
	if ended := (x509.CertificateInvalidError{}); errors.As(err, &ended) && ended.Reason == x509.Expired {
		// The library's words hold the time of day, and would be news each time.
		return nil, fmt.Errorf("its certificate or authority has ended, or is not valid yet: the certificate's time is from %s to %s",
			pair.Leaf.NotBefore.UTC().Format(time.RFC3339), pair.Leaf.NotAfter.UTC().Format(time.RFC3339))
	}
	if err != nil {
		return nil, fmt.Errorf("its certificate does not verify against its ca.crt: %w", err)
	}
	return pair.Leaf, nil
}
