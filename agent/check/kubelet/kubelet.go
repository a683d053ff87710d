// Package kubelet is the check of this node's pods and containers: what they
// use, what they asked for and how they are, by the kubelet's answers.
//
// It owns the names, units and tag levels of kubernetes.* and container.*
// metrics (reference metrics-pipeline A3.6). It does not know how the kubelet
// is reached.
package kubelet

import (
	"context"
	"errors"

	"kelpie.dev/kelpie/agent/check"
	"kelpie.dev/kelpie/agent/origin"
	"kelpie.dev/kelpie/metric"
)

// Limits of the kubelet's answers in bytes.
const (
	maxCadvisor = 64 << 20
	maxSummary  = 32 << 20
)

// Kubelet is the kubelet's HTTP API.
type Kubelet interface {
	// Get returns the answer at path, of at most limit bytes.
	Get(ctx context.Context, path string, limit int64) ([]byte, error)
}

// Kind is the check named kubelet. It runs every 15 s like any other; at
// upstream's 20 s, rollups of 10 s have holes.
func Kind(k Kubelet, pods check.Pods) check.Kind {
	return check.Kind{Name: "kubelet", FileOnly: true, New: func(i *check.Instance) (check.Check, error) {
		return &kubelet{kubelet: k, pods: pods}, i.Decode(&struct{}{})
	}}
}

type kubelet struct {
	kubelet Kubelet
	pods    check.Pods
}

func (*kubelet) Close() {}

// Run asks for what the containers use, and tells it with the pods that the
// agent knows. What the kubelet does not answer is left out; the rest is told.
func (k *kubelet) Run(ctx context.Context, s *check.Sender) error {
	k.pods.Use()
	pods, generation := k.pods.Snapshot()
	if generation == 0 {
		s.Warnf("the kubelet has not told this node's pods yet")
		return nil
	}
	n := newNode(pods, func(e origin.Entity) *origin.Levels {
		levels, _ := k.pods.Lookup(e, s.Time())
		return levels
	})
	podMetrics(s, n)
	page, errUsage := k.kubelet.Get(ctx, "/metrics/cadvisor", maxCadvisor)
	fileSystems := false // told by cAdvisor
	if errUsage == nil {
		fileSystems, errUsage = usage(s, page, n)
	}
	answer, errSummary := k.kubelet.Get(ctx, "/stats/summary", maxSummary)
	if errSummary == nil {
		errSummary = storage(s, answer, n, !fileSystems)
	}
	err := errors.Join(errUsage, errSummary)
	status, message := metric.CheckOK, ""
	if err != nil {
		status, message = metric.CheckCritical, err.Error()
	}
	s.ServiceCheck("kubernetes.kubelet.check", status, message)
	return err
}
