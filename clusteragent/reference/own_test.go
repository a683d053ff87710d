package reference

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
)

func annotated(h *autoscalingv2.HorizontalPodAutoscaler, text string) *autoscalingv2.HorizontalPodAutoscaler {
	h.Annotations = map[string]string{OwnQueries: text, "other": "annotation"}
	return h
}

// notSum is a Check that knows one mistake.
func notSum(query string) error {
	if strings.HasPrefix(query, "sum(") {
		return errors.New("error at 3")
	}
	return nil
}

func TestOwnQueries(t *testing.T) {
	const generated = "avg:rps{app:web}.rollup(30)"
	for _, c := range []struct {
		name, annotation string
		want             []string // of the metrics rps{app:web} and odd-name, in turn; "! " begins part of an error
	}{
		{"none", "", []string{generated, "! cannot be queried"}},
		{"a multiple", "rps: $metric * 2", []string{generated + " * 2", "! cannot be queried"}},
		{"another aggregator and rollup", `rps: "sum:rps{$scope}.as_rate().rollup(avg, 60)"`, []string{"sum:rps{app:web}.as_rate().rollup(avg, 60)", "! cannot be queried"}},
		{"several", "rps: (0.7 * $metric + 0.3 * ewma_5($metric)) / 2\nodd-name: avg:odd.name{*}",
			[]string{"(0.7 * " + generated + " + 0.3 * ewma_5(" + generated + ")) / 2", "avg:odd.name{*}"}},
		{"of a name that has no query", `odd-name: "$metric"`, []string{generated, "! cannot be queried"}},
		{"a misspelt name", "rqs: $metric", []string{"! no external metric of this autoscaler is named \"rqs\"", "! no external metric"}},
		{"of an object", "datadogmetric@a:x: $metric", []string{"! refers to a DatadogMetric", "! refers to"}},
		{"empty", "rps: ' '", []string{"! is empty", "! is empty"}},
		{"a template", "rps: avg:rps{%%env_SECRET%%}", []string{"! has a template (%%…%%)", "! has a template"}},
		{"an unknown variable", "rps: $metrics", []string{"! has $metrics, and there are $metric and $scope", "! cannot be queried"}},
		{"no map", "[rps]", []string{"! expected a YAML map", "! expected a YAML map"}},
		{"twice", "rps: $metric\nrps: $metric", []string{"! expected a YAML map", "! expected"}},
		{"not a text", "rps: {a: b}", []string{"! expected a YAML map", "! expected"}},
		{"what does not parse", "rps: sum($metric", []string{"! does not parse: error at 3", "! cannot be queried"}},
		{"longer than any source takes", "rps: " + strings.Repeat("m", 16<<10+1), []string{"! has 16385 bytes, and 16384 are allowed", "! are allowed"}},
		{"longer once filled in", "rps: " + strings.Repeat("$metric+", 1000), []string{"! bytes with $metric and $scope filled in", "! cannot be queried"}},
		{"what may not be read", "rps: avg:secret{*}", []string{"! a may not ask avg:secret{*}", "! cannot be queried"}},
	} {
		x := NewIndex(Options{Builder: builder, Namespace: "datadog", Check: notSum, Judge: func(namespace, query string) error {
			if strings.Contains(query, "secret") {
				return fmt.Errorf("%s may not ask %s", namespace, query)
			}
			return nil
		}}, nil)
		x.Set(annotated(hpa("a", "one", plain("rps", "app", "web"), plain("odd-name"), plain("datadogmetric@a:x")), c.annotation))
		for i, metric := range []string{"rps", "odd-name"} {
			in, ok := x.Inline("a", metric, parse(t, []string{"app=web", ""}[i]))
			part, bad := strings.CutPrefix(c.want[i], "! ")
			switch {
			case !ok:
				t.Errorf("%s: %s is unknown", c.name, metric)
			case bad && (in.Err == nil || !strings.Contains(in.Err.Error(), part)):
				t.Errorf("%s: %s means %q, %v; want an error with %q", c.name, metric, in.Query, in.Err, part)
			case !bad && (in.Err != nil || in.Query != part):
				t.Errorf("%s: %s means %q, %v; want %q", c.name, metric, in.Query, in.Err, part)
			case !bad && len(x.Referrers(x.Autogen(part))) != 1:
				t.Errorf("%s: nobody refers to the object of %q", c.name, part)
			}
		}
	}
}

