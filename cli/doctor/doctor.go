// Package doctor walks the chain from the application to the replicas, layer by
// layer, and stops at the first broken link with its cause and its mend.
//
// It owns the checks and their order: a layer is checked before those that only
// echo its faults. It reads objects, status and the query API with the rights of
// the person who asks, and changes nothing.
package doctor

import (
	"context"
	"fmt"
	"time"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"kelpie.dev/kelpie/cli/release"
	"kelpie.dev/kelpie/datadog"
)

// An Outcome is what a check came to.
type Outcome string

// The outcomes.
const (
	OK      Outcome = "ok"
	Broken  Outcome = "broken"
	Skipped Outcome = "skipped" // could not be looked at; Seen says why
)

// A Result is one check's. It is part of the JSON that "kelpie doctor -o json"
// prints: fields are added, never renamed or removed.
type Result struct {
	Check   string  `json:"check"` // kebab-case, stable
	Layer   string  `json:"layer"`
	Outcome Outcome `json:"outcome"`
	Seen    string  `json:"seen"`            // the evidence
	Cause   string  `json:"cause,omitempty"` // only when broken
	Mend    string  `json:"mend,omitempty"`  // only when broken: what to do
}

// A Report is what the doctor found. When a link is broken it is the last Result.
type Report struct {
	Subject string    `json:"subject"` // "installation" or "hpa/NAMESPACE/NAME"
	At      time.Time `json:"at"`
	Healthy bool      `json:"healthy"`
	Results []Result  `json:"results"`
	NotRun  []string  `json:"not_run"` // the checks behind the broken link
}

// Access reaches HTTP ports in the cluster, and the API server's own paths.
type Access interface {
	release.Proxy
	APIServer() release.Endpoint
}

// Options says whom to examine. Objects and Access are required.
type Options struct {
	Objects         client.Reader
	Access          Access
	KelpieNamespace string // "" searches the cluster
	Namespace, HPA  string // of one autoscaler; HPA "" examines the installation
	Now             func() time.Time
}

// exam is what is known so far. Checks run in order and fill it in.
type exam struct {
	Options
	now        time.Time
	rel        *release.Release
	hpa        *autoscalingv2.HorizontalPodAutoscaler
	targetPods []corev1.Pod
	wanted     []*wanted
	api        *datadog.Client // nil when the keys could not be read
}

// finding is what a check returns.
type finding struct {
	outcome           Outcome
	seen, cause, mend string
}

func ok(format string, args ...any) finding {
	return finding{outcome: OK, seen: fmt.Sprintf(format, args...)}
}

func skipped(format string, args ...any) finding {
	return finding{outcome: Skipped, seen: fmt.Sprintf(format, args...)}
}

func broken(seen, cause, mend string) finding {
	return finding{outcome: Broken, seen: seen, cause: cause, mend: mend}
}

// check is one link of the chain.
type check struct {
	name  string
	layer string
	run   func(*exam, context.Context) finding
}

// Run walks the chain. What it could not look at is in the report, too.
func Run(ctx context.Context, o Options) *Report {
	if o.Now == nil {
		o.Now = time.Now
	}
	e := &exam{Options: o, now: o.Now()}
	r := &Report{Subject: "installation", At: e.now.UTC(), Healthy: true, NotRun: []string{}}
	if o.HPA != "" {
		r.Subject = "hpa/" + o.Namespace + "/" + o.HPA
	}
	for _, c := range chain(o.HPA != "") {
		if !r.Healthy {
			r.NotRun = append(r.NotRun, c.name)
			continue
		}
		f := c.run(e, ctx)
		r.Results = append(r.Results, Result{Check: c.name, Layer: c.layer, Outcome: f.outcome, Seen: f.seen, Cause: f.cause, Mend: f.mend})
		r.Healthy = f.outcome != Broken
	}
	if e.api != nil {
		e.api.CloseIdle()
	}
	return r
}

// chain is the order of the examination. What an autoscaler asks for is checked
// first, as it depends on nothing; then the way of a value from the agents to
// the autoscaler.
func chain(one bool) []check {
	var all []check
	for _, c := range []struct {
		check
		oneOnly, allOnly bool
	}{
		{check: check{"cluster-reachable", "cluster", (*exam).clusterReachable}},
		{check: check{"installation-found", "installation", (*exam).installationFound}},
		{check: check{"hpa-exists", "HPA", (*exam).hpaExists}, oneOnly: true},
		{check: check{"target-exists", "target", (*exam).targetExists}, oneOnly: true},
		{check: check{"hpa-metrics", "HPA", (*exam).hpaMetrics}, oneOnly: true},
		{check: check{"query-syntax", "query", (*exam).querySyntax}, oneOnly: true},
		{check: check{"agents-ready", "agent", (*exam).agentsReady}},
		{check: check{"agent-lines", "agent", (*exam).agentLines}},
		{check: check{"backend-ready", "backend", (*exam).backendReady}},
		{check: check{"intake-key", "intake", (*exam).intakeKey}},
		{check: check{"forwarding", "intake", (*exam).forwarding}},
		{check: check{"query-keys", "query", (*exam).queryKeys}},
		{check: check{"metric-known", "store", (*exam).metricKnown}, oneOnly: true},
		{check: check{"scope-matches", "store", (*exam).scopeMatches}, oneOnly: true},
		{check: check{"query-accepted", "query", (*exam).queryAccepted}, oneOnly: true},
		{check: check{"data-fresh", "application", (*exam).dataFresh}, oneOnly: true},
		{check: check{"cluster-agent-ready", "provider", (*exam).clusterAgentReady}},
		{check: check{"provider-source", "provider", (*exam).providerSource}},
		{check: check{"apiservice-available", "APIService", (*exam).apiServiceAvailable}},
		{check: check{"metric-served", "provider", (*exam).metricServed}, oneOnly: true},
		{check: check{"hpa-condition", "HPA", (*exam).hpaCondition}, oneOnly: true},
		{check: check{"autoscalers", "HPA", (*exam).autoscalers}, allOnly: true},
	} {
		if one && !c.allOnly || !one && !c.oneOnly {
			all = append(all, c.check)
		}
	}
	return all
}
