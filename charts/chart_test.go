package charts_test

import (
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apiregistrationv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"
)

var walkthrough = []struct{ mode, file string }{{"inline", inline}, {"crd", crd}}

func TestLint(t *testing.T) {
	t.Parallel()
	for _, w := range walkthrough {
		if out, err := helm(t, "lint", chart, "--strict", "--values", w.file); err != nil {
			t.Errorf("%s: %v\n%s", w.mode, err, out)
		}
	}
}

func TestWalkthroughObjects(t *testing.T) {
	t.Parallel()
	want := []string{
		"APIService v1beta1.external.metrics.k8s.io",
		"ClusterRole datadog-agent",
		"ClusterRole datadog-cluster-agent",
		"ClusterRole datadog-cluster-agent-external-metrics-reader",
		"ClusterRoleBinding datadog-agent",
		"ClusterRoleBinding datadog-cluster-agent",
		"ClusterRoleBinding datadog-cluster-agent-external-metrics-reader",
		"ClusterRoleBinding datadog-cluster-agent-system-auth-delegator",
		"DaemonSet datadog/datadog-agent",
		"Deployment datadog/datadog-cluster-agent",
		"Role datadog/datadog-cluster-agent-main",
		"RoleBinding datadog/datadog-cluster-agent-main",
		"RoleBinding kube-system/datadog-cluster-agent-apiserver",
		"Secret datadog/datadog-cluster-agent",
		"Service datadog/datadog-agent",
		"Service datadog/datadog-agent-backend",
		"Service datadog/datadog-cluster-agent",
		"ServiceAccount datadog/datadog-agent",
		"ServiceAccount datadog/datadog-agent-backend",
		"ServiceAccount datadog/datadog-cluster-agent",
		"StatefulSet datadog/datadog-agent-backend",
	}
	for _, w := range walkthrough {
		all := render(t, "--values", w.file)
		if diff := cmp.Diff(want, all.names()); diff != "" {
			t.Errorf("%s: objects (-want +got):\n%s", w.mode, diff)
		}
		agent := into[appsv1.DaemonSet](t, all.one(t, "DaemonSet", "datadog-agent"))
		if got := agent.Spec.Template.Labels["app"]; got != "datadog-agent" {
			t.Errorf("%s: the node agents' label app is %q, want datadog-agent", w.mode, got)
		}
		dca := into[appsv1.Deployment](t, all.one(t, "Deployment", "datadog-cluster-agent"))
		if got := dca.Spec.Template.Spec.ServiceAccountName; got != "datadog-cluster-agent" {
			t.Errorf("%s: the cluster agent runs as %q, want datadog-cluster-agent", w.mode, got)
		}
	}
}

func TestDogStatsDIsReachedOnTheNode(t *testing.T) {
	t.Parallel()
	agent := into[appsv1.DaemonSet](t, render(t, "--values", inline).one(t, "DaemonSet", "datadog-agent"))
	want := corev1.ContainerPort{Name: "dogstatsdport", ContainerPort: 8125, HostPort: 8125, Protocol: corev1.ProtocolUDP}
	if diff := cmp.Diff(want, agent.Spec.Template.Spec.Containers[0].Ports[0]); diff != "" {
		t.Errorf("port (-want +got):\n%s", diff)
	}
	agent = into[appsv1.DaemonSet](t, render(t, "--set", "datadog.dogstatsd.useHostPort=false").one(t, "DaemonSet", "datadog-agent"))
	if got := agent.Spec.Template.Spec.Containers[0].Ports[0].HostPort; got != 0 {
		t.Errorf("with useHostPort false the host port is %d, want none", got)
	}
}

