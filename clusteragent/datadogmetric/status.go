package datadogmetric

import (
	"cmp"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/DataDog/datadog-operator/api/datadoghq/v1alpha1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"kelpie.dev/kelpie/clusteragent/reference"
	"kelpie.dev/kelpie/clusteragent/source"
)

// Metric is what is known of one DatadogMetric.
type Metric struct {
	ID         types.NamespacedName
	Query      string // as written
	Key        source.Key
	Limits     source.Limits
	Active     bool                   // in use, therefore polled
	References []reference.Autoscaler // the autoscalers that refer to it, and may
	Allowed    string                 // annotation policy.AllowedNamespaces
	Problem    *source.Error          // why it cannot be polled; nil if it can

	alwaysActive bool
	followsLag   bool
	noData       noData
}

// Served is a value that may be acted on.
type Served struct {
	Value float64
	At    time.Time // of its data point; for a zero that nobody measured, when it was asked for
	// StandsFor is why there is no value of the source's, when the object's
	// annotation has another stand in for it; nil for a value of the source's.
	StandsFor *source.Error
}

// Value returns the metric's value if it may be acted on now, else why not.
func (m Metric) Value(r source.Reading, now time.Time) (Served, *source.Error) {
	switch {
	case m.Problem != nil:
		return Served{}, m.Problem
	case !m.Active:
		return Served{}, &source.Error{Reason: notReferenced, Message: m.unused()}
	}
	v, why := r.Current(now, m.limits(r, now))
	if why == nil {
		return Served{Value: v, At: r.At}, nil
	}
	return m.noData.standIn(r, why, now)
}

// limits are those of a reading: the metric's own, but that the max age follows
// how late points come where the object says so.
func (m Metric) limits(r source.Reading, now time.Time) source.Limits {
	l := m.Limits
	if enough, ok := r.Late.Enough(now.Sub(r.At)); ok && m.followsLag {
		l.MaxAge = max(l.MaxAge, min(enough, lateWindow))
	}
	return l
}

// lapses returns how long it is until the value is too old, or 0 when there is none.
func (m Metric) lapses(r source.Reading, now time.Time) time.Duration {
	if served, why := m.Value(r, now); why != nil || served.StandsFor != nil {
		return 0
	}
	return r.Left(now, m.limits(r, now)) + time.Second // status has whole seconds
}

func (m Metric) unused() string {
	return fmt.Sprintf("no HorizontalPodAutoscaler refers to datadogmetric@%s:%s, so it is not queried: refer to it, or annotate it with %s: \"true\"",
		m.ID.Namespace, m.ID.Name, alwaysActive)
}

// compose returns the status that tells what is known now. Messages hold no age
// and no value, so that equal knowledge gives an equal status.
func compose(m Metric, r source.Reading, old v1alpha1.DatadogMetricStatus, now time.Time) v1alpha1.DatadogMetricStatus {
	served, invalid := m.Value(r, now)
	failing := cmp.Or(invalid, served.StandsFor)
	if failing == nil && r.Err != nil {
		failing = r.Err // the value is still fresh, and the next one is in danger
	}
	if failing != nil && failing.Reason == notReferenced {
		failing = nil // unused is no error
	}
	out := v1alpha1.DatadogMetricStatus{Value: old.Value, AutoscalerReferences: references(m.References)}
	point := find(old.Conditions, v1alpha1.DatadogMetricConditionTypeUpdated).LastUpdateTime
	if !r.At.IsZero() {
		out.Value, point = strconv.FormatFloat(r.Value, 'f', -1, 64), metav1.NewTime(r.At.UTC())
	}
	if served.StandsFor != nil {
		out.Value = strconv.FormatFloat(served.Value, 'f', -1, 64)
	}
	if out.Value == "" {
		out.Value = "0" // compat: the field is required, before the first value too
	}
	at := metav1.NewTime(now.UTC().Truncate(time.Second))
	out.Conditions = []v1alpha1.DatadogMetricCondition{
		active(m), valid(m, m.limits(r, now).MaxAge, served, invalid), updated(point), failure(failing),
	}
	for i := range out.Conditions {
		c := &out.Conditions[i]
		was := find(old.Conditions, c.Type)
		c.LastTransitionTime = at
		if was.Status == c.Status && !was.LastTransitionTime.IsZero() {
			c.LastTransitionTime = was.LastTransitionTime
		}
		if c.Type != v1alpha1.DatadogMetricConditionTypeUpdated {
			c.LastUpdateTime = at
		}
	}
	return out
}

func active(m Metric) v1alpha1.DatadogMetricCondition {
	c := condition(v1alpha1.DatadogMetricConditionTypeActive, true, "Referenced", "used by "+references(m.References))
	switch {
	case len(m.References) > 0:
	case m.alwaysActive:
		c.Reason, c.Message = "AlwaysActive", "kept active by annotation "+alwaysActive
	default:
		c = condition(v1alpha1.DatadogMetricConditionTypeActive, false, string(notReferenced), m.unused())
	}
	return c
}

