package forward

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"syscall"
	"time"

	"kelpie.dev/kelpie/metric/payload"
)

// lane delivers one kind of an endpoint's payloads, oldest first, one request
// at a time, so that points of one series never overtake each other.
type lane struct {
	*sender
	kind     kind
	errors   int // of the backoff: up by one a failure, down by two a success
	loggedAt time.Time
}

// run delivers until the queue is closed and has no more, or ctx ends.
func (l *lane) run(ctx context.Context) {
	for {
		e, body := l.queue.next(ctx, l.kind)
		if e == nil {
			return
		}
		l.deliver(ctx, e, body)
	}
}

// deliver sends e once: it is then delivered, refused for good, or left in the
// queue for the next call, before which deliver waits.
func (l *lane) deliver(ctx context.Context, e *entry, body []byte) {
	if body == nil {
		if body = l.load(ctx, e); body == nil {
			return
		}
	}
	err := l.post(ctx, e.file, body)
	var re *requestError
	switch {
	case err == nil:
		l.remove(e)
		l.succeeded(e.file)
	case ctx.Err() != nil:
		l.queue.putBack(e)
	case errors.As(err, &re) && re.status == http.StatusRequestEntityTooLarge && l.split(e, body):
		l.failed(err)
	case errors.As(err, &re) && re.refusesKey() && l.keyChanged(re.key):
		l.queue.putBack(e)
		l.retried()
	case errors.As(err, &re) && re.final() && (!re.refusesKey() || !l.keyMayCome()):
		l.remove(e)
		l.failed(err)
		l.drop(e.file, re.reason())
	default:
		l.queue.putBack(e)
		l.failed(err)
		l.retried()
		l.countError()
		wait := l.backoff()
		if re != nil {
			wait = max(wait, min(re.retryAfter, l.o.BackoffMax))
		}
		l.sleep(ctx, wait)
	}
}

// load returns e's body from the spool, or nil when it cannot be had: e is then
// dropped, or left in the queue when only open files are short.
func (l *lane) load(ctx context.Context, e *entry) []byte {
	body, err := l.spool.Load().read(e.file)
	switch {
	case err == nil:
		return body
	case errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE):
		l.queue.putBack(e)
		l.countError()
		l.sleep(ctx, l.backoff())
	default:
		l.remove(e)
		l.drop(e.file, "spool_unreadable")
		l.log.Error("a payload in the spool is lost", "intake", l.name, "error", err, "mend", "check the disk below "+l.dir)
	}
	l.metrics.spoolErrors.Inc()
	return nil
}

// post makes one request.
func (l *lane) post(ctx context.Context, f file, body []byte) error {
	key, err := l.key.read()
	if err != nil {
		return &keyError{err}
	}
	ctx, cancel := context.WithTimeout(ctx, l.o.Timeout)
	defer cancel()
	r := &routes[f.kind]
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, l.base+r.path, bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("prepare request: %w", err)
	}
	h := req.Header
	h.Set("DD-API-KEY", key)
	h.Set("DD-Agent-Version", l.o.Version)
	h.Set("User-Agent", "kelpie-agent/"+l.o.Version)
	h.Set("Content-Type", "application/json")
	if r.protobuf {
		h.Set("Content-Type", "application/x-protobuf")
		h.Set("DD-Agent-Payload", payloadVersion)
	}
	if f.encoding != "" {
		h.Set("Content-Encoding", f.encoding)
	}
	asks, known := l.o.FastLane && f.kind == kindSeries, ""
	if asks {
		known = l.offer.known()
		h.Set(payload.FastLaneHeader, known)
	}
	resp, err := l.client.Do(req)
	if err != nil {
		l.metrics.request(l.kind, "error")
		var ue *url.Error
		if errors.As(err, &ue) {
			err = ue.Err // the URL is named once, without what people hide in it
		}
		return fmt.Errorf("reach intake: %w", err)
	}
	defer func() { _ = resp.Body.Close() }()
	l.metrics.request(l.kind, strconv.Itoa(resp.StatusCode))
	accepted := resp.StatusCode >= 200 && resp.StatusCode < 300
	if asks && accepted {
		l.hearOffer(resp, known)
	}
	said, _ := io.ReadAll(io.LimitReader(resp.Body, 4096))
	_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, 64<<10)) // lets the connection be used again
	if accepted {
		return nil
	}
	return &requestError{
		status: resp.StatusCode, body: hide(shorten(string(said)), key), key: key,
		retryAfter: parseRetryAfter(resp.Header.Get("Retry-After"), l.o.Now()),
	}
}

// hide removes a key that an intake repeats.
func hide(said, key string) string { return strings.ReplaceAll(said, key, "(API key)") }

// split replaces e, which the intake calls too large, by two halves. It reports
// false when e is one item.
func (l *lane) split(e *entry, body []byte) bool {
	halves, err := halve(e.file, body)
	if err != nil || len(halves) == 0 {
		return false
	}
	first, second, ok := l.queue.room(e)
	if !ok {
		return false
	}
	a, b := newEntry(halves[0], first), newEntry(halves[1], second)
	if sp := l.spool.Load(); sp != nil { // before e's file goes
		for _, half := range []*entry{a, b} {
			if sp.write(half.file, half.body, false) == nil {
				half.body = nil
			}
		}
	}
	if l.queue.replace(e, []*entry{a, b}) {
		l.unlink(e.file)
	}
	return true
}

// remove takes e out of the queue and the spool.
func (l *lane) remove(e *entry) {
	if l.queue.done(e) {
		l.unlink(e.file)
	}
}

// logEvery bounds how often a lasting failure is logged.
const logEvery = time.Minute

func (l *lane) failed(err error) {
	now := l.o.Now()
	mend := l.mend(err)
	l.mu.Lock()
	k := &l.status.kinds[l.kind]
	wasFailing := k.Failing
	k.Failing, l.status.LastErrorAt = true, &now
	l.status.LastError = err.Error() + "; " + mend
	var re *requestError
	if errors.As(err, &re) && (re.final() || re.refusesKey()) { // of the others none tells about the key
		l.heardOfKey(re, now, mend)
	}
	l.mu.Unlock()
	if wasFailing && now.Sub(l.loggedAt) < logEvery {
		return
	}
	l.loggedAt = now
	l.log.Error("cannot deliver", "kind", l.kind.String(), "intake", l.name, "error", err, "mend", mend)
}

func (l *lane) succeeded(f file) {
	l.forgetErrors()
	l.metrics.delivered(f)
	now := l.o.Now()
	l.mu.Lock()
	k := &l.status.kinds[l.kind]
	wasFailing := k.Failing
	k.Failing, l.status.LastSuccess = false, &now
	l.refusedSince, l.refusal = time.Time{}, nil
	k.DeliveredPayloads++
	k.DeliveredPoints += uint64(f.points)
	l.mu.Unlock()
	if wasFailing {
		l.log.Info("delivering again", "kind", l.kind.String(), "intake", l.name)
	}
}

func (l *lane) retried() {
	l.metrics.retry(l.kind)
	l.mu.Lock()
	l.status.kinds[l.kind].Retries++
	l.mu.Unlock()
}
