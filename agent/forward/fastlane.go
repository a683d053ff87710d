package forward

import (
	"errors"
	"io"
	"maps"
	"net/http"
	"slices"
	"sync"
	"time"

	"kelpie.dev/kelpie/metric/payload"
)

// An intake that is Kelpie's asks, in its answers, for some metrics every
// second. It gets those (Batch.Fast), and without what says the same by tens
// (Batch.Doubled); everybody else gets the tens.

// A Lane is what is sent every second, and who gets it, from one end of a bucket
// to another. It does not change. The zero value is nothing.
type Lane struct {
	Metrics []string // sorted: of all endpoints together
	fast    []bool   // by endpoint
}

// Equal reports whether l and o are the same.
func (l Lane) Equal(o Lane) bool {
	return slices.Equal(l.Metrics, o.Metrics) && slices.Equal(l.fast, o.fast)
}

// gets reports whether the i-th endpoint gets seconds.
func (l Lane) gets(i int) bool { return l.fast != nil && l.fast[i] }

// FastLane returns what the endpoints ask for at now. Which points are in a batch
// and who gets them have to agree: a Lane is in force for whole buckets of ten
// seconds, and stands in each Batch.
func (f *Forwarder) FastLane(now time.Time) Lane {
	if !f.o.FastLane {
		return Lane{}
	}
	metrics := map[string]struct{}{}
	fast := make([]bool, len(f.senders))
	for i, s := range f.senders {
		list := s.offer.at(now, s.queue.behind(kindSeries, now) > offerFor)
		fast[i] = len(list) > 0
		for _, name := range list {
			metrics[name] = struct{}{}
		}
	}
	if len(metrics) == 0 {
		return Lane{}
	}
	return Lane{Metrics: slices.Sorted(maps.Keys(metrics)), fast: fast}
}

// offerFor is how long an intake's word holds that it wants a fast lane: agents
// hear from it every ten seconds.
const offerFor = time.Minute

// offer is the fast lane that an intake asks for. The zero value is none.
type offer struct {
	mu        sync.Mutex // guards all below
	etag      string     // of metrics, as the intake named it
	metrics   []string
	confirmed time.Time // of the last answer that named etag
	since     time.Time // of at's answers that were not empty; zero when the last was
	malformed uint64    // answers that could not be read
	problem   string    // with the newest of them; "" once one could be
	loggedAt  time.Time // of it
}

// known is the etag of the list that there is, to be told to the intake.
func (o *offer) known() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.etag
}

// at returns what the intake asks for at now: nothing when it is too far behind
// to take a payload each second.
func (o *offer) at(now time.Time, behind bool) []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	if behind || o.confirmed.IsZero() || now.Sub(o.confirmed).Abs() > offerFor || len(o.metrics) == 0 {
		o.since = time.Time{}
		return nil
	}
	if o.since.IsZero() {
		o.since = now
	}
	return o.metrics
}

// Bounds of what is read of an intake's answer: a list, and its etag.
const (
	maxOfferBody = 1 << 20
	maxOfferEtag = 128
)

// hear takes what an answer to a request that named the etag sent says of the
// fast lane, if it says something. err is what is wrong with it.
func (o *offer) hear(resp *http.Response, sent string, now time.Time) error {
	etags, says := resp.Header[payload.FastLaneHeader]
	if !says {
		return nil
	}
	etag := etags[0]
	var metrics []string
	err := checkEtag(etag)
	if err == nil && etag != sent {
		var body []byte
		if body, err = io.ReadAll(io.LimitReader(resp.Body, maxOfferBody)); err == nil {
			metrics, err = payload.DecodeFastLane(body)
		}
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if err != nil {
		o.malformed++
		o.problem = err.Error()
		return err
	}
	if o.problem = ""; etag != sent {
		o.etag, o.metrics = etag, metrics
	}
	o.confirmed = now
	return nil
}

// checkEtag refuses what cannot be sent back in a header.
func checkEtag(etag string) error {
	if len(etag) > maxOfferEtag || checkKey(etag) != nil {
		return errors.New("the name of the fast lane's list is too long, or no word of ASCII")
	}
	return nil
}

// hearOffer is hear, with what is wrong logged once in a while. It harms nothing:
// the list that is known holds until it lapses.
func (l *lane) hearOffer(resp *http.Response, sent string) {
	now := l.o.Now()
	err := l.offer.hear(resp, sent, now)
	if err == nil {
		return
	}
	l.metrics.malformedOffer()
	l.offer.mu.Lock()
	say := now.Sub(l.offer.loggedAt) >= logEvery
	if say {
		l.offer.loggedAt = now
	}
	l.offer.mu.Unlock()
	if say {
		l.log.Warn("cannot read which metrics the intake wants every second; they go every ten seconds", "intake", l.name, "error", err,
			"mend", "check that the intake is a Kelpie backend of this release, and what a proxy before it does to answers")
	}
}

// FastLaneStatus describes what an intake asks for every second.
type FastLaneStatus struct {
	Metrics   int        `json:"metrics"`             // on its list
	Since     *time.Time `json:"since,omitempty"`     // that it gets them; nil when it does not: its word has lapsed, or it is behind
	Confirmed *time.Time `json:"confirmed,omitempty"` // when it last said so
	Malformed uint64     `json:"malformed,omitempty"` // answers that could not be read
	Error     string     `json:"error,omitempty"`     // of the newest, if that was one
}

// status is nil of an intake that has not said a word about it.
func (o *offer) status() *FastLaneStatus {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.confirmed.IsZero() && o.malformed == 0 {
		return nil
	}
	return &FastLaneStatus{
		Metrics: len(o.metrics), Since: unlessZero(o.since), Confirmed: unlessZero(o.confirmed), Malformed: o.malformed, Error: o.problem,
	}
}

func unlessZero(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}
