// Package policy decides what a namespace may read through the cluster agent.
//
// It owns the policy's text, whose metrics an autoscaler may name, which scope a
// namespace's queries must keep to, and how many metrics and how much cost it may
// have. It is pure: it knows no Kubernetes object, and whoever asks tells users
// what was decided.
package policy

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"sigs.k8s.io/yaml"

	"kelpie.dev/kelpie/query"
)

// AllowedNamespaces is the annotation by which a DatadogMetric lends itself to
// the autoscalers of other namespaces: their names, separated by commas, or "*".
const AllowedNamespaces = "kelpie.dev/allowed-namespaces"

// The modes. Open is Datadog's behaviour: everybody reads everything.
const (
	Open       = "open"
	Namespaced = "namespaced"
)

// The reasons of a Refusal, fit for a Kubernetes condition.
const (
	Forbidden     = "Forbidden"
	QuotaExceeded = "QuotaExceeded"
)

// A Policy is what the installation's owner has decided. The nil Policy is open.
type Policy struct {
	Mode string `json:"mode"` // open (also "") or namespaced
	// Namespaces are the rules; of those that match a namespace the first counts,
	// and a namespace that none matches may read everything, of its own metrics.
	Namespaces []Rule `json:"namespaces"`
}

// A Rule bounds the namespaces whose names match.
type Rule struct {
	Match string `json:"match"` // "*" stands for any text, as in "team-*"
	// Scope are tags, "key:value", that whatever a query reads must bear.
	// %%namespace%% in a value is the namespace's name.
	Scope []string `json:"scope"`
	// Metrics and Cost bound all DatadogMetrics of one namespace; 0 is no bound.
	// With either, plain metric names are refused: they have no object to count.
	Metrics int `json:"metrics"`
	Cost    int `json:"cost"` // sum over queries; see Cost
	// OtherLanguages lets queries pass that are not in Datadog's language, though
	// nothing is known of what they read and cost.
	OtherLanguages bool `json:"otherLanguages"`
}

// A Refusal says what the policy does not let pass, and who can change that.
type Refusal struct {
	Reason  string // Forbidden or QuotaExceeded
	Message string // no more of a query than the place of what is wrong
}

func (r *Refusal) Error() string { return r.Message }

func refuse(reason, format string, args ...any) *Refusal {
	return &Refusal{Reason: reason, Message: fmt.Sprintf(format, args...)}
}

// maxText bounds a policy's text, and maxRules its rules: every query is held
// against them.
const (
	maxText  = 64 << 10
	maxRules = 1000
)

const namespaceVariable = "%%namespace%%"

// Parse reads a policy, YAML or JSON. Empty text is the open policy. Its error
// names the entries that are wrong.
func Parse(text string) (*Policy, error) {
	p := &Policy{}
	if len(text) > maxText {
		return nil, fmt.Errorf("read policy: %d bytes, at most %d", len(text), maxText)
	}
	if err := yaml.UnmarshalStrict([]byte(text), p); err != nil {
		return nil, fmt.Errorf("read policy: %w", err)
	}
	if err := p.check(); err != nil {
		return nil, err
	}
	return p, nil
}

func (p *Policy) check() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf("policy."+format, args...)) }
	switch p.Mode {
	case "", Open:
		if len(p.Namespaces) > 0 {
			bad("namespaces has no effect in mode open: set policy.mode to namespaced")
		}
	case Namespaced:
	default:
		bad("mode is %q: write open or namespaced", p.Mode)
	}
	if len(p.Namespaces) > maxRules {
		bad("namespaces has %d entries, at most %d", len(p.Namespaces), maxRules)
	}
	for i, r := range p.Namespaces {
		if _, err := path.Match(r.Match, ""); err != nil || r.Match == "" || strings.ContainsAny(r.Match, `/?[\`) {
			bad("namespaces[%d].match is %q: write a namespace's name, with * for any text", i, r.Match)
		}
		for j, term := range r.Scope {
			if _, err := parseTerm(term, "n"); err != nil {
				bad("namespaces[%d].scope[%d] is %q: %w", i, j, term, err)
			}
		}
		if r.Metrics < 0 || r.Cost < 0 {
			bad("namespaces[%d]: metrics and cost must not be negative", i)
		}
	}
	return errors.Join(errs...)
}

// parseTerm reads one required tag, for a namespace.
func parseTerm(term, namespace string) (*query.Tag, error) {
	e, err := query.Parse("avg:m{" + strings.ReplaceAll(term, namespaceVariable, namespace) + "}")
	if q, ok := e.(*query.Query); err == nil && ok && len(q.By)+len(q.Modifiers) == 0 {
		if tag, ok := q.Scope.(*query.Tag); ok && tag.Exact() {
			return tag, nil
		}
	}
	return nil, fmt.Errorf("write one tag, key:value, without wildcards; the value may hold %s", namespaceVariable)
}

// Apart reports whether namespaces are kept apart at all.
func (p *Policy) Apart() bool { return p != nil && p.Mode == Namespaced }

// rule returns what bounds a namespace; the zero Rule bounds nothing.
func (p *Policy) rule(namespace string) Rule {
	if !p.Apart() {
		return Rule{}
	}
	i := slices.IndexFunc(p.Namespaces, func(r Rule) bool {
		ok, _ := path.Match(r.Match, namespace) // check has seen the pattern
		return ok
	})
	if i < 0 {
		return Rule{}
	}
	return p.Namespaces[i]
}

// Refers decides whether those in a namespace may name an object of another,
// whose annotation AllowedNamespaces has the text given. That the object does
// not exist must be asked later: the refusal does not tell.
func (p *Policy) Refers(from, namespace, name, allowed string) *Refusal {
	if !p.Apart() || from == namespace {
		return nil
	}
	for word := range strings.SplitSeq(allowed, ",") {
		if word = strings.TrimSpace(word); word == from || word == "*" {
			return nil
		}
	}
	return refuse(Forbidden, "metric datadogmetric@%s:%s is of namespace %q and asked for in %q, and the cluster agent keeps namespaces apart "+
		"(policy.mode: namespaced): write a DatadogMetric in %q, or have %q annotate its own with %s: %s",
		namespace, name, namespace, from, from, namespace, AllowedNamespaces, from)
}
