package charts_test

import (
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"sigs.k8s.io/controller-runtime/pkg/envtest"
)

// Sources beside the backend are configured, and their credentials come from Secrets.
func TestSourcesBeside(t *testing.T) {
	t.Parallel()
	all := render(t, "--values", inline, "--set", "datadog.site=datadoghq.eu,clusterAgent.metricsProvider.source=prometheus,"+
		"clusterAgent.metricsProvider.datadog.existingSecret=dd,clusterAgent.metricsProvider.prometheus.url=http://p:9090,"+
		"clusterAgent.metricsProvider.prometheus.tenant=team,clusterAgent.metricsProvider.prometheus.existingSecret=prom,clusterAgent.metricsProvider.prometheus.interval=15,"+
		"clusterAgent.metricsProvider.shadow.source=datadog,clusterAgent.metricsProvider.shadow.tolerance=0,clusterAgent.metricsProvider.shadow.absoluteTolerance=2.5")
	got := map[string]string{}
	for _, v := range into[appsv1.Deployment](t, all.one(t, "Deployment", "datadog-cluster-agent")).Spec.Template.Spec.Containers[0].Env {
		if !strings.HasPrefix(v.Name, "KELPIE_SOURCE") && !strings.HasPrefix(v.Name, "KELPIE_SHADOW") && !strings.HasPrefix(v.Name, "KELPIE_PROMETHEUS") {
			continue
		}
		if got[v.Name] = v.Value; v.ValueFrom != nil {
			got[v.Name] = v.ValueFrom.SecretKeyRef.Name + "/" + v.ValueFrom.SecretKeyRef.Key
		}
	}
	want := map[string]string{
		"KELPIE_SHADOW_SOURCE": "datadog", "KELPIE_SHADOW_TOLERANCE": "0", "KELPIE_SHADOW_ABSOLUTE_TOLERANCE": "2.5",
		"KELPIE_SOURCE": "prometheus", "KELPIE_SOURCE_DATADOG_API_KEY": "dd/api-key", "KELPIE_SOURCE_DATADOG_APP_KEY": "dd/app-key",
		"KELPIE_SOURCE_DATADOG_ENDPOINT": "https://api.datadoghq.eu", "KELPIE_PROMETHEUS_URL": "http://p:9090", "KELPIE_PROMETHEUS_TENANT": "team",
		"KELPIE_PROMETHEUS_INTERVAL": "15", "KELPIE_PROMETHEUS_BEARER_TOKEN": "prom/token", "KELPIE_PROMETHEUS_USERNAME": "prom/username", "KELPIE_PROMETHEUS_PASSWORD": "prom/password",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("environment (-want +got):\n%s", diff)
	}
}

