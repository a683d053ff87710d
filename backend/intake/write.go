package intake

import (
	"context"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"strconv"

	"kelpie.dev/kelpie/backend/answer"
	"kelpie.dev/kelpie/backend/dialect"
	"kelpie.dev/kelpie/backend/record"
)

// The messages of remote write, as its content type names them.
const (
	writeV1 = "prometheus.WriteRequest"
	writeV2 = "io.prometheus.write.v2.Request"
)

// remoteWrite takes samples of Prometheus remote write, version 1 or 2.
func (in *Intake) remoteWrite(w http.ResponseWriter, r *http.Request) {
	if !in.allowed(w, r) {
		return
	}
	v2, err := writeVersion(r)
	var b *dialect.Batch
	if err == nil {
		err = in.process(w, r, writeLimits, func(body []byte) (func(context.Context) error, error) {
			var err error
			b, err = in.foreign.RemoteWrite(body, v2, in.now())
			return func(ctx context.Context) error { return in.storeForeign(ctx, b, dialectWrite) }, err
		})
	}
	if err != nil {
		in.fail(w, r, err)
		return
	}
	h := w.Header()
	h.Set("X-Prometheus-Remote-Write-Samples-Written", strconv.Itoa(b.Samples))
	h.Set("X-Prometheus-Remote-Write-Histograms-Written", strconv.Itoa(b.Histograms))
	h.Set("X-Prometheus-Remote-Write-Exemplars-Written", "0")
	if b.Refused > 0 {
		// What was refused would be refused again, and the rest is stored: with
		// an error, version 2's senders would count all of it as lost.
		answer.JSON(w, http.StatusOK, map[string]any{"refused": b.Refused, "errors": b.Lines})
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// writeVersion returns whether the body is of version 2.
func writeVersion(r *http.Request) (v2 bool, err error) {
	header := r.Header.Get("Content-Type")
	kind, params, err := mime.ParseMediaType(header)
	if header != "" && (err != nil || kind != "application/x-protobuf") {
		return false, &refusal{http.StatusUnsupportedMediaType, reasonEncoding, []string{"content type must be application/x-protobuf"}}
	}
	switch params["proto"] {
	case "", writeV1:
		return false, nil
	case writeV2:
		return true, nil
	}
	return false, &refusal{http.StatusUnsupportedMediaType, reasonEncoding, []string{fmt.Sprintf("message %.60q is not known: expected %s or %s", params["proto"], writeV1, writeV2)}}
}

// keepRaw prepares for tags that are stored as they were sent. It reports false
// where they must be normalized.
func (in *Intake) keepRaw(ctx context.Context, b *dialect.Batch) (bool, error) {
	if b.Raw == nil || in.rawKeys == nil {
		return false, nil
	}
	err := in.rawKeys.AddRawKeys(ctx, b.Raw)
	var limit *record.LimitError
	if errors.As(err, &limit) {
		in.seldom.Do(func() { in.log.Warn("labels are normalized as tags", "error", err) })
		return false, nil
	}
	return err == nil, err
}
