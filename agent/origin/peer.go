package origin

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"
)

// Where Kubernetes mounts a pod's service account.
const (
	DefaultTokenFile = "/var/run/secrets/kubernetes.io/serviceaccount/token" //nolint:gosec // a path, not a credential
	DefaultCAFile    = "/var/run/secrets/kubernetes.io/serviceaccount/ca.crt"
)

// peer is an HTTPS server that wants a bearer token.
type peer struct {
	name       string // as errors call it
	base       string // https://host:port
	token      func() (string, error)
	denied     string // what to do about 401 and 403
	mistrusted string // what to do about a certificate that cannot be verified
	client     *http.Client
}

// newClient returns an HTTPS client that trusts what caFile's signer signed.
func newClient(caFile string, insecure bool, timeout time.Duration) (*http.Client, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: insecure} //nolint:gosec // the user's own switch
	if !insecure {
		pem, err := os.ReadFile(caFile)
		if err != nil {
			return nil, err
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("file %s holds no PEM certificate", caFile)
		}
	}
	return &http.Client{
		Timeout: timeout,
		// The peer is on this node or in this cluster: no proxy stands between,
		// and no redirect may carry the token elsewhere.
		Transport:     &http.Transport{TLSClientConfig: config, IdleConnTimeout: time.Minute, MaxIdleConns: 2},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}, nil
}

// tokenOf returns a function that reads file for each request, as tokens
// rotate. A file that is not there is no token.
func tokenOf(file string) func() (string, error) {
	return func() (string, error) {
		token, err := os.ReadFile(file)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return "", fmt.Errorf("read the service account's token: %w", err)
		}
		return strings.TrimSpace(string(token)), nil
	}
}

// get returns the body of the answer at path. An answer of more than limit
// bytes and one that is not 200 OK are errors.
func (p *peer) get(ctx context.Context, path string, limit int64) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, p.base+path, nil)
	if err != nil {
		return nil, fmt.Errorf("ask %s for %s: %w", p.name, path, err)
	}
	token, err := p.token()
	if err != nil {
		return nil, err
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := p.client.Do(req)
	if err != nil {
		var cert *tls.CertificateVerificationError
		if errors.As(err, &cert) {
			return nil, fmt.Errorf("ask %s for %s: %w (%s)", p.name, path, err, p.mistrusted)
		}
		return nil, fmt.Errorf("ask %s for %s: %w", p.name, path, err)
	}
	defer func() { _ = resp.Body.Close() }()
	switch resp.StatusCode {
	case http.StatusOK:
	case http.StatusUnauthorized, http.StatusForbidden:
		return nil, fmt.Errorf("ask %s for %s at %s: HTTP %s (%s)", p.name, path, p.base, resp.Status, p.denied)
	default:
		return nil, fmt.Errorf("ask %s for %s at %s: HTTP %s", p.name, path, p.base, resp.Status)
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, limit+1))
	if err == nil && int64(len(body)) > limit {
		err = fmt.Errorf("it is longer than %d bytes", limit)
	}
	if err != nil {
		return nil, fmt.Errorf("read the answer of %s to %s: %w", p.name, path, err)
	}
	return body, nil
}