// Two autoscalers that ask for the same must mean the same, or neither is served.
func TestDisputedQueries(t *testing.T) {
	var told []string
	x := NewIndex(Options{Builder: builder, Namespace: "datadog"}, func(c Change) {
		for _, in := range c.Inline {
			word := in.Query
			if in.Err != nil {
				word = "disputed"
				if !errors.Is(in.Err, ErrDisputed) {
					word = "wrong"
				}
			}
			told = append(told, c.By.String()+" "+word)
		}
		if len(c.Inline) == 0 {
			told = append(told, c.By.String()+" gone")
		}
	})
	const generated, double = "avg:rps{*}.rollup(30)", "avg:rps{*}.rollup(30) * 2"
	for _, c := range []struct {
		what   string
		change func()
		told   []string
		want   string // of rps in namespace a; "" for an error
	}{
		{"one", func() { x.Set(hpa("a", "one", plain("rps"))) }, []string{"a/one " + generated}, generated},
		{"another namespace's", func() { x.Set(annotated(hpa("b", "two", plain("rps")), "rps: $metric * 2")) }, []string{"b/two " + double}, generated},
		{"two disagrees", func() { x.Set(annotated(hpa("a", "two", plain("rps")), "rps: $metric * 2")) }, []string{"a/two disputed", "a/one disputed"}, ""},
		{"both mean double", func() { x.Set(annotated(hpa("a", "one", plain("rps")), "rps: $metric * 2")) }, []string{"a/one " + double, "a/two " + double}, double},
		{"one cannot be read", func() { x.Set(annotated(hpa("a", "one", plain("rps")), "[")) }, []string{"a/one wrong", "a/two disputed"}, ""},
		{"two cannot be read", func() {
			x.Set(hpa("a", "one", plain("rps")))
			x.Set(annotated(hpa("a", "two", plain("rps")), "["))
		}, []string{"a/one disputed", "a/two disputed", "a/two wrong", "a/one disputed"}, ""},
		{"and is mended", func() { x.Set(annotated(hpa("a", "two", plain("rps")), "rps: $metric * 2")) }, []string{"a/two disputed", "a/one disputed"}, ""},
		{"one goes", func() { x.Delete(Autoscaler{NamespacedName: nn("a", "one")}) }, []string{"a/one gone", "a/two " + double}, double},
	} {
		told = nil
		c.change()
		if d := cmp.Diff(c.told, told); d != "" {
			t.Errorf("%s: told (-want +got)\n%s", c.what, d)
		}
		in, ok := x.Inline("a", "rps", parse(t, ""))
		if !ok || (in.Err == nil) != (c.want != "") || in.Err == nil && in.Query != c.want {
			t.Errorf("%s: rps in a means %q, %v; want %q", c.what, in.Query, in.Err, c.want)
		}
		if in, _ := x.Inline("b", "rps", parse(t, "")); in.Err == nil && c.what != "one" && in.Query != double {
			t.Errorf("%s: rps in b means %q, want %q", c.what, in.Query, double)
		}
		_, polled := x.Queries()[generated]
		if c.want == "" && polled {
			t.Errorf("%s: a disputed query is among those in use", c.what)
		}
	}
	// Two spellings without annotation are as they were.
	x.Set(hpa("c", "one", plain("Rps")))
	x.Set(hpa("c", "two", plain("rps")))
	if in, ok := x.Inline("c", "rps", parse(t, "")); !ok || in.Err != nil {
		t.Errorf("two spellings: %+v, %v", in, ok)
	}
}

// Of the annotations, a cached autoscaler keeps the one that is read, and follows it.
func TestOwnQueriesAreWatched(t *testing.T) {
	x := NewIndex(Options{Builder: builder, Namespace: "datadog"}, nil)
	before := annotated(hpa("a", "one", plain("rps")), "rps: $metric * 2")
	after := annotated(hpa("a", "one", plain("rps")), "rps: $metric * 3")
	w, w2 := wpa(t, "one", `[{type: External, external: {metricName: lag}}]`), wpa(t, "one", `[{type: External, external: {metricName: lag}}]`)
	w.SetAnnotations(map[string]string{"other": "annotation"})
	w2.SetAnnotations(map[string]string{OwnQueries: "lag: $metric * 4"})
	for _, o := range []any{before, after} {
		if _, err := Trim(o); err != nil {
			t.Fatal(err)
		}
	}
	for _, o := range []*unstructured.Unstructured{w, w2} {
		if _, err := TrimWatermark(o); err != nil {
			t.Fatal(err)
		}
	}
	for _, o := range []metav1.Object{before, w} {
		if _, ok := o.GetAnnotations()["other"]; ok {
			t.Error("an annotation that nobody reads is kept")
		}
	}
	x.Handler().OnAdd(before, true)
	x.Handler().OnUpdate(before, after)
	x.WatermarkHandler().OnAdd(w, true)
	x.WatermarkHandler().OnUpdate(w, w2)
	for metric, want := range map[string]string{"rps": "avg:rps{*}.rollup(30) * 3", "lag": "avg:lag{*}.rollup(30) * 4"} {
		if in, ok := x.Inline("a", metric, parse(t, "")); !ok || in.Err != nil || in.Query != want {
			t.Errorf("%s means %q, %v; want %q", metric, in.Query, in.Err, want)
		}
	}
}

func nn(namespace, name string) types.NamespacedName {
	return types.NamespacedName{Namespace: namespace, Name: name}
}
