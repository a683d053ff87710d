package source

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"time"

	"connectrpc.com/connect"
	"golang.org/x/sync/errgroup"

	vs "kelpie.dev/kelpie/valuestream"
)

const (
	// silence is how long a stream may be quiet before it counts as broken: three
	// of the backend's heartbeats.
	silence = 15 * time.Second
	// maxWants bounds the queries of one request.
	maxWants = 1000
	// Between two attempts to connect; the longer to a source that has no stream.
	minReconnect = 250 * time.Millisecond
	maxReconnect = 5 * time.Second
	noStream     = 5 * time.Minute
)

// Stream is where values are pushed from, by a Kelpie backend.
type Stream struct {
	Client vs.ValueStreamClient
	Header http.Header // of each request: the keys
}

// OpenStream returns the value stream of the backend at url.
func OpenStream(url, apiKey, appKey string) *Stream {
	var protocols http.Protocols
	protocols.SetHTTP2(true)
	protocols.SetUnencryptedHTTP2(true)
	header := http.Header{}
	header.Set("DD-API-KEY", apiKey)
	header.Set("DD-APPLICATION-KEY", appKey)
	client := &http.Client{Transport: &http.Transport{Proxy: http.ProxyFromEnvironment, Protocols: &protocols, IdleConnTimeout: time.Minute}}
	return &Stream{Client: vs.NewValueStreamClient(client, url), Header: header}
}

// follow keeps a stream open until ctx ends. While there is one, nothing is
// polled; while there is none, polling goes on as if it did not exist.
func (p *Poller) follow(ctx context.Context) {
	wait := minReconnect
	for ctx.Err() == nil {
		began := time.Now()
		err := p.watch(ctx)
		if ctx.Err() != nil {
			return
		}
		p.broken(err)
		if time.Since(began) > silence {
			wait = minReconnect
		}
		pause := wait/2 + rand.N(wait)
		if connect.CodeOf(err) == connect.CodeUnimplemented {
			pause = noStream // it may become a Kelpie backend
		}
		wait = min(2*wait, maxReconnect)
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
	}
}

// broken notes that there is no stream, and has every query polled at once.
func (p *Poller) broken(err error) {
	p.mu.Lock()
	was := p.status.Streaming
	p.status.Streaming, p.status.StreamError = false, err.Error()
	p.mu.Unlock()
	p.tel.streaming.Set(0)
	if was {
		p.opts.Log.Warn("value stream broken, polling goes on until it is back", "source", p.opts.SourceURL, "error", err)
		p.overdue.Store(true)
		p.wake()
	}
}

// watch runs one stream. It returns why it ended, never nil.
func (p *Poller) watch(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	conn := p.opts.Stream.Client.Watch(ctx)
	for name, values := range p.opts.Stream.Header {
		conn.RequestHeader()[name] = values
	}
	w := &watcher{p: p, conn: conn, ids: map[string]uint64{}, bad: map[string]bool{}, queries: map[uint64]string{}, alive: make(chan struct{}, 1)}
	p.doubt()
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return w.send(ctx) })
	g.Go(func() error {
		defer cancel()
		return w.receive()
	})
	g.Go(func() error {
		defer cancel()
		return w.guard(ctx)
	})
	err := g.Wait()
	_ = conn.CloseRequest() // it has ended
	_ = conn.CloseResponse()
	if err == nil {
		err = errors.New("the stream has ended")
	}
	return err
}

// watcher is one stream. send alone touches ids and bad; it shares queries under p.mu.
type watcher struct {
	p       *Poller
	conn    *connect.BidiStreamForClient[vs.WatchRequest, vs.WatchResponse]
	ids     map[string]uint64 // by query
	bad     map[string]bool   // queries that do not parse
	queries map[uint64]string // the inverse
	next    uint64
	alive   chan struct{} // holds a token when something came
}

