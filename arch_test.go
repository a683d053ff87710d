// Package kelpie_test holds the rules of the repository's shape: who may import
// whom, what each binary may not contain, and that every package says what it
// is. It holds no product code.
package kelpie_test

import (
	"encoding/json"
	"errors"
	"go/parser"
	"go/token"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "kelpie.dev/kelpie"

// imports is the table of docs/design/001-packages.md: a package below the key's
// folder may import, of ours, its own folder and the folders listed. A folder
// that is not a key here may not exist.
var imports = map[string][]string{
	"metric":       {},
	"env":          {},
	"health":       {},
	"datadog":      {"metric"},
	"valuestream":  {},
	"query":        {"metric"},
	"agent":        {"metric", "env", "health", "datadog"},
	"backend":      {"metric", "query", "env", "health", "valuestream"},
	"clusteragent": {"metric", "query", "env", "health", "datadog", "valuestream"},
	"cli":          {"metric", "query", "datadog"},
	"cmd":          {"*"},
	"charts":       {},
	"examples":     {},
}

// testImports may also be imported by the tests of the folder.
var testImports = map[string][]string{
	"agent": {"query"},
	// The other end of the value stream.
	"clusteragent": {"backend"},
	"cli":          {"clusteragent", "backend"},
	"charts":       {"query"}, // the monitors' queries
}

// bans lists what a program may not link, with the reason.
var bans = []struct{ program, prefix, reason string }{
	{"cmd/kelpie-agent", "k8s.io/", "the agent runs on every node: client-go alone is four times its size"},
	{"cmd/kelpie-agent", "github.com/prometheus/prometheus/", "the agent stores nothing"},
	{"cmd/kelpie-agent", module + "/query", "the agent evaluates nothing"},
	{"cmd/kelpie-backend", "k8s.io/apiserver", "the backend serves Datadog's API, not Kubernetes'"},
	{"cmd/kelpie-backend", "k8s.io/client-go/rest", "the backend must run without Kubernetes"},
	{"cmd/kelpie-cluster-agent", "github.com/prometheus/prometheus/", "the cluster agent keeps newest values only"},
	{"cmd/kelpie", "github.com/prometheus/prometheus/", "people's commands ask a backend"},
}

type listed struct {
	ImportPath   string
	Imports      []string
	TestImports  []string
	XTestImports []string
	Deps         []string
	Dir          string
	GoFiles      []string
}

func list(t *testing.T, args ...string) []listed {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", append([]string{"list", "-json=ImportPath,Imports,TestImports,XTestImports,Deps,Dir,GoFiles"}, args...)...)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list %s: %v", strings.Join(args, " "), err)
	}
	var pkgs []listed
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p listed
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return pkgs
		} else if err != nil {
			t.Fatal(err)
		}
		pkgs = append(pkgs, p)
	}
}

// folder returns the top folder of one of our import paths, or "" for others.
func folder(path string) string {
	rest, ours := strings.CutPrefix(path, module+"/")
	if !ours {
		return ""
	}
	top, _, _ := strings.Cut(rest, "/")
	return top
}

func TestImportDirections(t *testing.T) {
	for _, p := range list(t, "./...") {
		from := folder(p.ImportPath)
		if from == "" {
			continue
		}
		allowed, known := imports[from]
		if !known {
			t.Errorf("folder %s/ is not in the table: add it to docs/design/001-packages.md and here", from)
			continue
		}
		check := func(kind string, paths, allowed []string) {
			for _, path := range paths {
				to := folder(path)
				if to == "" || to == from || slices.Contains(allowed, "*") || slices.Contains(allowed, to) {
					continue
				}
				t.Errorf("%s %s %s, but %s/ may import of ours only %v", p.ImportPath, kind, path, from, allowed)
			}
		}
		check("imports", p.Imports, allowed)
		check("imports in tests", slices.Concat(p.TestImports, p.XTestImports), append(slices.Clone(allowed), testImports[from]...))
	}
}

// TestOnlyTheStoreImportsTheTSDB. The one other user of Prometheus' code is the
// API that speaks PromQL: it has the engine, and the store by its Queryable.
func TestOnlyTheStoreImportsTheTSDB(t *testing.T) {
	const prometheus = "github.com/prometheus/prometheus/"
	engine := []string{prometheus + "promql", prometheus + "promql/parser", prometheus + "storage", prometheus + "model/labels"}
	for _, p := range list(t, "./...") {
		if p.ImportPath == module+"/backend/store" {
			continue
		}
		for _, path := range p.Imports {
			if !strings.HasPrefix(path, prometheus) || p.ImportPath == module+"/backend/promapi" && slices.Contains(engine, path) {
				continue
			}
			t.Errorf("%s imports %s: only backend/store may", p.ImportPath, path)
		}
	}
}

func TestProgramsDoNotLinkWhatTheyMustNot(t *testing.T) {
	for _, p := range list(t, "-deps=false", "./cmd/...") {
		program := strings.TrimPrefix(p.ImportPath, module+"/")
		for _, ban := range bans {
			if ban.program != program {
				continue
			}
			for _, dep := range p.Deps {
				if strings.HasPrefix(dep, ban.prefix) {
					t.Errorf("%s links %s: %s", program, dep, ban.reason)
				}
			}
		}
	}
}

// TestEveryPackageSaysWhatItIs asks for exactly one doc comment per package, in
// the shape that godoc shows first.
func TestEveryPackageSaysWhatItIs(t *testing.T) {
	for _, p := range list(t, "./...") {
		docs := 0
		for _, name := range p.GoFiles {
			f, err := parser.ParseFile(token.NewFileSet(), filepath.Join(p.Dir, name), nil, parser.ParseComments|parser.PackageClauseOnly)
			if err != nil {
				t.Fatal(err)
			}
			if f.Doc == nil {
				continue
			}
			docs++
			if want := "Package " + f.Name.Name + " "; f.Name.Name != "main" && !strings.HasPrefix(f.Doc.Text(), want) {
				t.Errorf("%s/%s: the package comment should begin %q", p.ImportPath, name, want)
			}
		}
		if len(p.GoFiles) > 0 && docs != 1 {
			t.Errorf("%s has %d package comments, want exactly one", p.ImportPath, docs)
		}
	}
}

// TestArchitectureNamesRealFiles keeps ARCHITECTURE.md honest: each path that it
// names in backquotes exists.
func TestArchitectureNamesRealFiles(t *testing.T) {
	text, err := os.ReadFile("ARCHITECTURE.md")
	if err != nil {
		t.Fatal(err)
	}
	named := 0
	for i, word := range strings.Split(string(text), "`") {
		if i%2 == 0 || strings.ContainsAny(word, " {}<>:*=@") || !strings.Contains(word, "/") ||
			strings.HasPrefix(word, "/") || strings.Contains(word, ".io/") || strings.Contains(word, ".com/") {
			continue
		}
		named++
		if _, err := os.Stat(word); err != nil {
			t.Errorf("ARCHITECTURE.md names `%s`, which is not there", word)
		}
	}
	if named < 20 {
		t.Errorf("found only %d paths in ARCHITECTURE.md: is the page still about the code?", named)
	}
}
