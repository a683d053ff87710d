package reference

import (
	"maps"
	"slices"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	"k8s.io/apimachinery/pkg/types"
)

// A Target is what an autoscaler wants of one of its metrics.
type Target struct {
	Metric string // as the autoscaler spells it
	Object types.NamespacedName
	Query  string                         // that a plain name means; empty for one that names an object
	Type   autoscalingv2.MetricTargetType // empty of a WatermarkPodAutoscaler, whose own controller knows others
}

// Targets returns what an autoscaler wants of its metrics that are served.
func (x *Index) Targets(id Autoscaler) []Target {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return slices.Clone(x.by[id].targets)
}

// Autoscalers returns all that refer to anything, sorted.
func (x *Index) Autoscalers() []Autoscaler {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return slices.SortedFunc(maps.Keys(x.by), Autoscaler.compare)
}
