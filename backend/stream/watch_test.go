package stream

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	"kelpie.dev/kelpie/backend/store"
	"kelpie.dev/kelpie/metric"
	vs "kelpie.dev/kelpie/valuestream"
)

// keyed lets in who bears the key.
type keyed struct{}

func (keyed) Read(r *http.Request) error {
	if r.Header.Get("DD-API-KEY") != "key" {
		return errors.New("Forbidden")
	}
	return nil
}

// live is a store and a Stream that run, behind a real listener.
type live struct {
	store  *store.Store
	stream *Stream
	client vs.ValueStreamClient
	url    string
}

func start(t *testing.T, o Options) *live {
	t.Helper()
	l := &live{}
	var err error
	l.store, err = store.Open(store.Options{Dir: t.TempDir(), MinFree: -1,
		Accepted: func(s []metric.Series, c []uint64, d []metric.Distribution) { l.stream.Accepted(s, c, d) }})
	if err != nil {
		t.Fatal(err)
	}
	o.Source, o.Auth = l.store, keyed{}
	if l.stream, err = New(o); err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	l.stream.Register(mux, nil)
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	srv := &http.Server{Handler: mux, Protocols: &protocols, ReadTimeout: time.Second, WriteTimeout: time.Second}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.url = "http://" + ln.Addr().String()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 2)
	go func() { done <- srv.Serve(ln) }()
	go func() { done <- l.stream.Run(ctx) }()
	var h2 http.Protocols
	h2.SetUnencryptedHTTP2(true)
	// What a client takes in unread is soon full.
	transport := &http.Transport{Protocols: &h2, HTTP2: &http.HTTP2Config{MaxReceiveBufferPerStream: 64 << 10}}
	l.client = vs.NewValueStreamClient(&http.Client{Transport: transport}, l.url)
	t.Cleanup(func() {
		cancel()
		transport.CloseIdleConnections()
		if err := srv.Shutdown(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
		for range 2 {
			if err := <-done; err != nil && !errors.Is(err, http.ErrServerClosed) {
				t.Error(err)
			}
		}
		if err := l.store.Close(); err != nil {
			t.Error(err)
		}
	})
	return l
}

type conn = connect.BidiStreamForClient[vs.WatchRequest, vs.WatchResponse]

// watch opens a stream that wants queries, with ids from 1.
func (l *live) watch(t *testing.T, ctx context.Context, queries ...string) *conn { //nolint:revive // the test comes first
	t.Helper()
	c := l.client.Watch(ctx)
	c.RequestHeader().Set("DD-API-KEY", "key")
	req := &vs.WatchRequest{}
	for i, q := range queries {
		req.Want = append(req.Want, &vs.Want{Id: uint64(i + 1), Query: q})
	}
	if err := c.Send(req); err != nil {
		t.Fatal(err)
	}
	return c
}

// next returns the next update of id that ok accepts.
func next(t *testing.T, c *conn, id uint64, ok func(*vs.Update) bool) *vs.Update {
	t.Helper()
	var last *vs.Update
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); {
		resp, err := c.Receive()
		if err != nil {
			t.Fatal(err)
		}
		for _, u := range resp.GetUpdates() {
			if u.GetId() != id {
				continue
			}
			if ok(u) {
				return u
			}
			last = u
		}
	}
	t.Fatalf("no such update of query %d: last %v", id, last)
	return nil
}

func (l *live) submit(t *testing.T, name string, v float64, tags ...string) {
	t.Helper()
	s := metric.Series{Name: name, Type: metric.Gauge, Interval: 10, Tags: metric.NewTags(tags...), Points: []metric.Point{{Time: time.Now().Unix(), Value: v}}}
	if err := l.store.Append(t.Context(), []metric.Series{s}); err != nil {
		t.Fatal(err)
	}
}

func is(v float64) func(*vs.Update) bool {
	return func(u *vs.Update) bool { return u.GetError() == nil && u.GetValue() == v }
}

func fails(reason vs.Reason) func(*vs.Update) bool {
	return func(u *vs.Update) bool { return u.GetError().GetReason() == reason }
}