func valid(m Metric, maxAge time.Duration, served Served, invalid *source.Error) v1alpha1.DatadogMetricCondition {
	if served.StandsFor != nil {
		return condition(v1alpha1.DatadogMetricConditionTypeValid, true, m.noData.reason(),
			fmt.Sprintf("there are no data, and annotation %s says to serve %s", onNoData, m.noData))
	}
	if invalid == nil {
		return condition(v1alpha1.DatadogMetricConditionTypeValid, true, "ValueAvailable",
			fmt.Sprintf("the newest value is within its max age of %s", maxAge))
	}
	return condition(v1alpha1.DatadogMetricConditionTypeValid, false, string(invalid.Reason), stable(invalid))
}

func updated(point metav1.Time) v1alpha1.DatadogMetricCondition {
	c := condition(v1alpha1.DatadogMetricConditionTypeUpdated, true, "PointReceived", "lastUpdateTime is the time of the newest data point")
	c.LastUpdateTime = point
	if point.IsZero() {
		c.Reason, c.Message = "NoPointYet", "no data point has been received yet"
	}
	return c
}

func failure(err *source.Error) v1alpha1.DatadogMetricCondition {
	if err == nil {
		return condition(v1alpha1.DatadogMetricConditionTypeError, false, "NoError", "the last poll met no error")
	}
	return condition(v1alpha1.DatadogMetricConditionTypeError, true, string(err.Reason), stable(err))
}

// stable returns an error's words without the figures that change at each look.
func stable(err *source.Error) string {
	if err.Point.IsZero() {
		return err.Message
	}
	return fmt.Sprintf("newest point (%s) is older than its max age %s: %s", err.Point.UTC().Format(time.RFC3339), err.MaxAge, err.Message)
}

func condition(t v1alpha1.DatadogMetricConditionType, ok bool, reason, message string) v1alpha1.DatadogMetricCondition {
	s := corev1.ConditionFalse
	if ok {
		s = corev1.ConditionTrue
	}
	return v1alpha1.DatadogMetricCondition{Type: t, Status: s, Reason: reason, Message: message}
}

func find(cs []v1alpha1.DatadogMetricCondition, t v1alpha1.DatadogMetricConditionType) v1alpha1.DatadogMetricCondition {
	for _, c := range cs {
		if c.Type == t {
			return c
		}
	}
	return v1alpha1.DatadogMetricCondition{}
}

func references(ids []reference.Autoscaler) string {
	s := make([]string, len(ids))
	for i, id := range ids {
		s[i] = id.Reference()
	}
	return strings.Join(s, ", ")
}

// news reports whether next says of a condition or a reference what old does not.
// Other words for the same reason are none: an outage of a source words itself
// anew at each attempt, with a port or the number of a request in it, and for all
// its objects at once.
func news(old, next v1alpha1.DatadogMetricStatus) bool {
	return old.AutoscalerReferences != next.AutoscalerReferences || changed(old, next, func(o, c v1alpha1.DatadogMetricCondition) bool {
		return o.Type != c.Type || o.Status != c.Status || o.Reason != c.Reason
	})
}

// moved reports whether next, which is no news, has a value that differs visibly
// from old's, or other words, or is to show that its writer still lives.
func moved(old, next v1alpha1.DatadogMetricStatus, heartbeat time.Duration) bool {
	words := func(o, c v1alpha1.DatadogMetricCondition) bool { return o.Message != c.Message }
	return differs(old.Value, next.Value) || changed(old, next, words) || next.Conditions[0].Status == corev1.ConditionTrue &&
		next.Conditions[0].LastUpdateTime.Sub(old.Conditions[0].LastUpdateTime.Time) >= heartbeat
}

// changed reports whether some condition of next differs from old's.
func changed(old, next v1alpha1.DatadogMetricStatus, differ func(o, c v1alpha1.DatadogMetricCondition) bool) bool {
	if len(old.Conditions) != len(next.Conditions) {
		return true
	}
	for i, c := range next.Conditions {
		if differ(old.Conditions[i], c) {
			return true
		}
	}
	return false
}

// differs compares two values by their first four digits.
func differs(a, b string) bool {
	x, errX := strconv.ParseFloat(a, 64)
	y, errY := strconv.ParseFloat(b, 64)
	if errX != nil || errY != nil {
		return a != b
	}
	return math.Abs(x-y) > 1e-4*math.Max(math.Abs(x), math.Abs(y))
}

// encode returns a status as the API server takes it: a zero time is absent.
func encode(s v1alpha1.DatadogMetricStatus) map[string]any {
	conditions := make([]any, len(s.Conditions))
	for i, c := range s.Conditions {
		m := map[string]any{"type": string(c.Type), "status": string(c.Status), "reason": c.Reason, "message": c.Message}
		if !c.LastTransitionTime.IsZero() {
			m["lastTransitionTime"] = c.LastTransitionTime.UTC().Format(time.RFC3339)
		}
		if !c.LastUpdateTime.IsZero() {
			m["lastUpdateTime"] = c.LastUpdateTime.UTC().Format(time.RFC3339)
		}
		conditions[i] = m
	}
	out := map[string]any{"currentValue": s.Value, "conditions": conditions}
	if s.AutoscalerReferences != "" {
		out["autoscalerReferences"] = s.AutoscalerReferences
	}
	return out
}
