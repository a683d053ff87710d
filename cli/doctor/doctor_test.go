package doctor_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/DataDog/datadog-operator/api/datadoghq/v1alpha1"
	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	apiregistrationv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"

	"kelpie.dev/kelpie/cli/doctor"
	"kelpie.dev/kelpie/cli/release"
	"kelpie.dev/kelpie/cli/served"
)

// fault is something broken, and what the doctor must say of it.
type fault struct {
	name    string
	hpa     string // examined; "" is the installation
	breakIt func(t *testing.T, l *lab)
	check   string   // that must be the broken one; "" means none
	says    []string // each in what was seen, cause or mend
}

func (l *lab) hpaSpec(t *testing.T, name string, change func(*autoscalingv2.HorizontalPodAutoscaler)) {
	edit(t, l, &autoscalingv2.HorizontalPodAutoscaler{}, "test", name, change)
}

func label(key, value string) func(t *testing.T, l *lab) {
	return func(t *testing.T, l *lab) {
		l.hpaSpec(t, "inline", func(h *autoscalingv2.HorizontalPodAutoscaler) {
			h.Spec.Metrics[0].External.Metric.Selector.MatchLabels[key] = value
		})
	}
}

func querying(text string) func(t *testing.T, l *lab) {
	return func(t *testing.T, l *lab) {
		edit(t, l, &v1alpha1.DatadogMetric{}, "test", "flask-request-rate", func(m *v1alpha1.DatadogMetric) { m.Spec.Query = text })
	}
}

func secret(key, value string) func(t *testing.T, l *lab) {
	return func(t *testing.T, l *lab) {
		edit(t, l, &corev1.Secret{}, "datadog", "datadog-secret", func(s *corev1.Secret) { s.Data[key] = []byte(value) })
	}
}

func notReady(namespace, name string) func(t *testing.T, l *lab) {
	return func(t *testing.T, l *lab) {
		edit(t, l, &corev1.Pod{}, namespace, name, func(p *corev1.Pod) {
			p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionFalse}}
			p.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "main", State: corev1.ContainerState{
				Waiting: &corev1.ContainerStateWaiting{Reason: "CrashLoopBackOff", Message: "back-off 5m0s"}}}}
		})
	}
}

