package binaries

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

const gomod = `module kelpie.dev/kelpie/lab

go 1.26.7

require (
	go.etcd.io/etcd/server/v3 v3.7.3 // indirect
	k8s.io/kubernetes v1.37.2 // indirect
	example.com/forked v1.0.0
)

replace example.com/forked => example.com/fork v1.0.1
`

func TestModuleVersions(t *testing.T) {
	got, err := moduleVersions([]byte(gomod))
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"go.etcd.io/etcd/server/v3": "v3.7.3", "k8s.io/kubernetes": "v1.37.2", "example.com/forked": "v1.0.1"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("versions differ (-want +got):\n%s", diff)
	}
	if _, err := moduleVersions([]byte("require (")); err == nil {
		t.Error("a damaged go.mod is accepted")
	}
}

// Every program of the catalog must be a tool of the go.mod that pins it, else
// "go mod tidy" drops what it needs.
func TestCatalogIsWhatTheModulePins(t *testing.T) {
	for _, b := range Catalog() {
		data, err := os.ReadFile(filepath.Join("..", b.Pins, "go.mod"))
		if err != nil {
			t.Fatal(err)
		}
		version, err := versionOf(b, "..")
		if err != nil || version == "" {
			t.Errorf("%s: version %q, %v", b.Name, version, err)
		}
		if b.Module != "" && !strings.Contains(string(data), "\t"+b.Package+"\n") {
			t.Errorf("%s: %s is not a tool in go.mod", b.Name, b.Package)
		}
	}
}

// What is pinned apart is big, and no node needs it.
func TestOnlyByNameIsBuiltWhatIsPinnedApart(t *testing.T) {
	for _, b := range Catalog() {
		if got, want := (Options{}).wanted(b), b.Pins == ""; got != want {
			t.Errorf("%s (pinned in %q): built without being named: %v, want %v", b.Name, b.Pins, got, want)
		}
		if !(Options{Only: []string{b.Name}}).wanted(b) || (Options{Only: []string{"other"}}).wanted(b) {
			t.Errorf("%s: is not built when it is named, or when another is", b.Name)
		}
	}
}

func TestSourceHashLeavesOutOtherModules(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		hash, err := sourceHash(dir)
		if err != nil {
			t.Fatal(err)
		}
		return hash
	}
	first := write("go.mod", "module a")
	if got := write("keda/go.mod", "module b"); got != first {
		t.Error("the go.mod of another module changes the hash")
	}
	if got := write("cmd/main.go", "package main"); got == first {
		t.Error("a program of this module does not change the hash")
	}
}

func TestStamps(t *testing.T) {
	b := build{Binary: Binary{Name: "kubelet", Package: "k8s.io/kubernetes/cmd/kubelet", Stamps: kubernetesStamps}, version: "v1.37.2"}
	flags := b.ldflags()
	for _, want := range []string{"version.gitVersion=v1.37.2", "version.gitMajor=1", "version.gitMinor=37"} {
		if !strings.Contains(flags, want) {
			t.Errorf("linker flags %q lack %s", flags, want)
		}
	}
}

func TestCacheNameFollowsVersionAndFlags(t *testing.T) {
	base := build{Binary: Binary{Name: "runc", Package: "p", CGO: true, Tags: "seccomp"}, version: "v1.5.2"}
	newer, untagged, static := base, base, base
	newer.version = "v1.5.3"
	untagged.Tags = ""
	static.CGO = false
	names := []string{base.file(), newer.file(), untagged.file(), static.file()}
	if slices.Sort(names); len(slices.Compact(names)) != 4 {
		t.Errorf("names collide: %v", names)
	}
	if !strings.HasPrefix(base.file(), "runc-v1.5.2-") {
		t.Errorf("name %q does not begin with program and version", base.file())
	}
}

func TestFindModule(t *testing.T) {
	root := t.TempDir()
	lab := filepath.Join(root, "lab")
	deep := filepath.Join(root, "a", "b")
	for _, dir := range []string{lab, deep} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := FindModule(deep); err == nil || !strings.Contains(err.Error(), "--source") {
		t.Errorf("without a module: %v", err)
	}
	if err := os.WriteFile(filepath.Join(lab, "go.mod"), []byte(gomod), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, start := range []string{lab, root, deep} {
		if got, err := FindModule(start); err != nil || got != lab {
			t.Errorf("from %s: %q, %v", start, got, err)
		}
	}
}

// The lab's own pause is small enough to be built in a test: once built, then
// cached; what it was last week is forgotten.
func TestEnsureBuildsOnce(t *testing.T) {
	dir := t.TempDir()
	o := Options{Module: "..", Cache: filepath.Join(dir, "cache"), Bin: filepath.Join(dir, "bin"), Only: []string{"pause"}}
	stale := filepath.Join(o.Cache, "pause-src000000000000-00000000")
	if err := os.MkdirAll(o.Cache, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(stale, nil, 0o755); err != nil {
		t.Fatal(err)
	}
	lastWeek := time.Now().Add(-7 * 24 * time.Hour)
	if err := os.Chtimes(stale, lastWeek, lastWeek); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"built in", "cached"} {
		var out bytes.Buffer
		o.Out = &out
		if err := Ensure(t.Context(), o); err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(out.String(), want) || strings.Count(out.String(), "\n") != 1 {
			t.Errorf("want one line with %q, got %q", want, out.String())
		}
	}
	if _, err := os.Stat(stale); err == nil {
		t.Error("last week's build is still in the cache")
	}
	info, err := os.Stat(Path(o.Bin, ForNode, "pause"))
	if err != nil || info.Mode()&0o111 == 0 {
		t.Errorf("the link does not lead to a program: %v, %v", info, err)
	}
}

func TestFailedBuildSaysWhy(t *testing.T) {
	o := Options{Module: "..", Cache: t.TempDir(), Bin: t.TempDir(), Out: &bytes.Buffer{}}
	err := o.ensure(t.Context(), build{Binary: Binary{Name: "ghost", Package: labModule + "/ghost"}, version: "v1"})
	if err == nil || !strings.Contains(err.Error(), "build ghost v1") || !strings.Contains(err.Error(), labModule+"/ghost") {
		t.Errorf("error = %v", err)
	}
}

func TestProgressSpeaksWhileItLasts(t *testing.T) {
	out := &listener{heard: make(chan struct{})}
	p := newProgress(out, "kubelet v1")
	p.every = time.Millisecond
	if _, err := p.Write([]byte("go: downloading a v1\ngo: downloading b v2\n")); err != nil {
		t.Fatal(err)
	}
	err := p.during(func() error {
		<-out.heard
		return nil
	})
	if want := "building kubelet v1: 0 s  go: downloading b v2\n"; err != nil || strings.TrimLeft(out.first, " ") != want {
		t.Errorf("progress %q, %v, want %q", out.first, err, want)
	}
}

// listener keeps the first thing it is told.
type listener struct {
	first string
	heard chan struct{}
}

func (l *listener) Write(data []byte) (int, error) {
	if l.first == "" {
		l.first = string(data)
		close(l.heard)
	}
	return len(data), nil
}
