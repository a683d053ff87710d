package stream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"connectrpc.com/connect"
	"golang.org/x/sync/errgroup"

	"kelpie.dev/kelpie/query"
	vs "kelpie.dev/kelpie/valuestream"
)

// maxWanted bounds the queries of one subscriber.
const maxWanted = 20_000

// maxUpdates bounds the updates of one response.
const maxUpdates = 1000

// A subscriber is one connection. What it is told waits in dirty, one entry a
// query, so that one which never reads costs no more than what it asked for.
type subscriber struct {
	queries map[uint64]*query.StandingQuery // by its ids
	dirty   map[uint64]note                 // by its ids
	wake    chan struct{}                   // holds a token when dirty is not empty
}

func newSubscriber() *subscriber {
	return &subscriber{queries: map[uint64]*query.StandingQuery{}, dirty: map[uint64]note{}, wake: make(chan struct{}, 1)}
}

// A note is an answer on its way to a subscriber.
type note struct {
	answer  query.Answer
	expr    query.Expr
	at      time.Time // of its evaluation
	arrived time.Time // of what changed it; zero where nothing did
}

// note has sub told what q is worth. The caller holds Stream.mu.
func (sub *subscriber) note(id uint64, q *query.StandingQuery, at, arrived time.Time) {
	a, _ := q.Last()
	n := note{answer: a, expr: q.Expr, at: at, arrived: arrived}
	if old, waits := sub.dirty[id]; waits && !old.arrived.IsZero() {
		n.arrived = old.arrived // the oldest counts
	}
	sub.put(id, n)
}

func (sub *subscriber) put(id uint64, n note) {
	sub.dirty[id] = n
	select {
	case sub.wake <- struct{}{}:
	default:
	}
}

// Watch implements valuestream.ValueStreamHandler.
func (s *Stream) Watch(ctx context.Context, conn *connect.BidiStream[vs.WatchRequest, vs.WatchResponse]) error {
	sub := newSubscriber()
	s.mu.Lock()
	s.subscribers++
	s.mu.Unlock()
	defer s.leave(sub)
	request := ctx
	g, ctx := errgroup.WithContext(ctx)
	// The client's half may end first: it then wants no other queries.
	g.Go(func() error { return s.receive(ctx, sub, conn) })
	pushed := make(chan struct{})
	g.Go(func() error {
		defer interrupt(request)
		defer close(pushed)
		return s.push(ctx, sub, conn)
	})
	// One who does not read must not hold up the end.
	g.Go(func() error {
		select {
		case <-s.ended:
			hurry(request)
		case <-pushed:
		}
		return nil
	})
	return g.Wait()
}

// leave ends every use of sub.
func (s *Stream) leave(sub *subscriber) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.subscribers--
	for id := range sub.queries {
		s.release(sub, id)
	}
}

// receive follows what the client wants until it says no more.
func (s *Stream) receive(ctx context.Context, sub *subscriber, conn *connect.BidiStream[vs.WatchRequest, vs.WatchResponse]) error {
	for {
		req, err := conn.Receive()
		if err != nil {
			if errors.Is(err, io.EOF) || ctx.Err() != nil || s.over() {
				err = nil // the client has said all, or nobody listens any more
			}
			return err
		}
		s.want(ctx, sub, req)
	}
}

// over reports whether Run has ended.
func (s *Stream) over() bool {
	select {
	case <-s.ended:
		return true
	default:
		return false
	}
}

// want changes what sub is told of.
func (s *Stream) want(ctx context.Context, sub *subscriber, req *vs.WatchRequest) {
	var missing []query.Missing
	s.mu.Lock()
	for _, id := range req.GetDrop() {
		s.release(sub, id)
	}
	for _, w := range req.GetWant() {
		more, err := s.wantOne(sub, w)
		missing = append(missing, more...)
		if err != nil {
			sub.put(w.GetId(), note{answer: query.Answer{Err: err}, at: s.opts.Now()})
		}
	}
	s.mu.Unlock()
	s.load(context.WithoutCancel(ctx), missing) // others may want what this one asked for
	s.nudge()
}

