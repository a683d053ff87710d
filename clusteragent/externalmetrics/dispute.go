package externalmetrics

import (
	"fmt"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

const (
	disputeAfter = 3           // writes in a row that did not last
	disputeWait  = time.Minute // at most, between two writes
)

// A dispute is what there is when somebody else writes caBundle too: each write is
// the other's reason for the next. KEDA's operator is such a one by default. We
// write at once while it may be an accident, and then ever more rarely.
type dispute struct {
	writes int       // in a row, none of which lasted
	last   time.Time // of them
}

// on tells whether there is one.
func (d *dispute) on() bool { return d.writes >= disputeAfter }

// wait returns how long the other's value is to be left alone.
func (d *dispute) wait(now time.Time) time.Duration {
	if !d.on() {
		return 0
	}
	return max(0, d.pause()-now.Sub(d.last))
}

func (d *dispute) pause() time.Duration {
	return min(time.Second<<min(d.writes-disputeAfter, 10), disputeWait)
}

// wrote counts a write of ours. What has lasted is forgotten.
func (d *dispute) wrote(now time.Time) {
	if now.Sub(d.last) > 2*disputeWait {
		d.writes = 0
	}
	d.writes, d.last = d.writes+1, now
}

// lasts is to be called when our value is in place. It returns when to look again
// whether it still is, or 0 when there is no dispute any more.
func (d *dispute) lasts(now time.Time) time.Duration {
	left := disputeWait - now.Sub(d.last)
	if left <= 0 {
		d.writes = 0
	}
	if !d.on() {
		return 0
	}
	return min(left, d.pause())
}

// errDisputed says that caBundle is to be looked at again after a while, and not
// at the next of the other's writes.
type errDisputed struct{ wait time.Duration }

func (e errDisputed) Error() string {
	return fmt.Sprintf("caBundle of APIService %s is disputed; looking again in %s", APIServiceName, e.wait)
}

// disputed says who else writes caBundle, and how to end it.
func disputed(other string) string {
	return fmt.Sprintf("caBundle of APIService %s is overwritten by %s: the two can only take turns, and autoscalers get no metrics in the other's; "+
		"stop it from writing (KEDA's operator: --enable-apiservice-patching=false)", APIServiceName, other)
}

// bundleWriter returns who wrote caBundle last, as Kubernetes noted it.
func bundleWriter(u *unstructured.Unstructured) string {
	for _, m := range u.GetManagedFields() {
		if m.FieldsV1 != nil && strings.Contains(m.FieldsV1.GetRawString(), `"f:caBundle"`) {
			return fmt.Sprintf("field manager %q", m.Manager)
		}
	}
	return "somebody else"
}
