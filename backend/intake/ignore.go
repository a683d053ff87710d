package intake

import (
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

func (in *Intake) count(r *http.Request) {
	in.metrics.ignored.WithLabelValues(r.Pattern).Inc()
	if _, told := in.told.LoadOrStore(r.Pattern, true); !told {
		in.log.Info("payloads of this route are taken without effect", "route", r.Pattern)
	}
}
