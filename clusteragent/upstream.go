package clusteragent

import "kelpie.dev/kelpie/env"

// A setting of Datadog's cluster agent that is accepted and changes nothing here.
type superfluous struct{ name, why string }

// withoutEffect lists those about external metrics, each with the reason that
// the log gives when somebody sets it.
var withoutEffect = []superfluous{
	{emp + "BATCH_WINDOW", "autoscalers are followed as they change; nothing is gathered"},
	{emp + "LOCAL_COPY_REFRESH_RATE", "every replica serves its own values; there is no copy to refresh"},
	{emp + "SPLIT_BATCHES_WITH_BACKOFF", "a batch that fails is always taken apart, and only the bad query backs off"},
	{emp + "STARTUP_RETRIES", "the start is retried by the kubelet, and the pod is not ready before"},
	{emp + "STARTUP_RETRY_DELAY", "see STARTUP_RETRIES"},
	{emp + "STARTUP_RETRY_MAX_DELAY", "see STARTUP_RETRIES"},
	{"DD_HPA_CONFIGMAP_NAME", "inline metrics are kept in memory, not in a ConfigMap"},
	{"DD_HPA_WATCHER_POLLING_FREQ", "autoscalers are watched, not polled"},
	{"DD_HPA_WATCHER_GC_PERIOD", "what no autoscaler asks for is forgotten at once"},
	{"DD_KUBERNETES_INFORMERS_RESYNC_PERIOD", "nothing depends on a resync"},
	{"DD_KUBE_CACHE_SYNC_TIMEOUT_SECONDS", "the caches are waited for, and the pod is not ready before"},
	{"DD_LEADER_ELECTION_DEFAULT_RESOURCE", "the lock is always a Lease"},
	{"DD_CLUSTER_AGENT_KUBERNETES_SERVICE_NAME", "the chart tells node agents; the cluster agent need not know"},
	{"DD_METRICS_PORT", "metrics are served on DD_HEALTH_PORT"},
	{"DD_EXPVAR_PORT", "metrics are served on DD_HEALTH_PORT"},
	{"DD_SECRET_BACKEND_COMMAND", "keys are read from the environment, as Kubernetes Secrets give them"},
}

// unneeded returns those of withoutEffect that are set.
func unneeded(r *env.Reader) (set []superfluous) {
	for _, s := range withoutEffect {
		if r.String("", s.name) != "" {
			set = append(set, s)
		}
	}
	return set
}
