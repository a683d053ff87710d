package fetch

import (
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var loopback = netip.MustParseAddr("127.0.0.1")

// server answers with what it was asked.
func server(t *testing.T) *httptest.Server {
	t.Helper()
	mux := http.NewServeMux()
	mux.HandleFunc("/echo", func(w http.ResponseWriter, r *http.Request) {
		user, password, _ := r.BasicAuth()
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		_, _ = fmt.Fprintf(w, "host=%s accept=%s auth=%s user=%s:%s x=%s token=%s", r.Host, r.Header.Get("Accept"),
			strings.TrimPrefix(r.Header.Get("Authorization"), "Basic"), user, password, r.Header.Get("X-Test"), r.Header.Get("X-Token"))
	})
	mux.HandleFunc("/large", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, strings.Repeat("x", 101)) })
	mux.HandleFunc("/away", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, r.URL.Query().Get("to"), http.StatusFound)
	})
	s := httptest.NewServer(mux)
	t.Cleanup(s.Close)
	return s
}

func TestGet(t *testing.T) {
	s := server(t)
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte("s3cret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	host := strings.TrimPrefix(s.URL, "http://")
	auth := func(name, value string) *AuthToken {
		a := &AuthToken{}
		a.Reader.Type, a.Reader.Path, a.Writer.Type, a.Writer.Name, a.Writer.Value = "file", token, "header", name, value
		return a
	}
	for _, c := range []struct {
		name, path string
		config     Config
		want       string // the body, or a part of the error
	}{
		{"plain", "/echo", Config{}, "host=" + host + " accept=text/plain auth= user=: x= token="},
		{"headers", "/echo", Config{Headers: map[string]string{"X-Test": "a", "Host": "example.com"}, ExtraHeaders: map[string]string{"X-Token": "b"}}, "host=example.com accept=text/plain auth= user=: x=a token=b"},
		{"basic", "/echo", Config{Username: "u", Password: "p"}, "host=" + host + " accept=text/plain auth= dTpw user=u:p x= token="},
		{"bearer", "/echo", Config{BearerTokenAuth: true, BearerTokenPath: token}, "host=" + host + " accept=text/plain auth=Bearer s3cret user=: x= token="},
		{"auth token", "/echo", Config{AuthToken: auth("X-Token", "key <TOKEN>")}, "host=" + host + " accept=text/plain auth= user=: x= token=key s3cret"},
		{"no token", "/echo", Config{BearerTokenAuth: true, BearerTokenPath: token + "x"}, "read the token of the request"},
		{"missing", "/nothing", Config{}, "/nothing: HTTP 404 Not Found"},
		{"large", "/large", Config{}, "the page is too large: more than 100 bytes"},
		{"nobody", "", Config{}, "connection refused"},
	} {
		client, err := New(c.config, Access{File: true})
		if err != nil {
			t.Fatal(err)
		}
		page := s.URL + c.path
		if c.path == "" {
			page = "http://user:hidden@127.0.0.1:1/x?key=hidden"
		}
		body, mediaType, err := client.Get(t.Context(), page, "text/plain", 100)
		client.Close()
		switch {
		case err != nil && (!strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "hidden")):
			t.Errorf("%s: error %q, want %q", c.name, err, c.want)
		case err == nil && (string(body) != c.want || mediaType != "text/plain"):
			t.Errorf("%s: got %q (%s), want %q", c.name, body, mediaType, c.want)
		}
	}
}

func TestPodsMayAskOnlyThemselves(t *testing.T) {
	s := server(t)
	other := netip.MustParseAddr("10.9.8.7")
	port := s.URL[strings.LastIndexByte(s.URL, ':'):]
	for _, c := range []struct {
		name   string
		access Access
		page   string
		want   string // "" for an answer
	}{
		{"a file may ask anybody", Access{File: true}, s.URL + "/echo", ""},
		{"the pod itself", Access{Pod: []netip.Addr{loopback}}, s.URL + "/echo", ""},
		{"another address", Access{Pod: []netip.Addr{other}}, s.URL + "/echo", "127.0.0.1 is not an address of the pod"},
		{"a name that means another address", Access{Pod: []netip.Addr{other}}, "http://localhost" + port + "/echo", "is not an address of the pod"},
		{"a redirect to another address", Access{Pod: []netip.Addr{loopback}}, s.URL + "/away?to=http://10.9.8.7/", "10.9.8.7 is not an address of the pod"},
		{"cloud metadata", Access{Pod: []netip.Addr{loopback}}, "http://169.254.169.254/latest/meta-data", "is not an address of the pod"},
		{"any, but not the link", Access{Any: true}, "http://169.254.169.254/latest/meta-data", "the agent's own host or link"},
		{"any, but not the agent's host", Access{Any: true}, s.URL + "/echo", "the agent's own host or link"},
		{"nobody's", Access{}, s.URL + "/echo", "is not an address of the pod"},
	} {
		client, err := New(Config{}, c.access)
		if err != nil {
			t.Fatal(err)
		}
		_, _, err = client.Get(t.Context(), c.page, "*/*", 1000)
		client.Close()
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
}

func TestPodsMayNotNameFiles(t *testing.T) {
	for key, c := range map[string]Config{
		"auth_token":        {AuthToken: &AuthToken{}},
		"bearer_token_auth": {BearerTokenAuth: true},
		"bearer_token_path": {BearerTokenPath: "/x"},
		"tls_ca_cert":       {TLSCACert: "/x"},
		"tls_cert":          {TLSCert: "/x"},
		"tls_private_key":   {TLSPrivateKey: "/x"},
	} {
		_, err := New(c, Access{Pod: []netip.Addr{loopback}, Any: true})
		if err == nil || !strings.Contains(err.Error(), fmt.Sprintf("key %q reads a file of the agent", key)) {
			t.Errorf("%s: %v", key, err)
		}
	}
}

func TestTLS(t *testing.T) {
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok") }))
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	defer s.Close()
	dir := t.TempDir()
	ca := filepath.Join(dir, "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	empty := filepath.Join(dir, "empty")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	no := false
	for _, c := range []struct {
		name   string
		config Config
		want   string
	}{
		{"its CA", Config{TLSCACert: ca}, ""},
		{"not verified", Config{TLSVerify: &no}, ""},
		{"unknown", Config{}, "certificate"},
		{"no file", Config{TLSCACert: ca + "x"}, `key "tls_ca_cert"`},
		{"no certificate", Config{TLSCACert: empty}, "holds no PEM certificate"},
		{"no pair", Config{TLSCert: empty}, `keys "tls_cert" and "tls_private_key"`},
		{"timeout", Config{Timeout: -1}, `key "timeout"`},
		{"token", Config{AuthToken: &AuthToken{}}, `key "auth_token"`},
	} {
		client, err := New(c.config, Access{File: true})
		if err == nil {
			_, _, err = client.Get(t.Context(), s.URL, "*/*", 10)
			client.Close()
		}
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
}

func TestRedact(t *testing.T) {
	for in, want := range map[string]string{
		"http://u:p@h:80/a?k=v#f": "http://h:80/a",
		"http://%zz":              "a URL that cannot be read",
	} {
		if d := cmp.Diff(want, Redact(in)); d != "" {
			t.Error(d)
		}
	}
	if _, err := URL("k", "ftp://x"); err == nil {
		t.Error("ftp was taken")
	}
}
