package charts_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestContainersAreConfined(t *testing.T) {
	t.Parallel()
	for _, w := range render(t, "--values", crd).workloads(t) {
		pod := w.pod.Spec
		if pod.SecurityContext.SeccompProfile.Type != corev1.SeccompProfileTypeRuntimeDefault {
			t.Errorf("%s: seccomp profile is %q", w.name, pod.SecurityContext.SeccompProfile.Type)
		}
		if want := strings.HasPrefix(w.name, "DaemonSet"); pod.HostPID != want || pod.HostNetwork {
			t.Errorf("%s: hostPID %v, hostNetwork %v; want %v, false", w.name, pod.HostPID, pod.HostNetwork, want)
		}
		for _, c := range slices.Concat(pod.InitContainers, pod.Containers) {
			checkConfined(t, w.name+" "+c.Name, c)
		}
	}
}

func checkConfined(t *testing.T, name string, c corev1.Container) {
	t.Helper()
	s := c.SecurityContext
	var added []corev1.Capability
	root := int64(65532)
	if c.Name == "socket-dir" { // the one exception, and all of it
		root, added = 0, []corev1.Capability{"CHOWN"}
	}
	if !*s.ReadOnlyRootFilesystem || *s.AllowPrivilegeEscalation || s.Privileged != nil {
		t.Errorf("%s: its root file system is writable or it can gain privileges", name)
	}
	if *s.RunAsUser != root || *s.RunAsNonRoot != (root != 0) {
		t.Errorf("%s: runs as %d, want %d", name, *s.RunAsUser, root)
	}
	want := &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}, Add: added}
	if diff := cmp.Diff(want, s.Capabilities); diff != "" {
		t.Errorf("%s: capabilities (-want +got):\n%s", name, diff)
	}
	if c.Resources.Requests.Cpu().IsZero() || c.Resources.Requests.Memory().IsZero() {
		t.Errorf("%s: requests %v, want cpu and memory", name, c.Resources.Requests)
	}
}

