package forward

import (
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// requestError is an answer that is not a success.
type requestError struct {
	status     int
	body       string
	retryAfter time.Duration
	key        string // that the request bore; never shown
}

func (e *requestError) Error() string {
	said := ""
	if e.body != "" {
		said = ": " + e.body
	}
	return "HTTP " + strconv.Itoa(e.status) + said
}

// final reports whether asking again with the same payload and key is
// pointless.
func (e *requestError) final() bool { return e.reason() != "" }

// refusesKey reports whether the answer is about the key. Of the two, Datadog
// says 403; a 401 is rather a proxy's before the intake, so that data waits.
func (e *requestError) refusesKey() bool {
	return e.status == http.StatusForbidden || e.status == http.StatusUnauthorized
}

func (e *requestError) reason() string {
	switch e.status {
	case http.StatusBadRequest:
		return "bad_request"
	case http.StatusForbidden:
		return "forbidden"
	case http.StatusRequestEntityTooLarge:
		return "too_large"
	default:
		return ""
	}
}

// parseRetryAfter returns how long an intake asks us to wait, in either form
// that HTTP has: seconds, or a date. What cannot be meant is no wish.
func parseRetryAfter(v string, now time.Time) time.Duration {
	v = strings.TrimSpace(v)
	d := time.Duration(0)
	if n, err := strconv.ParseUint(v, 10, 16); err == nil {
		d = time.Duration(n) * time.Second
	} else if at, err := http.ParseTime(v); err == nil {
		d = at.Sub(now)
	}
	if d < 0 || d > time.Hour {
		return 0
	}
	return d
}

// shorten makes a foreign answer fit for one line of a log.
func shorten(s string) string {
	s = strings.Join(strings.Fields(strings.ToValidUTF8(s, "?")), " ")
	if len(s) > 200 {
		s = strings.ToValidUTF8(s[:200], "") + "…"
	}
	return s
}

// mend says what a person can do about err.
func (s *sender) mend(err error) string {
	var re *requestError
	var ke *keyError
	switch {
	case errors.As(err, &ke):
		return "put the intake's key into " + s.key.file + "; data waits in the queue meanwhile"
	case !errors.As(err, &re):
		return "check that " + s.name + " is right (DD_DD_URL, DD_SITE) and reachable from this node; data waits in the queue meanwhile"
	}
	switch code := re.status; {
	case code == http.StatusUnauthorized:
		return "the intake, or a proxy before it, wants other credentials than the API key (" + s.key.fingerprint() + "); check DD_DD_URL and DD_API_KEY; data waits in the queue meanwhile"
	case re.refusesKey() && s.key.file != "":
		return "the intake does not accept the API key (" + s.key.fingerprint() + ") of " + s.key.file + "; put a valid one there: it is used at once; data waits for it for " + keyGrace.String() + " and is lost then"
	case re.refusesKey():
		return "the intake does not accept the API key (" + s.key.fingerprint() + "); put a valid one where it stands, DD_API_KEY (for a chart: the Secret's api-key) or DD_ADDITIONAL_ENDPOINTS, and restart the agent; points sent until then are lost"
	case code == http.StatusBadRequest:
		return "the intake cannot read this payload, which is dropped; check that DD_DD_URL is a Datadog-compatible intake"
	case code == http.StatusRequestEntityTooLarge:
		return "the intake or a proxy before it allows smaller bodies than Datadog's 512 000 bytes; raise its limit; this payload is sent in halves, and what is too large alone is dropped"
	case code == http.StatusTooManyRequests:
		return "the intake limits the rate; data waits in the queue"
	case code == http.StatusNotFound || code >= 300 && code < 400:
		return "this is not the address of an intake; check DD_DD_URL (base URL, without a path); data waits in the queue"
	default:
		return "the intake is unwell; data waits in the queue"
	}
}

// keyError reports that there is no key to send with.
type keyError struct{ error }

func (e *keyError) Unwrap() error { return e.error }
