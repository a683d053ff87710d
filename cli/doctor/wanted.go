package doctor

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/DataDog/datadog-operator/api/datadoghq/v1alpha1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"kelpie.dev/kelpie/cli/release"
	"kelpie.dev/kelpie/query"
)

// wanted is one external metric that the autoscaler asks for.
type wanted struct {
	name     string
	selector *metav1.LabelSelector
	where    string            // the field to mend
	object   *client.ObjectKey // the DatadogMetric it names; nil for a plain name
	query    string
	expr     query.Expr // nil until parsed, and for a query with templates
	maxAge   time.Duration
	age      time.Duration // of the newest point; set by queryAccepted
	found    bool          // whether there was a point; set by queryAccepted
}

const objectPrefix = "datadogmetric@"

// hpaMetrics learns what the autoscaler asks for.
func (e *exam) hpaMetrics(ctx context.Context) finding {
	others := 0
	for i, m := range e.hpa.Spec.Metrics {
		if m.Type != autoscalingv2.ExternalMetricSourceType || m.External == nil {
			others++
			continue
		}
		w := &wanted{name: m.External.Metric.Name, selector: m.External.Metric.Selector, maxAge: e.maxAge(),
			where: fmt.Sprintf("HPA %s/%s, spec.metrics[%d].external.metric", e.Namespace, e.HPA, i)}
		f, failed := e.resolve(ctx, w)
		if failed {
			return f
		}
		e.wanted = append(e.wanted, w)
	}
	if len(e.wanted) == 0 {
		return broken(fmt.Sprintf("the HPA has %d metrics, none of type External", others), "Kelpie serves metrics of type External only; this HPA asks it for nothing",
			fmt.Sprintf("add an External metric, or look at the HPA's own: kubectl -n %s describe hpa %s", e.Namespace, e.HPA))
	}
	seen := make([]string, len(e.wanted))
	for i, w := range e.wanted {
		seen[i] = w.query
		if w.object != nil {
			seen[i] = fmt.Sprintf("DatadogMetric %s: %s", w.object, w.query)
		}
	}
	return ok("asks for %s", strings.Join(seen, "; "))
}

// resolve finds the query of w; failed means that the finding says why it has none.
func (e *exam) resolve(ctx context.Context, w *wanted) (f finding, failed bool) {
	spec := &e.rel.ClusterAgent.Spec.Template.Spec
	if len(w.name) < len(objectPrefix) || !strings.EqualFold(w.name[:len(objectPrefix)], objectPrefix) {
		scope, err := scopeOf(w.selector)
		if err != nil {
			return broken(fmt.Sprintf("metric %s: %v", w.name, err), "the selector cannot be translated into a query",
				"correct "+w.where+".selector, or write a DatadogMetric and name it as datadogmetric@<namespace>:<name>"), true
		}
		rollup := cmp.Or(release.Env(spec, "DD_EXTERNAL_METRICS_PROVIDER_ROLLUP"), "30")
		w.query = cmp.Or(release.Env(spec, "DD_EXTERNAL_METRICS_AGGREGATOR"), "avg") + ":" + w.name + "{" + scope + "}.rollup(" + rollup + ")"
		return finding{}, false
	}
	if on, err := strconv.ParseBool(release.Env(spec, "DD_EXTERNAL_METRICS_PROVIDER_USE_DATADOGMETRIC_CRD")); err != nil || !on {
		return broken(fmt.Sprintf("metric %s names a DatadogMetric", w.name), "this installation runs without DatadogMetric resources",
			"helm upgrade with clusterAgent.metricsProvider.useDatadogMetrics=true"), true
	}
	ns, name, has := strings.Cut(strings.ToLower(w.name[len(objectPrefix):]), ":")
	if !has {
		ns, name = e.Namespace, ns
	}
	w.object = &client.ObjectKey{Namespace: ns, Name: name}
	var m v1alpha1.DatadogMetric
	switch err := e.Objects.Get(ctx, *w.object, &m); {
	case apierrors.IsNotFound(err):
		return broken(fmt.Sprintf("DatadogMetric %s does not exist", w.object), "the HPA names a DatadogMetric that is not there",
			fmt.Sprintf("create it, or correct %s.name; kubectl get datadogmetric -A lists all", w.where)), true
	case meta.IsNoMatchError(err):
		return broken("the cluster does not know the kind DatadogMetric", "its CustomResourceDefinition is not installed", "helm upgrade Kelpie's chart, which installs it"), true
	case err != nil:
		return broken(err.Error(), "the DatadogMetric cannot be read", "get the right to read datadogmetrics in namespace "+ns), true
	}
	w.query = m.Spec.Query
	w.where = fmt.Sprintf("DatadogMetric %s, spec.query", w.object)
	if m.Spec.MaxAge.Duration > 0 {
		w.maxAge = m.Spec.MaxAge.Duration
	}
	return finding{}, false
}