var faults = []fault{
	{name: "nothing, inline", hpa: "inline"},
	{name: "nothing, DatadogMetric", hpa: "crd"},
	{name: "nothing, installation"},
	{name: "unknown HPA", hpa: "inlin", check: "hpa-exists", says: []string{"did you mean hpa/inline?"}},

	{name: "wrong tag", hpa: "inline", breakIt: label("kube_deployment", "no-such-app"), check: "scope-matches",
		says: []string{"no series of flask.request.rate has kube_deployment:no-such-app", "kube_deployment is one of: test-metric-app", "test-metric-app is the only one", "HPA test/inline, spec.metrics[0]"}},
	{name: "misspelt tag", hpa: "crd", breakIt: querying("avg:flask.request.rate{kube_namespace:tset,kube_deployment:test-metric-app}"), check: "scope-matches",
		says: []string{"kube_namespace:tset", "did you mean kube_namespace:test?", "DatadogMetric test/flask-request-rate"}},
	{name: "unknown key", hpa: "inline", breakIt: label("kube_deploy", "test-metric-app"), check: "scope-matches",
		says: []string{"does not have the key kube_deploy at all", "of the usual keys it has kube_namespace, kube_deployment"}},
	{name: "tags that never meet", hpa: "inline", breakIt: label("kube_namespace", "shop"), check: "scope-matches", says: []string{"never all on one"}},
	{name: "misspelt metric", hpa: "crd", breakIt: querying("avg:flask.requests.rate{*}"), check: "metric-known", says: []string{"flask.request.rate", "misspelt"}},
	{name: "syntax error", hpa: "crd", breakIt: querying("avg:flask.request.rate{kube_namespace:test"), check: "query-syntax",
		says: []string{"error at 42", "spec.query", strings.Repeat(" ", 42) + "^"}},
	{name: "name that is no metric", hpa: "inline", check: "query-syntax", says: []string{"9lives"}, breakIt: func(t *testing.T, l *lab) {
		l.hpaSpec(t, "inline", func(h *autoscalingv2.HorizontalPodAutoscaler) { h.Spec.Metrics[0].External.Metric.Name = "9lives" })
	}},
	{name: "several series", hpa: "crd", breakIt: querying("avg:flask.request.rate{*} by {kube_deployment}"), check: "query-accepted", says: []string{"gives 2 series"}},
	{name: "missing DatadogMetric", hpa: "crd", check: "hpa-metrics", says: []string{"DatadogMetric test/no-such does not exist"}, breakIt: func(t *testing.T, l *lab) {
		l.hpaSpec(t, "crd", func(h *autoscalingv2.HorizontalPodAutoscaler) {
			h.Spec.Metrics[0].External.Metric.Name = "datadogmetric@test:no-such"
		})
	}},

	{name: "wrong application key", hpa: "inline", breakIt: secret("app-key", strings.Repeat("f", 40)), check: "query-keys",
		says: []string{"wrong application key in Secret datadog/datadog-secret, key app-key", "rollout restart deployment datadog-cluster-agent"}},
	{name: "wrong API key", hpa: "inline", breakIt: secret("api-key", strings.Repeat("0", 32)), check: "intake-key",
		says: []string{"wrong API key in Secret datadog/datadog-secret, key api-key"}},
	{name: "key corrected, cluster agent not restarted", hpa: "crd", check: "provider-source", says: []string{"rollout restart deployment datadog-cluster-agent"}, breakIt: func(t *testing.T, l *lab) {
		l.set(t, func() {
			l.clusterAgent.Source = served.Source{URL: "http://backend", LastError: "refuses the keys (HTTP 403: Forbidden)", LastErrorAt: time.Now()}
		})
	}},
	{name: "agent with an old key", hpa: "inline", check: "forwarding", says: []string{"403", "rollout restart daemonset datadog-agent"}, breakIt: func(t *testing.T, l *lab) {
		l.set(t, func() {
			l.agent.Forwarding = []release.Forwarding{{URL: "http://datadog-agent-backend.datadog.svc:8080", Failing: true, LastError: "HTTP 403"}}
		})
	}},

	{name: "backend scaled to 0", hpa: "inline", check: "backend-ready", says: []string{"datadog-agent-backend", "spec.replicas 0", "--replicas=1"}, breakIt: func(t *testing.T, l *lab) {
		edit(t, l, &appsv1.StatefulSet{}, "datadog", "datadog-agent-backend", func(s *appsv1.StatefulSet) { s.Spec.Replicas = new(int32(0)) })
		l.set(t, func() { l.value = "" }) // its echo must not be reported
	}},
	{name: "backend crashes", breakIt: notReady("datadog", "datadog-agent-backend-0"), check: "backend-ready", says: []string{"CrashLoopBackOff", "logs datadog-agent-backend-0"}},
	{name: "agent crashes", hpa: "crd", breakIt: notReady("datadog", "datadog-agent-x1"), check: "agents-ready", says: []string{"pod datadog-agent-x1 on node node-1", "CrashLoopBackOff"}},
	{name: "cluster agent crashes", breakIt: notReady("datadog", "datadog-cluster-agent-y1"), check: "cluster-agent-ready", says: []string{"CrashLoopBackOff"}},
	{name: "application crashes", hpa: "crd", breakIt: notReady("test", "test-metric-app-z1"), check: "target-exists", says: []string{"none of 1 replicas is ready", "CrashLoopBackOff"}},
	{name: "target scaled to 0", hpa: "crd", check: "target-exists", says: []string{"spec.replicas 0", "kubectl -n test scale Deployment test-metric-app --replicas=1"}, breakIt: func(t *testing.T, l *lab) {
		edit(t, l, &appsv1.Deployment{}, "test", "test-metric-app", func(d *appsv1.Deployment) { d.Spec.Replicas = new(int32(0)) })
	}},
	{name: "missing target", hpa: "crd", check: "target-exists", says: []string{"Deployment test/gone does not exist"}, breakIt: func(t *testing.T, l *lab) {
		l.hpaSpec(t, "crd", func(h *autoscalingv2.HorizontalPodAutoscaler) { h.Spec.ScaleTargetRef.Name = "gone" })
	}},

	{name: "application is silent", hpa: "inline", check: "data-fresh", says: []string{"older than 2m0s is not used", "stopped sending"}, breakIt: func(t *testing.T, l *lab) {
		l.api.Store(freshSeries(20 * time.Minute)...)
		t.Cleanup(func() { l.api.Store(freshSeries(0)...) })
	}},
	{name: "lines that are not DogStatsD", hpa: "inline", check: "agent-lines", says: []string{"no colon", "flask.request.rate=1"}, breakIt: func(t *testing.T, l *lab) {
		l.set(t, func() {
			l.agent.Problems = []release.AgentProblem{{Meaning: "no colon", Line: "flask.request.rate=1", At: time.Now(), Count: 7}}
			l.agent.Contexts = 0
		})
	}},
	{name: "refused by the policy", hpa: "crd", check: "metric-served", says: []string{"keeps namespaces apart", "policy", "write a DatadogMetric"}, breakIt: func(t *testing.T, l *lab) {
		l.set(t, func() {
			l.refusal = `Forbidden: metric datadogmetric@test:rps is of namespace "test" and the cluster agent keeps namespaces apart: write a DatadogMetric in "team-b"`
		})
	}},
	{name: "provider has no value", hpa: "crd", check: "metric-served", says: []string{"value is stale"}, breakIt: func(t *testing.T, l *lab) {
		l.set(t, func() { l.value = "" })
	}},
	{name: "another provider", check: "apiservice-available", says: []string{"Service keda/keda-metrics-apiserver", "another provider"}, breakIt: func(t *testing.T, l *lab) {
		edit(t, l, &apiregistrationv1.APIService{}, "", release.APIServiceName, func(s *apiregistrationv1.APIService) {
			s.Spec.Service.Namespace, s.Spec.Service.Name = "keda", "keda-metrics-apiserver"
		})
	}},
	{name: "certificate that is not trusted", check: "apiservice-available", says: []string{"does not trust", "x509", "caBundle"}, breakIt: func(t *testing.T, l *lab) {
		_, other := l.certificate("datadog-cluster-agent.datadog.svc")
		edit(t, l, &apiregistrationv1.APIService{}, "", release.APIServiceName, func(s *apiregistrationv1.APIService) { s.Spec.CABundle = other })
		l.waitAvailable(t, apiregistrationv1.ConditionFalse)
	}},
	{name: "HPA controller lacks the right", hpa: "crd", check: "hpa-condition", says: []string{"createReaderRbac"}, breakIt: func(t *testing.T, l *lab) {
		l.hpaSpec(t, "crd", inactive("FailedGetExternalMetric", "external.metrics.k8s.io is forbidden"))
	}},
	{name: "an HPA has a fault", check: "autoscalers", says: []string{"1 of 2 HPAs", "kelpie doctor hpa/crd -n test"}, breakIt: func(t *testing.T, l *lab) {
		l.hpaSpec(t, "crd", inactive("FailedGetExternalMetric", "no data"))
	}},
}

