package image

import (
	"archive/tar"
	"bytes"
	"crypto/x509"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
)

const full = `
name: kelpie:dev
entrypoint: [/kelpie-agent]
user: "65532:65532"
workingDir: /home/nonroot
env: {B: "2", A: "1"}
labels: {org.opencontainers.image.title: kelpie}
files:
- {from: agent, to: /kelpie-agent, mode: "0755"}
- {from: agent, to: /etc/kelpie/defaults}
symlinks:
- {from: /usr/local/bin/agent, to: /kelpie-agent}
directories:
- {path: /tmp, mode: "1777"}
- {path: /home/nonroot, mode: "0700", owner: "65532:65532"}
caCertificates: true
`

func TestParseSpecNamesWhatIsWrong(t *testing.T) {
	for name, tc := range map[string]struct{ spec, want string }{
		"no name":             {"entrypoint: [/a]", "name is required"},
		"unknown field":       {"name: a\nentry: x", `unknown field "entry"`},
		"user by name":        {"name: a\nuser: nobody", "user: \"nobody\": want numbers"},
		"relative target":     {"name: a\nfiles: [{from: a, to: b}]", `files[0].to: "b" is not a clean absolute path`},
		"path that climbs":    {"name: a\nfiles: [{from: a, to: /a/../b}]", "not a clean absolute path"},
		"file without source": {"name: a\nfiles: [{to: /a}]", "files[0].from is required"},
		"twice":               {"name: a\nfiles: [{from: a, to: /x}]\nsymlinks: [{from: /x, to: /y}]", "symlinks[0].from: /x is there twice"},
		"link to nothing":     {"name: a\nsymlinks: [{from: /x}]", "symlinks[0].to is required"},
		"mode not quoted":     {"name: a\nfiles: [{from: a, to: /a, mode: 0755}]", "write it as a string of octal digits"},
		"mode not octal":      {"name: a\nfiles: [{from: a, to: /a, mode: \"9\"}]", "want octal digits"},
		"owner":               {"name: a\ndirectories: [{path: /a, owner: \"1\"}]", "directories[0].owner"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := ParseSpec([]byte(tc.spec))
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("error = %v, want it to say %q", err, tc.want)
			}
		})
	}
}

func FuzzParseSpec(f *testing.F) {
	f.Add([]byte(full))
	f.Add([]byte("name: a\nfiles: [{from: a, to: /a, mode: \"7777\"}]"))
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := ParseSpec(data)
		if err != nil {
			return
		}
		for _, file := range s.Files {
			if !filepath.IsLocal(file.To[1:]) {
				t.Errorf("a file may leave the image: %q", file.To)
			}
		}
	})
}

