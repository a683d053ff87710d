package reference

import (
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"
)

// OwnQueries is the annotation by which an autoscaler has plain metric names mean
// queries of its own: a YAML map from a name, as the autoscaler spells it, to a
// query in which $metric stands for the query that the name would mean, and
// $scope for the scope that its selector means.
const OwnQueries = "kelpie.dev/queries"

// longestOwn bounds a query of an autoscaler's own, as written and as it results:
// $metric, written as often as an annotation holds, makes ten megabytes of one.
// No source takes a longer one.
const longestOwn = 16 << 10

// What can be wrong with them, beside what is wrong with a query.
var (
	ErrOwnQuery = errors.New("annotation " + OwnQueries)                    // cannot be used
	ErrDisputed = errors.New("annotations " + OwnQueries + " do not agree") // of two autoscalers that ask for the same
)

// ownQueries reads the annotation of an autoscaler that asks for asks. What is
// wrong with it holds for all its plain names: a name that is misspelt here would
// otherwise get a number that was not wanted.
func ownQueries(by metav1.Object, asks []ask) (map[string]string, error) {
	text := by.GetAnnotations()[OwnQueries]
	if text == "" {
		return nil, nil
	}
	var own map[string]string
	if err := yaml.UnmarshalStrict([]byte(text), &own); err != nil {
		return nil, fmt.Errorf("%w: expected a YAML map from metric names to queries: %w", ErrOwnQuery, err)
	}
	for _, name := range slices.Sorted(maps.Keys(own)) {
		switch {
		case IsObject(name):
			return nil, fmt.Errorf("%w: %q refers to a DatadogMetric, whose query stands in it", ErrOwnQuery, name)
		case !slices.ContainsFunc(asks, func(a ask) bool { return a.name == name }):
			return nil, fmt.Errorf("%w: no external metric of this autoscaler is named %q: write the name as in its metrics", ErrOwnQuery, name)
		case strings.TrimSpace(own[name]) == "":
			return nil, fmt.Errorf("%w: the query of %q is empty", ErrOwnQuery, name)
		case len(own[name]) > longestOwn:
			return nil, fmt.Errorf("%w: the query of %q has %d bytes, and %d are allowed", ErrOwnQuery, name, len(own[name]), longestOwn)
		case strings.Contains(own[name], "%%"):
			return nil, fmt.Errorf("%w: the query of %q has a template (%%%%…%%%%), which a DatadogMetric alone may have", ErrOwnQuery, name)
		}
	}
	return own, nil
}

// variable matches what stands for something in a query of one's own.
var variable = regexp.MustCompile(`\$[a-zA-Z_]+`)

// own returns the query that template means for a metric and its selector.
func (b Builder) own(template, metric string, sel *metav1.LabelSelector) (string, error) {
	var wrong error
	query := variable.ReplaceAllStringFunc(strings.TrimSpace(template), func(v string) string {
		var text string
		var err error
		switch v {
		case "$metric":
			text, err = b.Query(metric, sel)
		case "$scope":
			text, err = Scope(sel)
		default:
			err = fmt.Errorf("%w: the query of %q has %s, and there are $metric and $scope", ErrOwnQuery, metric, v)
		}
		if wrong == nil {
			wrong = err
		}
		return text
	})
	if wrong == nil && len(query) > longestOwn {
		return "", fmt.Errorf("%w: the query of %q has %d bytes with $metric and $scope filled in, and %d are allowed", ErrOwnQuery, metric, len(query), longestOwn)
	}
	return query, wrong
}

// plainQuery returns what a plain metric name means to an autoscaler.
func (x *Index) plainQuery(by metav1.Object, a ask, own map[string]string) Inline {
	in := Inline{Metric: a.name}
	template, custom := own[a.name]
	if in.Own = custom; !custom {
		in.Query, in.Err = x.opts.Builder.Query(a.name, a.selector)
	} else if in.Query, in.Err = x.opts.Builder.own(template, a.name, a.selector); in.Err == nil && x.opts.Check != nil {
		if err := x.opts.Check(in.Query); err != nil {
			in.Err = fmt.Errorf("%w: the query of %q does not parse: %w", ErrOwnQuery, a.name, err)
		}
	}
	if in.Err == nil && x.opts.Judge != nil {
		in.Err = x.opts.Judge(by.GetNamespace(), in.Query)
	}
	return in
}

// settled returns what a plain name means to an autoscaler beside the others of
// its namespace: a request does not say whose it is, and nobody may get another's
// number. x.mu is held.
func (x *Index) settled(k inlineKey, by Autoscaler, in Inline) Inline {
	if in.Err != nil {
		return in
	}
	var with Autoscaler // the first that disagrees
	for id, other := range x.inline[k] {
		if id.Namespace == by.Namespace && (other.Own || in.Own) && other.Query != in.Query && (with.Name == "" || id.compare(with) < 0) {
			with = id
		}
	}
	if with.Name == "" {
		return in
	}
	in.Err = fmt.Errorf("%w: %s and %s ask for metric %q with the same selector and do not mean the same query, and a request for it does not say whose it is: "+
		"let them mean the same, or give one another selector or a DatadogMetric", ErrDisputed, by, with, in.Metric)
	return in
}

// change says what an autoscaler means now. x.mu is held.
func (x *Index) change(id Autoscaler) Change {
	r := x.by[id]
	c := Change{By: id, UID: r.uid}
	for k, in := range r.inline {
		c.Inline = append(c.Inline, x.settled(k, id, in))
	}
	slices.SortFunc(c.Inline, compareInline)
	return c
}

// concerned returns the other autoscalers whose metrics may be disputed, or no
// longer be, as by has changed from old to now. x.mu is held.
func (x *Index) concerned(by Autoscaler, old, now refs) []Autoscaler {
	others := map[Autoscaler]struct{}{}
	for _, r := range []refs{old, now} {
		for k, in := range r.inline {
			for id, other := range x.inline[k] {
				if id != by && id.Namespace == by.Namespace && (in.Own || other.Own) {
					others[id] = struct{}{}
				}
			}
		}
	}
	return slices.SortedFunc(maps.Keys(others), Autoscaler.compare)
}

// ownAnnotation returns of an object's annotations what the index reads.
func ownAnnotation(all map[string]string) map[string]string {
	if text, ok := all[OwnQueries]; ok {
		return map[string]string{OwnQueries: text}
	}
	return nil
}
