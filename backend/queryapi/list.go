package queryapi

import (
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"

	"kelpie.dev/kelpie/backend/answer"
)

// How far back look-ups without a window of their own go, as Datadog's do.
const (
	tagsWindow = 4 * time.Hour
	hostWindow = 24 * time.Hour
)

// active is GET /api/v1/metrics.
func (a *API) active(w http.ResponseWriter, r *http.Request) {
	v := r.URL.Query()
	from, err := seconds(v, "from")
	tags, terr := tagFilter(v.Get("host"), v.Get("tag_filter"))
	if err = errors.Join(err, terr); err != nil {
		answer.Error(w, http.StatusBadRequest, err.Error())
		return
	}
	names, err := a.opts.Catalog.Active(r.Context(), time.Unix(from, 0), tags...)
	if err != nil {
		a.unavailable(w, r, err)
		return
	}
	answer.JSON(w, http.StatusOK, map[string]any{"metrics": names, "from": v.Get("from")})
}

// tagFilter turns the filters of active into tags that must all be there.
func tagFilter(host, filter string) ([]string, error) {
	var tags []string
	if host != "" {
		tags = append(tags, "host:"+strings.ToLower(host))
	}
	for part := range strings.SplitSeq(filter, ",") {
		part = strings.ToLower(strings.TrimSpace(part))
		switch {
		case part == "":
		case strings.ContainsAny(part, " !()"):
			return nil, errors.New("tag_filter must be tags separated by commas, such as env:prod,service:web*")
		default:
			tags = append(tags, part)
		}
	}
	return tags, nil
}

// search is GET /api/v1/search.
func (a *API) search(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query().Get("q")
	if q == "" {
		answer.Error(w, http.StatusBadRequest, "q is required: metrics:TEXT, hosts:TEXT or TEXT")
		return
	}
	results := map[string][]string{}
	metrics, onlyMetrics := strings.CutPrefix(q, "metrics:")
	hosts, onlyHosts := strings.CutPrefix(q, "hosts:")
	if !onlyHosts {
		results["metrics"] = a.opts.Catalog.Search(metrics)
	}
	if !onlyMetrics {
		found, err := a.opts.Tags.Hosts(r.Context(), hosts, a.opts.Now().Add(-hostWindow))
		if err != nil {
			a.unavailable(w, r, err)
			return
		}
		results["hosts"] = found
	}
	answer.JSON(w, http.StatusOK, map[string]any{"results": results})
}

// metadata is the answer of describe. What is not known is null.
type metadata struct {
	Description    *string `json:"description"`
	ShortName      *string `json:"short_name"`
	Integration    *string `json:"integration"`
	StatsdInterval *int64  `json:"statsd_interval"`
	PerUnit        *string `json:"per_unit"`
	Type           *string `json:"type"`
	Unit           *string `json:"unit"`
}

// describe is GET /api/v1/metrics/{metric}.
func (a *API) describe(w http.ResponseWriter, r *http.Request) {
	s, isDistribution, ok := a.opts.Catalog.Describe(r.PathValue("metric"))
	if !ok {
		answer.Error(w, http.StatusNotFound, "metric_name not found")
		return
	}
	var m metadata
	if t := s.Type.String(); t != "" || isDistribution {
		if isDistribution {
			t = "distribution"
		}
		m.Type = &t
	}
	if s.Interval > 0 {
		m.StatsdInterval = &s.Interval
	}
	if s.Unit != "" {
		m.Unit = &s.Unit
	}
	answer.JSON(w, http.StatusOK, m)
}

// allTags is GET /api/v2/metrics/{metric}/all-tags.
func (a *API) allTags(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("metric")
	if _, _, ok := a.opts.Catalog.Describe(name); !ok {
		answer.Error(w, http.StatusNotFound, "metric_name not found")
		return
	}
	window := tagsWindow
	if s := r.URL.Query().Get("window[seconds]"); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil || n <= 0 || n > 366*86400 {
			answer.Error(w, http.StatusBadRequest, "window[seconds] must be a number of seconds")
			return
		}
		window = time.Duration(n) * time.Second
	}
	tags, err := a.opts.Tags.Tags(r.Context(), name, a.opts.Now().Add(-window))
	if err != nil {
		a.unavailable(w, r, err)
		return
	}
	answer.JSON(w, http.StatusOK, map[string]any{"data": map[string]any{
		"type": "metrics", "id": name, "attributes": map[string]any{"tags": append([]string{}, tags...)},
	}})
}
