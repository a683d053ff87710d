package auth

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func keys(t *testing.T, kind string, src Source) *Keys {
	t.Helper()
	k, err := New(kind, src)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestChecker(t *testing.T) {
	c := &Checker{API: keys(t, "API", Source{Keys: []string{"api-1", "", "api-2"}}), App: keys(t, "application", Source{Keys: []string{"app-1"}})}
	for _, tt := range []struct {
		name         string
		url          string
		header       map[string]string
		intake, read error
	}{
		{"no key", "/", nil, ErrMissing, ErrForbidden},
		{"wrong key", "/", map[string]string{"DD-API-KEY": "api-11"}, ErrForbidden, ErrForbidden},
		{"empty key is not the empty list item", "/?api_key=", nil, ErrMissing, ErrForbidden},
		{"header", "/", map[string]string{"dd-api-key": "api-1"}, nil, ErrForbidden},
		{"second key", "/?api_key=api-2", nil, nil, ErrForbidden},
		{"both in headers", "/", map[string]string{"DD-API-KEY": "api-1", "DD-APPLICATION-KEY": "app-1"}, nil, nil},
		{"both in the URL", "/?api_key=api-1&application_key=app-1", nil, nil, nil},
		{"wrong application key", "/?api_key=api-1&application_key=app-2", nil, nil, ErrForbidden},
		{"application key alone", "/?application_key=app-1", nil, ErrMissing, ErrForbidden},
		{"API key as application key", "/?api_key=api-1&application_key=api-1", nil, nil, ErrForbidden},
		{"header wins", "/?api_key=api-1", map[string]string{"DD-API-KEY": "wrong"}, ErrForbidden, ErrForbidden},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := httptest.NewRequest(http.MethodGet, tt.url, nil)
			for k, v := range tt.header {
				r.Header.Set(k, v)
			}
			if err := c.Intake(r); !errors.Is(err, tt.intake) {
				t.Errorf("intake: %v, want %v", err, tt.intake)
			}
			if err := c.Read(r); !errors.Is(err, tt.read) {
				t.Errorf("read: %v, want %v", err, tt.read)
			}
		})
	}
}

func TestFilesAreReadAgainWhenTheyChange(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "api-key")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("first\n")
	now := time.Unix(0, 0)
	k := keys(t, "API", Source{Files: []string{dir}})
	k.now = func() time.Time { return now }
	k.looked = now
	if !k.Valid("first") || k.Valid("second") {
		t.Fatal("the file's key is not what counts")
	}
	write("second other-one")
	now = now.Add(6 * time.Second)
	if k.Valid("first") || !k.Valid("second") || !k.Valid("other-one") {
		t.Error("a changed file was not read again")
	}
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	now = now.Add(6 * time.Second)
	if !k.Valid("second") {
		t.Error("a missing file locked everybody out")
	}
}

func TestNewRefusesToBeOpenOrBlind(t *testing.T) {
	for _, src := range []Source{{}, {Keys: []string{""}}, {Files: []string{filepath.Join(t.TempDir(), "none")}}, {Keys: []string{"k"}, Files: []string{"none"}}} {
		if _, err := New("API", src); err == nil || !strings.Contains(err.Error(), "API") {
			t.Errorf("New(%+v): %v, want an error that names the kind", src, err)
		}
	}
}

func TestFirst(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{"empty": " \n", "keys": " k1 k2\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, tt := range []struct {
		src  Source
		want string
	}{
		{Source{Keys: []string{"", "a", "b"}, Files: []string{dir}}, "a"},
		{Source{Keys: []string{""}, Files: []string{dir}}, "k1"},
		{Source{}, ""},
		{Source{Files: []string{filepath.Join(dir, "none")}}, ""},
	} {
		if got, err := tt.src.First(); got != tt.want || (err == nil) != (tt.want != "") {
			t.Errorf("first of %v: %q, %v; want %q", tt.src, got, err, tt.want)
		}
	}
}
