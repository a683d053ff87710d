package stream

import (
	"context"
	"errors"
	"math"
	"net/http"
	"time"

	"connectrpc.com/connect"

	"kelpie.dev/kelpie/backend/answer"
	"kelpie.dev/kelpie/query"
	vs "kelpie.dev/kelpie/valuestream"
)

// maxMessage bounds one message of a subscriber, in bytes: maxWanted queries go
// in several.
const maxMessage = 4 << 20

// Register adds both routes to mux.
func (s *Stream) Register(mux *http.ServeMux) {
	path, handler := vs.NewValueStreamHandler(s, connect.WithReadMaxBytes(maxMessage))
	mux.Handle("POST "+path, s.guard(s.longLived(handler)))
	mux.Handle("GET /api/kelpie/v1/value", s.guard(http.HandlerFunc(s.value)))
}

func (s *Stream) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := s.opts.Auth.Read(r); err != nil {
			s.metrics.forbidden.Inc()
			answer.Error(w, http.StatusForbidden, err.Error())
			return
		}
		next.ServeHTTP(w, r)
	})
}

// longLived lets a request last for as long as it is read, whatever the server's
// time-outs.
func (s *Stream) longLived(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		rc := http.NewResponseController(w)
		if err := errors.Join(rc.SetReadDeadline(time.Time{}), rc.SetWriteDeadline(time.Time{})); err != nil {
			answer.Error(w, http.StatusInternalServerError, "the value stream needs a connection with deadlines: "+err.Error())
			return
		}
		// The past as a deadline ends a read under way.
		interrupt := func() { _ = rc.SetReadDeadline(time.Unix(1, 0)) }
		next.ServeHTTP(&patient{ResponseWriter: w, rc: rc, patience: s.opts.Patience}, r.WithContext(context.WithValue(r.Context(), interruptKey{}, interrupt)))
	})
}

// interruptKey is the context key of a function that ends the reading of the
// request's body.
type interruptKey struct{}

func interrupt(ctx context.Context) {
	if f, ok := ctx.Value(interruptKey{}).(func()); ok {
		f()
	}
}

// patient gives each write its own time.
type patient struct {
	http.ResponseWriter
	rc       *http.ResponseController
	patience time.Duration
}

// Write implements http.ResponseWriter.
func (p *patient) Write(b []byte) (int, error) {
	if err := p.rc.SetWriteDeadline(time.Now().Add(p.patience)); err != nil {
		return 0, err
	}
	return p.ResponseWriter.Write(b)
}

// Flush implements http.Flusher. A connection that is gone shows at the next
// write; one that took all is in no hurry until then.
func (p *patient) Flush() {
	if p.rc.Flush() == nil {
		_ = p.rc.SetWriteDeadline(time.Time{})
	}
}

// Value is the answer of GET /api/kelpie/v1/value.
type Value struct {
	Query       string   `json:"query"`
	Value       *float64 `json:"value"`                // null where there is none
	PointTime   int64    `json:"point_time,omitempty"` // of the newest point that contributed: Unix seconds
	Age         *float64 `json:"age_seconds,omitempty"`
	EvaluatedAt int64    `json:"evaluated_at"` // Unix milliseconds
	Reason      string   `json:"reason,omitempty"`
	Message     string   `json:"message,omitempty"`
}

// value computes a query's value from the store, now.
func (s *Stream) value(w http.ResponseWriter, r *http.Request) {
	text := r.URL.Query().Get("query")
	e, err := query.Parse(text)
	if err != nil {
		answer.Error(w, http.StatusBadRequest, "query: "+err.Error())
		return
	}
	now := s.opts.Now()
	a := s.evaluate(r.Context(), e, now)
	v := Value{Query: text, EvaluatedAt: now.UnixMilli()}
	switch {
	case a.Err != nil:
		why := reason(a.Err, e)
		code := http.StatusBadRequest
		if why == vs.Reason_REASON_UNAVAILABLE {
			code = http.StatusServiceUnavailable
		}
		answer.Error(w, code, a.Err.Error())
		return
	case !a.OK || math.IsNaN(a.Value):
		v.Reason, v.Message = vs.Reason_REASON_NO_DATA.String(), noData
	default:
		age := now.Sub(time.Unix(a.Time, 0)).Seconds()
		v.Value, v.PointTime, v.Age = &a.Value, a.Time, &age
	}
	answer.JSON(w, http.StatusOK, v)
}
