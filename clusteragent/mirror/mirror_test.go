package mirror

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func object(name, value string) *corev1.ConfigMap {
	return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name, ManagedFields: []metav1.ManagedFieldsEntry{{}}}, Data: map[string]string{"v": value}}
}

// What the reflector writes is told, row by row, and what is not wanted is not kept.
func TestRowsFollowTheObjects(t *testing.T) {
	var told []string
	show := func(r *string) string {
		if r == nil {
			return "-"
		}
		return *r
	}
	m := New(Options[*corev1.ConfigMap, string]{
		Resource: "configmaps",
		Pick:     func(o *corev1.ConfigMap) (string, bool) { return o.Data["v"], o.Data["v"] != "" },
		Trim:     func(o *corev1.ConfigMap) { delete(o.Data, "unread") },
		Changed: func(k Key, before, after *string) {
			told = append(told, fmt.Sprintf("%s: %s → %s", k, show(before), show(after)))
		},
	})
	s := store[*corev1.ConfigMap, string]{m}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	if m.Synced() {
		t.Error("is complete before the first list")
	}
	for _, step := range []struct {
		name string
		do   func() error
		told []string
		rows map[Key]string
	}{
		{"list", func() error { return s.Replace([]any{object("a", "1")}, "1") }, []string{"ns/a: - → 1"}, map[Key]string{{"ns", "a"}: "1"}},
		{"add", func() error { return s.Add(object("b", "2")) }, []string{"ns/b: - → 2"}, map[Key]string{{"ns", "a"}: "1", {"ns", "b"}: "2"}},
		{"update", func() error { return s.Update(object("b", "3")) }, []string{"ns/b: 2 → 3"}, map[Key]string{{"ns", "a"}: "1", {"ns", "b"}: "3"}},
		{"not wanted from the start", func() error { return s.Add(object("c", "")) }, nil, map[Key]string{{"ns", "a"}: "1", {"ns", "b"}: "3"}},
		{"no longer wanted", func() error { return s.Update(object("b", "")) }, []string{"ns/b: 3 → -"}, map[Key]string{{"ns", "a"}: "1"}},
		{"delete", func() error { return s.Delete(object("a", "1")) }, []string{"ns/a: 1 → -"}, map[Key]string{}},
		{"delete what is not here", func() error { return s.Delete(object("a", "1")) }, nil, map[Key]string{}},
		{"add again", func() error { return s.Add(object("d", "4")) }, []string{"ns/d: - → 4"}, map[Key]string{{"ns", "d"}: "4"}},
		{"list anew", func() error { return s.Replace([]any{object("e", "5")}, "9") }, []string{"ns/d: 4 → -", "ns/e: - → 5"}, map[Key]string{{"ns", "e"}: "5"}},
	} {
		told = nil
		must(step.do())
		if diff := cmp.Diff(step.told, told); diff != "" {
			t.Errorf("%s: told (-want +got):\n%s", step.name, diff)
		}
		rows := map[Key]string{}
		for k, r := range m.All() {
			rows[k] = r
		}
		if diff := cmp.Diff(step.rows, rows); diff != "" || m.Len() != len(rows) {
			t.Errorf("%s: %d rows (-want +got):\n%s", step.name, m.Len(), diff)
		}
	}
	if !m.Synced() {
		t.Error("is not complete after a list")
	}
	if err := s.Add(&corev1.Secret{}); err == nil {
		t.Error("took an object of another kind")
	}
	o := object("f", "6")
	o.Data["unread"] = "x"
	if _, err := s.Transformer()(o); err != nil || o.ManagedFields != nil || len(o.Data) != 1 {
		t.Errorf("transformed: %v, %v", o, err)
	}
}
