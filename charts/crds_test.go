package charts_test

import (
	"os"
	"path/filepath"
	"testing"

	"sigs.k8s.io/yaml"
)

func TestCustomResourceDefinitions(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("kelpie/crds/*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]bool{}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var o object
		if err := yaml.Unmarshal(data, &o); err != nil || o.Kind != "CustomResourceDefinition" {
			t.Errorf("%s: %q, %v; want a CustomResourceDefinition", file, o.Kind, err)
		}
		found[o.Name] = true
	}
	if !found["datadogmetrics.datadoghq.com"] {
		t.Errorf("no definition of datadogmetrics.datadoghq.com among %q", files)
	}
}
