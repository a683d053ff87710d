package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	apiregistrationv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"kelpie.dev/kelpie/cli/release"
	"kelpie.dev/kelpie/cli/served"
)

func backendOf(ctx context.Context, c *release.Cluster, rel *release.Release) *backendState {
	b := rel.Backend
	if b == nil {
		return nil
	}
	st := &backendState{workload: workload{b.Name, b.Status.ReadyReplicas, wantedReplicas(b.Spec.Replicas)}}
	pod, err := readyPod(ctx, c, rel, b.Spec.Selector)
	if err != nil {
		st.Error = err.Error()
		return st
	}
	var s release.BackendStatus
	if err := release.Status(ctx, c, pod, release.BackendHealthPort, &s); err != nil {
		st.Error = err.Error()
		return st
	}
	st.Series, st.MetricNames, st.PointsPerSecond = s.Store.Series, s.Store.MetricNames, s.PointsPerSecond
	if n := len(s.Errors); n > 0 {
		last := s.Errors[n-1]
		st.LastError = fmt.Sprintf("%s: %s", stamp(last.At), last.Message)
		if cause := last.Attributes["error"]; cause != "" {
			st.LastError += ": " + cause
		}
	}
	return st
}

func readyPod(ctx context.Context, c *release.Cluster, rel *release.Release, sel *metav1.LabelSelector) (*corev1.Pod, error) {
	pods, err := rel.Pods(ctx, c, sel)
	if err != nil {
		return nil, err
	}
	for i := range pods {
		if release.Ready(&pods[i]) {
			return &pods[i], nil
		}
	}
	return nil, errors.New("no pod is ready")
}

// clusterAgentOf returns the cluster agent's part, and its view of the metrics:
// nil when it cannot be asked.
func clusterAgentOf(ctx context.Context, c *release.Cluster, rel *release.Release) (agentState, []served.Metric) {
	d := rel.ClusterAgent
	st := agentState{workload: workload{d.Name, d.Status.ReadyReplicas, wantedReplicas(d.Spec.Replicas)}}
	if name := release.Env(&d.Spec.Template.Spec, "DD_LEADER_LEASE_NAME"); name != "" {
		var lease coordinationv1.Lease
		if err := c.Get(ctx, client.ObjectKey{Namespace: rel.Namespace, Name: name}, &lease); err == nil && lease.Spec.HolderIdentity != nil {
			st.Leader = *lease.Spec.HolderIdentity
		}
	}
	pod, err := readyPod(ctx, c, rel, d.Spec.Selector)
	if err != nil {
		st.Error = err.Error()
		return st, nil
	}
	var s release.ClusterAgentStatus
	if err := release.Status(ctx, c, pod, release.ClusterAgentHealthPort, &s); err != nil {
		st.Error = err.Error()
		return st, nil
	}
	switch {
	case s.Leader:
		st.Leader = s.Replica
	case st.Leader == "":
		st.Leader = s.LeaderName
	}
	st.Registration, st.Certificate, st.CertEnds = s.Registration, s.Certificate, s.CertEnds
	st.Sources = append([]served.Source{s.Source}, s.OtherSources...)
	st.Source, st.Pushed = s.Source.URL, s.Source.Streaming
	if s.Source.Failing() {
		st.SourceError = s.Source.LastError
	}
	if sh := s.Shadow; sh != nil {
		st.Shadow = sh.Text()
	}
	if s.Metrics == nil {
		s.Metrics = []served.Metric{}
	}
	return st, s.Metrics
}

// asSeen is the metrics as the cluster agent sees them.
func asSeen(rows []served.Metric, now time.Time) []servedMetric {
	out := make([]servedMetric, len(rows))
	for i, r := range rows {
		out[i] = servedMetric{Name: r.Metric, Query: r.Query, Source: r.Source, State: r.State, Value: r.Value, Valid: r.Valid, StandsIn: r.StandsIn,
			Error: r.Error, Warning: r.Warning, References: r.References, Advice: r.Advice, Pushed: r.Pushed, NextAttempt: r.NextAttempt, BackOff: r.BackOff}
		if !r.At.IsZero() {
			age := max(0, now.Sub(r.At).Seconds())
			out[i].AgeSeconds = &age
		}
		if out[i].References == nil {
			out[i].References = []string{}
		}
	}
	return out
}

func apiServiceOf(ctx context.Context, c *release.Cluster) apiServiceState {
	var s apiregistrationv1.APIService
	if err := c.Get(ctx, client.ObjectKey{Name: release.APIServiceName}, &s); err != nil {
		return apiServiceState{Message: err.Error()}
	}
	for _, cond := range s.Status.Conditions {
		if cond.Type == apiregistrationv1.Available {
			if cond.Status == apiregistrationv1.ConditionTrue {
				return apiServiceState{Available: true}
			}
			return apiServiceState{Message: cond.Reason + ": " + cond.Message}
		}
	}
	return apiServiceState{Message: "the API server has not looked at it yet"}
}

// maxAsked bounds how many metrics are asked for one by one.
const maxAsked = 200

// asServed asks the API for each external metric that an HPA names, once: what
// can be known without the cluster agent's own view.
func asServed(ctx context.Context, c *release.Cluster, now time.Time) ([]servedMetric, error) {
	out := []servedMetric{}
	var list autoscalingv2.HorizontalPodAutoscalerList
	if err := c.List(ctx, &list); err != nil {
		return out, fmt.Errorf("list HPAs: %w", err)
	}
	type key struct{ namespace, name, selector string }
	selectors := map[key]*metav1.LabelSelector{}
	references := map[key][]string{}
	for _, h := range list.Items {
		for _, m := range h.Spec.Metrics {
			if m.Type != autoscalingv2.ExternalMetricSourceType || m.External == nil {
				continue
			}
			k := key{h.Namespace, m.External.Metric.Name, ""}
			if sel := m.External.Metric.Selector; sel != nil {
				k.selector = metav1.FormatLabelSelector(sel)
			}
			selectors[k] = m.External.Metric.Selector
			references[k] = append(references[k], h.Namespace+"/"+h.Name)
		}
	}
	for k, refs := range references {
		slices.Sort(refs)
		out = append(out, servedMetric{namespace: k.namespace, Name: k.name, selector: selectors[k], References: slices.Compact(refs)})
	}
	slices.SortFunc(out, func(a, b servedMetric) int {
		return cmp.Or(strings.Compare(a.Name, b.Name), strings.Compare(a.References[0], b.References[0]))
	})
	for i := range out[:min(len(out), maxAsked)] {
		out[i].ask(ctx, c, now)
	}
	slices.SortStableFunc(out, func(a, b servedMetric) int { return cmp.Compare(rank(a.Valid), rank(b.Valid)) })
	if len(out) > maxAsked {
		return out, fmt.Errorf("only the first %d of %d metrics were asked for", maxAsked, len(out))
	}
	return out, nil
}

func rank(valid bool) int {
	if valid {
		return 1
	}
	return 0
}

func (m *servedMetric) ask(ctx context.Context, c *release.Cluster, now time.Time) {
	v, err := release.ExternalMetric(ctx, c.APIServer(), m.namespace, m.Name, m.selector)
	switch {
	case err != nil:
		m.Error = err.Error()
	case v == nil:
		m.Error = "the provider has no value"
	default:
		age := max(0, now.Sub(v.Timestamp).Seconds())
		m.Value, m.AgeSeconds, m.Valid = v.Value, &age, true
	}
}
