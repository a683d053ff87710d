package datadogmetric

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"

	"github.com/DataDog/datadog-operator/api/datadoghq/v1alpha1"

	"kelpie.dev/kelpie/clusteragent/policy"
	"kelpie.dev/kelpie/clusteragent/reference"
	"kelpie.dev/kelpie/clusteragent/source"
)

// cached returns an object as the informer has it; false when there is none, or
// it is about to go.
func (r *Reconciler) cached(id types.NamespacedName) (*object, bool) {
	item, exists, err := r.informer.GetStore().GetByKey(id.String())
	o, ok := item.(*object)
	return o, err == nil && exists && ok && o.DeletionTimestamp == nil
}

// learn brings the source in step with an object, from memory alone: however
// many writes wait, a metric is asked for at once.
func (r *Reconciler) learn(id types.NamespacedName) {
	if o, ok := r.cached(id); ok {
		r.remember(o)
	} else {
		r.forget(id)
	}
	if r.opts.IsLeader() {
		r.writes.Add(id)
	}
}

// write brings, on the leader, the API server in step with what is known: an
// object's status, and the objects made for plain names. It returns when to look
// again, or 0 for "when told".
func (r *Reconciler) write(ctx context.Context, id types.NamespacedName, now time.Time) (time.Duration, error) {
	if !r.opts.IsLeader() {
		return 0, nil
	}
	o, ok := r.cached(id)
	if !ok {
		return 0, r.generate(ctx, id)
	}
	m, known := r.Metric(id)
	if !known {
		return 0, nil // being learnt, which brings us back
	}
	if !o.generated || m.Active {
		return r.writeStatus(ctx, o, m, now)
	}
	if left := r.opts.Expiry - now.Sub(unusedSince(o, now)); left > 0 {
		again, err := r.writeStatus(ctx, o, m, now)
		if again > 0 {
			left = min(left, again)
		}
		return left, err
	}
	if len(r.opts.References.Referrers(id)) > 0 || o.alwaysActive { // it has come just now: learning it brings us back
		r.Touch(id)
		return 0, nil
	}
	return 0, r.remove(ctx, o)
}

// remember updates what is known of an object and what is polled for it.
func (r *Reconciler) remember(o *object) Metric {
	m := Metric{
		ID: o.id, Query: o.query, Limits: r.opts.Rules.Limits(o.maxAge), Problem: o.problem,
		References: r.referrers(o.id, o.allowed, o.generated), Allowed: o.allowed, alwaysActive: o.alwaysActive, followsLag: o.followsLag, noData: o.noData,
	}
	m.Active = len(m.References) > 0 || o.alwaysActive
	if m.Problem == nil {
		resolved, err := r.opts.Templates.Resolve(o.query)
		if err != nil {
			m.Problem = &source.Error{Reason: templateError, Message: err.Error()}
		}
		m.Key = source.Key{Source: o.source, Query: resolved, Window: r.opts.Rules.Window(o.timeWindow, o.maxAge)}
		if o.followsLag {
			m.Key.Window = r.opts.Rules.Window(max(o.timeWindow, lateWindow), 0)
		}
	}
	r.judge(o, &m)
	if m.Active && m.Problem == nil {
		r.opts.Source.Use(owner(o.id), m.Key)
	} else {
		r.opts.Source.Use(owner(o.id))
	}
	r.mu.Lock()
	old, known := r.metrics[o.id]
	r.metrics[o.id] = m
	r.mu.Unlock()
	if !known || old.Key != m.Key {
		r.opts.Changed(m)
	}
	return m
}

func (r *Reconciler) forget(id types.NamespacedName) {
	r.opts.Source.Use(owner(id))
	r.mu.Lock()
	delete(r.metrics, id)
	r.mu.Unlock()
	r.pace.forget(id)
	r.uncount(id)
	r.referrers(id, "", reference.IsAutogenName(id.Name))
}

