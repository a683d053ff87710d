// Package eventapi answers Datadog's read API of events over HTTP.
//
// It owns the parameters, limits and exact JSON of the event stream's routes. It
// does not know how events are kept, nor how they come. Every route needs an API
// key and an application key.
package eventapi

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"kelpie.dev/kelpie/backend/answer"
	"kelpie.dev/kelpie/backend/record"
	"kelpie.dev/kelpie/metric"
	"kelpie.dev/kelpie/metric/payload"
)

// Authorizer checks both keys of a request. Its errors' texts are answered.
type Authorizer interface {
	Read(r *http.Request) error
}

// Events are the events that are kept.
type Events interface {
	Events(ctx context.Context, f record.Filter) ([]record.Event, error)
	Event(id int64) (e record.Event, ok bool, err error)
}

// API serves the routes of Register. See New.
type API struct {
	events Events
	auth   Authorizer
	log    *slog.Logger
}

// New returns an API. All of its arguments are required.
func New(events Events, auth Authorizer, log *slog.Logger) *API {
	return &API{events: events, auth: auth, log: log}
}

// Register adds the API's routes to mux.
func (a *API) Register(mux *http.ServeMux) {
	mux.HandleFunc("GET /api/v1/events", a.guard(a.list))
	mux.HandleFunc("GET /api/v1/events/{id}", a.guard(a.get))
}

func (a *API) guard(serve http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if err := a.auth.Read(r); err != nil {
			answer.Error(w, http.StatusForbidden, err.Error())
			return
		}
		serve(w, r)
	}
}

// pageSize is how many events one answer holds, as Datadog's does.
const pageSize = 1000

// list is GET /api/v1/events.
func (a *API) list(w http.ResponseWriter, r *http.Request) {
	f, err := filter(r.URL.Query())
	if err != nil {
		answer.Error(w, http.StatusBadRequest, err.Error())
		return
	}
	found, err := a.events.Events(r.Context(), f)
	if err != nil {
		a.unavailable(w, r, err)
		return
	}
	events := make([]payload.APIEvent, len(found))
	for i := range found {
		events[i] = payload.NewAPIEvent(found[i].ID, &found[i].Event)
	}
	answer.JSON(w, http.StatusOK, map[string]any{"events": events, "status": "ok"})
}

// filter reads the parameters of list.
func filter(v url.Values) (f record.Filter, err error) {
	f.Limit = pageSize
	var errs [4]error
	f.From, errs[0] = number(v, "start", true)
	f.To, errs[1] = number(v, "end", true)
	page, err := number(v, "page", false)
	errs[2] = err
	f.Priority = v.Get("priority")
	switch {
	case errors.Join(errs[:]...) != nil:
	case f.To < f.From:
		errs[3] = errors.New("start must not be later than end")
	case f.Priority != "" && f.Priority != "normal" && f.Priority != "low":
		errs[3] = fmt.Errorf("priority %.20q: expected normal or low", f.Priority)
	}
	f.Skip = int(min(page, 1<<30)) * pageSize
	f.Sources = list(v.Get("sources"))
	for _, tag := range list(v.Get("tags")) {
		f.Tags = append(f.Tags, metric.NormalizeTag(tag))
	}
	return f, errors.Join(errs[:]...)
}

func number(v url.Values, name string, required bool) (int64, error) {
	s := v.Get(name)
	if s == "" && !required {
		return 0, nil
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n < 0 {
		return 0, fmt.Errorf("%s must be a whole number, in Unix seconds where it is a time", name)
	}
	return n, nil
}

// list splits a list at its commas.
func list(s string) []string {
	var out []string
	for part := range strings.SplitSeq(s, ",") {
		if part = strings.TrimSpace(part); part != "" {
			out = append(out, part)
		}
	}
	return out
}

// get is GET /api/v1/events/{id}.
func (a *API) get(w http.ResponseWriter, r *http.Request) {
	id, err := strconv.ParseInt(r.PathValue("id"), 10, 64)
	if err != nil {
		answer.Error(w, http.StatusBadRequest, "the event's id must be a whole number")
		return
	}
	e, ok, err := a.events.Event(id)
	switch {
	case err != nil:
		a.unavailable(w, r, err)
	case !ok:
		answer.Error(w, http.StatusNotFound, "No event matches that id")
	default:
		answer.JSON(w, http.StatusOK, map[string]any{"event": payload.NewAPIEvent(e.ID, &e.Event), "status": "ok"})
	}
}

func (a *API) unavailable(w http.ResponseWriter, r *http.Request, err error) {
	if r.Context().Err() == nil {
		a.log.Error("cannot answer for events", "route", r.Pattern, "error", err)
	}
	answer.Error(w, http.StatusServiceUnavailable, err.Error())
}
