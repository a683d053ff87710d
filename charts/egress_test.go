package charts_test

import (
	"encoding/base64"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// Where metrics go, and where queries are asked.
func TestEgress(t *testing.T) {
	t.Parallel()
	const backend = "http://datadog-agent-backend.datadog.svc:8080"
	// The cluster agent's own metrics go where the agents' go, but for the copy.
	type egress struct{ URL, Site, Copy, QueryURL string }
	tests := []struct {
		name    string
		set     string
		want    egress
		leaves  bool // anything of Datadog's in the manifests at all
		explain string
	}{
		{"backend", "", egress{URL: backend, QueryURL: backend}, false, "Metrics stay in this cluster."},
		{"backend, site and dd_url given", "datadog.dd_url=https://intake.datadoghq.eu", egress{URL: backend, QueryURL: backend}, false, "warning: datadog.dd_url is not used"},
		{"Datadog", "backend.enabled=false", egress{Site: "datadoghq.eu"}, true, "Metrics go to Datadog (datadoghq.eu)"},
		{"Datadog by URL", "backend.enabled=false,datadog.dd_url=https://intake.datadoghq.eu", egress{Site: "datadoghq.eu", URL: "https://intake.datadoghq.eu"}, true, "Metrics go to Datadog (https://intake.datadoghq.eu)"},
		{"both", "backend.alsoSendToDatadog=true", egress{URL: backend, Copy: `{"https://app.datadoghq.eu":["$(DD_API_KEY)"]}`, QueryURL: backend}, true, "a copy goes to https://app.datadoghq.eu"},
		{"own endpoint", "clusterAgent.metricsProvider.endpoint=https://api.example.org", egress{URL: backend, QueryURL: "https://api.example.org"}, false, "Metrics stay in this cluster."},
	}
	for _, tt := range tests {
		args := []string{"--values", inline, "--set", tt.set}
		text := template(t, args...)
		all := parse(t, text)
		agent, dca := all.env(t, "DaemonSet", "datadog-agent"), all.env(t, "Deployment", "datadog-cluster-agent")
		got := egress{
			agent["DD_DD_URL"], agent["DD_SITE"], agent["DD_ADDITIONAL_ENDPOINTS"],
			dca["DD_EXTERNAL_METRICS_PROVIDER_ENDPOINT"],
		}
		if dca["DD_DD_URL"] != got.URL || dca["DD_SITE"] != got.Site || dca["DD_KUBE_STATE_METRICS_CORE_ENABLED"] != "true" {
			t.Errorf("%s: the cluster agent sends to %q, %q; the agents to %q, %q", tt.name, dca["DD_DD_URL"], dca["DD_SITE"], got.URL, got.Site)
		}
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("%s: egress (-want +got):\n%s", tt.name, diff)
		}
		if strings.Contains(text, "datadoghq.eu") != tt.leaves {
			t.Errorf("%s: the manifests name datadoghq.eu: %v, want %v", tt.name, !tt.leaves, tt.leaves)
		}
		if got := notes(t, args...); !strings.Contains(got, tt.explain) {
			t.Errorf("%s: the notes do not say %q:\n%s", tt.name, tt.explain, got)
		}
	}
}

// $(DD_API_KEY) is expanded only if the variable stands before its use, also
// when the user replaces it.
func TestKeyStandsBeforeItsUse(t *testing.T) {
	t.Parallel()
	all := render(t, "--values", inline, "--set", "backend.alsoSendToDatadog=true",
		values(t, `{datadog: {env: [{name: DD_API_KEY, valueFrom: {secretKeyRef: {name: mine, key: k}}}]}}`))
	for _, w := range (objects{all.one(t, "DaemonSet", "datadog-agent")}).workloads(t) {
		env := w.pod.Spec.Containers[0].Env
		if env[0].Name != "DD_API_KEY" || env[0].ValueFrom.SecretKeyRef.Name != "mine" {
			t.Errorf("the first variable is %+v, want the user's DD_API_KEY", env[0])
		}
	}
}

func TestNoKeyInPlain(t *testing.T) {
	t.Parallel()
	const api, app, token = "api-key-of-the-test", "app-key-of-the-test", "token-of-the-test-0123456789abcdef"
	args := []string{"--set", "datadog.apiKey=" + api + ",datadog.appKey=" + app + ",clusterAgent.token=" + token + ",backend.alsoSendToDatadog=true,clusterAgent.metricsProvider.enabled=true"}
	text := template(t, args...)
	for _, key := range []string{api, app, token} {
		if strings.Contains(text, key) || strings.Contains(notes(t, args...), key) {
			t.Errorf("%s stands in plain text", key)
		}
		encoded := base64.StdEncoding.EncodeToString([]byte(key))
		for _, o := range parse(t, text) {
			if o.Kind != "Secret" && strings.Contains(o.text, encoded) {
				t.Errorf("%s bears %s", o, key)
			}
		}
		if !strings.Contains(text, encoded) {
			t.Errorf("no Secret holds %s", key)
		}
	}
	all := parse(t, text)
	for _, w := range all.workloads(t) {
		for _, e := range w.pod.Spec.Containers[0].Env {
			if e.ValueFrom == nil || e.ValueFrom.SecretKeyRef == nil {
				continue
			}
			secret := all.one(t, "Secret", e.ValueFrom.SecretKeyRef.Name)
			if !strings.Contains(secret.text, e.ValueFrom.SecretKeyRef.Key+":") {
				t.Errorf("%s reads %s, which %s lacks", w.name, e.ValueFrom.SecretKeyRef.Key, secret)
			}
		}
	}
}

func TestExistingSecretIsUsedAndNotMade(t *testing.T) {
	t.Parallel()
	all := render(t, "--values", inline, "--set", "clusterAgent.tokenExistingSecret=datadog-secret")
	if secrets := all.kind("Secret"); len(secrets) > 0 {
		t.Errorf("the chart makes %q", secrets.names())
	}
	for _, w := range all.workloads(t) {
		keys := map[string]string{}
		for _, e := range w.pod.Spec.Containers[0].Env {
			if e.ValueFrom != nil && e.ValueFrom.SecretKeyRef != nil {
				keys[e.Name] = e.ValueFrom.SecretKeyRef.Name + "/" + e.ValueFrom.SecretKeyRef.Key
			}
		}
		want := map[string]string{"DD_API_KEY": "datadog-secret/api-key", "DD_APP_KEY": "datadog-secret/app-key", "DD_CLUSTER_AGENT_AUTH_TOKEN": "datadog-secret/token"}
		if strings.HasPrefix(w.name, "DaemonSet") {
			delete(want, "DD_APP_KEY") // node agents never query
		}
		if strings.HasPrefix(w.name, "StatefulSet") {
			delete(want, "DD_CLUSTER_AGENT_AUTH_TOKEN") // the backend asks nobody
		}
		if diff := cmp.Diff(want, keys); diff != "" {
			t.Errorf("%s: keys (-want +got):\n%s", w.name, diff)
		}
	}
}
