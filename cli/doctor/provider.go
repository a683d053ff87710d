package doctor

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/DataDog/datadog-operator/api/datadoghq/v1alpha1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	apiregistrationv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"kelpie.dev/kelpie/cli/release"
)

func (e *exam) clusterAgentReady(ctx context.Context) finding {
	d := e.rel.ClusterAgent
	name := fmt.Sprintf("Deployment %s/%s", d.Namespace, d.Name)
	if d.Spec.Replicas != nil && *d.Spec.Replicas == 0 {
		return broken(name+" has spec.replicas 0", "the cluster agent is stopped, so autoscalers get no values",
			fmt.Sprintf("kubectl -n %s scale deployment %s --replicas=1", d.Namespace, d.Name))
	}
	pods, err := e.rel.Pods(ctx, e.Objects, d.Spec.Selector)
	if err != nil {
		return skipped("%s: %v", name, err)
	}
	if readyCount(pods) == 0 {
		text, pod := troubles(pods)
		if text == "" {
			text = "it has no pod"
		}
		return broken(name+": "+text, "the cluster agent does not run, so autoscalers get no values", lookAt(d.Namespace, "deployment", d.Name, pod))
	}
	return ok("%s, %d of %d pods ready", name, readyCount(pods), len(pods))
}

// providerSource asks each cluster agent whether it can read values. The keys of
// the Secret were tried before; here are those that it was started with.
func (e *exam) providerSource(ctx context.Context) finding {
	d := e.rel.ClusterAgent
	pods, err := e.rel.Pods(ctx, e.Objects, d.Spec.Selector)
	if err != nil {
		return skipped("%v", err)
	}
	asked := 0
	seen := "no ready pod"
	for i := range pods {
		if !release.Ready(&pods[i]) {
			continue
		}
		var s release.ClusterAgentStatus
		if err := release.Status(ctx, e.Access, &pods[i], release.ClusterAgentHealthPort, &s); err != nil {
			seen = err.Error()
			continue
		}
		asked++
		if !s.Source.Failing() {
			continue
		}
		seen := fmt.Sprintf("pod %s, source %s: %s", pods[i].Name, s.Source.URL, s.Source.LastError)
		if strings.Contains(s.Source.LastError, "HTTP 403") || strings.Contains(s.Source.LastError, "HTTP 401") {
			return broken(seen, "wrong keys: the running cluster agent was started with other keys than its Secret holds now",
				fmt.Sprintf("kubectl -n %s rollout restart deployment %s", d.Namespace, d.Name))
		}
		return broken(seen, "the cluster agent cannot read values from its source",
			fmt.Sprintf("check NetworkPolicies and DNS between it and %s; kubectl -n %s logs %s", s.Source.URL, d.Namespace, pods[i].Name))
	}
	if asked == 0 {
		return skipped("the cluster agent's status cannot be read: %s", seen)
	}
	return ok("%d cluster agents read values from their source", asked)
}

