package clusteragent

import (
	"strings"
	"testing"
	"time"
)

func fromMap(m map[string]string) (Config, error) {
	return FromEnv(func(k string) (string, bool) { v, ok := m[k]; return v, ok })
}

func TestConfigDefaultsAreDatadogs(t *testing.T) {
	c, err := fromMap(map[string]string{"DD_POD_NAME": "p", "DD_SOMETHING_ELSE": "x"})
	if err != nil {
		t.Fatal(err)
	}
	if c.Enabled || c.Endpoint != "https://api.datadoghq.com" || c.Ours || c.Interval != 30*time.Second || c.Rules.MaxAge != 2*time.Minute ||
		c.Rules.BucketSize != 5*time.Minute || c.Rules.QueryValidity != 30*time.Second || c.Batch != 35 || c.Port != 8443 || c.CRD || !c.Autogen ||
		c.TLSSecret != "datadog-cluster-agent-tls" || c.AutogenExpiry != 3*time.Hour || c.LeaseDuration != 15*time.Second {
		t.Errorf("defaults = %+v", c)
	}
}

func TestConfigFromEnv(t *testing.T) {
	for _, c := range []struct {
		name string
		env  map[string]string
		ok   func(Config) bool
	}{
		{"polling interval", map[string]string{"DD_EXTERNAL_METRICS_PROVIDER_POLLING_INTERVAL": "15"}, func(c Config) bool { return c.Interval == 15*time.Second }},
		{"upstream's name for it", map[string]string{"DD_EXTERNAL_METRICS_PROVIDER_REFRESH_PERIOD": "20"}, func(c Config) bool { return c.Interval == 20*time.Second }},
		{"both: the walkthrough's wins", map[string]string{"DD_EXTERNAL_METRICS_PROVIDER_REFRESH_PERIOD": "20", "DD_EXTERNAL_METRICS_PROVIDER_POLLING_INTERVAL": "15"},
			func(c Config) bool { return c.Interval == 15*time.Second }},
		{"site", map[string]string{"DD_SITE": "datadoghq.eu"}, func(c Config) bool { return c.Endpoint == "https://api.datadoghq.eu" && !c.Ours }},
		{"Datadog by endpoint", map[string]string{"DD_EXTERNAL_METRICS_PROVIDER_ENDPOINT": "https://api.us5.datadoghq.com"}, func(c Config) bool { return !c.Ours }},
		{"namespaces apart", map[string]string{"KELPIE_CROSS_NAMESPACE_METRICS": "false"}, func(c Config) bool { return c.Policy.Apart() }},
		{"namespaces not apart", map[string]string{}, func(c Config) bool { return !c.Policy.Apart() }},
		{"a policy", map[string]string{"KELPIE_POLICY": `{"mode":"namespaced","namespaces":[{"match":"a","metrics":3}]}`},
			func(c Config) bool { return c.Policy.Apart() && c.Policy.Namespaces[0].Metrics == 3 }},
		{"cert-manager", map[string]string{"KELPIE_TLS_CERT_MANAGER": "true"}, func(c Config) bool { return c.TLSIssued }},
		{"watermarks", map[string]string{"DD_EXTERNAL_METRICS_PROVIDER_WPA_CONTROLLER": "true"}, func(c Config) bool { return c.Watermarks }},
		{"backend", map[string]string{"DD_EXTERNAL_METRICS_PROVIDER_ENDPOINT": "http://b.ns.svc:8080"}, func(c Config) bool { return c.Ours }},
		{"own keys of the provider", map[string]string{"DD_API_KEY": "a", "DD_EXTERNAL_METRICS_PROVIDER_API_KEY": "b"}, func(c Config) bool { return c.APIKey == "b" }},
		{"API server flags", map[string]string{"DD_EXTERNAL_METRICS_PROVIDER_CONFIG": `{"secure-port":"9443"}`}, func(c Config) bool { return c.Flags["secure-port"] == "9443" }},
		{"hint", map[string]string{"KELPIE_KEY_SECRET_HINT": "datadog/keys"}, func(c Config) bool { return strings.Contains(c.KeysHint, "Secret datadog/keys") }},
	} {
		c.env["DD_POD_NAME"] = "p"
		got, err := fromMap(c.env)
		if err != nil || !c.ok(got) {
			t.Errorf("%s: %v, %+v", c.name, err, got)
		}
	}
}

