package auth

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

// file returns a key file with the text.
func file(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "keys")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestScopes(t *testing.T) {
	app := keys(t, Application, Source{Files: []string{file(t, `# of the dashboards
reader scopes=timeseries_query,metrics_read other
both scopes=hosts_read # a comment
nothing scopes=
`)}})
	reg := prometheus.NewRegistry()
	c := NewChecker(keys(t, "API", Source{Keys: []string{"api"}}), app, reg)
	for _, tt := range []struct{ key, scope, want string }{
		{"reader", "timeseries_query", ""},
		{"reader", "metrics_read", ""},
		{"reader", "hosts_read", "Token is missing required scope hosts_read"},
		{"reader", "", ""},
		{"other", "hosts_read", ""},
		{"both", "hosts_read", ""},
		{"both", "metrics_read", "Token is missing required scope metrics_read"},
		{"nothing", "metrics_read", "Token is missing required scope metrics_read"},
		{"a", "", "Forbidden"},
		{"scopes=", "", "Forbidden"},
		{strings.Repeat("x", maxKey+1), "", "Forbidden"},
	} {
		r := httptest.NewRequest(http.MethodGet, "/?api_key=api", nil)
		r.Header.Set("DD-APPLICATION-KEY", tt.key)
		g, err := c.Allow(r, tt.scope)
		if (err == nil) != (tt.want == "") || err != nil && err.Error() != tt.want || (g.Key == "") != (err != nil) || strings.Contains(g.Key, tt.key) {
			t.Errorf("%.20s for %q: %+v, %v; want %q", tt.key, tt.scope, g, err, tt.want)
		}
		var scope *ScopeError
		if errors.As(err, &scope) && scope.Scope != tt.scope {
			t.Errorf("%s: the error is of scope %q", tt.key, scope.Scope)
		}
	}
	for kind, want := range map[string]float64{"missing": 0, "api_key": 0, "application_key": 3, "scope": 3} {
		if got := testutil.ToFloat64(c.refused.WithLabelValues(kind)); got != want {
			t.Errorf("%v refused for %s, want %v", got, kind, want)
		}
	}
}

func TestKeyFileErrorsNameTheLineAndNoKey(t *testing.T) {
	for _, tt := range []struct{ kind, text, want string }{
		{Application, "secret\nsecret scopes=metric_read\n", `line 2: unknown scope "metric_read"`},
		{Application, "secret\nscopes=metrics_read\n", "line 2: scopes= must follow a key"},
		{Application, "secret scopes=hosts_read scopes=hosts_read", "line 1: a key has scopes= twice"},
		{"API", "secret scopes=metrics_read", "line 1: only application keys have scopes"},
	} {
		_, err := New(tt.kind, Source{Files: []string{file(t, tt.text)}})
		if err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%q: %v, want %s", tt.text, err, tt.want)
		}
	}
}

func TestOneSecretIsEnoughWhereAClientHasOnlyOne(t *testing.T) {
	c := &Checker{API: keys(t, "API", Source{Keys: []string{"api"}}), App: keys(t, Application, Source{Keys: []string{"app"}})}
	for _, tt := range []struct {
		name string
		set  func(*http.Request)
		ok   bool
	}{
		{"nothing", func(*http.Request) {}, false},
		{"password", func(r *http.Request) { r.SetBasicAuth("anybody", "app") }, true},
		{"wrong password", func(r *http.Request) { r.SetBasicAuth("app", "api") }, false},
		{"bearer", func(r *http.Request) { r.Header.Set("Authorization", "Bearer app") }, true},
		{"wrong bearer", func(r *http.Request) { r.Header.Set("Authorization", "Bearer api") }, false},
		{"headers", func(r *http.Request) { r.Header.Set("DD-API-KEY", "api"); r.Header.Set("DD-APPLICATION-KEY", "app") }, true},
		{"half of the headers", func(r *http.Request) { r.Header.Set("DD-APPLICATION-KEY", "app") }, false},
	} {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		tt.set(r)
		if g, err := c.AllowAlone(r, "metrics_read"); (err == nil) != tt.ok || (g.Key != "") != tt.ok {
			t.Errorf("%s: %+v, %v", tt.name, g, err)
		}
	}
}

func FuzzParseKeys(f *testing.F) {
	f.Add("a b scopes=metrics_read\n# c\n")
	f.Fuzz(func(t *testing.T, text string) {
		keys, err := parseKeys(text, true)
		if err == nil && len(keys) > len(strings.Fields(text)) {
			t.Errorf("%d keys of %q", len(keys), text)
		}
	})
}
