package intake

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"strings"

	"kelpie.dev/kelpie/backend/answer"
	"kelpie.dev/kelpie/backend/record"
	"kelpie.dev/kelpie/metric"
	"kelpie.dev/kelpie/metric/payload"
)

// checks takes runs of service checks.
func (in *Intake) checks(w http.ResponseWriter, r *http.Request) {
	accepted(w, in.take(w, r, recordLimits, func(body []byte, out *outcome) (func(context.Context) error, error) {
		checks, err := payload.DecodeChecks(body)
		kept := checks[:0]
		for _, c := range checks {
			if in.normalizeRecord(c.Name, &c.Host, &c.Tags, out) {
				kept = append(kept, c)
			}
		}
		return func(ctx context.Context) error {
			refused, err := in.records.AddChecks(ctx, kept)
			out.refuse(refused...)
			return err
		}, err
	}))
}

// accepted answers a request of which parts may have been refused; nil is
// answered already.
func accepted(w http.ResponseWriter, out *outcome) {
	switch {
	case out == nil:
	case out.count() == 0:
		answer.Raw(w, http.StatusAccepted, "application/json", []byte(`{"status": "ok"}`))
	default:
		answer.JSON(w, http.StatusAccepted, map[string]any{"status": "ok", "errors": out.lines()})
	}
}

// normalizeRecord normalizes host and tags of an event or a check. It reports
// whether it can be kept.
func (in *Intake) normalizeRecord(name string, host *string, tags *metric.Tags, out *outcome) bool {
	s := metric.Series{Name: "a", Host: *host, Tags: *tags}
	reason := normalizeSeries(&s)
	if reason != "" {
		s.Name = name
		in.refuse(out, reason, &s)
	}
	*host, *tags = s.Host, s.Tags
	return reason == ""
}

// event takes one event of a client. Its answer repeats the event.
func (in *Intake) event(w http.ResponseWriter, r *http.Request) {
	if e := in.oneEvent(w, r, payload.DecodeEvent); e != nil {
		answer.JSON(w, http.StatusAccepted, map[string]any{"status": "ok", "event": payload.NewAPIEvent(e.ID, &e.Event)})
	}
}

// eventV2 takes one event in the form of the newer API.
func (in *Intake) eventV2(w http.ResponseWriter, r *http.Request) {
	e := in.oneEvent(w, r, payload.DecodeEventV2)
	if e == nil {
		return
	}
	id := strconv.FormatInt(e.ID, 10)
	evt := map[string]any{"evt": map[string]any{"id": id, "uid": id}}
	answer.JSON(w, http.StatusAccepted, map[string]any{
		"data":  map[string]any{"type": "event", "attributes": map[string]any{"attributes": evt}},
		"links": map[string]any{"self": "/api/v1/events/" + id},
	})
}

// oneEvent takes a body of one event. It returns nil where that is not kept; the
// error is then answered.
func (in *Intake) oneEvent(w http.ResponseWriter, r *http.Request, decode func([]byte) (metric.Event, error)) *record.Event {
	var kept *record.Event
	in.take(w, r, recordLimits, func(body []byte, out *outcome) (func(context.Context) error, error) {
		e, err := decode(body)
		return func(ctx context.Context) error {
			added, err := in.addEvents(ctx, []metric.Event{e}, out)
			if err == nil && len(added) == 0 {
				return &refusal{http.StatusBadRequest, reasonItem, out.lines()}
			}
			if err == nil {
				kept = &added[0]
			}
			return err
		}, err
	})
	return kept
}

// addEvents normalizes and keeps events.
func (in *Intake) addEvents(ctx context.Context, events []metric.Event, out *outcome) ([]record.Event, error) {
	kept := make([]metric.Event, 0, len(events))
	for _, e := range events {
		if in.normalizeRecord(e.Title, &e.Host, &e.Tags, out) {
			kept = append(kept, e)
		}
	}
	if len(kept) == 0 {
		return nil, nil
	}
	added, refused, err := in.records.AddEvents(ctx, kept)
	out.refuse(refused...)
	return added, err
}

// metadata takes what agents send to /intake/: events, the host's tags, and
// much that has no effect here.
func (in *Intake) metadata(w http.ResponseWriter, r *http.Request) {
	accepted(w, in.take(w, r, recordLimits, func(body []byte, out *outcome) (func(context.Context) error, error) {
		events, host, err := payload.DecodeEvents(body)
		if err != nil {
			return nil, err
		}
		h, err := payload.DecodeHost(body)
		if err != nil {
			return nil, err
		}
		for i := range events {
			if events[i].Host == "" {
				events[i].Host = host
			}
		}
		if len(events) == 0 && (!h.HasTags || h.Name == "") {
			in.count(r)
		}
		return func(ctx context.Context) error {
			if _, err := in.addEvents(ctx, events, out); err != nil {
				return err
			}
			return in.setHost(ctx, h, out)
		}, nil
	}))
}

// setHost keeps what is told of a host.
func (in *Intake) setHost(ctx context.Context, m payload.HostMetadata, out *outcome) error {
	name := strings.TrimSpace(m.Name)
	if name == "" || !m.HasTags {
		return nil
	}
	if !in.normalizeRecord("of host "+name, &name, &m.Tags, out) {
		return nil
	}
	err := in.records.SetHost(ctx, record.Host{Name: name, Agent: m.Agent, OS: m.OS, Tags: m.Tags})
	var limit *record.LimitError
	if errors.As(err, &limit) {
		out.refuse("host " + strconv.Quote(name) + ": " + err.Error())
		return nil
	}
	return err
}
