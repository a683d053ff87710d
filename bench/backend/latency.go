package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"sync"
	"time"

	"connectrpc.com/connect"

	"kelpie.dev/kelpie/bench/figure"
	vs "kelpie.dev/kelpie/valuestream"
)

// latency measures how long after its post a batch's values are received, from
// the real backend over the value stream, with 10 000 queries that stand.
func (r *run) latency(ctx context.Context) error {
	scale := pick(r, 1, 10)
	t := standingTask{
		Load:   load{Contexts: 100_000 / scale, Deployments: 10_000 / scale, Names: 1, Interval: fastInterval},
		Narrow: 10_000 / scale, Wide: 10, Rounds: pick(r, 10, 5),
	}
	table := figure.Table{
		Title:  fmt.Sprintf("Value stream: %d queries of 10 of %d series, each with a point a second, for %d s; ms from the post to the receipt", t.Narrow, t.Load.Contexts, t.Rounds),
		Header: []string{"", "p50", "p99", "longest", "received", "backend's core"},
		Notes:  []string{"Received: of the values that changed, those that came before the next replaced them. Posts and receipts share the other core."},
	}
	for _, wide := range []int{0, 10} {
		t.Wide = wide
		s, err := r.startKelpie(ctx)
		if err != nil {
			return err
		}
		figure.Progress("run    value stream with %d wide queries", wide)
		w, err := r.watch(ctx, s, t)
		if err != nil {
			return err
		}
		p50, p99 := millis(quantile(w.delays, 0.5)), millis(quantile(w.delays, 0.99))
		table.Add(fmt.Sprintf("and %d that read all", wide), ms(p50), ms(p99), ms(millis(quantile(w.delays, 1))),
			fmt.Sprintf("%.2f %%", 100*float64(len(w.delays))/float64(t.Narrow*t.Rounds)), fmt.Sprintf("%.0f %%", 100*w.cpu.Seconds()/float64(t.Rounds)))
		name := "stream_latency"
		if wide == 0 {
			name += "_narrow"
		}
		r.report.Limit(name+"_p50", "ms", p50, 100)
		r.report.Limit(name+"_p99", "ms", p99, 100)
	}
	return table.WriteText(os.Stdout)
}

// A watcher receives values and knows when the batch was posted that each is of.
type watcher struct {
	mu     sync.Mutex
	posted map[int64][]time.Time // by the second of the points, then by batch
	batch  []int                 // of each query
	newest []int64               // point time of each query's last value
	first  int64                 // the first second that is measured
	delays []time.Duration
	heard  map[uint64]bool // queries that have had an answer
	all    chan struct{}   // closed when all have
	cpu    time.Duration   // of the backend
}

