package reference

import (
	"maps"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
)

// Inline returns what a request for a plain metric name and selector means. The
// namespace decides only between spellings that differ in case: the asking
// namespace's own autoscalers come first.
func (x *Index) Inline(namespace, metric string, sel labels.Selector) (Inline, bool) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	k := inlineKey{strings.ToLower(metric), Canonical(sel)}
	users := x.inline[k]
	if len(users) == 0 {
		return Inline{}, false
	}
	best := Autoscaler{}
	for id := range users {
		own, bestOwn := id.Namespace == namespace, best.Namespace == namespace
		if best.Name == "" || own && !bestOwn || own == bestOwn && id.compare(best) < 0 {
			best = id
		}
	}
	if x.opts.OwnNamespace && best.Namespace != namespace {
		return Inline{}, false
	}
	return x.settled(k, best, users[best]), true
}

// Selectors returns the selectors, canonically, with which autoscalers ask for a
// plain metric name: what a request that matches none of them may have meant.
func (x *Index) Selectors(namespace, metric string) []string {
	x.mu.RLock()
	defer x.mu.RUnlock()
	var out []string
	for k, users := range x.inline {
		if k.name == strings.ToLower(metric) && !strings.HasPrefix(k.selector, "\x00") && x.visible(namespace, users) {
			out = append(out, k.selector)
		}
	}
	slices.Sort(out)
	return out
}

// visible reports whether whoever asks in namespace may know of a metric. x.mu
// is held.
func (x *Index) visible(namespace string, users map[Autoscaler]Inline) bool {
	if !x.opts.OwnNamespace {
		return true
	}
	for id := range users {
		if id.Namespace == namespace {
			return true
		}
	}
	return false
}

// Queries returns the distinct translated queries and the metric each is for.
func (x *Index) Queries() map[string]string {
	x.mu.RLock()
	defer x.mu.RUnlock()
	out := map[string]string{}
	for k, users := range x.inline {
		for id, in := range users {
			if x.settled(k, id, in).Err == nil {
				out[in.Query] = in.Metric
			}
		}
	}
	return out
}

// InlineOf returns the query's metric when some autoscaler's plain metric means
// the object id.
func (x *Index) InlineOf(id types.NamespacedName) (Inline, bool) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	for hpa := range x.objects[id] {
		for k, in := range x.by[hpa].inline {
			if in.Err == nil && x.Autogen(in.Query) == id && x.settled(k, hpa, in).Err == nil {
				return in, true
			}
		}
	}
	return Inline{}, false
}

// Referrers returns the autoscalers that refer to an object, sorted.
func (x *Index) Referrers(object types.NamespacedName) []Autoscaler {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return slices.SortedFunc(maps.Keys(x.objects[object]), Autoscaler.compare)
}

// Users returns the autoscalers whose plain metrics mean query, sorted.
func (x *Index) Users(query string) []Autoscaler {
	return x.Referrers(x.Autogen(query))
}

// All returns what every autoscaler's plain metrics mean.
func (x *Index) All() []Change {
	x.mu.RLock()
	defer x.mu.RUnlock()
	var out []Change
	for id, r := range x.by {
		if len(r.inline) > 0 {
			out = append(out, x.change(id))
		}
	}
	slices.SortFunc(out, func(a, b Change) int { return a.By.compare(b.By) })
	return out
}

// Names returns the metric names now asked for, sorted: plain names as spelt,
// objects in their canonical form. The result is shared and must not be changed.
func (x *Index) Names() []string {
	if names := x.names.Load(); names != nil {
		return *names
	}
	x.mu.RLock()
	defer x.mu.RUnlock()
	set := map[string]struct{}{}
	for _, users := range x.inline {
		for _, in := range users {
			set[in.Metric] = struct{}{}
		}
	}
	for id := range x.objects {
		if !IsAutogenName(id.Name) {
			set[ObjectMetric(id)] = struct{}{}
		}
	}
	names := slices.Sorted(maps.Keys(set))
	x.names.Store(&names)
	return names
}