func (e *exam) apiServiceAvailable(ctx context.Context) finding {
	var s apiregistrationv1.APIService
	err := e.Objects.Get(ctx, client.ObjectKey{Name: release.APIServiceName}, &s)
	switch {
	case apierrors.IsNotFound(err):
		return broken("APIService "+release.APIServiceName+" does not exist", "Kubernetes does not know who serves external metrics",
			"helm upgrade with clusterAgent.metricsProvider.enabled=true and registerAPIService=true")
	case err != nil:
		return skipped("APIService %s cannot be read: %v", release.APIServiceName, err)
	case s.Spec.Service == nil || s.Spec.Service.Namespace != e.rel.Namespace || !strings.HasPrefix(s.Spec.Service.Name, e.rel.ClusterAgent.Name):
		who := "the API server itself"
		if s.Spec.Service != nil {
			who = "Service " + s.Spec.Service.Namespace + "/" + s.Spec.Service.Name
		}
		return broken("APIService "+s.Name+" leads to "+who, "another provider of external metrics has taken Kelpie's place; only one can have it",
			"uninstall the other one, or its metrics server, then helm upgrade Kelpie")
	}
	for _, c := range s.Status.Conditions {
		if c.Type != apiregistrationv1.Available || c.Status == apiregistrationv1.ConditionTrue {
			continue
		}
		mend := fmt.Sprintf("see that Service %s/%s has endpoints and the API server may reach them (NetworkPolicy, firewall, port %d)", s.Spec.Service.Namespace, s.Spec.Service.Name, port(s.Spec.Service))
		cause := "the API server cannot use the provider"
		if strings.Contains(c.Message, "x509") || strings.Contains(c.Message, "certificate") {
			cause = "the API server does not trust the provider's certificate"
			mend = fmt.Sprintf("let the cluster agent set caBundle again: kubectl -n %s rollout restart deployment %s; see that no other tool overwrites it", e.rel.Namespace, e.rel.ClusterAgent.Name)
		}
		return broken(fmt.Sprintf("Available is %s: %s: %s", c.Status, c.Reason, c.Message), cause, mend)
	}
	trust := "with a verified certificate"
	if len(s.Spec.CABundle) == 0 {
		trust = "without a caBundle"
	}
	if s.Spec.InsecureSkipTLSVerify {
		trust = "without verifying its certificate (insecureSkipTLSVerify)"
	}
	return ok("%s is available, %s", s.Name, trust)
}

func port(s *apiregistrationv1.ServiceReference) int32 {
	if s.Port == nil {
		return 443
	}
	return *s.Port
}

// metricServed asks for each metric as the HPA controller does.
func (e *exam) metricServed(ctx context.Context) finding {
	var seen []string
	for _, w := range e.wanted {
		v, err := release.ExternalMetric(ctx, e.Access.APIServer(), e.Namespace, w.name, w.selector)
		switch {
		case refusedByPolicy(err):
			return broken(fmt.Sprintf("%s: %v", w.name, err), "the cluster agent's policy keeps this metric from namespace "+e.Namespace,
				"do what the refusal says, or change clusterAgent.policy in the chart's values (docs/configuration.md, Policy)")
		case apierrors.IsForbidden(err):
			return skipped("you may not read external metrics: %v", err)
		case err != nil:
			reason := e.objectError(ctx, w)
			return broken(fmt.Sprintf("%s: %v%s", w.name, err, reason), "the provider has no value to give for this metric", fmt.Sprintf(
				"the data is there and fresh, so the cluster agent must say why: kubectl -n %s logs deployment/%s; a new HPA or query takes one polling interval (30 s unless changed)", e.rel.Namespace, e.rel.ClusterAgent.Name))
		case v == nil:
			return broken(w.name+": the provider answers with no item", "the provider does not know this metric for this selector",
				"wait one polling interval (30 s unless changed); then see the cluster agent's log: kubectl -n "+e.rel.Namespace+" logs deployment/"+e.rel.ClusterAgent.Name)
		}
		seen = append(seen, fmt.Sprintf("%s is %s, %s old", w.name, v.Value, max(0, e.now.Sub(v.Timestamp)).Truncate(time.Second)))
	}
	return ok("%s", strings.Join(seen, "; "))
}

// refusedByPolicy tells the cluster agent's refusals from Kubernetes' own: those
// begin with the policy's reason, these with the resource.
func refusedByPolicy(err error) bool {
	var s apierrors.APIStatus
	if !errors.As(err, &s) || s.Status().Code != http.StatusForbidden {
		return false
	}
	return strings.HasPrefix(s.Status().Message, "Forbidden: ") || strings.HasPrefix(s.Status().Message, "QuotaExceeded: ")
}

// objectError returns what the DatadogMetric's own status says is wrong.
func (e *exam) objectError(ctx context.Context, w *wanted) string {
	if w.object == nil {
		return ""
	}
	var m v1alpha1.DatadogMetric
	if e.Objects.Get(ctx, *w.object, &m) != nil {
		return ""
	}
	for _, c := range m.Status.Conditions {
		if c.Type == v1alpha1.DatadogMetricConditionTypeError && c.Status == corev1.ConditionTrue {
			return fmt.Sprintf("; DatadogMetric %s says: %s: %s", w.object, c.Reason, c.Message)
		}
	}
	return ""
}