func (s *Stream) wantOne(sub *subscriber, w *vs.Want) ([]query.Missing, error) {
	if sub.queries[w.GetId()] != nil {
		s.release(sub, w.GetId())
	}
	if len(sub.queries) >= maxWanted {
		return nil, errTooMany(maxWanted)
	}
	return s.use(sub, w.GetId(), w.GetQuery())
}

func errTooMany(n int) error {
	return &query.Error{Kind: query.Limit, Message: fmt.Sprintf("more than %d queries stand already: delete autoscalers and DatadogMetrics that nobody needs", n)}
}

func errTwice(id uint64) error {
	return &query.Error{Kind: query.Limit, Message: fmt.Sprintf("the query is wanted already, as %d", id)}
}

// push sends what changes until ctx or the Stream ends.
func (s *Stream) push(ctx context.Context, sub *subscriber, conn *connect.BidiStream[vs.WatchRequest, vs.WatchResponse]) error {
	beat := time.NewTicker(heartbeat)
	defer beat.Stop()
	if err := conn.Send(&vs.WatchResponse{EvaluatedAt: s.opts.Now().UnixMilli()}); err != nil { // the client knows that it is heard
		return err
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-s.ended:
			return connect.NewError(connect.CodeUnavailable, errors.New("the backend is shutting down"))
		case <-beat.C:
		case <-sub.wake:
		}
		for more := true; more; {
			var resp *vs.WatchResponse
			var oldest time.Time
			resp, oldest, more = s.take(sub)
			if err := conn.Send(resp); err != nil {
				return err
			}
			s.metrics.pushed.Add(float64(len(resp.GetUpdates())))
			if !oldest.IsZero() {
				s.metrics.latency.Observe(s.opts.Now().Sub(oldest).Seconds())
			}
		}
	}
}

// take empties sub's notes into a response, or as many as fit. oldest is when
// the first of what changed them arrived.
func (s *Stream) take(sub *subscriber) (resp *vs.WatchResponse, oldest time.Time, more bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	resp = &vs.WatchResponse{EvaluatedAt: s.opts.Now().UnixMilli()}
	for id, n := range sub.dirty {
		if len(resp.Updates) == maxUpdates {
			return resp, oldest, true
		}
		delete(sub.dirty, id)
		resp.Updates = append(resp.Updates, update(id, n))
		if !n.arrived.IsZero() && (oldest.IsZero() || n.arrived.Before(oldest)) {
			oldest = n.arrived
		}
	}
	return resp, oldest, false
}

// update puts an answer into the words of the wire.
func update(id uint64, n note) *vs.Update {
	u := &vs.Update{Id: id}
	switch a := n.answer; {
	case a.Err != nil:
		u.Error = &vs.Error{Reason: reason(a.Err, n.expr), Message: a.Err.Error()}
	case !a.OK:
		u.Error = &vs.Error{Reason: vs.Reason_REASON_NO_DATA, Message: noData}
	default:
		u.Value, u.PointTime = a.Value, a.Time
	}
	return u
}

const noData = "the query matches no series with a point in its window: check the metric name and the tags in its scope, and that the application sends it"

// reason sorts an error of a query into those of the wire. e is nil for one that
// does not stand.
func reason(err error, e query.Expr) vs.Reason {
	var bad *query.Error
	var costs interface{ QueryLimit() }
	switch {
	case errors.As(err, &costs):
		return vs.Reason_REASON_LIMIT
	case !errors.As(err, &bad):
		return vs.Reason_REASON_UNAVAILABLE
	case bad.Kind == query.Syntax:
		return vs.Reason_REASON_SYNTAX
	case bad.Kind == query.Limit:
		return vs.Reason_REASON_LIMIT
	case e != nil && len(query.GroupBy(e)) > 0:
		return vs.Reason_REASON_SEVERAL
	default:
		return vs.Reason_REASON_REJECTED
	}
}
