package charts_test

import (
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/yaml"
)

func TestNotesNameForeignKeys(t *testing.T) {
	t.Parallel()
	got := notes(t, "--values", inline, values(t, `
datadog:
  apm: {portEnabled: true}
  dogstatsd: {useHostport: true}
clusterAgent:
  admissionController: {enabled: true}
  replicas: 2
registry: docker.io/datadog
frobnicate: 3
`))
	var lines []string
	for line := range strings.Lines(got) {
		if path, ok := strings.CutPrefix(line, "ignored: "); ok {
			path, reason, _ := strings.Cut(path, " ")
			lines = append(lines, path)
			if len(reason) < len("(reason)") {
				t.Errorf("no reason is given for %s: %q", path, reason)
			}
		}
	}
	want := []string{
		"clusterAgent.admissionController",
		"datadog.apm", "datadog.dogstatsd.useHostport", "frobnicate", "registry",
	}
	if diff := cmp.Diff(want, lines); diff != "" {
		t.Errorf("ignored keys (-want +got):\n%s\n%s", diff, got)
	}
}

func TestNotesAreSilentAboutKnownKeys(t *testing.T) {
	t.Parallel()
	for _, file := range []string{inline, crd, "kelpie/values.yaml"} {
		if got := notes(t, "--values", file); strings.Contains(got, "ignored:") {
			t.Errorf("%s: the notes complain about known keys:\n%s", file, got)
		}
	}
}

func TestNotesTellTheNextCommands(t *testing.T) {
	t.Parallel()
	for file, want := range map[string][]string{
		inline: {"  1. kubectl get pods --namespace datadog", "  2. kubectl get apiservice v1beta1.external.metrics.k8s.io\n", "  3. kubectl get --raw /apis/external.metrics.k8s.io/v1beta1\n"},
		crd:    {"  1. kubectl get pods --namespace datadog", "  2. kubectl get apiservice v1beta1.external.metrics.k8s.io\n", "  3. kubectl get datadogmetric --all-namespaces\n"},
	} {
		got := notes(t, "--values", file)
		for _, command := range want {
			if !strings.Contains(got, command) {
				t.Errorf("%s: the notes lack %q:\n%s", file, command, got)
			}
		}
		if strings.Contains(got, "warning:") {
			t.Errorf("%s: the notes warn:\n%s", file, got)
		}
	}
}

func TestNotesWarn(t *testing.T) {
	t.Parallel()
	tests := []struct{ set, want string }{
		{"datadog.apiKeyExistingSecret=", "kubectl create secret generic datadog-agent --namespace datadog"},
		{"datadog.appKeyExistingSecret=", "kubectl create secret generic datadog-agent-appkey --namespace datadog"},
		{"datadog.apiKey=x", "warning: datadog.apiKey is not used"},
		{"backend.enabled=false,backend.alsoSendToDatadog=true", "warning: backend.alsoSendToDatadog changes nothing"},
		{"backend.persistence.enabled=false", "warning: backend.persistence.enabled is false"},
		{"clusterAgent.metricsProvider.enabled=false", "warning: clusterAgent.metricsProvider.enabled is false"},
		{"rbac.create=false", "warning: rbac.create is false"},
		{"clusterAgent.metricsProvider.service.type=LoadBalancer", "node agents do not ask it"},
	}
	for _, tt := range tests {
		if got := notes(t, "--values", inline, "--set", tt.set); !strings.Contains(got, tt.want) {
			t.Errorf("%s: the notes do not say %q:\n%s", tt.set, tt.want, got)
		}
	}
}

func TestSchemaRefuses(t *testing.T) {
	t.Parallel()
	tests := []struct{ set, want string }{
		{"clusterAgent.replicas=two", "clusterAgent/replicas"},
		{"clusterAgent.token=short", "clusterAgent/token"},
		{"datadog.clusterName=Not_A_Name", "datadog/clusterName"},
		{"datadog.logLevel=loud", "datadog/logLevel"},
		{"datadog.dogstatsd.port=99999", "datadog/dogstatsd/port"},
		{"datadog.dogstatsd.tagCardinality=huge", "datadog/dogstatsd/tagCardinality"},
		{"clusterAgent.metricsProvider.aggregator=median", "clusterAgent/metricsProvider/aggregator"},
		{"clusterAgent.metricsProvider.keda.enabled=true", "clusterAgent/metricsProvider/keda/caConfigMap"},
		{"clusterAgent.metricsProvider.certManager.enabled=true", "clusterAgent/metricsProvider/certManager/issuerRef/name"},
		{"clusterAgent.monitors.prometheusRule.for.KelpieNoLeader=soon", "clusterAgent/monitors/prometheusRule/for/KelpieNoLeader"},
		{"clusterAgent.policy.mode=shut", "clusterAgent/policy/mode"},
		{"backend.enabled=sometimes", "backend/enabled"},
		{"targetSystem=windows", "targetSystem"},
	}
	for _, tt := range tests {
		_, err := helm(t, "template", release, chart, "--set", tt.set)
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want an error that names %s", tt.set, err, tt.want)
		}
	}
}

