package queryapi

import (
	"errors"
	"net/http"
	"slices"
	"strings"
	"time"

	"kelpie.dev/kelpie/backend/answer"
	"kelpie.dev/kelpie/metric"
	"kelpie.dev/kelpie/metric/payload"
	"kelpie.dev/kelpie/query"
)

// all selects every context of a metric.
func all(name string) query.Selector { return query.Selector{Metric: name, Scope: query.All{}} }

// volumes is GET /api/v2/metrics/{metric}/volumes. What is ingested is queryable,
// so both volumes are the contexts of the last hour.
func (a *API) volumes(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("metric")
	now := a.opts.Now().Unix()
	n, _, err := a.opts.Store.Reach(r.Context(), all(name), now-3600, now)
	if err != nil {
		a.unavailable(w, r, err)
		return
	}
	answer.JSON(w, http.StatusOK, map[string]any{"data": resource("metric_volumes", name, map[string]int64{"indexed_volume": n, "ingested_volume": n})})
}

// activeConfigurations is GET /api/v2/metrics/{metric}/active-configurations.
func (a *API) activeConfigurations(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("metric")
	window, err := window(r.URL.Query(), filterWindow)
	if err != nil {
		answer.Error(w, http.StatusBadRequest, err.Error())
		return
	}
	u, _ := a.queried.since(name, a.opts.Now().Add(-window))
	answer.JSON(w, http.StatusOK, map[string]any{"data": resource("actively_queried_configurations", name, map[string]any{
		"active_tags": append([]string{}, u.tags...), "active_aggregations": append([]payload.Aggregation{}, u.aggregations...),
	})})
}

// estimate is GET /api/v2/metrics/{metric}/estimate: how many series the metric
// would be if only some of its tags were kept.
func (a *API) estimate(w http.ResponseWriter, r *http.Request) {
	name, v := r.PathValue("metric"), r.URL.Query()
	ago, err := whole(v, "filter[hours_ago]", 0, 0, 24*366)
	span, serr := whole(v, "filter[timespan_h]", 1, 1, 24*366)
	aggregations, nerr := whole(v, "filter[num_aggregations]", 1, 1, 25)
	percentiles, perr := flag(v, "filter[pct]")
	excluded, xerr := flag(v, "filter[exclude_tags_mode]")
	if err := errors.Join(err, serr, nerr, perr, xerr); err != nil {
		answer.Error(w, http.StatusBadRequest, strings.Split(err.Error(), "\n")...)
		return
	}
	var keys []string
	if groups := v.Get("filter[groups]"); groups != "" {
		keys = strings.Split(strings.ToLower(groups), ",")
	}
	end := a.opts.Now().Add(-time.Duration(ago) * time.Hour)
	groups := make(map[string]bool)
	for m, err := range a.opts.Store.Contexts(r.Context(), all(name), end.Add(-time.Duration(span)*time.Hour).Unix(), end.Unix()) {
		if err != nil {
			a.unavailable(w, r, err)
			return
		}
		groups[keptTags(query.TagsOf(m), keys, excluded != nil && *excluded)] = true
	}
	kind := "count_or_gauge"
	if _, isDistribution, _ := a.opts.Store.Describe(name); isDistribution {
		kind = "distribution"
		if percentiles != nil && *percentiles {
			kind = "percentile"
		}
	}
	answer.JSON(w, http.StatusOK, map[string]any{"data": resource("metric_cardinality_estimate", name, map[string]any{
		"estimate_type": kind, "estimated_at": a.second(), "estimated_output_series": int64(len(groups)) * aggregations,
	})})
}

// keptTags joins the tags whose keys are among keys; with except, all others.
func keptTags(tags metric.Tags, keys []string, except bool) string {
	kept := make([]string, 0, len(tags))
	for _, tag := range tags {
		key, _, _ := strings.Cut(tag, ":")
		if slices.Contains(keys, key) != except {
			kept = append(kept, tag)
		}
	}
	return strings.Join(kept, ",")
}

// assets is GET /api/v2/metrics/{metric}/assets. Nothing here refers to metrics.
func (a *API) assets(w http.ResponseWriter, r *http.Request) {
	data := resource("metrics", r.PathValue("metric"), nil)
	related := map[string]any{}
	for _, kind := range []string{"dashboards", "monitors", "notebooks", "slos"} {
		related[kind] = map[string]any{"data": []any{}}
	}
	data["relationships"] = related
	answer.JSON(w, http.StatusOK, map[string]any{"data": data, "included": []any{}})
}
