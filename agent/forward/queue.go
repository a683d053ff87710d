package forward

import (
	"context"
	"hash/crc32"
	"slices"
	"sync"
	"time"
)

// entry is one payload in one endpoint's queue. Its body is in memory until it
// is in the spool.
type entry struct {
	file file
	size int

	body    []byte // nil: on disk
	taken   bool   // it is being sent: it cannot make room
	writing bool   // to the spool
	gone    bool   // out of the queue while writing: the file is not wanted
}

// queue holds one endpoint's payloads, in order for each kind, those in memory
// bounded by their bytes and those on disk by theirs. When it is full the
// oldest go, as the newest are what people and autoscalers look at. It does no
// I/O.
type queue struct {
	limit     int
	diskLimit int64
	wake      [kinds]chan struct{} // each has room for one: "look again"
	unsaved   chan struct{}        // has room for one: "there is something in memory"
	closing   chan struct{}        // closed with the queue

	mu     sync.Mutex // guards all below, and the entries
	lists  [kinds][]*entry
	bytes  int   // of the bodies in memory
	disk   int64 // of the files
	files  int
	last   int64 // the newest entry's file.at
	closed bool
}

// tick is the least distance between two entries' times. It leaves room for
// what an entry may have to be split into.
const tick = int64(time.Microsecond)

func newQueue(limit int, diskLimit int64) *queue {
	q := &queue{limit: limit, diskLimit: diskLimit, unsaved: make(chan struct{}, 1), closing: make(chan struct{})}
	for k := range q.wake {
		q.wake[k] = make(chan struct{}, 1)
	}
	return q
}

// push appends p and returns the payloads that had to make room in memory.
func (q *queue) push(p *payloadItem) (dropped []*entry) {
	q.mu.Lock()
	q.last = max(p.queued.Truncate(time.Microsecond).UnixNano(), q.last+tick)
	e := newEntry(p, q.last)
	q.lists[p.kind] = append(q.lists[p.kind], e)
	q.count(e, 1)
	for q.bytes > q.limit {
		old := q.oldest(func(o *entry) bool { return o.body != nil && !o.taken && o != e })
		if old == nil {
			break
		}
		q.take(old)
		dropped = append(dropped, old)
	}
	q.mu.Unlock()
	signal(q.unsaved)
	signal(q.wake[p.kind])
	return dropped
}

func newEntry(p *payloadItem, at int64) *entry {
	return &entry{size: len(p.body), body: p.body, file: file{
		at: at, kind: p.kind, points: p.points, encoding: p.encoding, sum: crc32.Checksum(p.body, castagnoli)}}
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// oldest returns the oldest entry that fits, or nil. q.mu is held.
func (q *queue) oldest(fits func(*entry) bool) *entry {
	var out *entry
	for _, list := range q.lists {
		if i := slices.IndexFunc(list, fits); i >= 0 && (out == nil || list[i].file.at < out.file.at) {
			out = list[i]
		}
	}
	return out
}

// take removes e from the queue, if it is still there. q.mu is held.
func (q *queue) take(e *entry) {
	list := q.lists[e.file.kind]
	i := slices.Index(list, e)
	switch {
	case i < 0:
		return
	case i == 0: // the usual, and without a move of all the others
		list[0] = nil
		q.lists[e.file.kind] = list[1:]
	default:
		q.lists[e.file.kind] = slices.Delete(list, i, i+1)
	}
	e.gone = true
	q.count(e, -1)
}

// count notes that e has come (1) or gone (-1). q.mu is held.
func (q *queue) count(e *entry, sign int) {
	if e.body != nil {
		q.bytes += sign * e.size
		return
	}
	q.disk += int64(sign) * onDisk(e.size)
	q.files += sign
}

// close lets next end once nothing of its kind is left. It must be called once.
func (q *queue) close() {
	q.mu.Lock()
	q.closed = true
	close(q.closing)
	q.mu.Unlock()
	for _, c := range q.wake {
		signal(c)
	}
}

// next waits for the oldest payload of a kind and marks it taken; done or
// putBack must follow. body is nil when it is on disk. e is nil when ctx ended,
// or the queue is closed and has no more.
func (q *queue) next(ctx context.Context, k kind) (e *entry, body []byte) {
	for {
		if ctx.Err() != nil {
			return nil, nil
		}
		q.mu.Lock()
		closed := q.closed
		if list := q.lists[k]; len(list) > 0 {
			e = list[0]
			e.taken, body = true, e.body
		}
		q.mu.Unlock()
		if e != nil || closed {
			return e, body
		}
		select {
		case <-ctx.Done():
		case <-q.wake[k]:
		}
	}
}

// done removes a taken entry. It reports whether it has a file, which the caller
// is to remove.
func (q *queue) done(e *entry) (stored bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.take(e)
	return e.body == nil
}

// putBack leaves the taken entry in the queue, as one that may be dropped.
func (q *queue) putBack(e *entry) {
	q.mu.Lock()
	defer q.mu.Unlock()
	e.taken = false
}

// takeMemory empties the queue of what is not on disk.
func (q *queue) takeMemory() (out []*entry) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for {
		e := q.oldest(func(e *entry) bool { return e.body != nil })
		if e == nil {
			return out
		}
		q.take(e)
		out = append(out, e)
	}
}

// behind is how long the oldest payload of a kind has waited at now.
func (q *queue) behind(k kind, now time.Time) time.Duration {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.lists[k]) == 0 {
		return 0
	}
	return now.Sub(time.Unix(0, q.lists[k][0].file.at))
}

// depth is how much waits.
type depth struct {
	payloads  int       // in memory and on disk
	bytes     int       // of those in memory
	files     int       // on disk
	diskBytes int64     // of them
	oldest    time.Time // zero when nothing waits
}

func (q *queue) depth() depth {
	q.mu.Lock()
	defer q.mu.Unlock()
	d := depth{bytes: q.bytes, files: q.files, diskBytes: q.disk}
	for _, list := range q.lists {
		d.payloads += len(list)
	}
	if e := q.oldest(func(*entry) bool { return true }); e != nil {
		d.oldest = time.Unix(0, e.file.at)
	}
	return d
}
