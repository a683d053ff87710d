// Package forward delivers series, sketches, service checks and events to
// Datadog-compatible intakes.
//
// It owns payload splitting, compression, the queue of each endpoint and key in
// memory and on disk, retry, and what is said about failures. It does not know
// where its input comes from, and it never lets payloads of one kind overtake
// each other on their way to one endpoint. An endpoint that is down delays no
// other, and one kind delays no other.
//
// # What can be lost
//
// With a spool (Options.SpoolDir) each payload is written to a file as soon as
// it is encoded, while it is being sent, and the file is removed when the intake
// has taken it. A process that is killed (SIGKILL, out of memory) loses the
// batch that it is just encoding and what is on its way to the page cache: the
// milliseconds after a flush. All else goes out first at the next start, in
// order. A kill between the intake's answer and the removal of the file sends
// that payload twice, which changes nothing: of one context and second the last
// write wins. An event or a service check is then there twice.
//
// A machine that loses power also loses files that the kernel has not written
// back. As long as the intake answers, that is what one request carries; when it
// does not, files are synced. Payloads in memory, for want of a spool, are lost
// with the process, but for what the drain at the end delivers.
//
// Nothing else is lost but what is dropped and counted by reason: queue_full
// (memory, for want of a spool that works), spool_full, spool_unreadable,
// shutdown, item_too_large, and the intake's last word: bad_request, forbidden,
// too_large.
//
// There is no request of its own that asks about the key (Datadog's agent sends
// GET /api/v1/validate, with the key in the URL, where proxies log it): every
// payload asks, and Ready tells.
package forward

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Options configures a Forwarder. Endpoints is required.
type Options struct {
	Endpoints    []Endpoint
	Hostname     string        // of the agent: the sender of events
	Compression  string        // zstd, zlib, gzip or none; "" means zstd
	Version      string        // of the agent, told to intakes; "" means "dev"
	Timeout      time.Duration // of one request; 0 means 20 s
	QueueBytes   int           // of one endpoint's payloads in memory; 0 means 15 MiB
	SpoolDir     string        // holds a directory for each endpoint; "" means no spool
	SpoolBytes   int64         // of one endpoint's payloads on disk, in whole blocks of 4 KiB; 0 means 256 MiB
	BackoffBase  time.Duration // the first wait after a failure is one to two of these; 0 means 2 s
	BackoffMax   time.Duration // 0 means 64 s
	DrainTimeout time.Duration // for what is queued at the end; 0 means 2 s
	FastLane     bool          // ask intakes which metrics they want every second

	Now        func() time.Time      // nil means time.Now
	Transport  http.RoundTripper     // nil means a transport of its own that honours proxy settings
	Log        *slog.Logger          // nil discards
	Registerer prometheus.Registerer // nil registers nothing
}

// Forwarder delivers batches. Make one with New.
type Forwarder struct {
	o       Options
	encoder *encoder
	senders []*sender
	metrics *metrics
	close   func()
}

// New returns a Forwarder that sends nothing, and touches no disk, until Run.
func New(o Options) (*Forwarder, error) {
	o = o.withDefaults()
	if len(o.Endpoints) == 0 {
		return nil, errors.New("no intake to send series to")
	}
	for _, e := range o.Endpoints {
		if err := e.Validate(); err != nil {
			return nil, err
		}
	}
	enc, err := newEncoder(o.Compression)
	if err != nil {
		return nil, err
	}
	f := &Forwarder{o: o, encoder: enc, close: func() {}}
	if o.Transport == nil {
		t := http.DefaultTransport.(*http.Transport).Clone()
		t.MaxIdleConnsPerHost = len(o.Endpoints) * kinds
		f.o.Transport, f.close = t, t.CloseIdleConnections
	}
	if f.metrics, err = newMetrics(o.Registerer); err != nil {
		return nil, fmt.Errorf("register the forwarder's metrics: %w", err)
	}
	for _, e := range o.Endpoints {
		f.senders = append(f.senders, newSender(e, &f.o, f.metrics))
	}
	return f, nil
}

func (o Options) withDefaults() Options {
	o.Compression = cmp.Or(o.Compression, "zstd")
	o.Version = cmp.Or(o.Version, "dev")
	o.Timeout = cmp.Or(o.Timeout, 20*time.Second)
	o.QueueBytes = cmp.Or(o.QueueBytes, 15<<20)
	o.SpoolBytes = cmp.Or(o.SpoolBytes, 256<<20)
	o.BackoffBase = cmp.Or(o.BackoffBase, 2*time.Second)
	o.BackoffMax = cmp.Or(o.BackoffMax, 64*time.Second)
	o.DrainTimeout = cmp.Or(o.DrainTimeout, 2*time.Second)
	if o.Now == nil {
		o.Now = time.Now
	}
	return o
}

// Status describes every endpoint, in the order of Options.Endpoints.
func (f *Forwarder) Status() []Status {
	out := make([]Status, len(f.senders))
	for i, s := range f.senders {
		out[i] = s.snapshot()
	}
	return out
}

// Ready returns an error that names the mend when every endpoint has
// refused its key for a while: everything sent is then lost. An intake that is
// away, or that has not been asked yet, has not refused.
func (f *Forwarder) Ready() error {
	refusals := make([]error, len(f.senders))
	for i, s := range f.senders {
		if refusals[i] = s.refused(); refusals[i] == nil {
			return nil
		}
	}
	return errors.Join(refusals...)
}

// Run delivers every batch received from in, and before them what the spool
// holds. Once in is closed it goes on for at most Options.DrainTimeout and
// returns nil; what is left then stays in the spool, or is counted as dropped
// for want of one. When ctx ends it stops at once. It must be called once.
func (f *Forwarder) Run(ctx context.Context, in <-chan Batch) error {
	defer f.close()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var wg sync.WaitGroup
	wg.Go(func() { // it waits for a disk, which accept must not
		if f.o.SpoolDir != "" {
			f.adopt()
		}
		for _, s := range f.senders {
			wg.Go(func() { s.run(ctx) })
		}
	})
	err := f.accept(ctx, in)
	for _, s := range f.senders {
		s.queue.close()
	}
	drained := time.AfterFunc(f.o.DrainTimeout, cancel)
	defer drained.Stop()
	wg.Wait()
	return err
}

func (f *Forwarder) accept(ctx context.Context, in <-chan Batch) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case b, ok := <-in:
			if !ok {
				return nil
			}
			if err := f.enqueue(&b); err != nil {
				return err
			}
		}
	}
}

// enqueue hands each payload to the endpoints that are to get it as soon as it
// is encoded.
func (f *Forwarder) enqueue(b *Batch) error {
	now := f.o.Now()
	for _, l := range b.lists(now.Unix(), f.o.Hostname) {
		var to []*sender
		for i, s := range f.senders {
			if l.to.includes(b.Lane, i) {
				to = append(to, s)
			}
		}
		if len(to) == 0 {
			continue
		}
		tooLarge, items, err := f.encoder.encode(l, func(p *payloadItem) {
			p.queued = now
			for _, s := range to {
				s.push(p)
			}
		})
		if err != nil {
			return fmt.Errorf("encode %s: %w", l.kind, err)
		}
		for _, s := range to {
			if items > 0 {
				s.dropped(l.kind, "item_too_large", tooLarge, 0)
			}
		}
	}
	return nil
}