// watch subscribes, posts second after second, and ends s.
func (r *run) watch(ctx context.Context, s *server, t standingTask) (w *watcher, err error) {
	defer func() {
		if ended := r.end(s); err == nil {
			err = ended
		}
	}()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	w = newWatcher(t)
	stream, err := s.subscribe(ctx, t)
	if err != nil {
		return nil, err
	}
	received := make(chan error, 1)
	go func() { received <- w.receive(stream, len(w.batch)) }()
	defer func() {
		cancel()
		if gone := <-received; err == nil && !errors.Is(gone, context.Canceled) && connect.CodeOf(gone) != connect.CodeCanceled {
			err = gone
		}
	}()
	select {
	case <-w.all:
	case <-time.After(2 * time.Minute):
		return nil, fmt.Errorf("subscribe: %d of %d queries were answered in two minutes", w.answered(), len(w.batch))
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	senders, err := newSenders(s)
	if err != nil {
		return nil, err
	}
	w.cpu, err = s.during(func() error { return w.post(ctx, senders, t) })
	if err != nil {
		return nil, err
	}
	if len(w.delays) == 0 {
		return nil, errors.New("no value was received")
	}
	return w, nil
}

func newWatcher(t standingTask) *watcher {
	narrow, wide := t.texts()
	w := &watcher{
		posted: map[int64][]time.Time{}, batch: make([]int, len(narrow)+len(wide)), newest: make([]int64, len(narrow)+len(wide)),
		heard: map[uint64]bool{}, all: make(chan struct{}),
	}
	for i := range w.batch {
		w.batch[i] = -1 // a wide query is of no single batch
		if i < len(narrow) {
			w.batch[i] = i * (t.Load.Contexts / t.Load.Deployments) / batchSize
		}
	}
	return w
}

// subscribe asks for t's queries, whose places are their ids.
func (s *server) subscribe(ctx context.Context, t standingTask) (*connect.BidiStreamForClient[vs.WatchRequest, vs.WatchResponse], error) {
	transport := &http.Transport{Protocols: new(http.Protocols)}
	transport.Protocols.SetUnencryptedHTTP2(true)
	stream := vs.NewValueStreamClient(&http.Client{Transport: transport}, s.base).Watch(ctx)
	stream.RequestHeader().Set("Dd-Api-Key", apiKey)
	stream.RequestHeader().Set("Dd-Application-Key", appKey)
	narrow, wide := t.texts()
	var req vs.WatchRequest
	texts := append(narrow, wide...)
	for i, text := range texts {
		req.Want = append(req.Want, &vs.Want{Id: uint64(i), Query: text})
		if len(req.Want) == 1000 || i == len(texts)-1 {
			if err := stream.Send(&req); err != nil {
				return nil, fmt.Errorf("subscribe: %w", err)
			}
			req.Want = nil
		}
	}
	return stream, nil
}

// receive takes values until the stream ends.
func (w *watcher) receive(stream *connect.BidiStreamForClient[vs.WatchRequest, vs.WatchResponse], n int) error {
	for {
		resp, err := stream.Receive()
		if err != nil {
			return err
		}
		now := time.Now()
		w.mu.Lock()
		for _, u := range resp.GetUpdates() {
			id := u.GetId()
			if !w.heard[id] {
				if w.heard[id] = true; len(w.heard) == n {
					close(w.all)
				}
			}
			// A window that slides gives a value of the same newest point once more.
			if u.GetError() != nil || u.GetPointTime() <= w.newest[id] {
				continue
			}
			w.newest[id] = u.GetPointTime()
			if posted := w.posted[u.GetPointTime()]; posted != nil && w.batch[id] >= 0 && u.GetPointTime() >= w.first {
				w.delays = append(w.delays, now.Sub(posted[w.batch[id]]))
			}
		}
		w.mu.Unlock()
	}
}

func (w *watcher) answered() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.heard)
}

// post posts one point of every series each second: once to make the series, and
// then for as long as is measured.
func (w *watcher) post(ctx context.Context, senders []*sender, t standingTask) error {
	series := t.Load.series()
	second := time.Now().Unix() + 1
	for n := 0; n <= t.Rounds; n++ {
		select {
		case <-time.After(time.Until(time.Unix(second, 0))):
		case <-ctx.Done():
			return ctx.Err()
		}
		if late := time.Since(time.Unix(second, 0)); late > time.Second {
			figure.Progress("late   by %s: the load is more than a second's", late)
			second = time.Now().Unix()
		}
		w.mu.Lock()
		w.posted[second] = make([]time.Time, (len(series)+batchSize-1)/batchSize)
		if n == 1 {
			w.first = second
		}
		if n == 0 {
			w.first = second + 1
		}
		w.mu.Unlock()
		err := round(ctx, senders, series, n, second, func(first int) {
			w.mu.Lock()
			w.posted[second][first/batchSize] = time.Now()
			w.mu.Unlock()
		})
		if err != nil {
			return err
		}
		second++
	}
	// The last batch's values are under way.
	for deadline := time.Now().Add(2 * time.Second); time.Now().Before(deadline) && !w.complete(second-1); {
		time.Sleep(10 * time.Millisecond)
	}
	return nil
}

// complete reports whether every narrow query has had the value of a second.
func (w *watcher) complete(second int64) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	for id, batch := range w.batch {
		if batch >= 0 && w.newest[id] < second {
			return false
		}
	}
	return true
}
