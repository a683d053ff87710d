package doctor_test

import (
	"encoding/json"
	"errors"
	"net/http"
	"testing"
	"time"

	"github.com/DataDog/datadog-operator/api/datadoghq/v1alpha1"
	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	apiregistrationv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"kelpie.dev/kelpie/cli/release"
	"kelpie.dev/kelpie/metric"
)

const (
	apiKey = "0123456789abcdef0123456789abcdef"
	appKey = "fedcba9876543210fedcba9876543210fedcba98"
)

var errNoValue = errors.New("value is stale")

// restore puts the content of before into into.
func restore(before, into client.Object) {
	switch b := before.(type) {
	case *corev1.Pod:
		b.DeepCopyInto(into.(*corev1.Pod))
	case *corev1.Secret:
		b.DeepCopyInto(into.(*corev1.Secret))
	case *appsv1.Deployment:
		b.DeepCopyInto(into.(*appsv1.Deployment))
	case *appsv1.StatefulSet:
		b.DeepCopyInto(into.(*appsv1.StatefulSet))
	case *autoscalingv2.HorizontalPodAutoscaler:
		b.DeepCopyInto(into.(*autoscalingv2.HorizontalPodAutoscaler))
	case *v1alpha1.DatadogMetric:
		b.DeepCopyInto(into.(*v1alpha1.DatadogMetric))
	case *apiregistrationv1.APIService:
		b.DeepCopyInto(into.(*apiregistrationv1.APIService))
	}
}

func objectMeta(namespace, name, component string) metav1.ObjectMeta {
	return metav1.ObjectMeta{Namespace: namespace, Name: name, Labels: map[string]string{
		"app": name, "app.kubernetes.io/name": "kelpie", "app.kubernetes.io/instance": "datadog-agent", "app.kubernetes.io/component": component}}
}

func selector(name string) *metav1.LabelSelector {
	return &metav1.LabelSelector{MatchLabels: map[string]string{"app": name}}
}

// template is a role's pod template: it takes both keys from the Secret.
func template(name string) corev1.PodTemplateSpec {
	key := func(env, key string) corev1.EnvVar {
		return corev1.EnvVar{Name: env, ValueFrom: &corev1.EnvVarSource{SecretKeyRef: &corev1.SecretKeySelector{
			LocalObjectReference: corev1.LocalObjectReference{Name: "datadog-secret"}, Key: key}}}
	}
	return corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"app": name}}, Spec: corev1.PodSpec{Containers: []corev1.Container{{
		Name: "main", Image: "kelpie", Env: []corev1.EnvVar{key("DD_API_KEY", "api-key"), key("DD_APP_KEY", "app-key"),
			{Name: "DD_EXTERNAL_METRICS_PROVIDER_USE_DATADOGMETRIC_CRD", Value: "true"}}}}}}
}

// pod is a ready pod of the workload app.
func (l *lab) pod(namespace, app, name string, health int32) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: objectMeta(namespace, name, "pod"), Spec: corev1.PodSpec{NodeName: "node-1", Containers: []corev1.Container{{Name: "main", Image: "kelpie"}}}}
	p.Labels["app"] = app
	if health != 0 {
		p.Spec.Containers[0].Ports = []corev1.ContainerPort{{Name: "health", ContainerPort: health}}
	}
	p.Status = corev1.PodStatus{Phase: corev1.PodRunning, PodIP: l.ip, PodIPs: []corev1.PodIP{{IP: l.ip}},
		Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}}
	return p
}

// service makes a Service whose one endpoint is a pod, as controllers would.
func (l *lab) service(name, pod string, port, target int32) {
	l.create(&corev1.Service{ObjectMeta: objectMeta("datadog", name, "service"), Spec: corev1.ServiceSpec{
		Ports: []corev1.ServicePort{{Name: "http", Port: port, TargetPort: intstr.FromInt32(target)}}}})
	ref := &corev1.ObjectReference{Kind: "Pod", Namespace: "datadog", Name: pod}
	slice := &discoveryv1.EndpointSlice{ObjectMeta: objectMeta("datadog", name, "endpoints"), AddressType: discoveryv1.AddressTypeIPv4,
		Ports:     []discoveryv1.EndpointPort{{Name: new("http"), Port: &target, Protocol: new(corev1.ProtocolTCP)}},
		Endpoints: []discoveryv1.Endpoint{{Addresses: []string{l.ip}, Conditions: discoveryv1.EndpointConditions{Ready: new(true)}, TargetRef: ref}}}
	slice.Labels[discoveryv1.LabelServiceName] = name
	l.create(slice)
}

// freshSeries is what the application sends.
func freshSeries(age time.Duration) []metric.Series {
	end := time.Now().Add(-age).Unix() / 10 * 10
	s := metric.Series{Name: "flask.request.rate", Type: metric.Gauge, Interval: 10, Tags: metric.NewTags("kube_namespace:test", "kube_deployment:test-metric-app")}
	for at := end - 600; at <= end; at += 10 {
		s.Points = append(s.Points, metric.Point{Time: at, Value: 4.5})
	}
	other := s
	other.Tags = metric.NewTags("kube_namespace:shop", "kube_deployment:other-app")
	return []metric.Series{s, other}
}

