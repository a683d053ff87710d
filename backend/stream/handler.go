package stream

import (
	"context"
	"errors"
	"math"
	"net/http"
	"sync"
	"time"

	"connectrpc.com/connect"

	"kelpie.dev/kelpie/backend/answer"
	"kelpie.dev/kelpie/query"
	vs "kelpie.dev/kelpie/valuestream"
)

const (
	// maxMessage bounds one message of a subscriber, in bytes: maxWanted queries
	// go in several.
	maxMessage = 4 << 20
	// lastPatience is how long a response may wait for its subscriber to read once
	// the Stream has ended.
	lastPatience = 500 * time.Millisecond
)

// Register adds both routes to mux. query is put before the one that asks the
// source each time, as before every query; it checks keys. Nil only does that.
func (s *Stream) Register(mux *http.ServeMux, query func(http.HandlerFunc) http.HandlerFunc) {
	path, handler := vs.NewValueStreamHandler(s, connect.WithReadMaxBytes(maxMessage))
	mux.Handle("POST "+path, s.guard(s.longLived(handler)))
	value := s.guard(http.HandlerFunc(s.value))
	if query != nil {
		value = query(s.value)
	}
	mux.Handle("GET /api/kelpie/v1/value", value)
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
		p := &patient{ResponseWriter: w, rc: rc, patience: s.opts.Patience}
		next.ServeHTTP(p, r.WithContext(context.WithValue(r.Context(), patientKey{}, p)))
	})
}

// patientKey is the context key of the request's patient.
type patientKey struct{}

// interrupt ends the reading of the request's body.
func interrupt(ctx context.Context) {
	if p, ok := ctx.Value(patientKey{}).(*patient); ok {
		_ = p.rc.SetReadDeadline(time.Unix(1, 0)) // the past ends a read under way
	}
}

// hurry leaves the request lastPatience to write, also what it is writing.
func hurry(ctx context.Context) {
	if p, ok := ctx.Value(patientKey{}).(*patient); ok {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.end = time.Now().Add(lastPatience)
		_ = p.rc.SetWriteDeadline(p.end)
	}
}

// patient gives each write its own time.
type patient struct {
	http.ResponseWriter
	rc       *http.ResponseController
	patience time.Duration

	mu  sync.Mutex // guards end, and deadlines that depend on it
	end time.Time  // of all writing; zero while there is none
}

// Write implements http.ResponseWriter.
func (p *patient) Write(b []byte) (int, error) {
	if err := p.allow(time.Now().Add(p.patience)); err != nil {
		return 0, err
	}
	return p.ResponseWriter.Write(b)
}

// Flush implements http.Flusher. A connection that is gone shows at the next
// write; one that took all is in no hurry until then.
func (p *patient) Flush() {
	if p.rc.Flush() == nil {
		_ = p.allow(time.Time{})
	}
}

// allow sets when the next write must be done, unless all writing has an end.
func (p *patient) allow(until time.Time) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.end.IsZero() {
		return nil
	}
	return p.rc.SetWriteDeadline(until)
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
