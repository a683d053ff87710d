package queryapi

import (
	"encoding/base64"
	"errors"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"kelpie.dev/kelpie/backend/answer"
	"kelpie.dev/kelpie/metric/payload"
	"kelpie.dev/kelpie/query"
)

// How far back look-ups without a window of their own go, as Datadog's do.
const (
	tagsWindow   = 4 * time.Hour
	hostWindow   = 24 * time.Hour
	filterWindow = time.Hour
)

// active is GET /api/v1/metrics.
func (a *API) active(w http.ResponseWriter, r *http.Request) {
	v := r.URL.Query()
	from, err := seconds(v, "from")
	scope, serr := scopeFilter(v, "tag_filter")
	if err = errors.Join(err, serr); err != nil {
		answer.Error(w, http.StatusBadRequest, err.Error())
		return
	}
	if host := v.Get("host"); host != "" {
		only := &query.Tag{Key: "host", Value: strings.ToLower(host)}
		if _, all := scope.(query.All); all {
			scope = only
		} else {
			scope = &query.And{Terms: []query.Scope{only, scope}}
		}
	}
	names, err := a.opts.Store.Names(r.Context(), scope, time.Unix(from, 0))
	if err != nil {
		a.unavailable(w, r, err)
		return
	}
	answer.JSON(w, http.StatusOK, map[string]any{"metrics": names, "from": v.Get("from")})
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
		results["metrics"] = a.opts.Store.Search(metrics)
	}
	if !onlyMetrics {
		found, err := a.opts.Store.Hosts(r.Context(), hosts, a.opts.Now().Add(-hostWindow))
		if err != nil {
			a.unavailable(w, r, err)
			return
		}
		results["hosts"] = found
	}
	answer.JSON(w, http.StatusOK, map[string]any{"results": results})
}

// A listing is a request for GET /api/v2/metrics.
type listing struct {
	configured, percentiles, queried, assets *bool
	distribution                             *bool
	tagsConfigured                           []string
	scope                                    query.Scope
	window                                   time.Duration
	paged                                    bool
	size                                     int64
	after                                    string // the cursor: the last name of the page before
	cursor                                   string // as it came
}

const maxPage = 10_000

func parseListing(v url.Values) (l listing, err error) {
	errs := make([]error, 9)
	l.configured, errs[0] = flag(v, "filter[configured]")
	l.percentiles, errs[1] = flag(v, "filter[include_percentiles]")
	l.queried, errs[2] = flag(v, "filter[queried]")
	l.assets, errs[3] = flag(v, "filter[related_assets]")
	l.scope, errs[4] = scopeFilter(v, "filter[tags]")
	l.window, errs[5] = window(v, filterWindow)
	l.size, errs[6] = whole(v, "page[size]", maxPage, 1, maxPage)
	switch kind := v.Get("filter[metric_type]"); kind {
	case "":
	case "distribution", "non_distribution":
		is := kind == "distribution"
		l.distribution = &is
	default:
		errs[7] = errors.New("filter[metric_type] must be distribution or non_distribution")
	}
	if keys := v.Get("filter[tags_configured]"); keys != "" {
		l.tagsConfigured = strings.Split(strings.ToLower(keys), ",")
	}
	l.cursor = v.Get("page[cursor]")
	l.paged = l.cursor != "" || v.Has("page[size]")
	name, cerr := base64.RawURLEncoding.DecodeString(l.cursor)
	if cerr != nil {
		errs[8] = errors.New("page[cursor] is not one that was answered as next_cursor")
	}
	l.after = string(name)
	return l, errors.Join(errs...)
}

// listMetrics is GET /api/v2/metrics.
func (a *API) listMetrics(w http.ResponseWriter, r *http.Request) {
	l, err := parseListing(r.URL.Query())
	if err != nil {
		answer.Error(w, http.StatusBadRequest, strings.Split(err.Error(), "\n")...)
		return
	}
	names := a.opts.Store.Search("")
	since := a.opts.Now().Add(-l.window)
	if _, all := l.scope.(query.All); !all {
		if names, err = a.opts.Store.Names(r.Context(), l.scope, since); err != nil {
			a.unavailable(w, r, err)
			return
		}
	}
	configs := a.opts.Store.TagConfigurations()
	names = slices.DeleteFunc(names, func(name string) bool {
		config, configured := configs[name]
		return name <= l.after && l.after != "" || !a.keeps(&l, name, config, configured, since)
	})
	more := l.paged && int64(len(names)) > l.size
	if more {
		names = names[:l.size]
	}
	data := make([]any, len(names))
	for i, name := range names {
		data[i] = resource("metrics", name, nil)
		if config, ok := configs[name]; ok {
			data[i] = resource("manage_tags", name, config)
		}
	}
	doc := map[string]any{"data": data}
	if l.paged {
		l.addPage(doc, r.URL, names, more)
	}
	answer.JSON(w, http.StatusOK, doc)
}

// keeps reports whether a metric passes the filters.
func (a *API) keeps(l *listing, name string, config payload.TagConfiguration, configured bool, since time.Time) bool {
	_, isDistribution, known := a.opts.Store.Describe(name)
	is := func(want *bool, got bool) bool { return want == nil || *want == got }
	if !known || !is(l.configured, configured) || !is(l.distribution, isDistribution) || !is(l.assets, false) {
		return false
	}
	if l.percentiles != nil {
		// Of every distribution, unless somebody said otherwise.
		with := isDistribution && (config.IncludePercentiles == nil || *config.IncludePercentiles)
		if !isDistribution || with != *l.percentiles {
			return false
		}
	}
	if l.queried != nil {
		if _, asked := a.queried.since(name, since); asked != *l.queried {
			return false
		}
	}
	for _, key := range l.tagsConfigured {
		if !slices.Contains(config.Tags, strings.TrimSpace(key)) {
			return false
		}
	}
	return true
}

// addPage adds what leads from page to page.
func (l *listing) addPage(doc map[string]any, self *url.URL, names []string, more bool) {
	text := func(s string) any {
		if s == "" {
			return nil
		}
		return s
	}
	next := ""
	if more {
		next = base64.RawURLEncoding.EncodeToString([]byte(names[len(names)-1]))
	}
	link := func(cursor string) string {
		v := maps.Clone(self.Query())
		for _, secret := range []string{"api_key", "application_key", "page[cursor]"} {
			v.Del(secret)
		}
		if cursor != "" {
			v.Set("page[cursor]", cursor)
		}
		return self.Path + "?" + v.Encode()
	}
	links := map[string]any{"self": link(l.cursor), "first": link(""), "prev": nil, "last": nil, "next": nil}
	if more {
		links["next"] = link(next)
	}
	doc["links"] = links
	page := map[string]any{"type": "cursor_limit", "limit": l.size, "cursor": text(l.cursor)}
	if more {
		// Absent on the last page: to Datadog's Go client null is a cursor, that of
		// the first page.
		page["next_cursor"] = next
	}
	doc["meta"] = map[string]any{"pagination": page}
}

// resource is one resource of a JSON:API document.
func resource(kind, id string, attributes any) map[string]any {
	r := map[string]any{"type": kind, "id": id}
	if attributes != nil {
		r["attributes"] = attributes
	}
	return r
}