// The cluster agent fills in the CA bundle; an upgrade must not take it away.
func TestAPIServiceLeavesTrustToTheClusterAgent(t *testing.T) {
	t.Parallel()
	for _, w := range walkthrough {
		got := into[apiregistrationv1.APIService](t, render(t, "--values", w.file).one(t, "APIService", "v1beta1.external.metrics.k8s.io")).Spec
		port := int32(8443)
		want := apiregistrationv1.APIServiceSpec{
			Group: "external.metrics.k8s.io", Version: "v1beta1", GroupPriorityMinimum: 100, VersionPriority: 100,
			Service: &apiregistrationv1.ServiceReference{Namespace: "datadog", Name: "datadog-cluster-agent", Port: &port},
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: APIService (-want +got):\n%s", w.mode, diff)
		}
	}
}

// tokenLine is the one random line of a render without a cluster.
var tokenLine = regexp.MustCompile(`(?m)^  token: "[^"]+"$`)

// A second upgrade with the same values must restart nothing. (The token is kept
// by a look at the cluster, which there is none of here; no pod's template has it.)
func TestRenderIsDeterministic(t *testing.T) {
	t.Parallel()
	args := []string{"--values", crd, "--set", "datadog.apiKeyExistingSecret=,datadog.appKeyExistingSecret=,datadog.apiKey=a,datadog.appKey=b"}
	first, again := tokenLine.ReplaceAllString(template(t, args...), ""), tokenLine.ReplaceAllString(template(t, append(args, "--is-upgrade")...), "")
	if diff := cmp.Diff(first, again); diff != "" {
		t.Errorf("two renders differ (-first +second):\n%s", diff)
	}
}

func TestNames(t *testing.T) {
	t.Parallel()
	long := "datadog-" + strings.Repeat("x", 45) // helm allows 53
	tests := []struct {
		release string
		args    []string
		agent   string
		dca     string
		backend string
	}{
		{"datadog-agent", nil, "datadog-agent", "datadog-cluster-agent", "datadog-agent-backend"},
		{"datadog", nil, "datadog", "datadog-cluster-agent", "datadog-backend"},
		{"metrics", nil, "metrics-datadog", "metrics-datadog-cluster-agent", "metrics-datadog-backend"},
		{"metrics", []string{"--set", "nameOverride=metrics"}, "metrics", "metrics-cluster-agent", "metrics-backend"},
		{"metrics", []string{"--set", "fullnameOverride=kelpie"}, "kelpie", "kelpie-cluster-agent", "kelpie-backend"},
		{long, nil, long, long[:49] + "-cluster-agent", long[:44] + "-backend"},
	}
	for _, tt := range tests {
		all := parse(t, templateAs(t, tt.release, append(tt.args, "--set", "clusterAgent.metricsProvider.enabled=true")...))
		all.one(t, "DaemonSet", tt.agent)
		all.one(t, "Deployment", tt.dca)
		all.one(t, "StatefulSet", tt.backend)
		for _, o := range all.kind("Service") {
			if len(o.Name) > 63 {
				t.Errorf("release %s: the name of %s is longer than a Service may have", tt.release, o)
			}
		}
	}
}

func TestParts(t *testing.T) {
	t.Parallel()
	tests := []struct {
		set  string
		want []string
		not  []string
	}{
		{"agents.enabled=false", []string{"Deployment", "StatefulSet", "APIService"}, []string{"DaemonSet"}},
		{"clusterAgent.enabled=false", []string{"DaemonSet", "StatefulSet"}, []string{"Deployment", "APIService", "Role", "PodDisruptionBudget"}},
		{"backend.enabled=false", []string{"DaemonSet", "Deployment"}, []string{"StatefulSet"}},
		{"rbac.create=false", []string{"DaemonSet", "Deployment", "ServiceAccount"}, []string{"Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding", "APIService"}},
		{"clusterAgent.metricsProvider.registerAPIService=false", []string{"Deployment"}, []string{"APIService"}},
		{"clusterAgent.pdb.create=true", []string{"PodDisruptionBudget"}, []string{"NetworkPolicy"}},
		{"datadog.networkPolicy.create=true", []string{"NetworkPolicy"}, []string{"PodDisruptionBudget"}},
	}
	for _, tt := range tests {
		all := render(t, "--values", crd, "--set", tt.set)
		for _, kind := range tt.want {
			if len(all.kind(kind)) == 0 {
				t.Errorf("%s: no %s", tt.set, kind)
			}
		}
		for _, kind := range tt.not {
			if found := all.kind(kind); len(found) > 0 {
				t.Errorf("%s: there is %q", tt.set, found.names())
			}
		}
	}
}