// What values.yaml documents, what the schema types and what the notes take
// for known are one list of keys.
func TestOneListOfKeys(t *testing.T) {
	t.Parallel()
	type schema struct {
		Properties map[string]any `json:"properties"`
	}
	typed := leaves(read[schema](t, "kelpie/values.schema.json").Properties, func(v any) map[string]any {
		properties, _ := v.(map[string]any)["properties"].(map[string]any)
		return properties
	})
	known := read[struct {
		Supported []string          `json:"supported"`
		Ignored   map[string]string `json:"ignored"`
	}](t, "kelpie/files/keys.yaml")
	if diff := cmp.Diff(typed, known.Supported); diff != "" {
		t.Errorf("files/keys.yaml against values.schema.json (-schema +keys):\n%s", diff)
	}
	documented := leaves(read[map[string]any](t, "kelpie/values.yaml"), func(v any) map[string]any {
		section, _ := v.(map[string]any)
		return section
	})
	for _, path := range documented {
		if !slices.ContainsFunc(typed, func(key string) bool { return path == key || strings.HasPrefix(path, key+".") }) {
			t.Errorf("values.yaml: %s is not in values.schema.json", path)
		}
	}
	for _, key := range typed {
		if !slices.ContainsFunc(documented, func(path string) bool { return path == key || strings.HasPrefix(path, key+".") }) {
			t.Errorf("values.schema.json: %s is not in values.yaml", key)
		}
	}
	for key := range known.Ignored {
		if slices.ContainsFunc(typed, func(path string) bool { return path == key || strings.HasPrefix(path, key+".") }) {
			t.Errorf("files/keys.yaml: %s is ignored and supported", key)
		}
	}
}

// leaves lists the dotted paths of what has nothing below it, sorted.
func leaves(section map[string]any, below func(any) map[string]any) []string {
	var paths []string
	for key, value := range section {
		inner := leaves(below(value), below)
		if len(inner) == 0 {
			paths = append(paths, key)
		}
		for _, path := range inner {
			paths = append(paths, key+"."+path)
		}
	}
	slices.Sort(paths)
	return paths
}

// The image that is built is the image that the chart asks for.
func TestImageIsTheChartsOwn(t *testing.T) {
	t.Parallel()
	meta := read[struct {
		AppVersion string `json:"appVersion"`
	}](t, "kelpie/Chart.yaml")
	built := read[struct {
		Name  string `json:"name"`
		User  string `json:"user"`
		Files []struct {
			To string `json:"to"`
		} `json:"files"`
	}](t, "../image/kelpie.yaml")
	var programs []string
	for _, f := range built.Files {
		programs = append(programs, f.To)
	}
	if want := "kelpie.dev/kelpie:" + meta.AppVersion; built.Name != want {
		t.Errorf("image/kelpie.yaml builds %s, want %s", built.Name, want)
	}
	for _, w := range render(t, "--values", inline).workloads(t) {
		for _, c := range slices.Concat(w.pod.Spec.InitContainers, w.pod.Spec.Containers) {
			if c.Image != built.Name {
				t.Errorf("%s %s runs %s, want %s", w.name, c.Name, c.Image, built.Name)
			}
			if !slices.Contains(programs, c.Command[0]) {
				t.Errorf("%s %s starts %s, which the image lacks", w.name, c.Name, c.Command[0])
			}
		}
	}
	digest := "sha256:" + strings.Repeat("a", 64)
	for set, want := range map[string]string{
		"kelpie.image.repository=registry.example/k,kelpie.image.tag=v2":  "registry.example/k:v2",
		"kelpie.image.tag=v2,kelpie.image.digest=" + digest:               "kelpie.dev/kelpie@" + digest,
		"agents.image.repository=other/agent,clusterAgent.image.tag=7.50": built.Name,
	} {
		for _, w := range render(t, "--set", set).workloads(t) {
			if got := w.pod.Spec.Containers[0].Image; got != want {
				t.Errorf("%s: %s runs %s, want %s", set, w.name, got, want)
			}
		}
	}
}

func read[T any](t *testing.T, file string) T {
	t.Helper()
	var v T
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal(data, &v); err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	return v
}
