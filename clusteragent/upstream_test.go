package clusteragent

import (
	"reflect"
	"strings"
	"testing"
)

// Every setting of Datadog's cluster agent about external metrics is read, with
// its default, or is said to have no effect.
func TestUpstreamsSettings(t *testing.T) {
	from := func(name, value string) Config {
		t.Helper()
		vars := map[string]string{"DD_POD_NAME": "p"}
		if name != "" {
			vars[name] = value
		}
		c, err := fromMap(vars)
		if err != nil {
			t.Errorf("%s=%s: %v", name, value, err)
		}
		return c
	}
	plain := from("", "")
	tested := map[string]bool{}
	for _, c := range []struct {
		name, standard, other string // standard is upstream's default; "" where it has none, or ours differs on purpose
	}{
		{emp + "PORT", "8443", "9443"},
		{emp + "ENDPOINT", "", "http://backend:8080"},
		{emp + "API_KEY", "", "k"},
		{emp + "APP_KEY", "", "k"},
		{emp + "REFRESH_PERIOD", "30", "31"},
		{emp + "MAX_AGE", "120", "121"},
		{emp + "QUERY_VALIDITY_PERIOD", "30", "31"},
		{emp + "MAX_TIME_WINDOW", "86400", "3600"},
		{emp + "BUCKET_SIZE", "300", "301"},
		{emp + "ROLLUP", "30", "60"},
		{"DD_EXTERNAL_METRICS_AGGREGATOR", "avg", "max"},
		{emp + "WPA_CONTROLLER", "false", "true"},
		{emp + "USE_DATADOGMETRIC_CRD", "false", "true"},
		{emp + "ENABLE_DATADOGMETRIC_AUTOGEN", "true", "false"},
		{emp + "AUTOSCALER_AUTOGEN_LABEL_SELECTOR", "", "a!=b"},
		{emp + "HPA_LABEL_SELECTOR", "", "a!=b"},
		{emp + "CONFIG", "", `{"secure-port":"9443"}`},
		{emp + "CHUNK_SIZE", "35", "10"},
		{emp + "NUM_WORKERS", "2", "3"},
		{emp + "MAX_PARALLEL_QUERIES", "10", "11"},
		{"DD_KUBE_RESOURCES_NAMESPACE", "", "elsewhere"},
		{"DD_LEADER_ELECTION", "", "false"},    // as upstream's chart: true
		{"DD_LEADER_LEASE_DURATION", "", "60"}, // 15: nothing waits for a dead leader for long
		{"DD_HEALTH_PORT", "", "5557"},         // as upstream's chart: 5556
		{"DD_LEADER_LEASE_NAME", "datadog-leader-election", "other"},
		{"DD_LEADER_ELECTION_RELEASE_ON_SHUTDOWN", "true", "false"},
		{"DD_API_KEY", "", "k"},
		{"DD_APP_KEY", "", "k"},
		{"DD_SITE", "", "datadoghq.eu"}, // to set it also says where state metrics go
		{"DD_DD_URL", "", "http://backend:8080"},
		{"DD_CLUSTER_NAME", "", "lab"},
		{"DD_LOG_LEVEL", "info", "debug"},
		{"DD_CLUSTER_AGENT_CMD_PORT", "5005", "5006"},
		{"DD_CLUSTER_AGENT_ALLOW_LEGACY_TLS", "false", "true"},
		{"DD_CLUSTER_AGENT_AUTH_TOKEN", "", strings.Repeat("x", 32)},
	} {
		tested[c.name] = true
		if reflect.DeepEqual(from(c.name, c.other), plain) {
			t.Errorf("%s=%s changes nothing", c.name, c.other)
		}
		if c.standard != "" && !reflect.DeepEqual(from(c.name, c.standard), plain) {
			t.Errorf("%s=%s, upstream's default, is not ours", c.name, c.standard)
		}
	}
	if got := from("DD_NO_SUCH_SETTING", "x"); !reflect.DeepEqual(got, plain) {
		t.Errorf("a variable that nobody knows changes %+v", got)
	}
	for _, s := range withoutEffect {
		got := from(s.name, "1")
		if tested[s.name] || s.why == "" || len(got.Unneeded) != 1 || got.Unneeded[0] != s {
			t.Errorf("%s: said %v, want that it has no effect and why", s.name, got.Unneeded)
		}
		if got.Unneeded = nil; !reflect.DeepEqual(got, plain) {
			t.Errorf("%s is said to have no effect, and has one", s.name)
		}
	}
}