// Each name that one object uses for another must lead to it.
func TestReferences(t *testing.T) {
	t.Parallel()
	all := render(t, "--values", crd, "--set", "fullnameOverride=other,serviceAccounts.clusterAgent.name=")
	workloads := all.workloads(t)
	for _, w := range workloads {
		all.one(t, "ServiceAccount", w.pod.Spec.ServiceAccountName)
		if got := w.pod.Labels["app"]; got != w.selector["app"] {
			t.Errorf("%s selects app=%s, its pods are app=%s", w.name, w.selector["app"], got)
		}
	}
	for _, o := range all.kind("Service") {
		service := into[corev1.Service](t, o)
		if !leadsToPort(service, workloads) {
			t.Errorf("%s selects no pod with the port %s", o, service.Spec.Ports[0].TargetPort.String())
		}
	}
}

func leadsToPort(s corev1.Service, workloads []workload) bool {
	for _, w := range workloads {
		if w.pod.Labels["app"] != s.Spec.Selector["app"] {
			continue
		}
		for _, p := range w.pod.Spec.Containers[0].Ports {
			if p.Name == s.Spec.Ports[0].TargetPort.String() {
				return true
			}
		}
	}
	return false
}

func TestUserEnvironmentWins(t *testing.T) {
	t.Parallel()
	all := render(t, "--values", inline, values(t, `
datadog:
  env: [{name: DD_LOG_LEVEL, value: debug}, {name: MINE, value: "1"}, {name: MINE, value: "2"}]
  envDict: {DD_HOSTNAME: node-a}
  envFrom: [{configMapRef: {name: shared}}]
clusterAgent:
  env: [{name: DD_EXTERNAL_METRICS_PROVIDER_POLLING_INTERVAL, value: "15"}]
  envDict: {DD_EXTERNAL_METRICS_PROVIDER_PORT: 9443}
  envFrom: [{secretRef: {name: own}}]
`))
	agent, dca := all.env(t, "DaemonSet", "datadog-agent"), all.env(t, "Deployment", "datadog-cluster-agent")
	got := map[string]string{
		"level": agent["DD_LOG_LEVEL"], "mine": agent["MINE"], "host": agent["DD_HOSTNAME"], "dca host": dca["DD_HOSTNAME"],
		"interval": dca["DD_EXTERNAL_METRICS_PROVIDER_POLLING_INTERVAL"], "port": dca["DD_EXTERNAL_METRICS_PROVIDER_PORT"],
	}
	want := map[string]string{"level": "debug", "mine": "2", "host": "node-a", "dca host": "", "interval": "15", "port": "9443"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("environment (-want +got):\n%s", diff)
	}
	from := into[appsv1.Deployment](t, all.one(t, "Deployment", "datadog-cluster-agent")).Spec.Template.Spec.Containers[0].EnvFrom
	if len(from) != 2 || from[0].ConfigMapRef.Name != "shared" || from[1].SecretRef.Name != "own" {
		t.Errorf("the cluster agent's envFrom is %v, want shared and own", from)
	}
}