// All that the chart grants, word for word, so that a wider rule is seen in review.
func TestRoles(t *testing.T) {
	t.Parallel()
	clusterAgent := []rbacv1.PolicyRule{
		{APIGroups: []string{"autoscaling"}, Resources: []string{"horizontalpodautoscalers"}, Verbs: []string{"list", "watch"}},
		{APIGroups: []string{"apps"}, Resources: []string{"deployments", "statefulsets", "daemonsets", "replicasets"}, Verbs: []string{"list", "watch"}},
		{APIGroups: []string{"discovery.k8s.io"}, Resources: []string{"endpointslices"}, Verbs: []string{"list", "watch"}},
		{APIGroups: []string{""}, Resources: []string{"nodes", "namespaces"}, Verbs: []string{"list", "watch"}},
		{APIGroups: []string{""}, Resources: []string{"events"}, Verbs: []string{"create", "patch"}},
		{APIGroups: []string{"apiregistration.k8s.io"}, Resources: []string{"apiservices"}, ResourceNames: []string{"v1beta1.external.metrics.k8s.io"}, Verbs: []string{"get", "list", "watch", "patch"}},
	}
	main := []rbacv1.PolicyRule{
		{APIGroups: []string{""}, Resources: []string{"secrets"}, Verbs: []string{"create"}},
		{APIGroups: []string{""}, Resources: []string{"secrets"}, ResourceNames: []string{"datadog-cluster-agent-tls"}, Verbs: []string{"get", "list", "watch", "update"}},
		{APIGroups: []string{"coordination.k8s.io"}, Resources: []string{"leases"}, Verbs: []string{"create"}},
		{APIGroups: []string{"coordination.k8s.io"}, Resources: []string{"leases"}, ResourceNames: []string{"datadog-agent-leader-election"}, Verbs: []string{"get", "update"}},
	}
	inlineRules := map[string][]rbacv1.PolicyRule{
		"datadog-agent":         {{APIGroups: []string{""}, Resources: []string{"nodes/pods", "nodes/metrics", "nodes/stats"}, Verbs: []string{"get"}}},
		"datadog-cluster-agent": clusterAgent,
		"datadog-cluster-agent-external-metrics-reader": {{APIGroups: []string{"external.metrics.k8s.io"}, Resources: []string{"*"}, Verbs: []string{"get", "list", "watch"}}},
		"datadog-cluster-agent-main":                    main,
	}
	crdRules := map[string][]rbacv1.PolicyRule{}
	for name, rules := range inlineRules {
		crdRules[name] = rules
	}
	crdRules["datadog-cluster-agent"] = append(slices.Clone(clusterAgent),
		rbacv1.PolicyRule{APIGroups: []string{"datadoghq.com"}, Resources: []string{"datadogmetrics"}, Verbs: []string{"get", "list", "watch"}},
		rbacv1.PolicyRule{APIGroups: []string{"datadoghq.com"}, Resources: []string{"datadogmetrics/status"}, Verbs: []string{"update"}})
	crdRules["datadog-cluster-agent-main"] = slices.Insert(slices.Clone(main), 2,
		rbacv1.PolicyRule{APIGroups: []string{"datadoghq.com"}, Resources: []string{"datadogmetrics"}, Verbs: []string{"create", "delete"}})

	if diff := cmp.Diff(inlineRules, rules(t, render(t, "--values", inline))); diff != "" {
		t.Errorf("inline: rules (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(crdRules, rules(t, render(t, "--values", crd))); diff != "" {
		t.Errorf("crd: rules (-want +got):\n%s", diff)
	}
}

func rules(t *testing.T, all objects) map[string][]rbacv1.PolicyRule {
	t.Helper()
	found := map[string][]rbacv1.PolicyRule{}
	for _, o := range slices.Concat(all.kind("ClusterRole"), all.kind("Role")) {
		found[o.Name] = into[rbacv1.ClusterRole](t, o).Rules // a Role has the same fields
	}
	return found
}

func TestNodesProxyOnlyForOldKubelets(t *testing.T) {
	t.Parallel()
	for version, want := range map[string]bool{"1.26.0": true, "1.32.9": true, "1.33.0": false, "1.37.2": false} {
		for _, args := range [][]string{{"--kube-version", version}, {"--set", "kubeVersionOverride=" + version}} {
			role := render(t, args...).one(t, "ClusterRole", "datadog-agent")
			if got := strings.Contains(role.text, "nodes/proxy"); got != want {
				t.Errorf("%q: nodes/proxy granted: %v, want %v", args, got, want)
			}
		}
	}
}

func TestReaderOfTheAuthenticationConfigIsInKubeSystem(t *testing.T) {
	t.Parallel()
	binding := into[rbacv1.RoleBinding](t, render(t, "--values", inline).one(t, "RoleBinding", "datadog-cluster-agent-apiserver"))
	if binding.Namespace != "kube-system" || binding.RoleRef.Name != "extension-apiserver-authentication-reader" {
		t.Errorf("binding %s/%s to %s", binding.Namespace, binding.Name, binding.RoleRef.Name)
	}
	want := []rbacv1.Subject{{Kind: "ServiceAccount", Name: "datadog-cluster-agent", Namespace: "datadog"}}
	if diff := cmp.Diff(want, binding.Subjects); diff != "" {
		t.Errorf("subjects (-want +got):\n%s", diff)
	}
}

// What the parts must reach, and who must reach them, with the policies on.
func TestNetworkPolicies(t *testing.T) {
	t.Parallel()
	type want struct{ agentEgress, backendIngress, clusterAgentEgress []string }
	const names, dca = "UDP/53", "TCP/5005 of app=datadog-cluster-agent"
	for set, want := range map[string]want{
		"": {[]string{names, "TCP/53", "TCP/10250", "TCP/8080 of app=datadog-agent-backend", dca},
			[]string{"TCP/8080", "TCP/4317", "TCP/8081"}, []string{names, "TCP"}},
		"backend.alsoSendToDatadog=true": {[]string{names, "TCP/53", "TCP/10250", "TCP/8080 of app=datadog-agent-backend", dca, "TCP/443"},
			[]string{"TCP/8080", "TCP/4317", "TCP/8081"}, []string{names, "TCP"}},
		"backend.enabled=false": {[]string{names, "TCP/53", "TCP/10250", dca, "TCP/443"}, nil, []string{names, "TCP"}},
		"backend.enabled=false,datadog.dd_url=https://proxy.example:3834": {[]string{names, "TCP/53", "TCP/10250", dca, "TCP/3834"}, nil, []string{names, "TCP"}},
		"backend.enabled=false,datadog.dd_url=http://proxy.example/v6":    {[]string{names, "TCP/53", "TCP/10250", dca, "TCP/80"}, nil, []string{names, "TCP"}},
		"backend.enabled=false,datadog.dd_url=https://[2001:db8::1]":      {[]string{names, "TCP/53", "TCP/10250", dca, "TCP/443"}, nil, []string{names, "TCP"}},
		"clusterAgent.metricsProvider.endpoint=https://metrics.example.org:9443": {[]string{names, "TCP/53", "TCP/10250", "TCP/8080 of app=datadog-agent-backend", dca},
			[]string{"TCP/8080", "TCP/4317", "TCP/8081"}, []string{names, "TCP"}},
	} {
		all := render(t, "--values", inline, "--set", "datadog.networkPolicy.create=true,"+set)
		agent := into[networkingv1.NetworkPolicy](t, all.one(t, "NetworkPolicy", "datadog-agent"))
		clusterAgent := into[networkingv1.NetworkPolicy](t, all.one(t, "NetworkPolicy", "datadog-cluster-agent"))
		var backend []networkingv1.NetworkPolicyEgressRule
		if want.backendIngress != nil {
			for _, r := range into[networkingv1.NetworkPolicy](t, all.one(t, "NetworkPolicy", "datadog-agent-backend")).Spec.Ingress {
				backend = append(backend, networkingv1.NetworkPolicyEgressRule{Ports: r.Ports, To: r.From})
			}
		}
		for _, c := range []struct {
			name      string
			want, got []string
		}{
			{"agent's egress", want.agentEgress, ports(agent.Spec.Egress)},
			{"backend's ingress", want.backendIngress, ports(backend)},
			{"cluster agent's egress", want.clusterAgentEgress, ports(clusterAgent.Spec.Egress)},
		} {
			if diff := cmp.Diff(c.want, c.got); diff != "" {
				t.Errorf("%q: the %s (-want +got):\n%s", set, c.name, diff)
			}
		}
	}
}

// ports lists the protocols and ports of rules, each with the pods it is for if
// it is not for all.
func ports(rules []networkingv1.NetworkPolicyEgressRule) []string {
	var out []string
	for _, r := range rules {
		peers := ""
		for _, p := range r.To {
			peers += " of " + metav1.FormatLabelSelector(p.PodSelector)
		}
		for _, p := range r.Ports {
			text := string(*p.Protocol)
			if p.Port != nil {
				text += "/" + p.Port.String()
			}
			out = append(out, text+peers)
		}
	}
	return out
}
