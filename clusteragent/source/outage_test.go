package source

import (
	"net/http"
	"testing"
	"time"
)

// Whatever befalls the source, values are served until each is too old for its
// own metric, the source is named then, and all are back with its first answer.
func TestValuesAgeOutSingly(t *testing.T) {
	for name, c := range map[string]struct {
		fault  func([]string, http.ResponseWriter)
		reason Reason
	}{
		"429": {func(_ []string, w http.ResponseWriter) {
			w.Header().Set("X-RateLimit-Reset", "1")
			w.WriteHeader(http.StatusTooManyRequests)
		}, RateLimited},
		"500":           {refuse(http.StatusInternalServerError, "upstream"), SourceUnavailable},
		"503":           {refuse(http.StatusServiceUnavailable, "upstream"), SourceUnavailable},
		"wrong keys":    {refuse(http.StatusForbidden, `{"errors":["Forbidden"]}`), Unauthorized},
		"no answer":     {func([]string, http.ResponseWriter) { time.Sleep(400 * time.Millisecond) }, SourceUnavailable},
		"half answers":  {refuse(http.StatusOK, `{"status":"ok","series":[`), SourceUnavailable},
		"cut off early": {func([]string, http.ResponseWriter) { panic(http.ErrAbortHandler) }, SourceUnavailable},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p, f := start(t, answer)
			p.Use("a", key(1))
			p.Use("b", key(2))
			short, long := Limits{MaxAge: 2 * time.Minute, Grace: 30 * time.Second}, Limits{MaxAge: 10 * time.Minute, Grace: 30 * time.Second}
			// want is what of the two is served after a while; "" is the value.
			want := func(what string, after time.Duration, a, b Reason) {
				t.Helper()
				for i, want := range []Reason{a, b} {
					v, err := p.Read(key(i+1)).Current(time.Now().Add(after), []Limits{short, long}[i])
					if want == "" && (err != nil || v != float64(i+1)) || want != "" && (err == nil || err.Reason != want || err.Point.IsZero()) {
						t.Errorf("%s: m%d = %v, %v; want %q, with the time of its point", what, i+1, v, err, want)
					}
				}
			}
			reply := func(r func([]string, http.ResponseWriter)) {
				f.mu.Lock()
				f.reply = r
				f.mu.Unlock()
			}
			p.poll(t.Context(), all)
			reply(c.fault)
			p.poll(t.Context(), all)
			want("at once", 0, "", "")
			want("after two minutes", 2*time.Minute, "", "")
			want("after four", 4*time.Minute, c.reason, "")
			want("after eleven", 11*time.Minute, c.reason, c.reason)
			reply(answer)
			for deadline := time.Now().Add(5 * time.Second); p.paused(); time.Sleep(10 * time.Millisecond) {
				if time.Now().After(deadline) {
					t.Fatal("a pause of one second does not end")
				}
			}
			p.poll(t.Context(), all)
			want("back", 0, "", "")
			for i := range 2 {
				if r := p.Read(key(i + 1)); r.Err != nil {
					t.Errorf("back: m%d still has %v", i+1, r.Err)
				}
			}
		})
	}
}
