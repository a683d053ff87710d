package release

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/rest"

	"kelpie.dev/kelpie/datadog"
)

func TestKeyNeverPrints(t *testing.T) {
	const secret = "0123456789abcdef0123456789abcdef"
	k := NewKey(" "+secret+"\n", "Secret a/b, key c")
	if k.Reveal() != secret || !k.Set() {
		t.Errorf("Reveal() = %q, want the key without the space around it", k.Reveal())
	}
	encoded, err := json.Marshal(k)
	if err != nil {
		t.Fatal(err)
	}
	var logged bytes.Buffer
	slog.New(slog.NewTextHandler(&logged, nil)).Info("key", "key", k)
	for _, text := range []string{fmt.Sprint(k), fmt.Sprintf("%+v %#v %q", k, k, k), fmt.Sprintf("%v %+v", Keys{API: k}, Keys{App: k}), string(encoded), logged.String()} {
		if strings.Contains(text, secret) {
			t.Errorf("the key is in %q", text)
		}
	}
	if got := fmt.Sprint(k); got != "Secret a/b, key c" {
		t.Errorf("prints as %q, want its origin", got)
	}
}

func TestEnvTakesTheLastOfAName(t *testing.T) {
	pod := &corev1.PodSpec{Containers: []corev1.Container{{Env: []corev1.EnvVar{{Name: "A", Value: "1"}, {Name: "B", Value: "2"}, {Name: "A", Value: "3"}}}}}
	if got := Env(pod, "Z", "A", "B"); got != "3" {
		t.Errorf("Env = %q, want what Kubernetes gives the container, 3", got)
	}
	if got := Env(pod, "Z"); got != "" {
		t.Errorf("Env of an unset name = %q", got)
	}
}

// TestWhoRefuses tells the API server's own refusals from those of the service
// that it proxies to.
func TestWhoRefuses(t *testing.T) {
	bodies := map[string]string{
		"own":      `{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"services \"http:b:8080\" is forbidden","reason":"Forbidden","code":403}`,
		"backends": `{"errors":["Forbidden"]}`,
		"text":     "Forbidden",
	}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		parts := strings.Split(r.URL.Path, "/")
		ns := parts[4]
		if !strings.HasPrefix(r.URL.Path, "/api/v1/namespaces/"+ns+"/services/http:b:8080/proxy/api/v1/validate") {
			t.Errorf("asked %s", r.URL.Path)
		}
		if ns != "text" {
			w.Header().Set("Content-Type", "application/json")
		}
		w.WriteHeader(http.StatusForbidden)
		_, _ = w.Write([]byte(bodies[ns]))
	}))
	defer srv.Close()
	c, err := Connect(&rest.Config{Host: srv.URL})
	if err != nil {
		t.Fatal(err)
	}
	for ns := range bodies {
		e := c.Service(ns, "b", 8080)
		client, err := datadog.New(datadog.Options{BaseURL: e.URL, HTTP: e.HTTP})
		if err != nil {
			t.Fatal(err)
		}
		err = client.Validate(t.Context())
		var answered *datadog.APIError
		if own := apierrors.IsForbidden(err); own != (ns == "own") {
			t.Errorf("%s: is the API server's own = %v: %v", ns, own, err)
		}
		if got := errors.As(err, &answered); got == (ns == "own") {
			t.Errorf("%s: is the service's = %v: %v", ns, got, err)
		}
		client.CloseIdle()
	}
}

// What is cut off must not be called no JSON.
func TestTooMuchIsSaid(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte(`"` + strings.Repeat("x", maxAnswer) + `"`))
	}))
	defer srv.Close()
	var got string
	if err := (Endpoint{URL: srv.URL, HTTP: srv.Client()}).JSON(t.Context(), "/status", &got); err == nil || !strings.Contains(err.Error(), "longer than 32 MiB") {
		t.Errorf("error %v, want one that says how much there is", err)
	}
}

func FuzzStatusErrors(f *testing.F) {
	f.Add(`{"kind":"Status","apiVersion":"v1","code":503}`, 503)
	f.Add(`{"errors":["x"]}`, 403)
	f.Add(`{`, 500)
	f.Fuzz(func(t *testing.T, text string, code int) {
		rt := statusErrors{answers(func() *http.Response {
			return &http.Response{StatusCode: code, Header: http.Header{"Content-Type": {"application/json"}}, Body: http.NoBody}
		}, text)}
		req := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "http://x/", nil)
		resp, err := rt.RoundTrip(req)
		if err != nil {
			var s *apierrors.StatusError
			if !errors.As(err, &s) {
				t.Errorf("error %v is no StatusError", err)
			}
			return
		}
		defer func() { _ = resp.Body.Close() }()
		var got bytes.Buffer
		if _, err := got.ReadFrom(resp.Body); err != nil || got.String() != text {
			t.Errorf("the body became %q (%v), want it untouched: %q", got.String(), err, text)
		}
	})
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func answers(make func() *http.Response, text string) http.RoundTripper {
	return roundTrip(func(*http.Request) (*http.Response, error) {
		resp := make()
		resp.Body = body{strings.NewReader(text), http.NoBody}
		return resp, nil
	})
}
