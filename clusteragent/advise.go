package clusteragent

import (
	"cmp"
	"fmt"
	"sync"

	"k8s.io/apimachinery/pkg/types"

	"kelpie.dev/kelpie/clusteragent/advice"
	"kelpie.dev/kelpie/clusteragent/datadogmetric"
	"kelpie.dev/kelpie/clusteragent/reference"
	"kelpie.dev/kelpie/clusteragent/source"
)

// advices remembers what autoscalers were told, so that each is told once.
type advices struct {
	mu   sync.Mutex // guards what follows
	told map[reference.Autoscaler]map[advised]bool
}

// advised is one thing that an autoscaler is told.
type advised struct {
	metric string
	object types.NamespacedName
	reason string
	text   string
}

// advicesOf returns what is to be said of an autoscaler's targets now.
func (a *agent) advicesOf(id reference.Autoscaler) []advised {
	var out []advised
	for _, t := range a.index.Targets(id) {
		text := t.Query
		from := source.Name("")
		if a.objects != nil {
			if m, ok := a.objects.Metric(t.Object); ok && m.Problem == nil {
				text, from = m.Key.Query, m.Key.Source
			}
		}
		if cmp.Or(from, a.cfg.Sources.Main) == source.Prometheus {
			continue
		}
		if reason, sentence := advice.Target(text, t.Type); reason != "" {
			out = append(out, advised{t.Metric, t.Object, reason, sentence})
		}
	}
	return out
}

// advise tells an autoscaler, on the leader, what it was not told yet. It is told
// anew when what it was told was mended in between.
func (a *agent) advise(id reference.Autoscaler) {
	if !a.leader.isLeader() {
		return
	}
	now := map[advised]bool{}
	for _, adv := range a.advicesOf(id) {
		now[adv] = true
	}
	a.advices.mu.Lock()
	was := a.advices.told[id]
	if a.advices.told[id] = now; len(now) == 0 {
		delete(a.advices.told, id)
	}
	a.advices.mu.Unlock()
	for adv := range now {
		if !was[adv] {
			a.proc.Log.Info("an autoscaler's target does not suit its query", "autoscaler", id.String(), "metric", adv.metric, "reason", adv.reason)
			a.events.warn(autoscaler(id, a.index.UID(id)), adv.reason, fmt.Sprintf("metric %s: %s", adv.metric, adv.text))
		}
	}
}

// adviseAll tells all autoscalers, as a new leader does.
func (a *agent) adviseAll() {
	a.advices.mu.Lock()
	clear(a.advices.told)
	a.advices.mu.Unlock()
	for _, id := range a.index.Autoscalers() {
		a.advise(id)
	}
}

// adviseUsers tells those who read an object whose query has changed.
func (a *agent) adviseUsers(m datadogmetric.Metric) {
	for _, id := range m.References {
		a.advise(id)
	}
}

// advicesFor returns what the status says at a metric, of each autoscaler that
// reads it.
func (a *agent) advicesFor(m datadogmetric.Metric) (out []string) {
	for _, id := range m.References {
		for _, adv := range a.advicesOf(id) {
			if adv.object == m.ID {
				out = append(out, fmt.Sprintf("%s: %s: %s", id, adv.reason, adv.text))
			}
		}
	}
	return out
}