// Node agents find the cluster agent, and both show the same token.
func TestAgentsAskTheClusterAgent(t *testing.T) {
	t.Parallel()
	type asks struct{ Enabled, URL, Token string }
	shared := func(e []corev1.EnvVar) string {
		for _, v := range e {
			if v.Name == "DD_CLUSTER_AGENT_AUTH_TOKEN" {
				return v.ValueFrom.SecretKeyRef.Name + "/" + v.ValueFrom.SecretKeyRef.Key
			}
		}
		return ""
	}
	for set, want := range map[string]struct {
		agent asks
		token string // of the cluster agent
		ports []string
	}{
		"commonLabels.a=b":                                   {asks{"true", "https://datadog-cluster-agent.datadog.svc:5005", "datadog-cluster-agent/token"}, "datadog-cluster-agent/token", []string{"agentport", "metricsapi"}},
		"clusterAgent.metricsProvider.enabled=false":         {asks{"true", "https://datadog-cluster-agent.datadog.svc:5005", "datadog-cluster-agent/token"}, "datadog-cluster-agent/token", []string{"agentport"}},
		"clusterAgent.tokenExistingSecret=mine":              {asks{"true", "https://datadog-cluster-agent.datadog.svc:5005", "mine/token"}, "mine/token", []string{"agentport", "metricsapi"}},
		"clusterAgent.metricsProvider.service.type=NodePort": {asks{"false", "", ""}, "", []string{"metricsapi"}}, // not for who is outside
	} {
		all := render(t, "--values", inline, "--set", set)
		env := all.env(t, "DaemonSet", "datadog-agent")
		agent := into[appsv1.DaemonSet](t, all.one(t, "DaemonSet", "datadog-agent")).Spec.Template.Spec.Containers[0]
		got := asks{env["DD_CLUSTER_AGENT_ENABLED"], env["DD_CLUSTER_AGENT_URL"], shared(agent.Env)}
		if diff := cmp.Diff(want.agent, got); diff != "" {
			t.Errorf("%s: the agents (-want +got):\n%s", set, diff)
		}
		dca := into[appsv1.Deployment](t, all.one(t, "Deployment", "datadog-cluster-agent")).Spec.Template.Spec.Containers[0]
		if token := shared(dca.Env); token != want.token {
			t.Errorf("%s: the cluster agent's token is in %q, want %q", set, token, want.token)
		}
		var ports, open []string
		for _, p := range into[corev1.Service](t, all.one(t, "Service", "datadog-cluster-agent")).Spec.Ports {
			ports = append(ports, p.TargetPort.StrVal)
		}
		for _, p := range dca.Ports {
			if p.Name != "health" {
				open = append(open, p.Name)
			}
		}
		if diff := cmp.Diff([][]string{want.ports, want.ports}, [][]string{ports, open}); diff != "" {
			t.Errorf("%s: the ports of Service and container (-want +got):\n%s", set, diff)
		}
	}
	if got := render(t, "--set", "clusterAgent.enabled=false").env(t, "DaemonSet", "datadog-agent")["DD_CLUSTER_AGENT_ENABLED"]; got != "false" {
		t.Errorf("without a cluster agent the agents ask: %q", got)
	}
}

// A token that is not given is random and long enough.
func TestTokenIsMade(t *testing.T) {
	t.Parallel()
	token := func(args ...string) string {
		secret := into[corev1.Secret](t, render(t, args...).one(t, "Secret", "datadog-cluster-agent"))
		return string(secret.Data["token"])
	}
	first, second := token(), token()
	if len(first) != 32 || first == second {
		t.Errorf("two installations have the tokens %q and %q, want two of 32 characters", first, second)
	}
	const mine = "token-of-the-test-0123456789abcdef"
	if got := token("--set", "clusterAgent.token="+mine); got != mine {
		t.Errorf("the token given is %q, the Secret's %q", base64.StdEncoding.EncodeToString([]byte(mine)), got)
	}
}

// What the cluster agent may read follows what it is asked to do.
func TestRightsFollowTheParts(t *testing.T) {
	t.Parallel()
	for set, want := range map[string][]string{
		"clusterAgent.metricsProvider.enabled=false":                                            {"horizontalpodautoscalers", "deployments", "statefulsets", "daemonsets", "replicasets", "endpointslices", "nodes", "namespaces"},
		"clusterAgent.metricsProvider.enabled=false,datadog.kubeStateMetricsCore.enabled=false": {"endpointslices", "nodes", "namespaces"},
		"datadog.kubeStateMetricsCore.enabled=false":                                            {"horizontalpodautoscalers", "endpointslices", "nodes", "namespaces", "events", "apiservices"},
	} {
		all := render(t, "--values", inline, "--set", set)
		var got []string
		for _, r := range into[rbacv1.ClusterRole](t, all.one(t, "ClusterRole", "datadog-cluster-agent")).Rules {
			got = append(got, r.Resources...)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: resources (-want +got):\n%s", set, diff)
		}
	}
}

func TestPolicyReachesTheClusterAgent(t *testing.T) {
	t.Parallel()
	const name = "KELPIE_POLICY"
	if got, set := render(t, "--values", inline).env(t, "Deployment", "datadog-cluster-agent")[name]; set {
		t.Errorf("without a policy %s is %q", name, got)
	}
	all := render(t, "--values", inline, "--set", "clusterAgent.policy.mode=namespaced,clusterAgent.policy.namespaces[0].match=team-*,"+
		"clusterAgent.policy.namespaces[0].scope[0]=kube_namespace:%%namespace%%,clusterAgent.policy.namespaces[0].metrics=50")
	if got := render(t, "--values", "../examples/policy/values.yaml").env(t, "Deployment", "datadog-cluster-agent")[name]; !strings.Contains(got, `"match":"shared-metrics"`) {
		t.Errorf("the example's policy reaches the cluster agent as %q", got)
	}
	const want = `{"mode":"namespaced","namespaces":[{"match":"team-*","metrics":50,"scope":["kube_namespace:%%namespace%%"]}]}`
	if got := all.env(t, "Deployment", "datadog-cluster-agent")[name]; got != want {
		t.Errorf("%s is %s, want %s", name, got, want)
	}
}

