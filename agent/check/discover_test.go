package check

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/cockroachdb/datadriven"
	"sigs.k8s.io/yaml"

	"kelpie.dev/kelpie/agent/origin"
)

// TestDiscovery runs the scripts under testdata/annotations. Their commands are
//
//	template FILE   a configuration file with identifiers, in YAML
//	pods            pods in YAML, as the kubelet describes them; prints the
//	                instances that they ask for, and what cannot be used
//
// The agent's environment has ALLOWED, which pods may read, and SECRET.
func TestDiscovery(t *testing.T) {
	datadriven.Walk(t, "testdata/annotations", func(t *testing.T, path string) {
		d := newTestDiscovery()
		datadriven.RunTest(t, path, func(t *testing.T, data *datadriven.TestData) string {
			switch data.Cmd {
			case "template":
				doc, err := readDocument("nginx", "file "+data.CmdArgs[0].Key, []byte(data.Input))
				if err != nil {
					return "error: " + err.Error() + "\n"
				}
				d.templates = append(d.templates, doc)
				return ""
			case "pods":
				var pods []origin.Pod
				if err := yaml.UnmarshalStrict([]byte(data.Input), &pods); err != nil {
					data.Fatalf(t, "%v", err)
				}
				return describeInstances(d.instances(pods))
			default:
				data.Fatalf(t, "unknown command %q", data.Cmd)
				return ""
			}
		})
	})
}

func newTestDiscovery() *discovery {
	env := map[string]string{"ALLOWED": "yes", "SECRET": "hunter2"}
	return &discovery{
		fileEnv: func(name string) (string, bool) { v, ok := env[name]; return v, ok },
		podEnv:  func(name string) (string, bool) { v, ok := env[name]; return v, ok && name == "ALLOWED" },
	}
}

func describeInstances(instances []*Instance, problems []Problem) string {
	var b strings.Builder
	for _, i := range instances {
		fmt.Fprintf(&b, "%s from %s\n", i.Check, i.Source)
		values, _ := json.Marshal(i.Values)
		fmt.Fprintf(&b, "  %s", values)
		if len(i.Init) > 0 {
			init, _ := json.Marshal(i.Init)
			fmt.Fprintf(&b, " init %s", init)
		}
		fmt.Fprintf(&b, "\n  tags of %s; may ask %v, files %v\n", i.Entity.ContainerID, i.Access.Pod, i.Access.File)
	}
	for _, p := range problems {
		fmt.Fprintf(&b, "problem of %s: %s\n", strings.TrimSpace(p.Check+" "+p.Source), p.Error)
	}
	return b.String()
}

func FuzzAnnotations(f *testing.F) {
	f.Add(`{"nginx":{"init_config":{},"instances":[{"nginx_status_url":"http://%%host%%:%%port%%/","tags":["a:%%env_ALLOWED%%"]}]}}`, "", "", "")
	f.Add("", `["nginx"]`, `[{}]`, `[{"nginx_status_url":"http://%%host%%"}]`)
	f.Add("", `["a","b"]`, `[{},null]`, `[[{},null],{}]`)
	f.Add(`{"a":null}`, `[]`, ``, `%%`)
	f.Add(`{"a":{"instances":[{"x":"%%env_SECRET%%"}]}}`, "", "", "")
	f.Fuzz(func(t *testing.T, checks, names, inits, instances string) {
		d := newTestDiscovery()
		p := origin.Pod{Metadata: origin.Metadata{Name: "p", Namespace: "n", Annotations: map[string]string{}}}
		for suffix, text := range map[string]string{keyChecks: checks, keyNames: names, keyInits: inits, keyInstances: instances} {
			if text != "" {
				p.Metadata.Annotations[annotationPrefix+"c"+suffix] = text
			}
		}
		p.Spec.Containers = []origin.Container{{Name: "c", Ports: []origin.ContainerPort{{Name: "http", Port: 80}}}}
		status := origin.ContainerStatus{Name: "c", ContainerID: "containerd://x"}
		status.State.Running = &struct {
			StartedAt string `json:"startedAt"`
		}{}
		p.Status = origin.PodStatus{PodIP: "10.0.0.1", ContainerStatuses: []origin.ContainerStatus{status}}
		found, problems := d.instances([]origin.Pod{p})
		if len(found) > maxPodInstances {
			t.Errorf("%d instances of one pod", len(found))
		}
		for _, i := range found {
			if i.Access.File || len(i.Access.Pod) != 1 {
				t.Errorf("a pod's instance may do too much: %+v", i.Access)
			}
			text, err := json.Marshal(i.Values)
			if err != nil {
				t.Errorf("an instance that is not JSON: %v", err)
			}
			if strings.Contains(string(text), "hunter2") {
				t.Errorf("a pod has read the agent's secret: %s", text)
			}
			i.id()
			_ = i.decodeCommon()
		}
		for _, p := range problems {
			if len(p.Error) > 2000 || !utf8.ValidString(p.Error) && utf8.ValidString(checks+names+inits+instances) {
				t.Errorf("a problem of %d bytes", len(p.Error))
			}
		}
	})
}

func FuzzFile(f *testing.F) {
	f.Add("init_config:\ninstances:\n  - nginx_status_url: http://localhost/\n    tags: [a, b]\n    min_collection_interval: 30\n")
	f.Add("instances: [{}]\nad_identifiers: [nginx]\n")
	f.Add("a: &a [x]\nb: *a\n")
	f.Add("instances: {}")
	f.Fuzz(func(t *testing.T, text string) {
		d, err := readDocument("nginx", "file x", []byte(text))
		if err != nil {
			return
		}
		instances, err := d.static(func(string) (string, bool) { return "", false })
		if err == nil && len(instances) != len(d.Instances) {
			t.Errorf("%d instances became %d", len(d.Instances), len(instances))
		}
		for _, i := range instances {
			_ = i.decodeCommon()
			if d := i.interval(); i.common.MinCollectionInterval == 0 && d != DefaultInterval {
				t.Errorf("an interval of %s", d)
			}
		}
		_ = slices.ContainsFunc(d.Identifiers, d.watches)
	})
}