func TestImageHoldsWhatTheSpecSays(t *testing.T) {
	img := build(t, sources(t))
	config, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	want := v1.Config{
		Entrypoint: []string{"/kelpie-agent"},
		User:       "65532:65532",
		WorkingDir: "/home/nonroot",
		Env:        []string{"A=1", "B=2", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
		Labels:     map[string]string{"org.opencontainers.image.title": "kelpie"},
	}
	if diff := cmp.Diff(want, config.Config); diff != "" {
		t.Errorf("configuration differs (-want +got):\n%s", diff)
	}
	got := contents(t, img)
	for name, want := range map[string]member{
		"kelpie-agent":        {Kind: tar.TypeReg, Mode: 0o755, Body: "binary"},
		"etc/kelpie/defaults": {Kind: tar.TypeReg, Mode: 0o644, Body: "binary"},
		"etc/kelpie":          {Kind: tar.TypeDir, Mode: 0o755},
		"usr/local/bin/agent": {Kind: tar.TypeSymlink, Mode: 0o777, Link: "/kelpie-agent"},
		"tmp":                 {Kind: tar.TypeDir, Mode: 0o1777},
		"home/nonroot":        {Kind: tar.TypeDir, Mode: 0o700, UID: 65532},
		"etc/passwd":          {Kind: tar.TypeReg, Mode: 0o644, Body: passwd},
	} {
		if diff := cmp.Diff(want, got[name]); diff != "" {
			t.Errorf("%s differs (-want +got):\n%s", name, diff)
		}
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM([]byte(got[caPath[1:]].Body)) {
		t.Error("the certificate bundle holds no certificate")
	}
}

func TestSameInputsSameBytes(t *testing.T) {
	first, second := sources(t), sources(t)
	old := time.Date(2001, 1, 1, 0, 0, 0, 0, time.UTC)
	if err := os.Chtimes(filepath.Join(second, "agent"), old, old); err != nil {
		t.Fatal(err)
	}
	var archives [][]byte
	for _, dir := range []string{first, second} {
		file := filepath.Join(dir, "image.tar")
		if err := Write(file, "kelpie:dev", build(t, dir)); err != nil {
			t.Fatal(err)
		}
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		archives = append(archives, data)
	}
	if !bytes.Equal(archives[0], archives[1]) {
		t.Error("two archives of the same files differ")
	}
	if err := os.WriteFile(filepath.Join(second, "agent"), []byte("other"), 0o644); err != nil {
		t.Fatal(err)
	}
	if digest(t, build(t, first)) == digest(t, build(t, second)) {
		t.Error("images of different files have the same digest")
	}
}

func TestReadBothForms(t *testing.T) {
	dir := sources(t)
	img := build(t, dir)
	both := filepath.Join(dir, "both.tar")
	if err := Write(both, "kelpie:dev", img); err != nil {
		t.Fatal(err)
	}
	pure := filepath.Join(dir, "oci.tar")
	without(t, both, pure, "manifest.json")
	for _, file := range []string{both, pure} {
		got, free, err := Read(file)
		if err != nil {
			t.Fatalf("%s: %v", filepath.Base(file), err)
		}
		if len(contents(t, got)) != len(contents(t, img)) {
			t.Errorf("%s: other contents than written", filepath.Base(file))
		}
		if file == pure && digest(t, got) != digest(t, img) {
			t.Errorf("%s: other digest than written", filepath.Base(file))
		}
		if err := free(); err != nil {
			t.Error(err)
		}
	}
}

func TestReadRefusesPathsOutside(t *testing.T) {
	file := filepath.Join(t.TempDir(), "evil.tar")
	var archive bytes.Buffer
	w := tar.NewWriter(&archive)
	if err := w.WriteHeader(&tar.Header{Name: "../evil", Typeflag: tar.TypeReg}); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(w.Close(), os.WriteFile(file, archive.Bytes(), 0o644)); err != nil {
		t.Fatal(err)
	}
	if _, _, err := Read(file); err == nil || !strings.Contains(err.Error(), "outside itself") {
		t.Errorf("error = %v", err)
	}
}

func TestBuildNamesMissingFile(t *testing.T) {
	_, err := Build(Spec{Name: "a:b", Files: []File{{From: "/nonexistent/agent", To: "/agent"}}})
	if err == nil || !strings.Contains(err.Error(), "/nonexistent/agent") {
		t.Errorf("error = %v", err)
	}
}

func sources(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for name, content := range map[string]string{"agent": "binary", "spec.yaml": full} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func build(t *testing.T, dir string) v1.Image {
	t.Helper()
	spec, err := ReadSpec(filepath.Join(dir, "spec.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	img, err := Build(spec)
	if err != nil {
		t.Fatal(err)
	}
	return img
}

func digest(t *testing.T, img v1.Image) string {
	t.Helper()
	h, err := img.Digest()
	if err != nil {
		t.Fatal(err)
	}
	return h.String()
}

type member struct {
	Kind byte
	Mode int64
	UID  int
	Link string
	Body string
}

func contents(t *testing.T, img v1.Image) map[string]member {
	t.Helper()
	files := map[string]member{}
	extracted := mutate.Extract(img)
	defer func() { _ = extracted.Close() }()
	r := tar.NewReader(extracted)
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		if !h.ModTime.Equal(time.Unix(0, 0)) {
			t.Errorf("%s has the time %v", h.Name, h.ModTime)
		}
		files[h.Name] = member{Kind: h.Typeflag, Mode: h.Mode, UID: h.Uid, Link: h.Linkname, Body: string(body)}
	}
}

// without copies an archive but for one member.
func without(t *testing.T, from, to, name string) {
	t.Helper()
	data, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	r, w := tar.NewReader(bytes.NewReader(data)), tar.NewWriter(&out)
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if h.Name == name {
			continue
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(w, r); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(w.Close(), os.WriteFile(to, out.Bytes(), 0o644)); err != nil {
		t.Fatal(err)
	}
}