func TestWatermarkPodAutoscalersAreReadWhenAsked(t *testing.T) {
	t.Parallel()
	for _, on := range []bool{false, true} {
		all := render(t, "--values", inline, "--set", fmt.Sprintf("clusterAgent.metricsProvider.wpaController=%v", on))
		may := slices.ContainsFunc(into[rbacv1.ClusterRole](t, all.one(t, "ClusterRole", "datadog-cluster-agent")).Rules, func(r rbacv1.PolicyRule) bool {
			return slices.Contains(r.Resources, "watermarkpodautoscalers") && slices.Equal(r.Verbs, []string{"list", "watch"})
		})
		if may != on {
			t.Errorf("wpaController %v: may list and watch them: %v", on, may)
		}
		want := fmt.Sprintf("name: DD_EXTERNAL_METRICS_PROVIDER_WPA_CONTROLLER\n              value: %q", fmt.Sprint(on))
		if text := all.one(t, "Deployment", "datadog-cluster-agent").text; !strings.Contains(text, want) {
			t.Errorf("wpaController %v: the cluster agent is not told so", on)
		}
	}
}

// The front door of KEDA's server: where it is, whom to trust, and the right to ask.
func TestKEDA(t *testing.T) {
	t.Parallel()
	const set = "clusterAgent.metricsProvider.keda."
	for _, on := range []bool{false, true} {
		all := render(t, "--values", inline, "--set", fmt.Sprintf("%senabled=%v,%scaConfigMap=keda-ca,%snamespace=scalers", set, on, set, set))
		may := slices.ContainsFunc(into[rbacv1.ClusterRole](t, all.one(t, "ClusterRole", "datadog-cluster-agent")).Rules, func(r rbacv1.PolicyRule) bool {
			return slices.Contains(r.APIGroups, "external.metrics.k8s.io") && slices.Equal(r.Verbs, []string{"get", "list"})
		})
		pod := into[appsv1.Deployment](t, all.one(t, "Deployment", "datadog-cluster-agent")).Spec.Template.Spec
		mounted := slices.ContainsFunc(pod.Volumes, func(v corev1.Volume) bool { return v.ConfigMap != nil && v.ConfigMap.Name == "keda-ca" }) &&
			slices.ContainsFunc(pod.Containers[0].VolumeMounts, func(m corev1.VolumeMount) bool { return m.MountPath == "/etc/kelpie/keda" && m.ReadOnly })
		if may != on || mounted != on {
			t.Errorf("keda.enabled %v: may ask: %v; has the authority: %v", on, may, mounted)
		}
		want := ""
		if on {
			want = "https://keda-operator-metrics-apiserver.scalers.svc:443"
		}
		if got := all.env(t, "Deployment", "datadog-cluster-agent")["KELPIE_KEDA_URL"]; got != want {
			t.Errorf("keda.enabled %v: KELPIE_KEDA_URL is %q, want %q", on, got, want)
		}
	}
	off := render(t, "--set", set+"enabled=true,"+set+"caConfigMap=keda-ca,clusterAgent.metricsProvider.enabled=false")
	if got, ok := off.env(t, "Deployment", "datadog-cluster-agent")["KELPIE_KEDA_URL"]; ok {
		t.Errorf("without external metrics there is nothing to pass on, but KELPIE_KEDA_URL is %q", got)
	}
}

