package eventapi

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"kelpie.dev/kelpie/backend/auth"
	"kelpie.dev/kelpie/backend/record"
	"kelpie.dev/kelpie/metric"
)

const t0 = 1_700_000_000

func serve(t *testing.T, events Events) func(path, app string) (int, string) {
	t.Helper()
	api, err := auth.New("API", auth.Source{Keys: []string{"ak"}})
	if err != nil {
		t.Fatal(err)
	}
	app, err := auth.New("application", auth.Source{Keys: []string{"pk"}})
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	New(events, &auth.Checker{API: api, App: app}, slog.New(slog.DiscardHandler)).Register(mux)
	return func(path, app string) (int, string) {
		r := httptest.NewRequest(http.MethodGet, path, nil)
		r.Header.Set("DD-API-KEY", "ak")
		r.Header.Set("DD-APPLICATION-KEY", app)
		w := httptest.NewRecorder()
		mux.ServeHTTP(w, r)
		return w.Code, w.Body.String()
	}
}

func TestEvents(t *testing.T) {
	book, err := record.Open(record.Options{Dir: t.TempDir(), Now: func() time.Time { return time.Unix(t0, 0) }})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = book.Close() }()
	added, _, err := book.AddEvents(t.Context(), []metric.Event{
		{Title: "a", Text: "x", Host: "h", Tags: metric.NewTags("env:prod")}, {Title: "b", Priority: "low", SourceType: "chef"},
	})
	if err != nil {
		t.Fatal(err)
	}
	get := serve(t, book)
	one := fmt.Sprintf(`{"id":%[1]d,"id_str":"%[1]d","title":"a","text":"x","date_happened":1700000000,"priority":"normal","alert_type":"info","host":"h","tags":["env:prod"],"url":"/api/v1/events/%[1]d"}`, added[0].ID)
	window := fmt.Sprintf("?start=%d&end=%d", t0-5, t0+5)
	for _, tt := range []struct {
		path string
		code int
		want string // the answer, or a part of it
	}{
		{"/api/v1/events" + window + "&tags=Env:Prod", 200, `{"events":[` + one + `],"status":"ok"}`},
		{"/api/v1/events" + window + "&sources=x,Chef&priority=low", 200, `"title":"b"`},
		{"/api/v1/events" + window + "&page=1", 200, `{"events":[],"status":"ok"}`},
		{"/api/v1/events?start=5&end=6", 200, `{"events":[],"status":"ok"}`},
		{fmt.Sprint("/api/v1/events/", added[0].ID), 200, `{"event":` + one + `,"status":"ok"}`},
		{"/api/v1/events/7", 404, `{"errors":["No event matches that id"]}`},
		{"/api/v1/events/x", 400, "must be a whole number"},
		{"/api/v1/events?end=6", 400, "start must be a whole number"},
		{"/api/v1/events?start=1", 400, "end must be a whole number"},
		{"/api/v1/events?start=-1&end=2", 400, "start must be a whole number"},
		{"/api/v1/events?start=7&end=6", 400, "start must not be later than end"},
		{"/api/v1/events" + window + "&page=9999999999999999999", 400, "page must be"},
		{"/api/v1/events" + window + "&page=9223372036854775807", 200, `"events":[]`},
		{"/api/v1/events" + window + "&priority=high", 400, "expected normal or low"},
	} {
		if code, body := get(tt.path, "pk"); code != tt.code || !strings.Contains(body, tt.want) {
			t.Errorf("%s: %d %s\nwant %d %s", tt.path, code, body, tt.code, tt.want)
		}
	}
	for _, path := range []string{"/api/v1/events" + window, fmt.Sprint("/api/v1/events/", added[0].ID)} {
		if code, body := get(path, "ak"); code != 403 || body != `{"errors":["Forbidden"]}` {
			t.Errorf("%s with a wrong application key: %d %s", path, code, body)
		}
	}
}

// broken events cannot be read.
type broken struct{}

func (broken) Events(context.Context, record.Filter) ([]record.Event, error) {
	return nil, errors.New("disk is gone")
}
func (broken) Event(int64) (record.Event, bool, error) {
	return record.Event{}, false, errors.New("disk is gone")
}

func TestWhatCannotBeReadIsUnavailable(t *testing.T) {
	get := serve(t, broken{})
	for _, path := range []string{"/api/v1/events?start=1&end=2", "/api/v1/events/1"} {
		if code, body := get(path, "pk"); code != 503 || body != `{"errors":["disk is gone"]}` {
			t.Errorf("%s: %d %s", path, code, body)
		}
	}
}