// writeStatus writes the object's status if that tells anything new: at once, or
// when its turn has come if it is but a number that moved. It returns how long
// that is, or how long the value is good, should nobody tell of it before: while a
// source asks for a pause nobody does.
func (r *Reconciler) writeStatus(ctx context.Context, o *object, m Metric, now time.Time) (time.Duration, error) {
	var reading source.Reading
	if m.Active && m.Problem == nil {
		reading = r.opts.Source.Read(m.Key)
		if reading.Attempted.IsZero() && reading.Err == nil {
			return 0, nil // asked within a second; then there is something to tell
		}
	}
	next, again := compose(m, reading, o.status, now), m.lapses(reading, now)
	if !news(o.status, next) {
		if !moved(o.status, next, r.opts.Heartbeat) {
			return again, nil
		}
		if wait := r.pace.turn(o.id, now); wait > 0 {
			return wait, nil
		}
	}
	_, err := r.opts.Client.Resource(Resource).Namespace(o.id.Namespace).UpdateStatus(ctx, o.withStatus(next), metav1.UpdateOptions{})
	switch {
	case apierrors.IsNotFound(err), apierrors.IsConflict(err):
		return 0, nil // the cache is behind; its next event brings us back
	case err != nil:
		return 0, fmt.Errorf("write status of DatadogMetric %s: %w", o.id, err)
	}
	r.tel.writes.Inc()
	r.logChange(o, next)
	return again, nil
}

// logChange logs a problem of the object itself once, when it appears, and tells
// of a refusal. Failures of its query are logged by the source.
func (r *Reconciler) logChange(o *object, next v1alpha1.DatadogMetricStatus) {
	was, is := find(o.status.Conditions, v1alpha1.DatadogMetricConditionTypeValid), find(next.Conditions, v1alpha1.DatadogMetricConditionTypeValid)
	if is.Status != corev1.ConditionFalse || was.Reason == is.Reason {
		return
	}
	if isRefusal(is.Reason) {
		r.opts.Refused(Refusal{Object: o.id, UID: o.UID, Why: policy.Refusal{Reason: is.Reason, Message: is.Message}})
	}
	if isRefusal(is.Reason) || is.Reason == string(invalidSpec) || is.Reason == string(templateError) {
		r.opts.Log.Warn("DatadogMetric cannot be queried", "datadogmetric", o.id.String(), "reason", is.Reason, "error", is.Message)
	}
}

// unusedSince returns when an inactive object was last in use, as far as its
// status tells: a new leader goes on counting where the old one stopped.
func unusedSince(o *object, now time.Time) time.Time {
	c := find(o.status.Conditions, v1alpha1.DatadogMetricConditionTypeActive)
	switch {
	case c.Status == corev1.ConditionTrue:
		return now // it is being noticed just now
	case c.LastTransitionTime.After(o.CreationTimestamp.Time):
		return c.LastTransitionTime.Time
	default:
		return o.CreationTimestamp.Time
	}
}

// remove deletes a generated object that nobody has used for long. The version
// protects a reference that came in between.
func (r *Reconciler) remove(ctx context.Context, o *object) error {
	err := r.opts.Client.Resource(Resource).Namespace(o.Namespace).Delete(ctx, o.Name,
		metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &o.UID, ResourceVersion: &o.ResourceVersion}})
	switch {
	case apierrors.IsNotFound(err), apierrors.IsConflict(err):
		return nil
	case err != nil:
		return fmt.Errorf("delete unused DatadogMetric %s: %w", o.id, err)
	}
	r.tel.deleted.Inc()
	r.opts.Log.Info("deleted generated DatadogMetric that no autoscaler uses", "datadogmetric", o.id.String())
	return nil
}

// generate creates the object for a plain metric that an autoscaler uses, if id
// is of one.
func (r *Reconciler) generate(ctx context.Context, id types.NamespacedName) error {
	if !r.opts.Autogen || !r.opts.IsLeader() {
		return nil
	}
	in, ok := r.opts.References.InlineOf(id)
	if !ok {
		return nil
	}
	u := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": Resource.GroupVersion().String(),
		"kind":       "DatadogMetric",
		"metadata":   map[string]any{"namespace": id.Namespace, "name": id.Name},
		"spec":       map[string]any{"query": in.Query, "externalMetricName": in.Metric},
	}}
	_, err := r.opts.Client.Resource(Resource).Namespace(id.Namespace).Create(ctx, u, metav1.CreateOptions{})
	switch {
	case apierrors.IsAlreadyExists(err):
		return nil
	case err != nil:
		return fmt.Errorf("create DatadogMetric %s for metric %q: %w", id, in.Metric, err)
	}
	r.tel.created.Inc()
	r.opts.Log.Info("created DatadogMetric for a plain metric name", "datadogmetric", id.String(), "metric", in.Metric, "query", in.Query)
	return nil
}
