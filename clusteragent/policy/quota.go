package policy

import (
	"cmp"
	"slices"
	"sync"
	"time"
)

// A Quota counts the metrics of each namespace against its rule. Older metrics
// come first, whatever order they are told in, so that all replicas decide alike.
// Its methods may be called concurrently.
type Quota struct {
	policy *Policy
	mu     sync.Mutex // guards spaces
	spaces map[string][]entry
}

type entry struct {
	name    string
	created time.Time
	cost    int
	refusal *Refusal
}

func compareEntries(a, b entry) int {
	return cmp.Or(a.created.Compare(b.created), cmp.Compare(a.name, b.name))
}

// NewQuota returns a Quota that counts nothing yet.
func NewQuota(p *Policy) *Quota { return &Quota{policy: p, spaces: map[string][]entry{}} }

// Set counts a metric, anew if it is known. It returns whether the metric is
// refused, and the names of the others for which that has changed.
func (q *Quota) Set(namespace, name string, created time.Time, cost int) (no *Refusal, changed []string) {
	r := q.policy.rule(namespace)
	if r.Metrics == 0 && r.Cost == 0 {
		return nil, nil
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	all := q.spaces[namespace]
	if i := slices.IndexFunc(all, func(e entry) bool { return e.name == name }); i >= 0 {
		if e := all[i]; e.created.Equal(created) && e.cost == cost {
			return e.refusal, nil
		}
		all = slices.Delete(all, i, i+1)
	}
	e := entry{name: name, created: created, cost: cost}
	i, _ := slices.BinarySearchFunc(all, e, compareEntries)
	q.spaces[namespace] = slices.Insert(all, i, e)
	changed = q.decide(namespace, r)
	no = q.spaces[namespace][i].refusal
	return no, slices.DeleteFunc(changed, func(n string) bool { return n == name })
}

// Delete forgets a metric. It returns the names of those for which the decision
// has changed.
func (q *Quota) Delete(namespace, name string) (changed []string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	all := q.spaces[namespace]
	i := slices.IndexFunc(all, func(e entry) bool { return e.name == name })
	if i < 0 {
		return nil
	}
	q.spaces[namespace] = slices.Delete(all, i, i+1)
	if len(q.spaces[namespace]) == 0 {
		delete(q.spaces, namespace)
	}
	return q.decide(namespace, q.policy.rule(namespace))
}

// decide goes through a namespace's metrics, oldest first. One that is too dear
// does not shut out the cheaper ones after it. q.mu is held.
func (q *Quota) decide(namespace string, r Rule) (changed []string) {
	metrics, cost := 0, 0
	all := q.spaces[namespace]
	for i := range all {
		e := &all[i]
		was := e.refusal
		switch {
		case r.Metrics > 0 && metrics >= r.Metrics:
			e.refusal = refuse(QuotaExceeded, "namespace %q may have %d DatadogMetrics (the policy's rule %q), and has as many older ones: "+
				"delete one, or have the rule's metrics raised", namespace, r.Metrics, r.Match)
		case r.Cost > 0 && e.cost > r.Cost-cost:
			e.refusal = refuse(QuotaExceeded, "the query costs %d (metrics read, times the hours that it looks back), and namespace %q has %d left of %d "+
				"(the policy's rule %q): shorten its window, delete another, or have the rule's cost raised", e.cost, namespace, r.Cost-cost, r.Cost, r.Match)
		default:
			e.refusal = nil
			metrics++
			cost += e.cost
		}
		if (was == nil) != (e.refusal == nil) || was != nil && *was != *e.refusal {
			changed = append(changed, e.name)
		}
	}
	return changed
}