// populate installs Kelpie and the walkthrough's application.
func (l *lab) populate() {
	for _, ns := range []string{"datadog", "test"} {
		l.create(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: ns}})
	}
	l.create(&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "datadog", Name: "datadog-secret"}, StringData: map[string]string{"api-key": apiKey, "app-key": appKey}})
	one := int32(1)
	agent := l.listen(l.status(func() any { return l.agent }), nil)
	l.create(&appsv1.DaemonSet{ObjectMeta: objectMeta("datadog", "datadog-agent", "agent"), Spec: appsv1.DaemonSetSpec{Selector: selector("datadog-agent"), Template: template("datadog-agent")},
		Status: appsv1.DaemonSetStatus{DesiredNumberScheduled: 1, NumberReady: 1}})
	l.create(l.pod("datadog", "datadog-agent", "datadog-agent-x1", agent))

	const backend = "datadog-agent-backend"
	l.create(&appsv1.StatefulSet{ObjectMeta: objectMeta("datadog", backend, "backend"), Spec: appsv1.StatefulSetSpec{Replicas: &one, ServiceName: backend, Selector: selector(backend), Template: template(backend)},
		Status: appsv1.StatefulSetStatus{Replicas: 1, ReadyReplicas: 1}})
	l.create(l.pod("datadog", backend, backend+"-0", l.listen(l.status(func() any { return json.RawMessage(l.backend) }), nil)))
	l.service(backend, backend+"-0", 8080, l.listen(l.api, nil))
	l.api.Store(freshSeries(0)...)

	const ca = "datadog-cluster-agent"
	l.create(&appsv1.Deployment{ObjectMeta: objectMeta("datadog", ca, "cluster-agent"), Spec: appsv1.DeploymentSpec{Replicas: &one, Selector: selector(ca), Template: template(ca)},
		Status: appsv1.DeploymentStatus{Replicas: 1, ReadyReplicas: 1}})
	l.create(l.pod("datadog", ca, ca+"-y1", l.listen(l.status(func() any { return l.clusterAgent }), nil)))
	cert, trusted := l.certificate(ca + ".datadog.svc")
	l.service(ca, ca+"-y1", 8443, l.listen(http.HandlerFunc(l.externalMetrics), cert))
	l.create(&apiregistrationv1.APIService{ObjectMeta: metav1.ObjectMeta{Name: release.APIServiceName}, Spec: apiregistrationv1.APIServiceSpec{
		Group: "external.metrics.k8s.io", Version: "v1beta1", GroupPriorityMinimum: 100, VersionPriority: 100, CABundle: trusted,
		Service: &apiregistrationv1.ServiceReference{Namespace: "datadog", Name: ca, Port: new(int32(8443))}}})
	l.populateApplication()
}

func (l *lab) populateApplication() {
	one := int32(1)
	const app = "test-metric-app"
	l.create(&appsv1.Deployment{ObjectMeta: objectMeta("test", app, "app"), Spec: appsv1.DeploymentSpec{Replicas: &one, Selector: selector(app), Template: template(app)}})
	l.create(l.pod("test", app, app+"-z1", 0))
	l.create(&v1alpha1.DatadogMetric{ObjectMeta: metav1.ObjectMeta{Namespace: "test", Name: "flask-request-rate"},
		Spec: v1alpha1.DatadogMetricSpec{Query: "avg:flask.request.rate{kube_namespace:test,kube_deployment:test-metric-app}"}})
	for name, m := range map[string]autoscalingv2.MetricIdentifier{
		"inline": {Name: "flask.request.rate", Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"kube_namespace": "test", "kube_deployment": "test-metric-app"}}},
		"crd":    {Name: "datadogmetric@test:flask-request-rate"},
	} {
		five := resource.MustParse("5")
		l.create(&autoscalingv2.HorizontalPodAutoscaler{ObjectMeta: metav1.ObjectMeta{Namespace: "test", Name: name}, Spec: autoscalingv2.HorizontalPodAutoscalerSpec{
			ScaleTargetRef: autoscalingv2.CrossVersionObjectReference{APIVersion: "apps/v1", Kind: "Deployment", Name: app}, MaxReplicas: 5,
			Metrics: []autoscalingv2.MetricSpec{{Type: autoscalingv2.ExternalMetricSourceType, External: &autoscalingv2.ExternalMetricSource{
				Metric: m, Target: autoscalingv2.MetricTarget{Type: autoscalingv2.ValueMetricType, Value: &five}}}}},
			Status: autoscalingv2.HorizontalPodAutoscalerStatus{CurrentReplicas: 1, DesiredReplicas: 1, Conditions: []autoscalingv2.HorizontalPodAutoscalerCondition{
				{Type: autoscalingv2.ScalingActive, Status: corev1.ConditionTrue, Reason: "ValidMetricFound"}}}})
	}
}

// waitAvailable waits until the API server has found the provider to be usable, or not.
func (l *lab) waitAvailable(t *testing.T, want apiregistrationv1.ConditionStatus) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for {
		var s apiregistrationv1.APIService
		if err := l.objects.Get(t.Context(), client.ObjectKey{Name: release.APIServiceName}, &s); err != nil {
			t.Fatal(err)
		}
		for _, c := range s.Status.Conditions {
			if c.Type == apiregistrationv1.Available && c.Status == want {
				return
			}
		}
		if time.Now().After(deadline) {
			t.Fatalf("the APIService is not %s: %+v", want, s.Status.Conditions)
		}
		select {
		case <-t.Context().Done():
		case <-time.After(100 * time.Millisecond):
		}
	}
}
