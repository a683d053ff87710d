package queryapi

import (
	"errors"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/cespare/xxhash/v2"

	"kelpie.dev/kelpie/backend/answer"
	"kelpie.dev/kelpie/metric"
)

// hostUp is how recent the newest point of a host that is up is.
const hostUp = 10 * time.Minute

// A host is an element of GET /api/v1/hosts.
type host struct {
	Name             string              `json:"name"`
	HostName         string              `json:"host_name"`
	ID               int64               `json:"id"`
	Aliases          []string            `json:"aliases"`
	Apps             []string            `json:"apps"`
	Sources          []string            `json:"sources"`
	TagsBySource     map[string][]string `json:"tags_by_source"`
	LastReportedTime int64               `json:"last_reported_time"` // Unix seconds
	Up               bool                `json:"up"`
	IsMuted          bool                `json:"is_muted"`
	MuteTimeout      *int64              `json:"mute_timeout"`
	Meta             map[string]any      `json:"meta"`
	Metrics          map[string]any      `json:"metrics"`
}

// A hostListing is a request for GET /api/v1/hosts.
type hostListing struct {
	filter       string
	start, count int64
	from         int64 // Unix seconds
	descending   bool
}

func parseHosts(v url.Values, now time.Time) (l hostListing, err error) {
	var errs [3]error
	l.filter = strings.ToLower(v.Get("filter"))
	l.start, errs[0] = whole(v, "start", 0, 0, 1<<31)
	l.count, errs[1] = whole(v, "count", 100, 1, 1000)
	l.from, errs[2] = whole(v, "from", now.Add(-2*time.Hour).Unix(), 0, 1<<33)
	l.descending = v.Get("sort_dir") == "desc"
	return l, errors.Join(errs[:]...)
}

// listHosts is GET /api/v1/hosts. Hosts are sorted by name, whatever sort_field says.
func (a *API) listHosts(w http.ResponseWriter, r *http.Request) {
	l, err := parseHosts(r.URL.Query(), a.opts.Now())
	if err != nil {
		answer.Error(w, http.StatusBadRequest, strings.Split(err.Error(), "\n")...)
		return
	}
	since := time.Unix(l.from, 0)
	tags, err := a.opts.Store.HostTags(r.Context(), since)
	if err != nil {
		a.unavailable(w, r, err)
		return
	}
	names := slices.Sorted(maps.Keys(tags))
	names = slices.DeleteFunc(names, func(name string) bool {
		return !strings.Contains(name, l.filter) && !slices.ContainsFunc(tags[name], func(tag string) bool { return strings.Contains(tag, l.filter) })
	})
	if l.descending {
		slices.Reverse(names)
	}
	page := names[min(l.start, int64(len(names))):]
	page = page[:min(l.count, int64(len(page)))]
	list := make([]host, len(page))
	for i, name := range page {
		if list[i], err = a.host(r, name, tags[name], since); err != nil {
			a.unavailable(w, r, err)
			return
		}
	}
	answer.JSON(w, http.StatusOK, map[string]any{"host_list": list, "total_matching": len(names), "total_returned": len(list)})
}

func (a *API) host(r *http.Request, name string, tags metric.Tags, since time.Time) (host, error) {
	last, err := a.opts.Store.LastReported(r.Context(), name, since)
	return host{
		Name: name, HostName: name, ID: int64(xxhash.Sum64String(name) >> 12), // exact also where numbers are floats
		Aliases: []string{name}, Apps: []string{}, Sources: []string{},
		TagsBySource:     map[string][]string{"Datadog": tags.Union("host:" + name)},
		LastReportedTime: last, Up: last > a.opts.Now().Add(-hostUp).Unix(),
		Meta: map[string]any{}, Metrics: map[string]any{},
	}, err
}

// hostTotals is GET /api/v1/hosts/totals.
func (a *API) hostTotals(w http.ResponseWriter, r *http.Request) {
	l, err := parseHosts(r.URL.Query(), a.opts.Now())
	if err != nil {
		answer.Error(w, http.StatusBadRequest, strings.Split(err.Error(), "\n")...)
		return
	}
	since := time.Unix(l.from, 0)
	names, err := a.opts.Store.Hosts(r.Context(), "", since)
	active, up := 0, 0
	for _, name := range names {
		if err != nil {
			break
		}
		var last int64
		last, err = a.opts.Store.LastReported(r.Context(), name, since)
		if last > 0 {
			active++
		}
		if last > a.opts.Now().Add(-hostUp).Unix() {
			up++
		}
	}
	if err != nil {
		a.unavailable(w, r, err)
		return
	}
	answer.JSON(w, http.StatusOK, map[string]int{"total_active": active, "total_up": up})
}

// tagsOfHosts is GET /api/v1/tags/hosts.
func (a *API) tagsOfHosts(w http.ResponseWriter, r *http.Request) {
	hosts, err := a.opts.Store.HostTags(r.Context(), a.opts.Now().Add(-hostWindow))
	if err != nil {
		a.unavailable(w, r, err)
		return
	}
	byTag := make(map[string][]string)
	for _, name := range slices.Sorted(maps.Keys(hosts)) {
		for _, tag := range hosts[name] {
			byTag[tag] = append(byTag[tag], name)
		}
	}
	answer.JSON(w, http.StatusOK, map[string]any{"tags": byTag})
}

// tagsOfHost is GET /api/v1/tags/hosts/{host}.
func (a *API) tagsOfHost(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("host")
	hosts, err := a.opts.Store.HostTags(r.Context(), a.opts.Now().Add(-hostWindow))
	if err != nil {
		a.unavailable(w, r, err)
		return
	}
	tags, ok := hosts[strings.ToLower(name)]
	if !ok {
		answer.Error(w, http.StatusNotFound, "host not found")
		return
	}
	answer.JSON(w, http.StatusOK, map[string]any{"host": name, "tags": append([]string{}, tags...)})
}