// send tells the backend which queries are in use, as they change.
func (w *watcher) send(ctx context.Context) error {
	first := true
	for {
		reqs := w.changes()
		if len(reqs) == 0 && first { // the headers go with the first message
			reqs = append(reqs, &vs.WatchRequest{})
		}
		first = false
		for _, req := range reqs {
			if err := w.conn.Send(req); err != nil {
				return nil //nolint:nilerr // receive knows why
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-w.p.used:
		}
	}
}

// changes returns the requests that make the backend's queries those in use.
func (w *watcher) changes() []*vs.WatchRequest {
	w.p.mu.RLock()
	var fresh []Key
	for text, keys := range w.p.texts {
		if w.ids[text] == 0 && !w.bad[text] {
			fresh = append(fresh, keys[0])
		}
	}
	w.p.mu.RUnlock()
	for _, k := range fresh {
		w.bad[k.Query] = true
	}
	fresh = w.p.checked(fresh, true) // a query that does not parse stays here
	for _, k := range fresh {
		delete(w.bad, k.Query)
	}
	slices.SortFunc(fresh, compareKeys)
	var reqs []*vs.WatchRequest
	w.p.mu.Lock()
	defer w.p.mu.Unlock()
	var drop []uint64
	for text, id := range w.ids {
		if w.p.texts[text] == nil {
			drop = append(drop, id)
			delete(w.ids, text)
			delete(w.queries, id)
		}
	}
	if len(drop) > 0 {
		reqs = append(reqs, &vs.WatchRequest{Drop: drop})
	}
	for part := range slices.Chunk(fresh, maxWants) {
		req := &vs.WatchRequest{}
		for _, k := range part {
			w.next++
			w.ids[k.Query], w.queries[w.next] = w.next, k.Query
			req.Want = append(req.Want, &vs.Want{Id: w.next, Query: k.Query})
		}
		reqs = append(reqs, req)
	}
	return reqs
}

// receive takes what is pushed until the stream ends.
func (w *watcher) receive() error {
	for {
		resp, err := w.conn.Receive()
		if err != nil {
			return err
		}
		select {
		case w.alive <- struct{}{}:
		default:
		}
		w.p.connected()
		now := time.Now()
		for _, u := range resp.GetUpdates() {
			w.take(u, now)
		}
		w.p.confirm(now)
	}
}

// guard ends a stream that has become silent.
func (w *watcher) guard(ctx context.Context) error {
	timer := time.NewTimer(silence)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-w.alive:
			timer.Reset(silence)
		case <-timer.C:
			return fmt.Errorf("nothing came from %s for %s", w.p.opts.SourceURL, silence)
		}
	}
}

// take records one update for every key of its query.
func (w *watcher) take(u *vs.Update, now time.Time) {
	w.p.mu.RLock()
	keys := slices.Clone(w.p.texts[w.queries[u.GetId()]])
	w.p.mu.RUnlock()
	if u.GetError().GetReason() == vs.Reason_REASON_REJECTED {
		w.p.pollInstead(keys)
		return
	}
	for _, k := range keys {
		w.p.record(k, w.p.pushed(k, u), now)
	}
}

// pollInstead has queries polled that have no value at an instant, such as those
// of functions that draw on the window of a graph.
func (p *Poller) pollInstead(keys []Key) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, k := range keys {
		if s := p.queries[k]; s != nil {
			s.polled = true
		}
	}
	p.wake()
}

// doubt forgets what another stream has said.
func (p *Poller) doubt() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, s := range p.queries {
		s.pushed, s.polled = false, false
	}
}

// connected notes that the stream answers.
func (p *Poller) connected() {
	p.mu.Lock()
	was := p.status.Streaming
	p.status.Streaming, p.status.StreamError = true, ""
	p.mu.Unlock()
	if !was {
		p.tel.streaming.Set(1)
		p.opts.Log.Info("values are pushed by the source", "source", p.opts.SourceURL)
	}
}

// confirm notes that all that was pushed still holds, and tells the owners of
// what has changed quietly since they were told.
func (p *Poller) confirm(now time.Time) {
	var tell []string
	p.mu.Lock()
	p.status.LastSuccess = now
	for _, s := range p.queries {
		if !s.pushed {
			continue
		}
		s.reading.Attempted = now
		if s.reading.Err == nil {
			s.reading.Fetched = now
		}
		if s.quiet && now.Sub(s.told) >= p.opts.Period {
			tell = append(tell, s.tell(now)...)
		}
	}
	notify := p.notify
	p.mu.Unlock()
	for _, owner := range tell {
		notify(owner)
	}
}

// pushed judges one update.
func (p *Poller) pushed(k Key, u *vs.Update) outcome {
	e := u.GetError()
	if e == nil {
		return outcome{at: time.Unix(u.GetPointTime(), 0), value: u.GetValue(), series: k.Query, pushed: true}
	}
	err := &Error{Message: e.GetMessage()}
	switch e.GetReason() {
	case vs.Reason_REASON_SYNTAX:
		err.Reason, err.Message = SyntaxError, "the query does not parse: "+err.Message
	case vs.Reason_REASON_NO_DATA:
		err.Reason = NoData
	case vs.Reason_REASON_SEVERAL:
		err.Reason = MultipleSeries
	case vs.Reason_REASON_LIMIT:
		err.Reason, err.Message = QueryRejected, p.name()+" refuses the query: "+err.Message
	default:
		err.Reason, err.Message = SourceUnavailable, p.name()+" cannot answer: "+err.Message
	}
	return outcome{err: err, pushed: true}
}

// streaming reports whether values are pushed now.
func (p *Poller) streaming() bool {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return p.status.Streaming
}
