package intake

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"

	"kelpie.dev/kelpie/backend/answer"
)

// ignore takes a payload that has no effect here and says so once in the log.
func (in *Intake) ignore(w http.ResponseWriter, r *http.Request) {
	if !in.allowed(w, r) {
		return
	}
	if _, err := io.Copy(io.Discard, http.MaxBytesReader(w, r.Body, ignoredLimits.wire)); err != nil {
		in.fail(w, r, readError(err, ignoredLimits.wire))
		return
	}
	in.count(r)
	answer.Raw(w, http.StatusAccepted, "application/json", []byte(`{"status": "ok"}`))
}

// event takes an event without effect. Its answer repeats the event.
func (in *Intake) event(w http.ResponseWriter, r *http.Request) {
	if !in.allowed(w, r) {
		return
	}
	wire, done, err := in.receive(w, r, v2Limits)
	defer done()
	if err != nil {
		in.fail(w, r, err)
		return
	}
	body, release, err := in.inflate(r, wire, v2Limits)
	defer release()
	if err != nil {
		in.fail(w, r, err)
		return
	}
	var event map[string]any
	if err := json.Unmarshal(body, &event); err != nil || event == nil {
		in.fail(w, r, &refusal{http.StatusBadRequest, reasonMalformed, []string{fmt.Sprintf("Payload is not in the expected format: expected an event object: %v", err)}})
		return
	}
	in.count(r)
	answer.JSON(w, http.StatusAccepted, map[string]any{"status": "ok", "event": event})
}

func (in *Intake) count(r *http.Request) {
	in.metrics.ignored.WithLabelValues(r.Pattern).Inc()
	if _, told := in.told.LoadOrStore(r.Pattern, true); !told {
		in.log.Info("payloads of this route are taken without effect", "route", r.Pattern)
	}
}
