package datadogmetric

import (
	"fmt"
	"regexp"
	"strings"
)

// Templates resolves the %%…%% variables of a query.
type Templates struct {
	ClusterName string // value of %%tag_kube_cluster_name%%; "" makes it an error
	// Env looks up a variable for %%env_NAME%%. It must know only variables that
	// whoever may create a DatadogMetric may read. Nil knows none.
	Env func(name string) (string, bool)
}

var template = regexp.MustCompile(`%%.+?%%`)

// Resolve returns query with its variables replaced. Its error never contains a
// variable's value.
func (t Templates) Resolve(query string) (string, error) {
	if !strings.Contains(query, "%%") {
		return query, nil
	}
	var failed error
	out := template.ReplaceAllStringFunc(query, func(m string) string {
		v, err := t.value(strings.ReplaceAll(strings.Trim(m, "%"), " ", ""))
		if err != nil && failed == nil {
			failed = fmt.Errorf("cannot resolve %s in the query: %w", m, err)
		}
		return v
	})
	if failed != nil {
		return "", failed
	}
	return out, nil
}

func (t Templates) value(variable string) (string, error) {
	name, key, _ := strings.Cut(variable, "_")
	switch {
	case name == "tag" && key == "kube_cluster_name":
		if t.ClusterName == "" {
			return "", fmt.Errorf("the cluster agent knows no cluster name: set DD_CLUSTER_NAME (datadog.clusterName)")
		}
		return t.ClusterName, nil
	case name == "tag":
		return "", fmt.Errorf("tag %q is not supported; kube_cluster_name is", key)
	case name == "env":
		if t.Env != nil {
			if v, ok := t.Env(key); ok {
				return v, nil
			}
		}
		return "", fmt.Errorf("environment variable %q is not allowed or not set: add it to KELPIE_ALLOWED_TEMPLATE_ENV of the cluster agent and set it", key)
	default:
		return "", fmt.Errorf("template variable %q is unknown; tag_kube_cluster_name and env_<NAME> are", name)
	}
}
