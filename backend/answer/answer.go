// Package answer writes the JSON bodies by which Datadog's API answers.
//
// It owns the shape of success and error on the wire. It does not decide which
// of them a request deserves.
package answer

import (
	"encoding/json"
	"net/http"
	"strconv"

	"kelpie.dev/kelpie/metric/payload"
)

// JSON writes v with the status code.
func JSON(w http.ResponseWriter, code int, v any) { Document(w, code, "application/json", v) }

// Document writes v as JSON of a content type of its own.
func Document(w http.ResponseWriter, code int, contentType string, v any) {
	body, err := json.Marshal(v)
	if err != nil {
		Error(w, http.StatusInternalServerError, "cannot encode the answer: "+err.Error())
		return
	}
	Raw(w, code, contentType, body)
}

// Raw writes a body that is JSON already. A client that is gone is not an error
// of ours.
func Raw(w http.ResponseWriter, code int, contentType string, body []byte) {
	h := w.Header()
	h.Set("Content-Type", contentType)
	h.Set("Content-Length", strconv.Itoa(len(body)))
	h.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(code)
	_, _ = w.Write(body)
}

// Error writes Datadog's error body: a list of messages.
func Error(w http.ResponseWriter, code int, messages ...string) {
	body, err := json.Marshal(payload.ErrorBody{Errors: messages})
	if err != nil {
		body = []byte(`{"errors":["internal error"]}`)
	}
	Raw(w, code, "application/json", body)
}
