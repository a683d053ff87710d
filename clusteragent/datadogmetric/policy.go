package datadogmetric

import (
	"cmp"
	"slices"

	"k8s.io/apimachinery/pkg/types"

	"kelpie.dev/kelpie/clusteragent/policy"
	"kelpie.dev/kelpie/clusteragent/reference"
	"kelpie.dev/kelpie/clusteragent/source"
)

// A Refusal is something that the policy refused, when it begins to.
type Refusal struct {
	Object types.NamespacedName
	UID    types.UID             // of the object; empty when By is set
	By     *reference.Autoscaler // who may not refer to the object; nil when its query is refused
	Why    policy.Refusal
}

// judge asks the policy about an object's query, and the quota about the object.
// Generated objects are judged where their query was made, for the namespace of
// the autoscaler.
func (r *Reconciler) judge(o *object, m *Metric) {
	if m.Problem != nil || o.generated {
		r.uncount(o.id)
		return
	}
	q := policy.Query{Text: m.Key.Query, Window: m.Key.Window}
	if cmp.Or(m.Key.Source, r.opts.Main) == source.Prometheus {
		q.Language = "PromQL"
	}
	cost, no := r.opts.Policy.Judge(o.id.Namespace, q)
	if no != nil {
		r.uncount(o.id)
	} else {
		var changed []string
		no, changed = r.quota.Set(o.id.Namespace, o.id.Name, o.CreationTimestamp.Time, cost)
		r.touchNames(o.id.Namespace, changed)
	}
	if no != nil {
		m.Problem = &source.Error{Reason: source.Reason(no.Reason), Message: no.Message}
	}
}

func (r *Reconciler) uncount(id types.NamespacedName) {
	r.touchNames(id.Namespace, r.quota.Delete(id.Namespace, id.Name))
}

func (r *Reconciler) touchNames(namespace string, names []string) {
	for _, name := range names {
		r.Touch(types.NamespacedName{Namespace: namespace, Name: name})
	}
}

// referrers returns the autoscalers that may refer to an object, and tells of
// those that may not: they do not make it active. Any autoscaler's plain name
// may mean a generated object.
func (r *Reconciler) referrers(id types.NamespacedName, allowed string, generated bool) []reference.Autoscaler {
	all := r.opts.References.Referrers(id)
	if generated || !r.opts.Policy.Apart() {
		return all
	}
	refused := map[reference.Autoscaler]policy.Refusal{}
	all = slices.DeleteFunc(all, func(by reference.Autoscaler) bool {
		no := r.opts.Policy.Refers(by.Namespace, id.Namespace, id.Name, allowed)
		if no != nil {
			refused[by] = *no
		}
		return no != nil
	})
	r.tellReferrers(id, refused)
	return all
}

// tellReferrers tells, on the leader, of those refused that were not told yet.
func (r *Reconciler) tellReferrers(id types.NamespacedName, refused map[reference.Autoscaler]policy.Refusal) {
	if !r.opts.IsLeader() {
		return
	}
	r.mu.Lock()
	told := r.told[id]
	now := map[reference.Autoscaler]bool{}
	var news []Refusal
	for by, why := range refused {
		now[by] = true
		if !told[by] {
			news = append(news, Refusal{Object: id, By: &by, Why: why})
		}
	}
	if r.told[id] = now; len(now) == 0 {
		delete(r.told, id)
	}
	r.mu.Unlock()
	for _, n := range news {
		r.opts.Refused(n)
	}
}

// isRefusal reports whether a condition's reason is the policy's.
func isRefusal(reason string) bool {
	return reason == policy.Forbidden || reason == policy.QuotaExceeded
}