// State metrics go where somebody has said, and nowhere else.
func TestConfigOfState(t *testing.T) {
	const on = "DD_KUBE_STATE_METRICS_CORE_ENABLED"
	for _, c := range []struct {
		name   string
		env    map[string]string
		want   bool
		intake string
		wrong  string
	}{
		{"nothing said", map[string]string{"DD_API_KEY": "k"}, false, "", ""},
		{"a backend", map[string]string{"DD_API_KEY": "k", "DD_DD_URL": "http://b:8080"}, true, "http://b:8080", ""},
		{"a site", map[string]string{"DD_API_KEY": "k", "DD_SITE": "datadoghq.eu"}, true, "https://7-85-0-app.agent.datadoghq.eu", ""},
		{"both", map[string]string{"DD_API_KEY": "k", "DD_SITE": "datadoghq.eu", "DD_DD_URL": "http://b:8080"}, true, "http://b:8080", ""},
		{"no key", map[string]string{"DD_SITE": "datadoghq.eu"}, false, "https://7-85-0-app.agent.datadoghq.eu", ""},
		{"off", map[string]string{"DD_API_KEY": "k", "DD_SITE": "datadoghq.eu", on: "false"}, false, "https://7-85-0-app.agent.datadoghq.eu", ""},
		{"on, and nowhere to go", map[string]string{"DD_API_KEY": "k", on: "true"}, true, "", "DD_DD_URL or DD_SITE"},
		{"on, without a key", map[string]string{"DD_SITE": "datadoghq.eu", on: "true"}, true, "https://7-85-0-app.agent.datadoghq.eu", "DD_API_KEY"},
		{"too often", map[string]string{"DD_API_KEY": "k", "DD_SITE": "datadoghq.eu", "KELPIE_KUBERNETES_STATE_INTERVAL": "0.1"}, true, "https://7-85-0-app.agent.datadoghq.eu", "KELPIE_KUBERNETES_STATE_INTERVAL"},
		{"a short token", map[string]string{"DD_CLUSTER_AGENT_AUTH_TOKEN": "short-secret"}, false, "", "DD_CLUSTER_AGENT_AUTH_TOKEN must have at least 32 characters"},
		{"no port", map[string]string{"DD_CLUSTER_AGENT_CMD_PORT": "70000"}, false, "", "DD_CLUSTER_AGENT_CMD_PORT"},
	} {
		c.env["DD_POD_NAME"] = "p"
		got, err := fromMap(c.env)
		if got.State.Enabled != c.want || got.State.Intake != c.intake {
			t.Errorf("%s: enabled %v to %q, want %v to %q", c.name, got.State.Enabled, got.State.Intake, c.want, c.intake)
		}
		if (err == nil) != (c.wrong == "") || err != nil && (!strings.Contains(err.Error(), c.wrong) || strings.Contains(err.Error(), "short-secret")) {
			t.Errorf("%s: error %v, want %q in it", c.name, err, c.wrong)
		}
	}
	got, err := fromMap(map[string]string{"DD_POD_NAME": "p", "DD_CLUSTER_NAME": "lab", "DD_TAGS": "team:web env:prod"})
	if want := "cluster_name:lab,env:prod,kube_cluster_name:lab,team:web"; err != nil || got.State.Tags.String() != want {
		t.Errorf("tags %s, %v; want %s", got.State.Tags, err, want)
	}
	if got.AgentPort != 5005 || got.AuthToken != "" || got.State.Period != 15*time.Second {
		t.Errorf("defaults: port %d, token %q, period %s", got.AgentPort, got.AuthToken, got.State.Period)
	}
}

func TestConfigOfKEDA(t *testing.T) {
	for _, c := range []struct{ url, ca, timeout, wrong string }{
		{"", "", "", ""},
		{"https://keda-operator-metrics-apiserver.keda.svc", "/ca", "", ""},
		{"https://10.0.0.1:6443/", "/ca", "2", ""},
		{"https://keda.keda.svc", "", "", "KELPIE_KEDA_CA_FILE"},
		{"http://keda.keda.svc", "/ca", "", "must be https://"},
		{"https://user:secret@keda.keda.svc", "/ca", "", "must be https://"},
		{"https://keda.keda.svc/apis", "/ca", "", "must be https://"},
		{"keda", "/ca", "", "must be https://"},
		{"https://datadog-cluster-agent.datadog.svc:8443", "/ca", "", "round in circles"},
		{"https://keda.keda.svc", "/ca", "0", "KELPIE_KEDA_TIMEOUT"},
	} {
		env := map[string]string{"DD_POD_NAME": "p", "DD_POD_NAMESPACE": "datadog", "KELPIE_KEDA_URL": c.url, "KELPIE_KEDA_CA_FILE": c.ca}
		if c.timeout != "" {
			env["KELPIE_KEDA_TIMEOUT"] = c.timeout
		}
		_, err := fromMap(env)
		if (err == nil) != (c.wrong == "") || err != nil && (!strings.Contains(err.Error(), c.wrong) || strings.Contains(err.Error(), "secret")) {
			t.Errorf("%q, CA %q, timeout %q: %v, want %q in it", c.url, c.ca, c.timeout, err, c.wrong)
		}
	}
}

func TestConfigSaysEverythingThatIsWrong(t *testing.T) {
	_, err := fromMap(map[string]string{"DD_POD_NAME": "p", "DD_EXTERNAL_METRICS_PROVIDER_ENABLED": "true", "DD_EXTERNAL_METRICS_PROVIDER_PORT": "secret-thing",
		"DD_EXTERNAL_METRICS_PROVIDER_AUTOSCALER_AUTOGEN_LABEL_SELECTOR": "=", "DD_EXTERNAL_METRICS_AGGREGATOR": "p99"})
	for _, want := range []string{"no API key", "no application key", "DD_EXTERNAL_METRICS_PROVIDER_PORT", "LABEL_SELECTOR", "avg, min, max or sum"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q in it", err, want)
		}
	}
	if strings.Contains(err.Error(), "secret-thing") {
		t.Error("an error shows a value")
	}
}

func TestCheckQueryNamesThePosition(t *testing.T) {
	if err := checkQuery("avg:m{a:b}"); err != nil {
		t.Error(err)
	}
	for _, q := range []string{"avg:m{a:b", "avg:m{*},avg:n{*}", ""} {
		if err := checkQuery(q); err == nil || !strings.HasPrefix(err.Error(), "error at ") {
			t.Errorf("checkQuery(%q) = %v, want a position", q, err)
		}
	}
}
