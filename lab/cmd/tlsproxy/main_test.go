package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"kelpie.dev/kelpie/lab/pki"
)

// A client that trusts the certificate gets the server's own answer, and the
// server sees what the client asked.
func TestRun(t *testing.T) {
	behind := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusForbidden)
		_, _ = io.WriteString(w, r.Host+" "+r.URL.RequestURI()+" "+r.Header.Get("DD-API-KEY"))
	}))
	defer behind.Close()
	authority, err := pki.NewAuthority("test", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	pair, err := authority.Issue(pki.Request{CommonName: "api", DNSNames: []string{"api.datadoghq.com"}})
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for name, data := range map[string][]byte{"tls.crt": pair.Cert, "tls.key": pair.Key} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- run(ctx, addr, behind.URL, dir) }()

	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(authority.CertPEM())
	client := &http.Client{Transport: &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, addr)
		},
	}}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://api.datadoghq.com/api/v1/query?query=sum%3Am%7B%2A%7D", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("DD-API-KEY", "key")
	var res *http.Response
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		if res, err = client.Do(req); err == nil || time.Now().After(end) {
			break
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	_ = res.Body.Close()
	if want := strings.TrimPrefix(behind.URL, "http://") + " /api/v1/query?query=sum%3Am%7B%2A%7D key"; res.StatusCode != http.StatusForbidden || string(body) != want {
		t.Errorf("answer %d %q, want 403 %q", res.StatusCode, body, want)
	}
	client.CloseIdleConnections()
	cancel()
	if err := <-done; err != nil {
		t.Errorf("after a stop: %v", err)
	}
}

func TestRunSaysWhatIsMissing(t *testing.T) {
	for _, c := range []struct{ to, dir, want string }{
		{"", "", "-to"},
		{"backend:8080", "", "-to"},
		{"http://backend:8080", filepath.Join(t.TempDir(), "none"), "tls.crt"},
	} {
		if err := run(t.Context(), "127.0.0.1:0", c.to, c.dir); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("-to %q, certificate in %q: %v, want an error with %q", c.to, c.dir, err, c.want)
		}
	}
}
