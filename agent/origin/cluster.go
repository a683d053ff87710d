package origin

import (
	"context"
	"maps"
	"slices"
	"time"
)

// A Cluster tells of this node's pods what the kubelet does not know.
type Cluster interface {
	// Services returns the names of the services that select each pod of this
	// node, by "namespace/pod".
	Services(ctx context.Context) (map[string][]string, error)
	// NamespaceLabels returns the labels of a namespace.
	NamespaceLabels(ctx context.Context, namespace string) (map[string]string, error)
}

// Timing of what a Cluster is asked. Nothing waits for its answers.
const (
	clusterMin   = 5 * time.Second // between two rounds, also when new pods appear
	clusterEvery = time.Minute     // between two rounds otherwise
	clusterMax   = 5 * time.Minute // between rounds that fail, and how old a namespace's labels may be
)

// clusterFacts is what a Cluster has told. It is immutable.
type clusterFacts struct {
	services   map[string][]string
	namespaces map[string]map[string]string
}

func (f *clusterFacts) equal(other *clusterFacts) bool {
	return f != nil && other != nil && maps.EqualFunc(f.services, other.services, slices.Equal) &&
		maps.EqualFunc(f.namespaces, other.namespaces, maps.Equal)
}

// clusterWatch asks a Cluster now and then. It has one goroutine.
type clusterWatch struct {
	t       *Tagger
	facts   *clusterFacts
	answer  uint64               // of the kubelet, that the last round was for
	asked   map[string]time.Time // when a namespace's labels came
	failing bool
}

// run asks as long as ctx lasts: soon after pods have appeared, and every
// minute while anybody uses the tags.
func (w *clusterWatch) run(ctx context.Context) {
	pause := clusterEvery
	timer := time.NewTimer(pause)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-w.t.newPods:
		case <-timer.C:
		}
		pause = clusterEvery
		pods, answer := w.t.Snapshot()
		if answer != w.answer && !w.round(ctx, pods) { // else nobody uses the tags
			pause = clusterMax
		}
		w.answer = answer
		select {
		case <-ctx.Done():
			return
		case <-time.After(clusterMin):
		}
		timer.Reset(pause)
	}
}

// round asks for all that is needed of pods, and reports whether all was told.
func (w *clusterWatch) round(ctx context.Context, pods []Pod) bool {
	next := &clusterFacts{namespaces: map[string]map[string]string{}}
	var failed error
	if w.facts != nil {
		next.services = w.facts.services // until there are newer ones
	}
	if !w.t.o.Tags.NoServices {
		services, err := w.t.o.Cluster.Services(ctx)
		if err == nil {
			next.services = services
		}
		failed = err
	}
	if !w.t.o.Tags.NamespaceLabels.Empty() {
		if err := w.namespaces(ctx, pods, next); err != nil {
			failed = err
		}
	}
	if ctx.Err() != nil {
		return false
	}
	switch {
	case failed != nil && !w.failing:
		w.t.o.Log.Warn("cannot learn of the cluster's services and namespaces; pods go without their tags", "error", failed)
	case failed == nil && w.failing:
		w.t.o.Log.Info("the cluster's services and namespaces are known again")
	}
	w.failing = failed != nil
	if !next.equal(w.facts) {
		w.facts = next
		w.t.learn(next)
	}
	return failed == nil
}

// namespaces fills in the labels of the namespaces of pods, asking for those
// that are not known or old. It stops at the first that cannot be had.
func (w *clusterWatch) namespaces(ctx context.Context, pods []Pod, next *clusterFacts) (err error) {
	now, asked := time.Now(), map[string]time.Time{}
	for i := range pods {
		name := pods[i].Metadata.Namespace
		if _, done := next.namespaces[name]; done {
			continue
		}
		at, known := w.asked[name]
		if known {
			next.namespaces[name], asked[name] = w.facts.namespaces[name], at
		}
		if known && now.Sub(at) < clusterMax || err != nil {
			continue
		}
		var labels map[string]string
		if labels, err = w.t.o.Cluster.NamespaceLabels(ctx, name); err == nil {
			next.namespaces[name], asked[name] = labels, now
		}
	}
	w.asked = asked
	return err
}
