package release

import (
	"cmp"
	"time"

	corev1 "k8s.io/api/core/v1"

	"kelpie.dev/kelpie/datadog"
)

// Ports of the roles, when their pods name no other.
const (
	QueryPort              = 8080
	AgentHealthPort        = 5555
	ClusterAgentHealthPort = 5556
	BackendHealthPort      = 8081
)

// queryTimeout bounds a request that a person waits for.
const queryTimeout = 15 * time.Second

// A Proxy reaches ports inside the cluster.
type Proxy interface {
	Service(namespace, name string, port int32) Endpoint
	Pod(namespace, name string, port int32) Endpoint
}

// QueryURL says where the release's query API is, in the words of its pods.
func (r *Release) QueryURL() string {
	spec := r.QueryPod()
	if r.Backend != nil {
		return "http://" + r.Backend.Spec.ServiceName + "." + r.Namespace + ".svc:8080"
	}
	return cmp.Or(Env(spec, "DD_EXTERNAL_METRICS_PROVIDER_ENDPOINT"), datadog.APIURL(Env(spec, "DD_SITE")))
}

// QueryPod returns the spec of the pods whose keys fit the query API: the
// backend's own, or the cluster agent's when the API is Datadog's.
func (r *Release) QueryPod() *corev1.PodSpec {
	if r.Backend != nil {
		return &r.Backend.Spec.Template.Spec
	}
	return &r.ClusterAgent.Spec.Template.Spec
}

// API returns a client of the release's query API with the given keys.
func (r *Release) API(p Proxy, keys Keys) (*datadog.Client, error) {
	o := datadog.Options{BaseURL: r.QueryURL(), APIKey: keys.API.Reveal(), AppKey: keys.App.Reveal(), Timeout: queryTimeout}
	if r.Backend != nil {
		e := p.Service(r.Namespace, r.Backend.Spec.ServiceName, QueryPort)
		o.BaseURL, o.HTTP = e.URL, e.HTTP
	}
	return datadog.New(o)
}