// maxAge is how old a point the cluster agent accepts, unless a DatadogMetric
// says otherwise.
func (e *exam) maxAge() time.Duration {
	text := release.Env(&e.rel.ClusterAgent.Spec.Template.Spec, "DD_EXTERNAL_METRICS_PROVIDER_MAX_AGE")
	if n, err := strconv.Atoi(text); err == nil && n > 0 {
		return time.Duration(n) * time.Second
	}
	if d, err := time.ParseDuration(text); err == nil && d > 0 {
		return d
	}
	return 2 * time.Minute
}

// scopeOf is the scope that a selector means: labels joined by commas, or, with
// expressions, by AND, as the two syntaxes do not mix.
func scopeOf(sel *metav1.LabelSelector) (string, error) {
	if sel == nil || len(sel.MatchLabels)+len(sel.MatchExpressions) == 0 {
		return "*", nil
	}
	var terms []string
	for k, v := range sel.MatchLabels {
		if v == "" {
			return "", fmt.Errorf("label %q has no value", k)
		}
		terms = append(terms, k+":"+v)
	}
	slices.Sort(terms)
	if len(sel.MatchExpressions) == 0 {
		return strings.Join(terms, ","), nil
	}
	for _, x := range sel.MatchExpressions {
		values := strings.Join(x.Values, ",")
		switch x.Operator {
		case metav1.LabelSelectorOpIn:
			terms = append(terms, x.Key+" IN ("+values+")")
		case metav1.LabelSelectorOpNotIn:
			terms = append(terms, "NOT "+x.Key+" IN ("+values+")")
		case metav1.LabelSelectorOpExists:
			terms = append(terms, x.Key+":*")
		case metav1.LabelSelectorOpDoesNotExist:
			terms = append(terms, "NOT "+x.Key+":*")
		default:
			return "", fmt.Errorf("key %q: operator %q means nothing in a query", x.Key, x.Operator)
		}
	}
	return strings.Join(terms, " AND "), nil
}

func (e *exam) querySyntax(context.Context) finding {
	parsed := 0
	for _, w := range e.wanted {
		if strings.Contains(w.query, "%%") {
			continue
		}
		expr, err := query.Parse(w.query)
		var q *query.Error
		switch {
		case errors.As(err, &q):
			return broken(q.Error()+"\n"+q.Caret(), "the query does not parse", "correct "+w.where)
		case err != nil:
			return broken(err.Error(), "the query does not parse", "correct "+w.where)
		}
		w.expr = expr
		parsed++
	}
	if parsed < len(e.wanted) {
		return skipped("a query holds %%%%templates%%%% that only the cluster agent can fill in")
	}
	return ok("%d of %d queries parse", parsed, len(e.wanted))
}

// leaves returns the metrics and scopes that the queries read, with their wanted.
func (e *exam) leaves() []leaf {
	var out []leaf
	for _, w := range e.wanted {
		if w.expr == nil {
			continue
		}
		for q := range query.Queries(w.expr) {
			out = append(out, leaf{w, q})
		}
	}
	return out
}

type leaf struct {
	wanted *wanted
	query  *query.Query
}

// join joins at most n of names.
func join(names []string, sep string, n int) string {
	if len(names) <= n {
		return strings.Join(names, sep)
	}
	return strings.Join(names[:n], sep) + fmt.Sprintf(" and %d more", len(names)-n)
}
