package clusteragent

import (
	corev1 "k8s.io/api/core/v1"

	"kelpie.dev/kelpie/clusteragent/datadogmetric"
	"kelpie.dev/kelpie/clusteragent/policy"
	"kelpie.dev/kelpie/clusteragent/source"
)

// judgePlain judges the query that an autoscaler's plain metric name means.
func (a *agent) judgePlain(namespace, text string) error {
	q := policy.Query{Text: text, Window: a.cfg.Rules.Window(0, 0)}
	if a.cfg.Sources.Main == source.Prometheus {
		q.Language = "PromQL"
	}
	// A nil *Refusal must not become an error that is not nil.
	if no := a.cfg.Policy.Plain(namespace, q); no != nil {
		return no
	}
	return nil
}

// refused tells, once, what the policy begins to refuse: the DatadogMetric of
// its query, or the autoscaler of the metric that it may not name.
func (a *agent) refused(r datadogmetric.Refusal) {
	if r.By != nil {
		a.events.policy.WithLabelValues("autoscaler", r.Why.Reason).Inc()
		a.proc.Log.Warn("the policy refuses an autoscaler's reference", "autoscaler", r.By.String(), "datadogmetric", r.Object.String(), "reason", r.Why.Reason)
		a.events.warn(autoscaler(*r.By, a.index.UID(*r.By)), r.Why.Reason, r.Why.Message)
		return
	}
	a.events.policy.WithLabelValues("datadogmetric", r.Why.Reason).Inc()
	object := corev1.ObjectReference{APIVersion: datadogmetric.Resource.GroupVersion().String(), Kind: "DatadogMetric",
		Namespace: r.Object.Namespace, Name: r.Object.Name, UID: r.UID}
	a.events.warn(object, r.Why.Reason, r.Why.Message)
}
