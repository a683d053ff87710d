package reference

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
)

// Builder writes queries for plain metric names.
type Builder struct {
	Aggregator string        // avg, min, max or sum
	Rollup     time.Duration // whole seconds
}

// ErrName reports a metric name that no query can hold.
var ErrName = errors.New("cannot be queried")

// Query returns the query that a plain metric name and a selector mean:
// <aggregator>:<metric>{<scope>}.rollup(<seconds>). The name's case is kept, as
// Datadog's metric names have case.
func (b Builder) Query(metric string, sel *metav1.LabelSelector) (string, error) {
	if !datadogName.MatchString(metric) {
		return "", fmt.Errorf("metric name %q %w: a Datadog metric name is a letter, then letters, digits, '_' and '.', "+
			"200 at most; for anything else, write a DatadogMetric and refer to it as %s<namespace>:<name>", metric, ErrName, Prefix)
	}
	scope, err := Scope(sel)
	if err != nil {
		return "", fmt.Errorf("the selector of metric %q cannot be translated: %w", metric, err)
	}
	return b.Aggregator + ":" + metric + "{" + scope + "}.rollup(" + strconv.Itoa(int(b.Rollup/time.Second)) + ")", nil
}

// Scope returns the scope that sel means. Labels alone make key:value pairs
// joined by commas, sorted as whole strings, which Datadog's own cluster agent
// hashes; expressions make a boolean scope, as the two syntaxes must not mix.
func Scope(sel *metav1.LabelSelector) (string, error) {
	if sel == nil || len(sel.MatchLabels)+len(sel.MatchExpressions) == 0 {
		return "*", nil
	}
	var terms []string
	for k, v := range sel.MatchLabels {
		if err := word("label", k, v); err != nil {
			return "", err
		}
		terms = append(terms, k+":"+v)
	}
	slices.Sort(terms)
	if len(sel.MatchExpressions) == 0 {
		return strings.Join(terms, ","), nil
	}
	for _, e := range sel.MatchExpressions {
		t, err := expression(e)
		if err != nil {
			return "", err
		}
		terms = append(terms, t)
	}
	slices.Sort(terms)
	return strings.Join(slices.Compact(terms), " AND "), nil
}

func expression(e metav1.LabelSelectorRequirement) (string, error) {
	switch e.Operator {
	case metav1.LabelSelectorOpIn, metav1.LabelSelectorOpNotIn:
		if len(e.Values) == 0 {
			return "", fmt.Errorf("matchExpressions key %q: operator %s needs values", e.Key, e.Operator)
		}
		for _, v := range e.Values {
			if err := word("matchExpressions key", e.Key, v); err != nil {
				return "", err
			}
		}
		values := slices.Sorted(slices.Values(e.Values))
		in := e.Key + " IN (" + strings.Join(slices.Compact(values), ",") + ")"
		if e.Operator == metav1.LabelSelectorOpNotIn {
			return "NOT " + in, nil
		}
		return in, nil
	case metav1.LabelSelectorOpExists, metav1.LabelSelectorOpDoesNotExist:
		if err := word("matchExpressions key", e.Key, "*"); err != nil {
			return "", err
		}
		if e.Operator == metav1.LabelSelectorOpDoesNotExist {
			return "NOT " + e.Key + ":*", nil
		}
		return e.Key + ":*", nil
	default:
		return "", fmt.Errorf("matchExpressions key %q: operator %q means nothing in a query; In, NotIn, Exists and DoesNotExist do", e.Key, e.Operator)
	}
}

// word checks that a key and a value can stand in a scope as they are. The API
// server does not validate an autoscaler's metric selector.
func word(what, key, value string) error {
	const special = " \t\r\n,{}()[]!\"'"
	switch {
	case key == "" || strings.ContainsAny(key, special+":*"):
		return fmt.Errorf("%s %q is no tag key", what, key)
	case value == "":
		return fmt.Errorf("%s %q has no value, and a tag must; to match any value, use matchExpressions with operator Exists", what, key)
	case strings.ContainsAny(value, special):
		return fmt.Errorf("%s %q: value %q is no tag value; write a DatadogMetric for it", what, key, value)
	}
	return nil
}

// autogenPrefix starts the name of every object generated for a plain metric.
const autogenPrefix = "dcaautogen-"

// AutogenName returns the name of the DatadogMetric generated for a query. It is
// the one that Datadog's cluster agent gives it, so that either finds the other's.
func AutogenName(query string) string {
	sum := sha256.Sum256([]byte(query))
	return autogenPrefix + hex.EncodeToString(sum[:19])
}

// IsAutogenName reports whether an object's name is of a generated one.
func IsAutogenName(name string) bool { return strings.HasPrefix(name, autogenPrefix) }

// Canonical returns the text by which two spellings of one selector are equal:
// of an autoscaler's selector and of the one in the request made for it.
func Canonical(sel labels.Selector) string {
	reqs, selectable := sel.Requirements()
	if !selectable {
		return "\x00none"
	}
	parts := make([]string, len(reqs))
	for i, r := range reqs {
		parts[i] = r.String()
	}
	slices.Sort(parts)
	return strings.Join(slices.Compact(parts), ",")
}
