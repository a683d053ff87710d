package intake

import (
	"errors"
	"net/http"

	"kelpie.dev/kelpie/backend/answer"
	"kelpie.dev/kelpie/backend/dialect"
	"kelpie.dev/kelpie/metric/payload"
)

// A refusal is an error with its place in the answer and in the counters.
type refusal struct {
	code     int
	reason   string
	messages []string
}

func (e *refusal) Error() string { return e.messages[len(e.messages)-1] }

// fail answers err, counts it, and logs the first few of them.
func (in *Intake) fail(w http.ResponseWriter, r *http.Request, err error) {
	no := in.refused(r.Pattern, r.RemoteAddr, err)
	hangUp(w, no)
	answer.Error(w, no.code, no.messages...)
}

// refused counts err, logs the first few, and returns it as a refusal.
func (in *Intake) refused(route, client string, err error) *refusal {
	var no *refusal
	if !errors.As(err, &no) {
		no = &refusal{http.StatusInternalServerError, reasonInternal, []string{err.Error()}}
	}
	in.metrics.refused.WithLabelValues(no.reason).Inc()
	in.seldom.Do(func() {
		in.log.Warn("request refused", "route", route, "code", no.code, "reason", no.reason, "error", no.Error(), "client", client)
	})
	return no
}

// hangUp ends the connection where the rest of the body is not worth reading.
func hangUp(w http.ResponseWriter, no *refusal) {
	if no.code == http.StatusRequestEntityTooLarge || no.code == http.StatusRequestTimeout {
		w.Header().Set("Connection", "close")
	}
}

// undecoded is the refusal of a body that cannot be decoded.
func undecoded(err error) error {
	if errors.Is(err, payload.ErrTooManySeries) || errors.Is(err, dialect.ErrTooMuch) {
		return &refusal{http.StatusRequestEntityTooLarge, reasonTooBig, []string{"Payload too big", err.Error()}}
	}
	return &refusal{http.StatusBadRequest, reasonMalformed, []string{"Payload is not in the expected format: " + err.Error()}}
}

// unstored is the refusal of what could not be stored; nil stays nil.
func unstored(err error) error {
	var no *refusal
	if err == nil || errors.As(err, &no) {
		return err
	}
	return &refusal{http.StatusServiceUnavailable, reasonUnavailable, []string{err.Error()}}
}