// An upgrade finds the token in the cluster and keeps it.
func TestTokenSurvivesAnUpgrade(t *testing.T) {
	if os.Getenv("KUBEBUILDER_ASSETS") == "" {
		t.Skip("KUBEBUILDER_ASSETS is not set: it names a directory with kube-apiserver and etcd; make test builds them")
	}
	te := &envtest.Environment{ControlPlaneStopTimeout: 20 * time.Second}
	config, err := te.Start()
	if err != nil {
		t.Fatalf("start kube-apiserver: %v", err)
	}
	t.Cleanup(func() {
		if err := te.Stop(); err != nil {
			t.Errorf("stop kube-apiserver: %v", err)
		}
	})
	kubeconfig := filepath.Join(t.TempDir(), "kubeconfig")
	if err := os.WriteFile(kubeconfig, te.KubeConfig, 0o600); err != nil {
		t.Fatal(err)
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	var tokens []string
	for _, replicas := range []string{"1", "2"} {
		if _, err := helm(t, "upgrade", "--install", release, chart, "--namespace", "datadog", "--create-namespace", "--kubeconfig", kubeconfig,
			"--values", inline, "--set", "clusterAgent.replicas="+replicas); err != nil {
			t.Fatal(err)
		}
		secret, err := client.CoreV1().Secrets("datadog").Get(t.Context(), "datadog-cluster-agent", metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		tokens = append(tokens, string(secret.Data["token"]))
	}
	if tokens[0] != tokens[1] || len(tokens[0]) != 32 {
		t.Errorf("tokens before and after the upgrade: %q, want one of 32 characters", tokens)
	}
}

// certificate is cert-manager's kind, as far as the chart writes it.
type certificate struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`
	Spec              struct {
		SecretName string            `json:"secretName"`
		DNSNames   []string          `json:"dnsNames"`
		Usages     []string          `json:"usages"`
		PrivateKey map[string]any    `json:"privateKey"`
		IssuerRef  map[string]string `json:"issuerRef"`
	} `json:"spec"`
}

func TestCertManager(t *testing.T) {
	t.Parallel()
	own := render(t, "--values", inline)
	if len(own.kind("Certificate")) > 0 || len(own.one(t, "APIService", "v1beta1.external.metrics.k8s.io").Annotations) > 0 {
		t.Error("cert-manager is asked although nobody said so")
	}
	all := render(t, "--values", inline, "--set", "clusterAgent.metricsProvider.certManager.enabled=true,clusterAgent.metricsProvider.certManager.issuerRef.name=house")
	got := into[certificate](t, all.one(t, "Certificate", "datadog-cluster-agent"))
	env := all.env(t, "Deployment", "datadog-cluster-agent")
	if got.APIVersion != "cert-manager.io/v1" || got.Spec.SecretName != env["KELPIE_TLS_SECRET"] || env["KELPIE_TLS_CERT_MANAGER"] != "true" {
		t.Errorf("the Certificate is for Secret %q, the cluster agent reads %q and knows of cert-manager: %q", got.Spec.SecretName, env["KELPIE_TLS_SECRET"], env["KELPIE_TLS_CERT_MANAGER"])
	}
	// The API server asks for this name.
	if !slices.Contains(got.Spec.DNSNames, "datadog-cluster-agent.datadog.svc") || !slices.Contains(got.Spec.Usages, "server auth") {
		t.Errorf("the Certificate is for %v, %v", got.Spec.DNSNames, got.Spec.Usages)
	}
	if diff := cmp.Diff(map[string]string{"name": "house", "kind": "Issuer", "group": "cert-manager.io"}, got.Spec.IssuerRef); diff != "" {
		t.Errorf("issuer (-want +got):\n%s", diff)
	}
	if from := all.one(t, "APIService", "v1beta1.external.metrics.k8s.io").Annotations["cert-manager.io/inject-ca-from"]; from != got.Namespace+"/"+got.Name {
		t.Errorf("the APIService's authority comes from %q, the Certificate is %s/%s", from, got.Namespace, got.Name)
	}
	for _, r := range into[rbacv1.Role](t, all.one(t, "Role", "datadog-cluster-agent-main")).Rules {
		if slices.Contains(r.Resources, "secrets") && (slices.Contains(r.Verbs, "create") || slices.Contains(r.Verbs, "update")) {
			t.Errorf("the cluster agent may %v Secrets that cert-manager writes", r.Verbs)
		}
	}
}
