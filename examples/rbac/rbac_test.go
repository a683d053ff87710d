package rbac_test

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"

	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/util/yaml"
	strict "sigs.k8s.io/yaml"
)

// load reads a file's Role and its RoleBinding. Anything else fails: a
// ClusterRole would reach other namespaces.
func load(t *testing.T, file string) (role rbacv1.Role, binding rbacv1.RoleBinding) {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	docs := yaml.NewDocumentDecoder(io.NopCloser(bytes.NewReader(b)))
	for {
		doc := make([]byte, 64<<10)
		n, err := docs.Read(doc)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		var head struct{ Kind string }
		if err := strict.Unmarshal(doc[:n], &head); err != nil {
			t.Fatal(err)
		}
		switch head.Kind {
		case "Role":
			err = strict.UnmarshalStrict(doc[:n], &role)
		case "RoleBinding":
			err = strict.UnmarshalStrict(doc[:n], &binding)
		default:
			err = errors.New("neither a Role nor a RoleBinding, but a " + head.Kind)
		}
		if err != nil {
			t.Fatalf("%s: %v", file, err)
		}
	}
	return role, binding
}

func allows(role rbacv1.Role, verb, group, resource string) bool {
	has := func(list []string, v string) bool { return slices.Contains(list, v) || slices.Contains(list, "*") }
	return slices.ContainsFunc(role.Rules, func(r rbacv1.PolicyRule) bool {
		return has(r.Verbs, verb) && has(r.APIGroups, group) && has(r.Resources, resource)
	})
}

func TestRoles(t *testing.T) {
	for file, c := range map[string]struct{ writes, values bool }{
		"team.yaml":    {writes: true},
		"on-call.yaml": {values: true},
	} {
		role, binding := load(t, file)
		if role.Namespace == "" || role.Namespace != binding.Namespace || len(binding.Subjects) != 1 ||
			binding.RoleRef != (rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: role.Name}) {
			t.Errorf("%s: role %s/%s is bound by %+v: want it bound in its own namespace, to one group", file, role.Namespace, role.Name, binding)
		}
		for _, a := range []struct {
			verb, group, resource string
			want                  bool
		}{
			{"list", "datadoghq.com", "datadogmetrics", true},
			{"create", "datadoghq.com", "datadogmetrics", c.writes},
			{"delete", "datadoghq.com", "datadogmetrics", c.writes},
			{"create", "autoscaling", "horizontalpodautoscalers", c.writes},
			{"list", "", "events", true},
			{"list", "external.metrics.k8s.io", "datadogmetric@team-web:rps", c.values},
			// Of nobody.
			{"update", "datadoghq.com", "datadogmetrics/status", false},
			{"get", "", "secrets", false},
			{"create", "rbac.authorization.k8s.io", "rolebindings", false},
		} {
			if got := allows(role, a.verb, a.group, a.resource); got != a.want {
				t.Errorf("%s: may %s %s.%s: %v, want %v", file, a.verb, a.resource, a.group, got, a.want)
			}
		}
	}
	files, err := filepath.Glob("*.yaml")
	if err != nil || len(files) != 2 {
		t.Errorf("the files are %q, %v: each is to be judged here", files, err)
	}
}
