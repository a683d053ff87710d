package promapi

import (
	"maps"
	"runtime"
	"slices"
	"strings"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
)

// each calls list for every set of matchers, or once without any, and returns
// all that it lists, sorted.
func (a *API) each(r *request, list func(storage.Querier, []*labels.Matcher) ([]string, error)) ([]string, error) {
	limit, err := r.limitOf(a.opts.MaxSeries)
	if err != nil {
		return nil, err
	}
	sets, err := a.matchers(r)
	if err != nil {
		return nil, err
	}
	from, to, err := r.span(a.opts.Now())
	if err != nil {
		return nil, err
	}
	q, err := a.opts.Queryable.Querier(from, to)
	if err != nil {
		return nil, err
	}
	defer func() { _ = q.Close() }()
	if len(sets) == 0 {
		sets = append(sets, nil)
	}
	all := make(map[string]bool)
	for _, set := range sets {
		found, err := list(q, set)
		if err != nil {
			return nil, err
		}
		for _, text := range found {
			all[text] = true
		}
	}
	sorted := slices.AppendSeq([]string{}, maps.Keys(all))
	slices.Sort(sorted)
	return truncate(r, sorted, limit), nil
}

// labelNames is /api/v1/labels.
func (a *API) labelNames(r *request) (any, error) {
	return a.each(r, func(q storage.Querier, ms []*labels.Matcher) ([]string, error) {
		names, _, err := q.LabelNames(r.Context(), nil, ms...)
		return names, err
	})
}

// labelValues is /api/v1/label/{name}/values.
func (a *API) labelValues(r *request) (any, error) {
	name := r.PathValue("name")
	if strings.HasPrefix(name, "U__") {
		name = model.UnescapeName(name, model.ValueEncodingEscaping)
	}
	if !model.UTF8Validation.IsValidLabelName(name) {
		return nil, bad("invalid label name: %q", name)
	}
	return a.each(r, func(q storage.Querier, ms []*labels.Matcher) ([]string, error) {
		values, _, err := q.LabelValues(r.Context(), name, nil, ms...)
		return values, err
	})
}

// series is /api/v1/series.
func (a *API) series(r *request) (any, error) {
	if len(r.Form["match[]"]) == 0 {
		return nil, bad("no match[] parameter provided")
	}
	limit, err := r.limitOf(a.opts.MaxSeries)
	if err != nil {
		return nil, err
	}
	sets, err := a.matchers(r)
	if err != nil {
		return nil, err
	}
	from, to, err := r.span(a.opts.Now())
	if err != nil {
		return nil, err
	}
	q, err := a.opts.Queryable.Querier(from, to)
	if err != nil {
		return nil, err
	}
	defer func() { _ = q.Close() }()
	all := []labels.Labels{}
	hints := &storage.SelectHints{Start: from, End: to, Func: "series"}
	for _, set := range sets {
		found := q.Select(r.Context(), false, hints, set...)
		for found.Next() && len(all) <= a.opts.MaxSeries {
			all = append(all, found.At().Labels().Copy()) // the index's own end with the querier
		}
		if err := found.Err(); err != nil {
			return nil, err
		}
	}
	slices.SortFunc(all, labels.Compare)
	all = slices.CompactFunc(all, labels.Equal)
	return truncate(r, all, limit), nil
}

// metadataEntry is what is known of a metric.
type metadataEntry struct {
	Type string `json:"type"`
	Help string `json:"help"`
	Unit string `json:"unit"`
}

// metadata is /api/v1/metadata. Whatever Datadog calls a metric, to PromQL its
// points stand for themselves: a count is that of its interval, a rate is per
// second, and neither is a counter that rate() could be taken of.
func (a *API) metadata(r *request) (any, error) {
	limit, err := r.limitOf(a.opts.MaxSeries)
	if err != nil {
		return nil, err
	}
	names := []string{r.FormValue("metric")}
	if names[0] == "" {
		names = a.opts.Catalog.Search("")
	}
	out := make(map[string][]metadataEntry)
	for _, name := range names {
		s, isDistribution, ok := a.opts.Catalog.Describe(name)
		if !ok {
			continue
		}
		if len(out) == limit {
			r.warnings = append(r.warnings, "results truncated due to limit")
			break
		}
		e := metadataEntry{Type: string(model.MetricTypeGauge), Unit: s.Unit}
		if isDistribution {
			e.Type = string(model.MetricTypeGaugeHistogram)
		}
		if text := a.opts.Catalog.Metadata(name).Description; text != nil {
			e.Help = *text
		}
		out[name] = []metadataEntry{e}
	}
	return out, nil
}

// spoken is the version of Prometheus whose engine and API this is: Grafana goes
// by it. TestVersionIsTheEngines holds it to go.mod.
const spoken = "3.16.0"

func buildInfo() map[string]string {
	return map[string]string{"version": spoken, "revision": "kelpie", "branch": "", "buildUser": "", "buildDate": "", "goVersion": runtime.Version()}
}