func TestPersistence(t *testing.T) {
	t.Parallel()
	class, none := "fast", ""
	tests := []struct {
		set    string
		claims int
		class  *string
	}{
		{"backend.persistence.size=1Gi", 1, nil},
		{"backend.persistence.storageClass=fast", 1, &class},
		{"backend.persistence.storageClass=-", 1, &none},
		{"backend.persistence.existingClaim=mine", 0, nil},
		{"backend.persistence.enabled=false", 0, nil},
	}
	for _, tt := range tests {
		set := into[appsv1.StatefulSet](t, render(t, "--set", tt.set).one(t, "StatefulSet", "datadog-agent-backend"))
		if got := len(set.Spec.VolumeClaimTemplates); got != tt.claims {
			t.Errorf("%s: %d claim templates, want %d", tt.set, got, tt.claims)
			continue
		}
		if tt.claims == 0 {
			if got := set.Spec.Template.Spec.Volumes; len(got) != 1 || got[0].Name != "data" {
				t.Errorf("%s: volumes %v, want data", tt.set, got)
			}
			continue
		}
		if diff := cmp.Diff(tt.class, set.Spec.VolumeClaimTemplates[0].Spec.StorageClassName); diff != "" {
			t.Errorf("%s: storage class (-want +got):\n%s", tt.set, diff)
		}
	}
}

// An agent that cannot read its level does not start.
func TestLogLevelIsOneOfKelpies(t *testing.T) {
	t.Parallel()
	for level, want := range map[string]string{"TRACE": "debug", "DEBUG": "debug", "info": "info", "WARN": "warn", "error": "error", "CRITICAL": "error", "off": "error"} {
		all := render(t, "--values", inline, "--set-string", "datadog.logLevel="+level)
		for _, w := range []struct{ kind, name string }{{"DaemonSet", "datadog-agent"}, {"Deployment", "datadog-cluster-agent"}, {"StatefulSet", "datadog-agent-backend"}} {
			if got := all.env(t, w.kind, w.name)["DD_LOG_LEVEL"]; got != want {
				t.Errorf("logLevel %s: %s has %q, want %q", level, w.name, got, want)
			}
		}
	}
}

func TestKubeletAuthority(t *testing.T) {
	t.Parallel()
	tests := []struct{ set, path, mounted string }{
		{"", "", ""},
		{"datadog.kubelet.hostCAPath=/etc/ca.crt", "/var/run/host-kubelet-ca.crt", "/var/run/host-kubelet-ca.crt"},
		{"datadog.kubelet.hostCAPath=/etc/ca.crt,datadog.kubelet.agentCAPath=/ca.crt", "/ca.crt", "/ca.crt"},
		{"datadog.kubelet.agentCAPath=/mine.crt", "/mine.crt", ""},
	}
	for _, tt := range tests {
		all := render(t, "--set", tt.set)
		if got := all.env(t, "DaemonSet", "datadog-agent")["DD_KUBELET_CLIENT_CA"]; got != tt.path {
			t.Errorf("%q: the agent looks at %q, want %q", tt.set, got, tt.path)
		}
		mounted := ""
		for _, m := range into[appsv1.DaemonSet](t, all.one(t, "DaemonSet", "datadog-agent")).Spec.Template.Spec.Containers[0].VolumeMounts {
			if m.Name == "kubelet-ca" {
				mounted = m.MountPath
			}
		}
		if mounted != tt.mounted {
			t.Errorf("%q: the file is mounted at %q, want %q", tt.set, mounted, tt.mounted)
		}
	}
}

func TestRetention(t *testing.T) {
	t.Parallel()
	env := render(t, "--set", "backend.retention.time=48h,backend.retention.bytes=8000000000").env(t, "StatefulSet", "datadog-agent-backend")
	got := map[string]string{"time": env["KELPIE_RETENTION"], "bytes": env["KELPIE_RETENTION_BYTES"]}
	if diff := cmp.Diff(map[string]string{"time": "48h", "bytes": "8000000000"}, got); diff != "" {
		t.Errorf("retention (-want +got):\n%s", diff)
	}
	env = render(t).env(t, "StatefulSet", "datadog-agent-backend")
	for _, name := range []string{"KELPIE_RETENTION", "KELPIE_RETENTION_BYTES"} {
		if value, set := env[name]; set {
			t.Errorf("%s is %q, want the backend's default", name, value)
		}
	}
}