func TestWatch(t *testing.T) {
	l := start(t, Options{MaxQueries: 20})
	l.submit(t, "queue", 3, "app:web")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	c := l.watch(t, ctx, "max:queue{app:web}.rollup(max, 60)", "avg:none{*}", "avg:queue{", "sum:queue{*} by {app}.rollup(60)", "stddev:queue{*}", "moving_rollup(max:queue{*}.rollup(max, 60), 60, 'max')")
	next(t, c, 1, is(3))
	l.submit(t, "queue", 8, "app:web")
	next(t, c, 1, is(8))
	l.submit(t, "queue", 1, "app:db")
	again := l.watch(t, ctx, "avg:none{*}", "sum:queue{*} by {app}.rollup(60)", "avg:queue{", "moving_rollup(max:queue{*}.rollup(max, 60), 60, 'max')")
	if u := next(t, again, 1, fails(vs.Reason_REASON_NO_DATA)); !strings.Contains(u.GetError().GetMessage(), "check the metric name") {
		t.Errorf("no data: %v", u)
	}
	if u := next(t, l.watch(t, ctx, "avg:queue{"), 1, fails(vs.Reason_REASON_SYNTAX)); !strings.Contains(u.GetError().GetMessage(), "error at 10") {
		t.Errorf("syntax error: %v", u)
	}
	next(t, l.watch(t, ctx, "sum:queue{*} by {app}.rollup(60)"), 1, fails(vs.Reason_REASON_SEVERAL))
	// One that looks back is asked of the store.
	next(t, l.watch(t, ctx, "moving_rollup(max:queue{*}.rollup(max, 60), 60, 'max')"), 1, is(8))
	// A connection may change its mind.
	if err := c.Send(&vs.WatchRequest{Drop: []uint64{1}, Want: []*vs.Want{{Id: 9, Query: "min:queue{app:db}"}}}); err != nil {
		t.Fatal(err)
	}
	next(t, c, 9, is(1))
	// What is wanted twice, and what is too much, is an answer and not an end.
	if err := c.Send(&vs.WatchRequest{Want: []*vs.Want{{Id: 10, Query: "min:queue{app:db}"}}}); err != nil {
		t.Fatal(err)
	}
	if u := next(t, c, 10, fails(vs.Reason_REASON_LIMIT)); !strings.Contains(u.GetError().GetMessage(), "wanted already, as 9") {
		t.Errorf("twice: %v", u)
	}
	many := &vs.WatchRequest{}
	for i := range uint64(30) {
		many.Want = append(many.Want, &vs.Want{Id: 100 + i, Query: fmt.Sprintf("avg:m%d{*}", i)})
	}
	if err := c.Send(many); err != nil {
		t.Fatal(err)
	}
	if u := next(t, c, 129, fails(vs.Reason_REASON_LIMIT)); !strings.Contains(u.GetError().GetMessage(), "more than 20 queries") {
		t.Errorf("too many: %v", u)
	}
	// One that stands already is no more than there is.
	next(t, l.watch(t, ctx, "min:queue{app:db}"), 1, is(1))
}

func TestWatchNeedsKeys(t *testing.T) {
	l := start(t, Options{})
	c := l.client.Watch(t.Context())
	if err := c.Send(&vs.WatchRequest{}); err != nil {
		t.Log(err) // the refusal may come first
	}
	if _, err := c.Receive(); connect.CodeOf(err) != connect.CodePermissionDenied {
		t.Errorf("without a key: %v", err)
	}
	_ = c.CloseRequest()
	_ = c.CloseResponse()
	if n := l.stream.Stats().Queries; n != 0 {
		t.Errorf("%d queries stand", n)
	}
}

// A subscriber that never reads is cut off, and costs its neighbours nothing.
func TestSubscriberThatNeverReads(t *testing.T) {
	l := start(t, Options{Patience: 300 * time.Millisecond})
	const n = 2000
	queries := make([]string, n)
	for i := range queries {
		queries[i] = fmt.Sprintf("max:queue{*}.rollup(max, 10) + %d", i)
	}
	lazyCtx, cancel := context.WithCancel(t.Context())
	defer cancel()
	l.watch(t, lazyCtx, queries...)
	ctx, done := context.WithCancel(t.Context())
	defer done()
	c := l.watch(t, ctx, "max:queue{*}.rollup(max, 10)")
	v := 0.0
	for deadline := time.Now().Add(60 * time.Second); l.stream.Stats().Subscribers > 1 || v < 3; {
		if time.Now().After(deadline) {
			t.Fatal("the subscriber that never reads is still there")
		}
		v++
		l.submit(t, "queue", v)
		next(t, c, 1, is(v))
		l.stream.mu.Lock()
		for _, subs := range l.stream.uses {
			for sub := range subs {
				if len(sub.dirty) > n {
					t.Errorf("%d updates wait for %d queries", len(sub.dirty), n)
				}
			}
		}
		l.stream.mu.Unlock()
	}
}

func TestValueOverHTTP(t *testing.T) {
	l := start(t, Options{})
	l.submit(t, "queue", 5)
	for _, tc := range []struct {
		query, key string
		code       int
		want       string
	}{
		{"max:queue{*}", "key", 200, `"value":5`},
		{"max:none{*}", "key", 200, "REASON_NO_DATA"},
		{"max:queue{", "key", 400, "error at 10"},
		{"stddev:queue{*}", "key", 400, "stddev"},
		{"max:queue{*}", "", 403, "Forbidden"},
	} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, l.url+"/api/kelpie/v1/value", nil)
		if err != nil {
			t.Fatal(err)
		}
		q := req.URL.Query()
		q.Set("query", tc.query)
		req.URL.RawQuery = q.Encode()
		req.Header.Set("DD-API-KEY", tc.key)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		body := make([]byte, 4096)
		m, _ := resp.Body.Read(body)
		_ = resp.Body.Close() // only read
		if resp.StatusCode != tc.code || !strings.Contains(string(body[:m]), tc.want) {
			t.Errorf("%s with key %q: %d %s, want %d with %s", tc.query, tc.key, resp.StatusCode, body[:m], tc.code, tc.want)
		}
	}
	http.DefaultClient.CloseIdleConnections()
}