func inactive(reason, message string) func(*autoscalingv2.HorizontalPodAutoscaler) {
	return func(h *autoscalingv2.HorizontalPodAutoscaler) {
		h.Status.Conditions = []autoscalingv2.HorizontalPodAutoscalerCondition{{Type: autoscalingv2.ScalingActive, Status: corev1.ConditionFalse, Reason: reason, Message: message}}
	}
}

// TestFaults breaks one thing at a time in a real API server, with real servers
// behind its proxy, and expects the root cause and none of its echoes.
func TestFaults(t *testing.T) {
	l := startLab(t)
	l.agent = release.AgentStatus{Hostname: "node-1", Contexts: 3}
	l.populate()
	l.waitAvailable(t, apiregistrationv1.ConditionTrue)
	t.Run("commands", func(t *testing.T) { testCommands(t, l) })
	for _, f := range faults {
		t.Run(f.name, func(t *testing.T) {
			l.waitAvailable(l.t, apiregistrationv1.ConditionTrue)
			l.api.Store(freshSeries(0)...)
			if f.breakIt != nil {
				f.breakIt(t, l)
			}
			r := doctor.Run(t.Context(), doctor.Options{Objects: l.cluster, Access: l.cluster, Namespace: "test", HPA: f.hpa})
			text, err := json.MarshalIndent(r, "", " ")
			if err != nil {
				t.Fatal(err)
			}
			for _, secret := range []string{apiKey, appKey, strings.Repeat("f", 40), strings.Repeat("0", 32)} {
				if strings.Contains(string(text), secret) {
					t.Errorf("the report holds a key")
				}
			}
			last := r.Results[len(r.Results)-1]
			for _, res := range r.Results {
				if res.Outcome == doctor.Skipped {
					t.Errorf("check %s was skipped: %s", res.Check, res.Seen)
				}
			}
			if f.check == "" {
				if !r.Healthy || len(r.NotRun) > 0 {
					t.Errorf("want no broken link, got\n%s", text)
				}
				return
			}
			if r.Healthy || last.Check != f.check {
				t.Fatalf("want %s broken, got\n%s", f.check, text)
			}
			all := last.Seen + "\n" + last.Cause + "\n" + last.Mend
			for _, want := range f.says {
				if !strings.Contains(all, want) {
					t.Errorf("does not say %q:\n%s", want, all)
				}
			}
			if last.Cause == "" || last.Mend == "" {
				t.Errorf("no cause or no mend:\n%s", text)
			}
		})
	}
}
