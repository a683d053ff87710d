// Package charts_test renders the chart with the real helm and reads the
// result back. It owns what the chart promises: names, egress, security,
// access and notes. It refuses to know how the templates say it.
package charts_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"sort"
	"strings"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"
)

const (
	chart   = "kelpie"
	release = "datadog-agent"
	inline  = "../examples/walkthrough/values-inline.yaml"
	crd     = "../examples/walkthrough/values-crd.yaml"
)

// object is what all tests need of a rendered object.
type object struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`

	text string // as rendered
}

func (o object) String() string {
	if o.Namespace == "" {
		return o.Kind + " " + o.Name
	}
	return o.Kind + " " + o.Namespace + "/" + o.Name
}

// into decodes the object's whole text.
func into[T any](t *testing.T, o object) T {
	t.Helper()
	var v T
	if err := yaml.UnmarshalStrict([]byte(o.text), &v); err != nil {
		t.Fatalf("%s is not what its kind says: %v", o, err)
	}
	return v
}

type objects []object

func (all objects) names() []string {
	var names []string
	for _, o := range all {
		names = append(names, o.String())
	}
	sort.Strings(names)
	return names
}

func (all objects) kind(kind string) objects {
	var found objects
	for _, o := range all {
		if o.Kind == kind {
			found = append(found, o)
		}
	}
	return found
}

// one returns the object of that kind and name and fails without it.
func (all objects) one(t *testing.T, kind, name string) object {
	t.Helper()
	for _, o := range all.kind(kind) {
		if o.Name == name {
			return o
		}
	}
	t.Fatalf("no %s %s among %q", kind, name, all.names())
	return object{}
}

// workload is the part that DaemonSet, Deployment and StatefulSet share.
type workload struct {
	name     string
	selector map[string]string
	pod      corev1.PodTemplateSpec
}

func (all objects) workloads(t *testing.T) []workload {
	t.Helper()
	var found []workload
	for _, o := range all {
		switch o.Kind {
		case "DaemonSet", "Deployment", "StatefulSet":
		default:
			continue
		}
		var v struct {
			Spec struct {
				Selector metav1.LabelSelector   `json:"selector"`
				Template corev1.PodTemplateSpec `json:"template"`
			} `json:"spec"`
		}
		if err := yaml.Unmarshal([]byte(o.text), &v); err != nil {
			t.Fatalf("%s: %v", o, err)
		}
		found = append(found, workload{o.String(), v.Spec.Selector.MatchLabels, v.Spec.Template})
	}
	return found
}

// env is the environment of the one container of the workload, without secrets.
func (all objects) env(t *testing.T, kind, name string) map[string]string {
	t.Helper()
	found := (objects{all.one(t, kind, name)}).workloads(t)
	if len(found) != 1 {
		t.Fatalf("%s %s has %d pod templates, want one", kind, name, len(found))
	}
	env := map[string]string{}
	for _, e := range found[0].pod.Spec.Containers[0].Env {
		if _, twice := env[e.Name]; twice {
			t.Errorf("%s: %s stands twice", found[0].name, e.Name)
		}
		env[e.Name] = e.Value
	}
	return env
}

// openInputs opens what helm will read: the cache of go test remembers the
// files that a test opens, not those of the programs that it runs.
var openInputs = sync.OnceValue(func() error {
	for _, dir := range []string{chart, filepath.Dir(inline)} {
		err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			f, err := os.Open(path)
			if err != nil {
				return err
			}
			return f.Close()
		})
		if err != nil {
			return err
		}
	}
	return nil
})

// helm runs helm far from any cluster.
func helm(t *testing.T, args ...string) (string, error) {
	t.Helper()
	if err := openInputs(); err != nil {
		t.Fatal(err)
	}
	program := os.Getenv("HELM")
	if program == "" {
		found, err := exec.LookPath("helm")
		if err != nil {
			t.Skip("needs helm: set HELM to the program, or let make test do it")
		}
		program = found
	}
	state := t.TempDir()
	cmd := exec.CommandContext(t.Context(), program, args...)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+filepath.Join(state, "none"),
		"HELM_CACHE_HOME="+state, "HELM_CONFIG_HOME="+state, "HELM_DATA_HOME="+state)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatalf("run %s: %v", program, err)
	}
	if err != nil {
		return stdout.String(), fmt.Errorf("%w: %s", err, stderr.String())
	}
	return stdout.String(), nil
}

// template renders as the walkthrough installs.
func template(t *testing.T, args ...string) string {
	t.Helper()
	return templateAs(t, release, args...)
}

func templateAs(t *testing.T, release string, args ...string) string {
	t.Helper()
	out, err := helm(t, append([]string{"template", release, chart, "--namespace", "datadog"}, args...)...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func render(t *testing.T, args ...string) objects {
	t.Helper()
	return parse(t, template(t, args...))
}

var separator = regexp.MustCompile(`(?m)^---\s*$`)

func parse(t *testing.T, manifests string) objects {
	t.Helper()
	var all objects
	for _, text := range separator.Split(manifests, -1) {
		var o object
		if err := yaml.Unmarshal([]byte(text), &o); err != nil {
			t.Fatalf("rendered text is no object: %v\n%s", err, text)
		}
		if o.Kind == "" {
			continue
		}
		o.text = text
		all = append(all, o)
	}
	return all
}

// notes is what the user reads after the installation.
func notes(t *testing.T, args ...string) string {
	t.Helper()
	out, err := helm(t, append([]string{"install", release, chart, "--namespace", "datadog", "--dry-run=client"}, args...)...)
	if err != nil && strings.Contains(err.Error(), "cluster unreachable") {
		t.Skip("helm 3 shows notes only with a cluster: set HELM to helm 4")
	}
	if err != nil {
		t.Fatal(err)
	}
	_, notes, found := strings.Cut(out, "NOTES:\n")
	if !found {
		t.Fatalf("no notes in the output of helm install:\n%s", out)
	}
	return notes
}

// values writes a values file and returns the flag that names it.
func values(t *testing.T, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "values.yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return "--values=" + file
}
