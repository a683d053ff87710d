package charts_test

import (
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apiregistrationv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"
)

// decoders read an object of their kind and refuse a field that it does not have.
var decoders = map[string]func(*testing.T, object){
	"v1 Secret":         decode[corev1.Secret],
	"v1 Service":        decode[corev1.Service],
	"v1 ServiceAccount": decode[corev1.ServiceAccount],
	"apps/v1 DaemonSet": decode[appsv1.DaemonSet], "apps/v1 Deployment": decode[appsv1.Deployment], "apps/v1 StatefulSet": decode[appsv1.StatefulSet],
	"rbac.authorization.k8s.io/v1 Role": decode[rbacv1.Role], "rbac.authorization.k8s.io/v1 RoleBinding": decode[rbacv1.RoleBinding],
	"rbac.authorization.k8s.io/v1 ClusterRole": decode[rbacv1.ClusterRole], "rbac.authorization.k8s.io/v1 ClusterRoleBinding": decode[rbacv1.ClusterRoleBinding],
	"policy/v1 PodDisruptionBudget":           decode[policyv1.PodDisruptionBudget],
	"networking.k8s.io/v1 NetworkPolicy":      decode[networkingv1.NetworkPolicy],
	"apiregistration.k8s.io/v1 APIService":    decode[apiregistrationv1.APIService],
	"monitoring.coreos.com/v1 PrometheusRule": decode[prometheusRule], "cert-manager.io/v1 Certificate": decode[certificate],
}

func decode[T any](t *testing.T, o object) {
	t.Helper()
	_ = into[T](t, o)
}

// everything turns on each part of the templates that is off by default.
const everything = `
commonLabels: {team: web}
kelpie: {image: {pullSecrets: [{name: regcred}]}}
datadog:
  apiKey: a
  appKey: b
  secretAnnotations: {note: x}
  clusterName: lab.example
  tags: ["env:test"]
  leaderLeaseDuration: 15
  kubelet: {tlsVerify: false, hostCAPath: /etc/kubernetes/kubelet-ca.crt}
  originDetectionUnified: {enabled: true}
  dogstatsd: {originDetection: true, tags: ["a:b"]}
  networkPolicy: {create: true}
  envFrom: [{configMapRef: {name: c}}]
backend:
  alsoSendToDatadog: true
  retention: {time: 48h, bytes: 8000000000}
  priorityClassName: high
  nodeSelector: {disk: fast}
  tolerations: [{operator: Exists}]
  affinity: {nodeAffinity: {}}
  podLabels: {a: b}
  podAnnotations: {a: b}
agents:
  useHostNetwork: true
  dnsConfig: {searches: [example]}
  volumes: [{name: v, emptyDir: {}}]
  volumeMounts: [{name: v, mountPath: /v}]
  nodeSelector: {disk: fast}
  tolerations: [{operator: Exists}]
  affinity: {nodeAffinity: {}}
  priorityClassName: high
  podLabels: {a: b}
  podAnnotations: {a: b}
  additionalLabels: {a: b}
  daemonsetAnnotations: {a: b}
  containers: {agent: {livenessProbe: {periodSeconds: 30}}}
  rbac: {serviceAccountAnnotations: {a: b}}
clusterAgent:
  replicas: 2
  metricsProvider: {enabled: true, useDatadogMetrics: true, certManager: {enabled: true, issuerRef: {name: house}}}
  monitors: {prometheusRule: {enabled: true, labels: {release: prom}}}
  useHostNetwork: true
  dnsConfig: {searches: [example]}
  volumes: [{name: v, emptyDir: {}}]
  volumeMounts: [{name: v, mountPath: /v}]
  nodeSelector: {disk: fast}
  tolerations: [{operator: Exists}]
  affinity: {nodeAffinity: {}}
  topologySpreadConstraints: [{maxSkew: 1, topologyKey: zone, whenUnsatisfiable: ScheduleAnyway}]
  priorityClassName: high
  podLabels: {a: b}
  podAnnotations: {a: b}
  additionalLabels: {a: b}
  deploymentAnnotations: {a: b}
  pdb: {create: true, maxUnavailable: 1}
  envFrom: [{configMapRef: {name: c}}]
`

// A misspelt field would be dropped by the API server without a word.
func TestObjectsAreWhatTheirKindsSay(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{{"--values", inline}, {"--values", crd}, {values(t, everything)}} {
		seen := map[string]bool{}
		for _, o := range render(t, args...) {
			decode, known := decoders[o.APIVersion+" "+o.Kind]
			if !known {
				t.Errorf("%s is of a kind that the chart does not use", o)
				continue
			}
			decode(t, o)
			if seen[o.String()] {
				t.Errorf("%s stands twice", o)
			}
			seen[o.String()] = true
			if o.Labels["app.kubernetes.io/instance"] != release {
				t.Errorf("%s does not say which release it belongs to", o)
			}
		}
	}
}
